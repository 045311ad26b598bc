"""What an import has read so far: a small database of its own, beside the files, until the publisher takes it over.

It is not part of the journal, so that reading 50,000 packages holds up nobody's uploads, and so that dropping it costs
nothing. One process fills it; the publisher reads it while that one waits, and notes there what it means to do
(:mod:`.bulk`). What it says of a file counts for as long as the original has the same size and date.
"""

import contextlib
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from incomingd import codec
from incomingd.journal import translated
from incomingd.model import FileEntry, Problem, split_section

#: The file's name inside the import's folder.
NAME = "packages.db"
#: The folder beside it that holds the packages' files. What reads packages may write only in there.
FILES = "files"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS items (
    id             INTEGER PRIMARY KEY,
    origin         TEXT NOT NULL UNIQUE, -- where it was read from
    size           INTEGER NOT NULL,
    mtime_ns       INTEGER NOT NULL,
    problems       TEXT NOT NULL,        -- JSON; where there are any, the rest says nothing
    kind           TEXT NOT NULL DEFAULT '',
    name           TEXT NOT NULL DEFAULT '',
    version        TEXT NOT NULL DEFAULT '',
    architecture   TEXT NOT NULL DEFAULT '',
    source         TEXT NOT NULL DEFAULT '',
    source_version TEXT NOT NULL DEFAULT '',
    component      TEXT NOT NULL DEFAULT '',
    sha256         TEXT NOT NULL DEFAULT '', -- of the .deb or .dsc itself
    stanza         BLOB NOT NULL DEFAULT x''
) STRICT;
CREATE INDEX IF NOT EXISTS items_by_key ON items (kind, name, version, architecture);
CREATE TABLE IF NOT EXISTS files (
    item   INTEGER NOT NULL REFERENCES items ON DELETE CASCADE,
    path   TEXT NOT NULL,                -- in the pool
    size   INTEGER NOT NULL,
    md5    TEXT NOT NULL,
    sha1   TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    staged TEXT,                         -- below the folder of files; NULL: the archive has it already, or must
    PRIMARY KEY (path, item)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS files_by_item ON files (item);
-- One row for each index that is to list an item. "family" is the section without its component.
CREATE TABLE IF NOT EXISTS listings (
    family  TEXT NOT NULL,
    name    TEXT NOT NULL,
    item    INTEGER NOT NULL REFERENCES items ON DELETE CASCADE,
    section TEXT NOT NULL,
    PRIMARY KEY (family, name, item)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS listings_by_item ON listings (item);
CREATE TABLE IF NOT EXISTS warnings (
    item     INTEGER PRIMARY KEY REFERENCES items ON DELETE CASCADE,
    warnings TEXT NOT NULL -- JSON
) STRICT;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedFile:
    """One file that a package needs in the pool at ``path``, and where its bytes are staged."""

    path: str
    file: FileEntry
    staged: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """One .deb or .dsc where it was found: a file, or an address.

    The others are what a repository's signed index says of it, None or empty if there is no index: its component,
    digest, name and version, and the files that it lists beside a .dsc.
    """

    path: str
    size: int
    mtime_ns: int
    component: str | None = None
    sha256: str | None = None
    package: str = ""
    version: str = ""
    beside: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedPackage:
    """What the catalogue will say of a package that was read."""

    kind: str
    name: str
    version: str
    architecture: str
    source: str
    source_version: str
    component: str
    sha256: str
    stanza: bytes
    sections: tuple[str, ...]
    files: tuple[StagedFile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """What reading one origin came to: a package, or problems. ``id`` is the import's own number for it."""

    id: int
    origin: Origin
    problems: tuple[Problem, ...]
    package: StagedPackage | None
    warnings: tuple[Problem, ...] = ()


class Staging:
    """The staging database of one import, open for the process that fills it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        with translated(self._path):
            self._db = sqlite3.connect(self._path, isolation_level=None, timeout=30)
            self._db.execute("PRAGMA foreign_keys=ON")
            self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Close it; nothing is left beside the one file."""
        self._db.close()

    def keep(self, origins: Collection[Origin]) -> list[Origin]:
        """Drop what is not among ``origins`` as it is now, or was not read well; return those to be read."""
        with translated(self._path), self._transaction():
            self._db.execute(
                "CREATE TEMP TABLE now (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, sha256 TEXT)"
            )
            self._db.executemany(
                "INSERT OR IGNORE INTO now VALUES (?, ?, ?, ?)",
                ((_text(o.path), o.size, o.mtime_ns, o.sha256) for o in origins),
            )
            self._db.execute(
                # A source that lacked a file is read again: it may be there now.
                "DELETE FROM items WHERE problems <> '[]' OR id IN (SELECT item FROM files WHERE staged IS NULL)"
                " OR NOT EXISTS (SELECT 1 FROM now n WHERE n.path = origin"
                " AND n.size = items.size AND n.mtime_ns = items.mtime_ns"
                " AND (n.sha256 IS NULL OR n.sha256 = items.sha256))"
            )
            read = {path for (path,) in self._db.execute("SELECT origin FROM items")}
            self._db.execute("DROP TABLE now")
        return [origin for origin in origins if _text(origin.path) not in read]

    def drop_refused(self) -> None:
        """Forget what was not read well: it is left out."""
        with translated(self._path), self._transaction():
            self._db.execute("DELETE FROM items WHERE problems <> '[]'")

    def files(self) -> set[str]:
        """Every file that is staged, below the folder of files."""
        with translated(self._path):
            return {name for (name,) in self._db.execute("SELECT staged FROM files WHERE staged IS NOT NULL")}

    def next_id(self) -> int:
        """A number that no item has."""
        with translated(self._path):
            return int(self._db.execute("SELECT coalesce(max(id), 0) + 1 FROM items").fetchone()[0])

    def add(self, items: Iterable[Item]) -> None:
        """Keep some more; their files are on the disk."""
        with translated(self._path), self._transaction():
            for item in items:
                self._add(item)

    def _add(self, item: Item) -> None:
        origin, package = item.origin, item.package
        head = (item.id, _text(origin.path), origin.size, origin.mtime_ns, codec.dumps(item.problems))
        if item.problems or package is None:
            self._db.execute("INSERT INTO items (id, origin, size, mtime_ns, problems) VALUES (?, ?, ?, ?, ?)", head)
            return
        key = (package.kind, package.name, package.version, package.architecture)
        rest = (package.source, package.source_version, package.component, package.sha256, package.stanza)
        self._db.execute("INSERT INTO items VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*head, *key, *rest))
        self._db.executemany(
            "INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?)",
            ((item.id, f.path, f.file.size, *_digests(f.file), f.staged) for f in package.files),
        )
        self._db.executemany(
            "INSERT INTO listings VALUES (?, ?, ?, ?)",
            ((split_section(section)[1], package.name, item.id, section) for section in package.sections),
        )
        if item.warnings:
            self._db.execute("INSERT INTO warnings VALUES (?, ?)", (item.id, codec.dumps(item.warnings)))

    def problems(self, limit: int) -> tuple[int, list[tuple[str, Problem]]]:
        """How many items have problems, and the first problems, each with its origin."""
        with translated(self._path):
            count = int(self._db.execute("SELECT count(*) FROM items WHERE problems <> '[]'").fetchone()[0])
            rows = self._db.execute(
                "SELECT origin, problems FROM items WHERE problems <> '[]' ORDER BY origin LIMIT ?", (limit,)
            ).fetchall()
        found = ((origin, problem) for origin, text in rows for problem in codec.loads(text, tuple[Problem, ...]))
        return count, list(found)

    def warnings(self, limit: int) -> list[tuple[str, Problem]]:
        """The first warnings, each with the origin of its item."""
        with translated(self._path):
            rows = self._db.execute(
                "SELECT origin, warnings FROM warnings JOIN items ON id = item ORDER BY origin LIMIT ?", (limit,)
            ).fetchall()
        return [(origin, warning) for origin, text in rows for warning in codec.loads(text, tuple[Problem, ...])]

    def count(self) -> int:
        """How many packages were read well."""
        with translated(self._path):
            return int(self._db.execute("SELECT count(*) FROM items WHERE problems = '[]'").fetchone()[0])

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")


def _text(path: str) -> str:
    r"""A path as the database can hold it: bytes that are not UTF-8 are escaped, and so is the backslash that does it.

    Two paths are never the same: one can have the byte FF where another has the four characters ``\xff``.
    """
    return path.replace("\\", r"\\").encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _digests(file: FileEntry) -> tuple[str, str, str]:
    return file.digests.md5, file.digests.sha1, file.digests.sha256
