"""The generations of each suite: the newest committed one is the current one."""

import functools
import sqlite3
from dataclasses import dataclass
from datetime import datetime

from incomingd import codec
from incomingd.journal import Journal


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexFile:
    """One file that a Release lists. ``path`` is below the suite's folder; ``stored`` is False for one that is listed
    for its digest only (the uncompressed index). ``allocated`` are its bytes on the disk."""

    path: str
    size: int
    sha256: str
    sha512: str | None = None
    stored: bool = True
    allocated: int = 0

    @property
    def folder(self) -> str:
        """The folder that it lies in, below the suite's."""
        return self.path.rpartition("/")[0]

    @property
    def by_hash(self) -> tuple[str, ...]:
        """Its names below ``by-hash``: one for each digest that Release lists."""
        return by_hash_names(self.sha256, self.sha512)


def by_hash_names(sha256: str, sha512: str | None) -> tuple[str, ...]:
    """Where a file with these digests lies below ``by-hash``."""
    return (f"SHA256/{sha256}", f"SHA512/{sha512}") if sha512 else (f"SHA256/{sha256}",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One whole state of a suite. ``at`` is the Date of its Release, ``settings`` a digest of what it was made with."""

    suite: str
    number: int
    at: datetime
    reason: str
    settings: str
    inrelease_sha256: str
    files: tuple[IndexFile, ...]


class Generations:
    """The generations of one journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def current(self, suite: str) -> Generation | None:
        """The newest committed generation."""
        newest = self.newest(suite, 1)
        return newest[0] if newest else None

    def newest(self, suite: str, limit: int) -> list[Generation]:
        """The newest ones, newest first."""
        with self._journal.reading() as db:
            rows = db.execute(
                "SELECT * FROM generations WHERE suite = ? ORDER BY number DESC LIMIT ?", (suite, limit)
            ).fetchall()
        return [_generation(row) for row in rows]

    def add(self, generation: Generation) -> None:
        """Note one; in the transaction that commits it."""
        with self._journal.writing() as db:
            db.execute(
                "INSERT INTO generations VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    generation.suite,
                    generation.number,
                    codec.timestamp(generation.at),
                    generation.reason,
                    generation.settings,
                    generation.inrelease_sha256,
                    codec.dumps(generation.files),
                ),
            )


def _generation(row: sqlite3.Row) -> Generation:
    return Generation(
        suite=row["suite"],
        number=row["number"],
        at=datetime.fromisoformat(row["at"]),
        reason=row["reason"],
        settings=row["settings"],
        inrelease_sha256=row["inrelease_sha256"],
        files=_files(row["files"]),
    )


@functools.lru_cache(maxsize=64)  # each publish asks for the last ones
def _files(text: str) -> tuple[IndexFile, ...]:
    return codec.loads(text, tuple[IndexFile, ...])
