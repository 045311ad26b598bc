"""What people ask: packages, where they came from, and what was published when. Reads only."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from incomingd import codec
from incomingd.journal import Journal
from incomingd.model import ChangesSummary, split_section


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedPackage:
    """One package that a suite lists, with all the architectures that list it."""

    suite: str
    component: str
    name: str
    version: str
    architecture: str
    kind: str
    source: str
    source_version: str
    sections: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where one package came from: its upload (None where it was imported), who signed it, and where it is now.

    ``lost``: its name, or that of one of its files, has other content since.
    """

    name: str
    version: str
    architecture: str
    kind: str
    source: str
    source_version: str
    component: str
    added_at: str
    upload_id: int | None
    upload_name: str | None
    signed_by: tuple[str, ...]
    suites: tuple[str, ...]
    files: tuple[str, ...]
    lost: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryChange:
    """One name that a generation changed; ``old`` and ``new`` are versions, None where it was not or is no more."""

    component: str
    name: str
    architecture: str
    old: str | None
    new: str | None
    upload_id: int | None
    upload_name: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """One generation of a suite and what it changed."""

    suite: str
    generation: int
    at: str
    reason: str
    changes: tuple[HistoryChange, ...]


class Queries:
    """The questions to one journal. Patterns are shell globs, as ``fnmatch`` has them."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def packages(self, suite: str, pattern: str = "*") -> list[ListedPackage]:
        """What a suite lists, by name; ``pattern`` is held against package and source names."""
        with self._journal.reading() as db:
            rows = db.execute(
                "SELECT p.*, group_concat(e.section, ' ') AS sections"
                " FROM entries e JOIN packages p ON p.id = e.package"
                " WHERE e.suite = ? AND (p.name GLOB ? OR p.source GLOB ?) GROUP BY p.id"
                " ORDER BY p.name, p.kind = 'dsc' DESC, p.architecture",
                (suite, pattern, pattern),
            ).fetchall()
        return [
            ListedPackage(
                suite=suite,
                component=row["component"],
                name=row["name"],
                version=row["version"],
                architecture=row["architecture"],
                kind=row["kind"],
                source=row["source"],
                source_version=row["source_version"],
                sections=tuple(sorted(row["sections"].split(" "))),
            )
            for row in rows
        ]

    def sources(self, beginning: str, limit: int) -> list[str]:
        """The first source packages, by name, that begin so and of which a suite lists something."""
        with self._journal.reading() as db:
            rows = db.execute(
                "SELECT DISTINCT source FROM packages p WHERE source >= ? AND source < ?"
                " AND EXISTS (SELECT 1 FROM entries WHERE package = p.id) ORDER BY source LIMIT ?",
                (beginning, f"{beginning}\U0010ffff", limit),
            )
            return [row["source"] for row in rows]

    def provenance(self, name: str, version: str | None) -> list[Provenance]:
        """Every package of that name, the newest first, whether or not a suite still lists it."""
        with self._journal.reading() as db:
            rows = db.execute(
                "SELECT p.*, u.name AS upload_name, u.changes AS upload_changes FROM packages p"
                " LEFT JOIN uploads u ON u.id = p.upload"
                " WHERE p.name = ? AND (? IS NULL OR p.version = ?) ORDER BY p.id DESC",
                (name, version, version),
            ).fetchall()
            return [self._provenance(db, row) for row in rows]

    def _provenance(self, db: sqlite3.Connection, row: sqlite3.Row) -> Provenance:
        suites = db.execute("SELECT DISTINCT suite FROM entries WHERE package = ? ORDER BY suite", (row["id"],))
        files = db.execute("SELECT path FROM package_files WHERE package = ? ORDER BY path", (row["id"],))
        changes = codec.loads(row["upload_changes"] or "[]", tuple[ChangesSummary, ...])
        signers = tuple(dict.fromkeys(one.signed_by for one in changes if one.signed_by))
        return Provenance(
            name=row["name"],
            version=row["version"],
            architecture=row["architecture"],
            kind=row["kind"],
            source=row["source"],
            source_version=row["source_version"],
            component=row["component"],
            added_at=row["added_at"],
            upload_id=row["upload"],
            upload_name=row["upload_name"],
            signed_by=(row["signed_by"],) if row["signed_by"] else signers,
            suites=tuple(one["suite"] for one in suites),
            files=tuple(one["path"] for one in files),
            lost=bool(row["lost"]),
        )

    def history(self, suites: Sequence[str], name: str | None, limit: int) -> list[HistoryEntry]:
        """The newest generations, newest first; with ``name`` those that changed a package of that name."""
        marks = ", ".join("?" * len(suites))
        with self._journal.reading() as db:
            rows = db.execute(
                f"SELECT * FROM generations g WHERE suite IN ({marks})"  # noqa: S608  # own words
                " AND (? IS NULL OR EXISTS (SELECT 1 FROM generation_changes c"
                " WHERE c.suite = g.suite AND c.number = g.number AND c.name = ?))"
                " ORDER BY at DESC, suite, number DESC LIMIT ?",
                (*suites, name, name, limit),
            ).fetchall()
            return [
                HistoryEntry(
                    suite=row["suite"],
                    generation=row["number"],
                    at=row["at"],
                    reason=row["reason"],
                    changes=self._changes(db, row["suite"], row["number"], name),
                )
                for row in rows
            ]

    def _changes(self, db: sqlite3.Connection, suite: str, number: int, name: str | None) -> tuple[HistoryChange, ...]:
        rows = db.execute(
            "SELECT c.section, c.name, c.upload, old.version AS old, new.version AS new, u.name AS upload_name"
            " FROM generation_changes c LEFT JOIN packages old ON old.id = c.old_package"
            " LEFT JOIN packages new ON new.id = c.new_package LEFT JOIN uploads u ON u.id = c.upload"
            " WHERE c.suite = ? AND c.number = ? AND (? IS NULL OR c.name = ?) ORDER BY c.section, c.name",
            (suite, number, name, name),
        )
        return tuple(
            HistoryChange(
                component=split_section(row["section"])[0],
                name=row["name"],
                architecture=row["section"].rpartition("/")[2].removeprefix("binary-"),
                old=row["old"],
                new=row["new"],
                upload_id=row["upload"],
                upload_name=row["upload_name"],
            )
            for row in rows
        )
