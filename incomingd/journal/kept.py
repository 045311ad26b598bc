"""The index files that lie under by-hash, and since when each of them is superseded.

Rules:

* A row is an index file of one folder of a suite, under its digests. The current generation lists it, or it has been
  ``superseded_by`` a generation.
* A superseded index stays as long as one of the newest ``keep_generations`` lists it, and at least for ``index_grace``
  after it was superseded. What only the second rule keeps is ``grace_only``; its bytes are what ``index_space`` counts.
* A file leaves the disk before its row does, and its row is there as soon as a generation that lists it is committed.
"""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from incomingd import codec
from incomingd.journal import Journal
from incomingd.journal.generations import IndexFile, by_hash_names


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptIndex:
    """One index under by-hash."""

    suite: str
    folder: str
    sha256: str
    sha512: str | None
    superseded: bool

    @property
    def by_hash(self) -> tuple[str, ...]:
        """Its names below ``by-hash``."""
        return by_hash_names(self.sha256, self.sha512)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """What one publish superseded and only ``index_grace`` keeps: since when, and its bytes."""

    superseded_at: datetime
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Bytes on the disk: the pool, all under by-hash, and what of that only ``index_grace`` keeps."""

    pool: int
    indexes: int
    grace_only: int


class KeptIndexes:
    """What one journal knows of by-hash."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def replace(
        self, suite: str, number: int, old: Iterable[IndexFile], new: Iterable[IndexFile], at: datetime
    ) -> None:
        """Generation ``number`` lists ``new``, the one before it ``old``; in the transaction that commits it."""
        before = {(file.folder, file.sha256): file for file in old if file.stored}
        after = {(file.folder, file.sha256): file for file in new if file.stored}
        with self._journal.writing() as db:
            _supersede(db, suite, before.keys() - after.keys(), number, at)
            # One whose SHA-512 was not listed before is noted again with it.
            for key, file in after.items():
                if key not in before or before[key].sha512 != file.sha512:
                    _list(db, suite, file)

    def adopt(self, suite: str, number: int, files: Iterable[IndexFile], at: datetime) -> None:
        """Note files that are found under by-hash and that generation ``number`` has superseded, ``at`` the latest;
        those that are known stay as they are."""
        with self._journal.writing() as db:
            db.executemany(
                "INSERT OR IGNORE INTO kept_indexes (suite, folder, sha256, sha512, size, superseded_by,"
                " superseded_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    (suite, f.folder, f.sha256, f.sha512, f.allocated, number, codec.timestamp(at))
                    for f in files
                    if f.stored
                ),
            )

    def switched_late(self, suite: str, number: int, at: datetime) -> None:
        """Clients have seen what generation ``number`` supersedes until ``at``, long after its commit."""
        with self._journal.writing() as db:
            db.execute(
                "UPDATE kept_indexes SET superseded_at = ? WHERE suite = ? AND superseded_by = ?",
                (codec.timestamp(at), suite, number),
            )

    def outlived(self, suite: str, number: int) -> None:
        """``number`` is the oldest of the newest generations: what it or an earlier one has superseded only the grace
        time keeps. For each generation in the transaction that commits it."""
        with self._journal.writing() as db:
            db.execute("UPDATE kept_indexes SET grace_only = 1 WHERE suite = ? AND superseded_by = ?", (suite, number))

    def outlived_all(self, suite: str, number: int) -> None:
        """As :meth:`outlived`, for all of the suite's superseded indexes: after ``keep_generations`` has changed."""
        with self._journal.writing() as db:
            db.execute(
                "UPDATE kept_indexes SET grace_only = superseded_by <= ?1 WHERE suite = ?2"
                " AND superseded_by IS NOT NULL AND grace_only != (superseded_by <= ?1)",
                (number, suite),
            )

    def due(self, superseded_before: datetime, limit: int) -> list[KeptIndex]:
        """Some that nothing keeps any more, the oldest first."""
        with self._journal.reading() as db:
            rows = db.execute(
                "SELECT * FROM kept_indexes WHERE grace_only = 1 AND superseded_at <= ? ORDER BY superseded_at LIMIT ?",
                (codec.timestamp(superseded_before), limit),
            ).fetchall()
        return [_kept(row) for row in rows]

    def leaving(self) -> list[Leaving]:
        """All that only the grace time keeps, by publish, the oldest first."""
        with self._journal.reading() as db:
            rows = db.execute(
                "SELECT max(superseded_at) AS at, sum(size) AS size FROM kept_indexes WHERE grace_only = 1"
                " GROUP BY suite, superseded_by ORDER BY at"
            ).fetchall()
        return [Leaving(superseded_at=datetime.fromisoformat(row["at"]), size=row["size"]) for row in rows]

    def forget(self, indexes: Iterable[KeptIndex]) -> None:
        """These are no longer on the disk. After a power cut they may be forgotten again."""
        with self._journal.writing(durable=False) as db:
            db.executemany(
                "DELETE FROM kept_indexes WHERE suite = ? AND folder = ? AND sha256 = ?",
                ((one.suite, one.folder, one.sha256) for one in indexes),
            )

    def knows(self, suite: str, file: IndexFile) -> bool:
        """True if a committed generation has, or had, that file."""
        with self._journal.reading() as db:
            row = db.execute(
                "SELECT 1 FROM kept_indexes WHERE suite = ? AND folder = ? AND sha256 = ?",
                (suite, file.folder, file.sha256),
            ).fetchone()
        return row is not None

    def all(self, suite: str) -> list[KeptIndex]:
        """All of a suite: for start-up and fsck."""
        with self._journal.reading() as db:
            rows = db.execute("SELECT * FROM kept_indexes WHERE suite = ?", (suite,)).fetchall()
        return [_kept(row) for row in rows]

    def space(self) -> Space:
        """What is on the disk, without adding it up."""
        with self._journal.reading() as db:
            rows = db.execute("SELECT kind, bytes FROM space").fetchall()
        sums = {row["kind"]: int(row["bytes"]) for row in rows}
        return Space(pool=sums["pool"], indexes=sums["indexes"], grace_only=sums["grace_only"])


def _supersede(db: sqlite3.Connection, suite: str, keys: Iterable[tuple[str, str]], number: int, at: datetime) -> None:
    db.executemany(
        "UPDATE kept_indexes SET superseded_by = ?, superseded_at = ? WHERE suite = ? AND folder = ? AND sha256 = ?",
        ((number, codec.timestamp(at), suite, folder, sha256) for folder, sha256 in keys),
    )


def _list(db: sqlite3.Connection, suite: str, file: IndexFile) -> None:
    db.execute(
        "INSERT INTO kept_indexes (suite, folder, sha256, sha512, size) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET sha512 = ifnull(excluded.sha512, sha512), size = excluded.size,"
        " superseded_by = NULL, superseded_at = NULL, grace_only = 0",
        (suite, file.folder, file.sha256, file.sha512, file.allocated),
    )


def _kept(row: sqlite3.Row) -> KeptIndex:
    return KeptIndex(
        suite=row["suite"],
        folder=row["folder"],
        sha256=row["sha256"],
        sha512=row["sha512"],
        superseded=row["superseded_by"] is not None,
    )
