"""An import against the archive, in SQL: 50,000 packages are compared and taken over without being held in memory.

Rules: :class:`Bulk` reads the journal as it is committed, and writes into the import's own database only, where it
notes what is to change. :meth:`Bulk.apply` is the one step that writes the journal; it is part of the publish's
transaction. A staging database that is gone or damaged is the import's fault: :class:`StagingError`.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from incomingd import codec
from incomingd.errors import Retry
from incomingd.journal import ENVIRONMENT, Journal
from incomingd.journal.catalogue import PLACED_AGAIN, PackageKey
from incomingd.journal.staging import NAME
from incomingd.model import split_section

_PLAN = """
DROP TABLE IF EXISTS lists;
DROP TABLE IF EXISTS chosen;
DROP TABLE IF EXISTS changes;
-- A copy of listings, which a decision takes from: what was read stays as it was read.
CREATE TABLE lists (family TEXT, name TEXT, item INTEGER, section TEXT, PRIMARY KEY (family, name, item))
    STRICT, WITHOUT ROWID;
INSERT INTO lists SELECT family, name, item, section FROM listings;
CREATE TABLE chosen (item INTEGER PRIMARY KEY) STRICT;
CREATE TABLE changes (section TEXT, name TEXT, item INTEGER, PRIMARY KEY (section, name)) STRICT, WITHOUT ROWID;
"""
_KEY = "{0}.kind, {0}.name, {0}.version, {0}.architecture"
_SAME_KEY = (
    "p.kind = i.kind AND p.name = i.name AND p.version = i.version AND p.architecture = i.architecture AND NOT p.lost"
)
#: A name that such a package has is free again: a file of it has left the pool (:mod:`.catalogue`).
_IS_FREE = (
    "EXISTS (SELECT 1 FROM {0}package_files x JOIN {0}pool_files q ON q.path = x.path"
    " WHERE x.package = p.id AND q.gone_at IS NOT NULL)"
)
#: So many stanzas are read between two signs of life.
_PROGRESS_EVERY = 500


class StagingError(Exception):
    """What the import has read is gone or damaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One package of the import that an index may list."""

    item: int
    origin: str
    section: str
    key: PackageKey
    sha256: str  # of the .deb or .dsc itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """A package of the import, and what the suite lists under its name in the same family of indexes."""

    candidate: Candidate
    section: str
    key: PackageKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Contested:
    """A binary package of the import whose name the suite lists from another source, too."""

    origin: str
    name: str
    source: str
    component: str
    section: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherBytes:
    """A file whose name in the pool has other bytes: in the archive, or in another file of the import."""

    origin: str
    path: str
    here: str
    there: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lacking:
    """What a package of the import needs and nobody has: a pool path, or a source package with its version."""

    origin: str
    what: str


class Bulk:
    """One import's packages. For the publisher's thread only; a context, since it holds a database open."""

    def __init__(self, journal: Journal, folder: Path) -> None:
        self._journal = journal
        self._path = folder / NAME

    def __enter__(self) -> Self:
        if not self._path.exists():
            raise StagingError(f"{self._path} is not there")
        with self._translated():
            self._db = sqlite3.connect(self._path.absolute().as_uri(), uri=True, isolation_level=None, timeout=30)
            try:
                self._refuse_foreign()
                self._db.execute("ATTACH ? AS journal", (f"{self._journal.path.absolute().as_uri()}?mode=ro",))
                self._db.create_function("family_of", 1, lambda section: split_section(section)[1], deterministic=True)
                self._db.executescript(f"BEGIN; {_PLAN} COMMIT;")
            except BaseException:
                self._db.close()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def _refuse_foreign(self) -> None:
        """What is published follows from this database: neither its tables nor its paths may be another one's."""
        self._db.execute("PRAGMA trusted_schema=OFF")
        with closing(self._db.execute("SELECT name FROM sqlite_master WHERE type NOT IN ('table', 'index')")) as rows:
            if rows.fetchone():
                raise StagingError(f"{self._path} has views or triggers, which no import makes")
        paths = "path LIKE '/%' OR '/' || path || '/' LIKE '%/../%' OR path NOT LIKE 'pool/%'"
        staged = "staged LIKE '/%' OR '/' || staged || '/' LIKE '%/../%'"
        with closing(self._db.execute(f"SELECT path FROM files WHERE {paths} OR {staged}")) as rows:  # noqa: S608
            if rows.fetchone():
                raise StagingError(f"{self._path} names files outside of the pool or of the import's folder")

    def _translated(self) -> "_Translated":
        return _Translated(self._path)

    def _rows(self, sql: str, values: Iterable[object] = ()) -> Iterator[tuple[object, ...]]:
        with self._translated(), closing(self._db.execute(sql, tuple(values))) as rows:
            yield from rows

    # -- facts --------------------------------------------------------------------------------------------------------

    def contests(self) -> Iterator[list[Candidate]]:
        """Packages of the import that cannot both be listed: those of one name in one family of indexes."""
        groups = list(self._rows("SELECT family, name FROM lists GROUP BY family, name HAVING count(*) > 1"))
        for family, name in groups:
            rows = self._rows(
                f"SELECT i.id, i.origin, l.section, {_KEY.format('i')}, i.sha256 FROM lists l"  # noqa: S608
                " JOIN items i ON i.id = l.item WHERE l.family = ? AND l.name = ? ORDER BY i.origin",
                (family, name),
            )
            yield [_candidate(row) for row in rows]

    def leave_out(self, listings: Iterable[Candidate]) -> None:
        """These are not listed there, and their files are not taken where nothing else lists them."""
        values = [(split_section(one.section)[1], one.key.name, one.item) for one in listings]
        with self._translated():
            self._db.execute("BEGIN")
            self._db.executemany("DELETE FROM lists WHERE family = ? AND name = ? AND item = ?", values)
            self._db.execute("COMMIT")

    def rivals(self, suite: str) -> Iterator[Rival]:
        """Packages of the import whose name the suite lists already in the same family of indexes."""
        rows = self._rows(
            f"SELECT i.id, i.origin, l.section, {_KEY.format('i')}, i.sha256,"  # noqa: S608  # own words
            f" e.section, {_KEY.format('p')} FROM lists l JOIN items i ON i.id = l.item"
            " JOIN journal.entries e ON e.suite = ? AND e.name = l.name"
            " JOIN journal.packages p ON p.id = e.package"
            " WHERE family_of(e.section) = l.family",
            (suite,),
        )
        for row in rows:
            yield Rival(candidate=_candidate(row[:8]), section=str(row[8]), key=_key(row[9:]))

    def choose(self, gone: Iterable[Rival], settled: Iterable[Rival]) -> int:
        """Note what is to change: how many listings.

        ``gone`` are listed by the suite in another component and leave it; ``settled`` are listed as they are to be.
        """
        with self._translated():
            self._db.execute("BEGIN")
            self._db.execute("INSERT INTO chosen SELECT DISTINCT item FROM lists")
            self._db.execute("INSERT INTO changes SELECT section, name, item FROM lists")
            self._db.executemany(
                "DELETE FROM changes WHERE section = ? AND name = ?", ((r.section, r.key.name) for r in settled)
            )
            self._db.executemany(
                "INSERT OR IGNORE INTO changes VALUES (?, ?, NULL)", ((r.section, r.key.name) for r in gone)
            )
            self._db.execute("COMMIT")
            return int(self._db.execute("SELECT count(*) FROM changes").fetchone()[0])

    def packages(self) -> int:
        """How many packages are taken."""
        return int(str(next(self._rows("SELECT count(*) FROM chosen"))[0]))

    def other_bytes(self) -> Iterator[OtherBytes]:
        """Names in the pool that would get other bytes."""
        rows = self._rows(
            "SELECT i.origin, f.path, f.sha256, p.sha256 FROM chosen c JOIN files f ON f.item = c.item"
            " JOIN items i ON i.id = c.item JOIN journal.pool_files p ON p.path = f.path"
            " WHERE p.sha256 <> f.sha256 AND p.gone_at IS NULL"
            " UNION ALL SELECT i.origin, f.path, f.sha256, g.sha256 FROM chosen c JOIN files f ON f.item = c.item"
            " JOIN items i ON i.id = c.item JOIN files g ON g.path = f.path AND g.item < f.item"
            " JOIN chosen d ON d.item = g.item WHERE g.sha256 <> f.sha256"
        )
        for row in rows:
            yield OtherBytes(origin=str(row[0]), path=str(row[1]), here=str(row[2]), there=str(row[3]))

    def other_places(self) -> Iterator[tuple[str, PackageKey, str, str]]:
        """Packages that the archive has as part of another source or component: origin, key, source, component."""
        rows = self._rows(
            f"SELECT i.origin, {_KEY.format('i')}, p.source, p.component FROM chosen c"  # noqa: S608  # own words
            f" JOIN items i ON i.id = c.item JOIN journal.packages p ON {_SAME_KEY}"
            f" WHERE (p.source <> i.source OR p.component <> i.component) AND NOT {_IS_FREE.format('journal.')}"
        )
        for row in rows:
            yield str(row[0]), _key(row[1:5]), str(row[5]), str(row[6])

    def contested(self, suite: str) -> Iterator[Contested]:
        """Binary packages that are taken and whose names the suite lists from other sources: one for each section."""
        rows = self._rows(
            "SELECT i.origin, i.name, i.source, i.component, l.section FROM lists l JOIN items i ON i.id = l.item"
            " WHERE i.kind <> 'dsc' AND EXISTS (SELECT 1 FROM journal.entries e INDEXED BY entries_by_name"
            " JOIN journal.packages p ON p.id = e.package WHERE e.suite = ? AND e.name = l.name AND p.kind <> 'dsc'"
            " AND p.source <> i.source) ORDER BY l.name",
            (suite,),
        )
        for row in rows:
            origin, name, source, component, section = map(str, row)
            yield Contested(origin=origin, name=name, source=source, component=component, section=section)

    def missing_files(self) -> Iterator[Lacking]:
        """Files of sources that neither the import nor the archive has."""
        rows = self._rows(
            "SELECT i.origin, f.path FROM chosen c JOIN files f ON f.item = c.item JOIN items i ON i.id = c.item"
            " WHERE f.staged IS NULL"
            " AND NOT EXISTS (SELECT 1 FROM journal.pool_files p WHERE p.path = f.path AND p.gone_at IS NULL)"
            " AND NOT EXISTS (SELECT 1 FROM files g JOIN chosen d ON d.item = g.item"
            " WHERE g.path = f.path AND g.staged IS NOT NULL)"
        )
        return (Lacking(origin=str(origin), what=str(path)) for origin, path in rows)

    def missing_sources(self) -> Iterator[Lacking]:
        """Binaries whose source neither the import nor any suite has."""
        rows = self._rows(
            "SELECT i.origin, i.source || ' ' || i.source_version FROM chosen c JOIN items i ON i.id = c.item"
            " WHERE i.kind <> 'dsc' AND NOT EXISTS (SELECT 1 FROM items s JOIN chosen d ON d.item = s.id"
            " WHERE s.kind = 'dsc' AND s.name = i.source AND s.version = i.source_version)"
            " AND NOT EXISTS (SELECT 1 FROM journal.packages p JOIN journal.entries e ON e.package = p.id"
            " WHERE p.kind = 'dsc' AND p.name = i.source AND p.version = i.source_version AND NOT p.lost)"
        )
        return (Lacking(origin=str(origin), what=str(what)) for origin, what in rows)

    # -- doing --------------------------------------------------------------------------------------------------------

    def placements(self) -> Iterator[tuple[str, str]]:
        """By pool path, the staged file of each that the pool does not have yet, below the folder of files."""
        rows = self._rows(f"SELECT path, min(staged) FROM {_NEW_FILES} GROUP BY path ORDER BY path")  # noqa: S608
        return ((str(path), str(staged)) for path, staged in rows)

    def stanzas(self, progress: Callable[[], None]) -> dict[str, Mapping[str, bytes | None]]:
        """By section, the changed names with their stanzas; each is read when it is asked for."""
        found: dict[str, dict[str, int | None]] = {}
        for section, name, item in self._rows("SELECT section, name, item FROM changes ORDER BY section, name"):
            found.setdefault(str(section), {})[str(name)] = item if isinstance(item, int) else None
        return {section: _Stanzas(items, self._stanza, progress) for section, items in found.items()}

    def _stanza(self, item: int) -> bytes:
        with self._translated():
            stanza: bytes = self._db.execute("SELECT stanza FROM items WHERE id = ?", (item,)).fetchone()[0]
        return stanza

    def beside(self) -> AbstractContextManager[None]:
        """While this lasts, the journal's writer sees the staging database; for :meth:`apply`."""
        return self._journal.beside(self._path, "staged")

    def intend(self) -> None:
        """Note the names that are about to appear in the pool."""
        with self.beside(), self._journal.writing() as db:
            db.execute(f"INSERT OR IGNORE INTO pool_intents SELECT path FROM {_NEW_FILES_STAGED}")  # noqa: S608

    def apply(self, db: sqlite3.Connection, suite: str, generation: int, upload: int, at: datetime) -> None:
        """Take everything over into the catalogue. ``db`` sees the staging database as ``staged``."""
        now = codec.timestamp(at)
        db.execute(
            "UPDATE packages SET lost = 1 WHERE id IN (SELECT x.package FROM staged.chosen c"
            " JOIN staged.files f ON f.item = c.item JOIN pool_files q ON q.path = f.path"
            " JOIN package_files x ON x.path = f.path WHERE f.staged IS NOT NULL AND q.sha256 <> f.sha256)"
        )
        db.execute(
            "UPDATE packages SET lost = 1 WHERE id IN (SELECT p.id FROM staged.chosen c"  # noqa: S608  # own words
            f" JOIN staged.items i ON i.id = c.item JOIN packages p ON {_SAME_KEY}"
            " WHERE p.source <> i.source OR p.component <> i.component)"
        )
        db.execute(
            "INSERT INTO pool_files (path, size, md5, sha1, sha256, upload, added_at)"  # noqa: S608  # own words
            " SELECT f.path, f.size, f.md5, f.sha1, f.sha256, ?, ?"
            " FROM staged.files f JOIN staged.chosen c ON c.item = f.item WHERE f.staged IS NOT NULL"
            f" {PLACED_AGAIN}",
            (upload, now),
        )
        db.execute(
            "UPDATE pool_files SET unused_at = NULL, forgotten = 0 WHERE unused_at IS NOT NULL AND path IN"
            " (SELECT f.path FROM staged.files f JOIN staged.chosen c ON c.item = f.item)"
        )
        db.execute(
            "INSERT OR IGNORE INTO packages (kind, name, version, architecture, source, source_version, component,"
            " upload, added_at, stanza) SELECT i.kind, i.name, i.version, i.architecture, i.source, i.source_version,"
            " i.component, ?, ?, i.stanza FROM staged.items i JOIN staged.chosen c ON c.item = i.id",
            (upload, now),
        )
        db.execute(
            "INSERT OR IGNORE INTO package_files SELECT p.id, f.path FROM staged.chosen c"  # noqa: S608  # own words
            f" JOIN staged.items i ON i.id = c.item JOIN packages p ON {_SAME_KEY}"
            " JOIN staged.files f ON f.item = c.item"
        )
        db.execute(
            "INSERT INTO generation_changes SELECT ?, ?, c.section, c.name, e.package, p.id, ?"  # noqa: S608
            " FROM staged.changes c LEFT JOIN entries e ON e.suite = ? AND e.section = c.section AND e.name = c.name"
            f" LEFT JOIN staged.items i ON i.id = c.item LEFT JOIN packages p ON {_SAME_KEY}",
            (suite, generation, upload, suite),
        )
        where = "FROM generation_changes WHERE suite = ? AND number = ?"
        db.execute(
            "DELETE FROM entries WHERE suite = ? AND (section, name) IN"  # noqa: S608  # own words
            f" (SELECT section, name {where} AND new_package IS NULL)",
            (suite, suite, generation),
        )
        db.execute(
            "INSERT OR REPLACE INTO entries SELECT suite, section, name, new_package"  # own words
            f" {where} AND new_package IS NOT NULL",
            (suite, generation),
        )
        db.execute(
            "UPDATE pool_files SET unused_at = ? WHERE unused_at IS NULL AND path IN"  # noqa: S608  # own words
            f" (SELECT path FROM package_files WHERE package IN (SELECT old_package {where})) AND NOT EXISTS"
            " (SELECT 1 FROM package_files f JOIN entries e ON e.package = f.package WHERE f.path = pool_files.path)",
            (now, suite, generation),
        )


_NEW_FILES = (
    "files f WHERE item IN (SELECT item FROM chosen) AND staged IS NOT NULL AND NOT EXISTS"
    " (SELECT 1 FROM journal.pool_files p WHERE p.path = f.path AND p.gone_at IS NULL)"
)
_NEW_FILES_STAGED = (
    "staged.files f WHERE item IN (SELECT item FROM staged.chosen) AND staged IS NOT NULL AND NOT EXISTS"
    " (SELECT 1 FROM pool_files p WHERE p.path = f.path AND p.gone_at IS NULL)"
)


class _Stanzas(Mapping[str, bytes | None]):
    """Names with the items that they are to have; the stanzas stay on the disk."""

    def __init__(
        self, items: Mapping[str, int | None], read: Callable[[int], bytes], progress: Callable[[], None]
    ) -> None:
        self._items, self._read, self._progress = items, read, progress
        self._count = 0

    def __getitem__(self, name: str) -> bytes | None:
        item = self._items[name]
        self._count += 1
        if self._count % _PROGRESS_EVERY == 0:
            self._progress()
        return None if item is None else self._read(item)

    def __contains__(self, name: object) -> bool:
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


class _Translated:
    """Turns sqlite's errors with the staging database into ``Retry`` and :class:`StagingError`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        code = getattr(error, "sqlite_errorcode", None)
        if not isinstance(error, sqlite3.DatabaseError) or code is None or code & 0xFF == sqlite3.SQLITE_ERROR:
            return
        if code & 0xFF in ENVIRONMENT:
            raise Retry(f"{self._path}: cannot be used now: {error}") from error
        raise StagingError(f"{self._path} is damaged: {error}") from error


def _key(row: tuple[object, ...]) -> PackageKey:
    kind, name, version, architecture = map(str, row)
    return PackageKey(kind=kind, name=name, version=version, architecture=architecture)


def _candidate(row: tuple[object, ...]) -> Candidate:
    return Candidate(
        item=int(str(row[0])), origin=str(row[1]), section=str(row[2]), key=_key(row[3:7]), sha256=str(row[7])
    )
