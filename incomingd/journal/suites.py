"""Which suites the journal has published, and how one ends.

A suite is published as long as its newest generation is one that clients can read. ``drop`` puts an empty last one
behind it: the history stays, and a suite of that name that comes back goes on with the numbers.
"""

import contextlib
import sqlite3
from datetime import datetime
from pathlib import Path

from incomingd import codec
from incomingd.journal import Journal

#: What a control row is called that asks for the end of a suite.
_DROP = "drop-suite/"
#: Skips through the primary key: as many steps as there are suites, not as there are generations.
_NEXT = "SELECT min(suite) FROM generations WHERE suite > ?"
_NEWEST = "SELECT inrelease_sha256 FROM generations WHERE suite = ? ORDER BY number DESC LIMIT 1"


class Suites:
    """The suites of one journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def published(self) -> set[str]:
        """Those that clients can read."""
        with self._journal.reading() as db:
            return _published(db)

    def ask_drop(self, suite: str) -> None:
        """Have the suite ended as soon as the configuration in force has no table for it."""
        with self._journal.writing() as db:
            db.execute("INSERT OR REPLACE INTO service (key, value) VALUES (?, '')", (f"{_DROP}{suite}",))

    def dropping(self) -> set[str]:
        """Those that are to end."""
        with self._journal.reading() as db:
            return _dropping(db)

    def drop(self, suite: str, at: datetime) -> None:
        """List nothing there any more. What no other suite lists is unused from ``at`` on. May be done twice."""
        with self._journal.writing() as db:
            if suite not in _published(db):
                return
            number = db.execute("SELECT max(number) FROM generations WHERE suite = ?", (suite,)).fetchone()[0] + 1
            stamp = codec.timestamp(at)
            db.execute(
                "INSERT INTO generation_changes SELECT suite, ?, section, name, package, NULL, NULL FROM entries"
                " WHERE suite = ?",
                (number, suite),
            )
            db.execute("INSERT INTO generations VALUES (?, ?, ?, 'dropped', '', '', '[]')", (suite, number, stamp))
            db.execute(
                "UPDATE pool_files SET unused_at = ? WHERE unused_at IS NULL AND path IN (SELECT f.path FROM entries e"
                " JOIN package_files f ON f.package = e.package WHERE e.suite = ?) AND NOT EXISTS (SELECT 1 FROM"
                " package_files f JOIN entries e ON e.package = f.package WHERE f.path = pool_files.path"
                " AND e.suite != ?)",
                (stamp, suite, suite),
            )
            for table in ("entries", "block_runs", "kept_indexes"):
                db.execute(f"DELETE FROM {table} WHERE suite = ?", (suite,))  # noqa: S608  # own words

    def dropped(self, suite: str) -> None:
        """Nothing of it is left on the disk either."""
        with self._journal.writing() as db:
            db.execute("DELETE FROM service WHERE key = ?", (f"{_DROP}{suite}",))


def published_suites(path: Path) -> set[str] | None:
    """The suites that a journal of any form has published and that are not to end; None if it cannot be read."""
    if not path.exists():
        return set()
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as db:
            return _published(db) - _dropping(db)
    except sqlite3.Error:
        return None


def _published(db: sqlite3.Connection) -> set[str]:
    found: set[str] = set()
    suite = ""
    while (row := db.execute(_NEXT, (suite,)).fetchone())[0] is not None:
        suite = str(row[0])
        if db.execute(_NEWEST, (suite,)).fetchone()[0]:
            found.add(suite)
    return found


def _dropping(db: sqlite3.Connection) -> set[str]:
    rows = db.execute("SELECT key FROM service WHERE key GLOB ?", (f"{_DROP}*",)).fetchall()
    return {str(row[0]).removeprefix(_DROP) for row in rows}
