"""The journal looked at from the outside, for fsck: whether sqlite finds it sound, and all that it claims."""

from collections.abc import Iterator

from incomingd.journal import Journal
from incomingd.journal.catalogue import PoolFile, pool_file_of

#: sqlite stops looking after so many faults.
_MAX_FAULTS = 100


class Audit:
    """Questions to one journal that grow with the archive."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def integrity(self, *, deep: bool) -> Iterator[str]:
        """What sqlite finds wrong with the file, and rows that point to nothing."""
        check = "integrity_check" if deep else "quick_check"
        with self._journal.reading() as db:
            for row in db.execute(f"PRAGMA {check}({_MAX_FAULTS})").fetchall():
                if row[0] != "ok":
                    yield str(row[0])
            for row in db.execute("PRAGMA foreign_key_check").fetchmany(_MAX_FAULTS):
                yield f"row {row['rowid']} of {row['table']} points to a row of {row['parent']} that is not there"

    def listed_but_gone(self) -> list[tuple[str, str]]:
        """Packages that a suite lists, with those of their files that were removed."""
        with self._journal.reading() as db:
            rows = db.execute(
                "SELECT DISTINCT p.name, p.version, p.architecture, f.path FROM pool_files f"
                " JOIN package_files pf ON pf.path = f.path JOIN packages p ON p.id = pf.package"
                " JOIN entries e ON e.package = p.id WHERE f.gone_at IS NOT NULL"
            ).fetchall()
        return [(f"{row['name']} {row['version']} {row['architecture']}", row["path"]) for row in rows]

    def count_pool_files(self) -> int:
        """How many files the pool is to have."""
        with self._journal.reading() as db:
            return int(db.execute("SELECT count(*) FROM pool_files WHERE gone_at IS NULL").fetchone()[0])

    def pool_files(self) -> Iterator[PoolFile]:
        """Each file that the pool is to have, by path."""
        with self._journal.reading() as db:
            for row in db.execute("SELECT * FROM pool_files WHERE gone_at IS NULL ORDER BY path"):
                yield pool_file_of(row)

    def intents(self) -> list[str]:
        """Names that are about to appear in the pool, or to leave it."""
        with self._journal.reading() as db:
            return [row["path"] for row in db.execute("SELECT path FROM pool_intents")]
