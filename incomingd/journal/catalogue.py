"""What the archive holds: pool files, packages, and what each suite's indexes list.

A *section* here is one index of a suite: ``main/binary-amd64``, ``main/source``,
``main/debian-installer/binary-amd64``. It lists one version of a name.

A name in the pool has one content, and so has a package of one version and architecture, until the file has left the
pool: no suite has listed it for the grace time by then, and no client holds an index that does. After that the name is
free, and may get other content. What had it before stays in the history as *lost*, and nothing brings it back.
"""

import json
import sqlite3
from collections.abc import Collection, Generator, Iterable
from dataclasses import dataclass
from datetime import datetime

from incomingd import codec
from incomingd.journal import Journal, replays
from incomingd.model import CheckedChanges, Digests, FileEntry, split_section


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolFile:
    """One file of the pool; ``file.name`` is the last part of ``path``. ``sealed_as`` is its name in the upload that
    brings it, if that is another. ``upload`` has brought it, if none has imported it, at ``added_at``."""

    path: str
    file: FileEntry
    gone: bool = False
    sealed_as: str = ""
    upload: int | None = None
    added_at: str = ""

    @property
    def provenance(self) -> str:
        """For messages: where it came from, and when."""
        if not self.added_at:
            return "from an upload that is published now"
        what = f"upload #{self.upload}" if self.upload else "an import"
        return f"from {what} of {self.added_at[:16].replace('T', ' ')} UTC"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class PackageKey:
    """What has one content at a time. ``kind`` is deb, udeb, ddeb or dsc; a .dsc has architecture source."""

    kind: str
    name: str
    version: str
    architecture: str

    def __str__(self) -> str:
        return f"{self.name} {self.version} {self.architecture}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A package that the archive has, or had. ``paths`` are all its pool files.

    ``signed_by`` and ``signing_key`` are of the .changes that brought it first; None for an unsigned one or an import.
    """

    key: PackageKey
    source: str
    source_version: str
    component: str
    stanza: bytes
    paths: tuple[str, ...]
    signed_by: str | None = None
    signing_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """That one section of a suite lists a package, which came from ``source``."""

    section: str
    package: PackageKey
    source: str

    @property
    def component(self) -> str:
        """The section's component."""
        return split_section(self.section)[0]

    @property
    def index(self) -> str:
        """The section without its component: ``source``, ``binary-amd64`` …"""
        return split_section(self.section)[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One section's new package under a name; None where the name leaves the section."""

    section: str
    name: str
    package: PackageKey | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Former:
    """What takes one section back to what it listed before; ``is_lost``: the package's name has other content since."""

    change: Change
    is_lost: bool


_KEY = "p.kind, p.name, p.version, p.architecture"
_BY_KEY = "kind = ? AND name = ? AND version = ? AND architecture = ? AND NOT lost"
#: Of a name that the pool had before, with the same bytes or, if it was free, with others.
PLACED_AGAIN = (
    "ON CONFLICT (path) DO UPDATE SET gone_at = NULL, unused_at = NULL, forgotten = 0, size = excluded.size,"
    " md5 = excluded.md5, sha1 = excluded.sha1, sha256 = excluded.sha256,"
    " upload = iif(sha256 = excluded.sha256, upload, excluded.upload),"
    " added_at = iif(sha256 = excluded.sha256, added_at, excluded.added_at)"
)


class Catalogue:
    """The catalogue of one journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def pool_file(self, path: str) -> PoolFile | None:
        """The file that has, or had, that name in the pool."""
        with self._journal.reading() as db:
            row = db.execute("SELECT * FROM pool_files WHERE path = ?", (path,)).fetchone()
        return pool_file_of(row) if row else None

    def package(self, key: PackageKey) -> Package | None:
        """The package with that key, whether or not a suite still lists it; one that is lost has no key any more."""
        with self._journal.reading() as db:
            row = db.execute(f"SELECT * FROM packages WHERE {_BY_KEY}", _values(key)).fetchone()  # noqa: S608
            if row is None:
                return None
            paths = db.execute("SELECT path FROM package_files WHERE package = ?", (row["id"],)).fetchall()
        return Package(
            key=key,
            source=row["source"],
            source_version=row["source_version"],
            component=row["component"],
            stanza=row["stanza"],
            paths=tuple(path["path"] for path in paths),
            signed_by=row["signed_by"],
            signing_key=row["signing_key"],
        )

    def listed(self, suite: str, name: str) -> list[Listed]:
        """Every section of the suite that lists something under that name."""
        with self._journal.reading() as db:
            rows = db.execute(
                # Left to itself sqlite reads the whole suite through the primary key: 5 ms of 50,000 packages.
                f"SELECT e.section, {_KEY}, p.source FROM entries e INDEXED BY entries_by_name"  # noqa: S608
                " JOIN packages p ON p.id = e.package WHERE e.suite = ? AND e.name = ?",
                (suite, name),
            ).fetchall()
        return [Listed(section=row["section"], package=_key(row), source=row["source"]) for row in rows]

    def listed_many(self, suite: str, names: Collection[str]) -> dict[str, list[Listed]]:
        """As :meth:`listed`, for very many names; by name, those that are listed."""
        found: dict[str, list[Listed]] = {}
        with self._journal.reading() as db:
            for row in db.execute(
                f"SELECT e.section, {_KEY}, p.source FROM json_each(?) wanted"  # noqa: S608  # own words
                " CROSS JOIN entries e INDEXED BY entries_by_name ON e.suite = ? AND e.name = wanted.value"
                " JOIN packages p ON p.id = e.package",
                (json.dumps(sorted(names)), suite),
            ):
                one = Listed(section=row["section"], package=_key(row), source=row["source"])
                found.setdefault(one.package.name, []).append(one)
        return found

    def was_published(self, changes: CheckedChanges) -> bool:
        """True if this .changes was published once (:mod:`.replays`)."""
        with self._journal.reading() as db:
            return replays.was_published(db, changes)

    def has_source(self, source: str, version: str) -> bool:
        """True where some suite lists that source package in that version."""
        with self._journal.reading() as db:
            row = db.execute(
                "SELECT 1 FROM packages p JOIN entries e ON e.package = p.id"
                " WHERE p.kind = 'dsc' AND p.name = ? AND p.version = ? AND NOT p.lost LIMIT 1",
                (source, version),
            ).fetchone()
        return row is not None

    def listed_source(self, suite: str, source: str, version: str | None) -> list[tuple[str, Package]]:
        """Sections and packages of a source package, binaries and .dsc, that the suite lists."""
        with self._journal.reading() as db:
            rows = db.execute(
                f"SELECT e.section, {_KEY} FROM packages p JOIN entries e ON e.package = p.id"  # noqa: S608  # own words
                " WHERE p.source = ? AND (? IS NULL OR p.source_version = ?) AND e.suite = ?"
                " ORDER BY e.section, p.name",
                (source, version, version, suite),
            ).fetchall()
        found = ((row["section"], self.package(_key(row))) for row in rows)
        return [(section, package) for section, package in found if package is not None]

    def before(self, suite: str, generation: int) -> list[Former]:
        """The changes that take a suite from what it lists now back to what it listed in ``generation``."""
        with self._journal.reading() as db:
            rows = db.execute(
                f"SELECT g.section, g.name AS listed, g.old_package, min(g.number), p.lost, {_KEY}"  # noqa: S608
                " FROM generation_changes g LEFT JOIN packages p ON p.id = g.old_package"
                " WHERE g.suite = ? AND g.number > ? GROUP BY g.section, g.name",
                (suite, generation),
            ).fetchall()
        return [
            Former(
                change=Change(
                    section=row["section"],
                    name=row["listed"],
                    package=_key(row) if row["old_package"] is not None else None,
                ),
                is_lost=bool(row["lost"]),
            )
            for row in rows
        ]

    def sections(self, suite: str) -> set[str]:
        """Every section of the suite that lists anything."""
        with self._journal.reading() as db:
            found: set[str] = set()
            section = ""
            # A skip through the primary key: as many steps as there are sections, not as there are entries.
            while True:
                row = db.execute(
                    "SELECT min(section) AS next FROM entries WHERE suite = ? AND section > ?", (suite, section)
                ).fetchone()
                if row["next"] is None:
                    return found
                section = row["next"]
                found.add(section)

    def missing_all(self, suite: str, sections: list[str]) -> list[tuple[str, PackageKey]]:
        """Which of the sections lacks which ``Architecture: all`` package that another one of them lists."""
        marks = ", ".join("?" * len(sections))
        with self._journal.reading() as db:
            rows = db.execute(
                f"SELECT DISTINCT {_KEY} FROM entries e JOIN packages p ON p.id = e.package"  # noqa: S608  # own words
                f" WHERE e.suite = ? AND e.section IN ({marks}) AND p.architecture = 'all'",
                (suite, *sections),
            ).fetchall()
            return [
                (section, _key(row))
                for row in rows
                for section in sections
                if not db.execute(
                    "SELECT 1 FROM entries WHERE suite = ? AND section = ? AND name = ?", (suite, section, row["name"])
                ).fetchone()
            ]

    def section_stanzas(self, suite: str, section: str, first: str = "") -> Generator[tuple[str, bytes], None, None]:
        """Names and stanzas of a section from the name ``first`` on, in the order of the names' bytes."""
        with self._journal.reading() as db:
            for row in db.execute(
                "SELECT e.name, p.stanza FROM entries e JOIN packages p ON p.id = e.package"
                " WHERE e.suite = ? AND e.section = ? AND e.name >= ? ORDER BY e.name",
                (suite, section, first),
            ):
                yield row["name"], row["stanza"]

    def add_pool_files(self, files: Iterable[PoolFile], upload: int | None, at: datetime) -> None:
        """Note files that are in the pool now; one that had gone and is back is no longer gone.

        A name that was free may have got other bytes: every package that had the former ones is lost.
        """
        now = codec.timestamp(at)
        with self._journal.writing() as db:
            for file in files:
                digests = file.file.digests
                db.execute(
                    "UPDATE packages SET lost = 1 WHERE id IN (SELECT x.package FROM package_files x"
                    " JOIN pool_files f ON f.path = x.path WHERE x.path = ? AND f.sha256 <> ?)",
                    (file.path, digests.sha256),
                )
                db.execute(
                    "INSERT INTO pool_files (path, size, md5, sha1, sha256, upload, added_at)"  # noqa: S608
                    f" VALUES (?, ?, ?, ?, ?, ?, ?) {PLACED_AGAIN}",
                    (file.path, file.file.size, digests.md5, digests.sha1, digests.sha256, upload, now),
                )

    def intend(self, paths: Iterable[str]) -> None:
        """Note the names that are about to appear in the pool, or to leave it, before they do."""
        with self._journal.writing() as db:
            db.executemany("INSERT OR IGNORE INTO pool_intents VALUES (?)", ((path,) for path in paths))

    def forget_fulfilled(self) -> None:
        """What was intended and is in the pool is no intent any more. Others stay: their publish has yet to succeed."""
        with self._journal.writing() as db:
            db.execute("DELETE FROM pool_intents WHERE path IN (SELECT path FROM pool_files WHERE gone_at IS NULL)")

    def forget_intents(self, paths: Iterable[str]) -> None:
        """These have been cleared away."""
        with self._journal.writing() as db:
            db.executemany("DELETE FROM pool_intents WHERE path = ?", ((path,) for path in paths))

    def unfulfilled(self) -> list[str]:
        """Names that were intended and that the pool is not to have: a file under one of them is litter."""
        with self._journal.reading() as db:
            rows = db.execute(
                "SELECT i.path FROM pool_intents i LEFT JOIN pool_files f ON f.path = i.path AND f.gone_at IS NULL"
                " WHERE f.path IS NULL"
            ).fetchall()
        return [row["path"] for row in rows]

    def add_packages(self, packages: Iterable[Package], upload: int | None, at: datetime) -> None:
        """Note packages that are new to the archive, or have other content than a lost one of the same key."""
        with self._journal.writing() as db:
            for package in packages:
                db.execute(f"UPDATE packages SET lost = 1 WHERE {_BY_KEY}", _values(package.key))  # noqa: S608
                cursor = db.execute(
                    "INSERT INTO packages (kind, name, version, architecture, source, source_version, component,"
                    " upload, added_at, signed_by, signing_key, stanza) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        *_values(package.key),
                        package.source,
                        package.source_version,
                        package.component,
                        upload,
                        codec.timestamp(at),
                        package.signed_by,
                        package.signing_key,
                        package.stanza,
                    ),
                )
                db.executemany(
                    "INSERT INTO package_files (package, path) VALUES (?, ?)",
                    ((cursor.lastrowid, path) for path in package.paths),
                )

    def add_published_changes(self, published: Iterable[CheckedChanges], upload: int) -> None:
        """Note the .changes that an upload published."""
        with self._journal.writing() as db:
            for changes in published:
                replays.note_published(db, changes, upload)

    def apply(self, suite: str, generation: int, changes: Iterable[tuple[Change, int | None]], at: datetime) -> None:
        """Make the changes, each with the upload that brings it, and note them as that generation's.

        Pool files that no suite lists afterwards are unused from ``at`` on.
        """
        with self._journal.writing() as db:
            for change, upload in changes:
                self._apply_one(db, suite, generation, change, upload, codec.timestamp(at))

    def _apply_one(
        self, db: sqlite3.Connection, suite: str, generation: int, change: Change, upload: int | None, at: str
    ) -> None:
        where = (suite, change.section, change.name)
        row = db.execute("SELECT package FROM entries WHERE suite = ? AND section = ? AND name = ?", where).fetchone()
        old = row["package"] if row else None
        new = self._package_id(db, change.package) if change.package else None
        if new is None:
            db.execute("DELETE FROM entries WHERE suite = ? AND section = ? AND name = ?", where)
        else:
            db.execute("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)", (*where, new))
            db.execute(
                "UPDATE pool_files SET unused_at = NULL, forgotten = 0 WHERE unused_at IS NOT NULL"
                " AND path IN (SELECT path FROM package_files WHERE package = ?)",
                (new,),
            )
        db.execute(
            "INSERT INTO generation_changes VALUES (?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET new_package = excluded.new_package, upload = excluded.upload",
            (suite, generation, change.section, change.name, old, new, upload),
        )
        if old is not None and old != new:
            db.execute(
                "UPDATE pool_files SET unused_at = ? WHERE unused_at IS NULL"
                " AND path IN (SELECT path FROM package_files WHERE package = ?) AND NOT EXISTS ("
                "SELECT 1 FROM package_files f JOIN entries e ON e.package = f.package WHERE f.path = pool_files.path)",
                (at, old),
            )

    def _package_id(self, db: sqlite3.Connection, key: PackageKey) -> int:
        row = db.execute(f"SELECT id FROM packages WHERE {_BY_KEY}", _values(key)).fetchone()  # noqa: S608  # own words
        if row is None:
            raise KeyError(key)
        return int(row["id"])

    def unused_before(self, at: datetime, forgotten_at: datetime, limit: int) -> list[str]:
        """Pool files that no suite has listed since before ``at`` and that are still there.

        For those that an operator has forgotten (:meth:`forget`) ``forgotten_at`` counts instead.
        """
        queries = (
            ("unused_at IS NOT NULL AND gone_at IS NULL AND unused_at <= ?", at),
            ("forgotten AND gone_at IS NULL AND unused_at <= ?", forgotten_at),
        )
        with self._journal.reading() as db:
            for where, since in queries:
                rows = db.execute(
                    f"SELECT path FROM pool_files WHERE {where} ORDER BY unused_at LIMIT ?",  # noqa: S608  # own words
                    (codec.timestamp(since), limit),
                ).fetchall()
                if rows:
                    return [row["path"] for row in rows]
        return []

    def forget(self, paths: Collection[str]) -> None:
        """Let pool files leave as soon as no client can hold an index that lists them; those in use are left alone."""
        with self._journal.writing() as db:
            db.executemany(
                "UPDATE pool_files SET forgotten = 1 WHERE path = ? AND unused_at IS NOT NULL AND gone_at IS NULL",
                ((path,) for path in paths),
            )

    def unlisted_source(self, source: str, version: str | None) -> list[Package]:
        """Packages of a source, binaries and .dsc, that no suite lists any more and whose names are not free yet."""
        with self._journal.reading() as db:
            rows = db.execute(
                f"SELECT {_KEY} FROM packages p WHERE p.source = ? AND (? IS NULL OR p.source_version = ?)"  # noqa: S608
                " AND NOT p.lost AND NOT EXISTS (SELECT 1 FROM entries e WHERE e.package = p.id)"
                " AND NOT EXISTS (SELECT 1 FROM package_files x JOIN pool_files f ON f.path = x.path"
                " WHERE x.package = p.id AND f.gone_at IS NOT NULL) ORDER BY p.name",
                (source, version, version),
            ).fetchall()
        found = (self.package(_key(row)) for row in rows)
        return [package for package in found if package is not None]

    def set_gone(self, paths: list[str], at: datetime) -> None:
        """Note that pool files are to be removed; called before they are."""
        with self._journal.writing() as db:
            self.intend(paths)
            db.executemany(
                "UPDATE pool_files SET gone_at = ? WHERE path = ?", ((codec.timestamp(at), path) for path in paths)
            )


def _values(key: PackageKey) -> tuple[str, str, str, str]:
    return key.kind, key.name, key.version, key.architecture


def _key(row: sqlite3.Row) -> PackageKey:
    return PackageKey(kind=row["kind"], name=row["name"], version=row["version"], architecture=row["architecture"])


def pool_file_of(row: sqlite3.Row) -> PoolFile:
    """A row of ``pool_files``."""
    path = str(row["path"])
    return PoolFile(
        path=path,
        file=FileEntry(
            name=path.rpartition("/")[2],
            size=row["size"],
            digests=Digests(md5=row["md5"], sha1=row["sha1"], sha256=row["sha256"]),
        ),
        gone=row["gone_at"] is not None,
        upload=row["upload"],
        added_at=row["added_at"],
    )
