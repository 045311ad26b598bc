"""Which ended uploads are so old that their status files are removed, in the order of their ends and some at a time.

How far that has come is kept: each upload is named once, and no step looks at those before it.
"""

from dataclasses import dataclass
from datetime import datetime

from incomingd import codec
from incomingd.journal import Journal

_REACHED = "status-files-removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expired:
    """An upload that ended long ago; ``newest``: ``NAME.json`` tells of it."""

    id: int
    name: str
    finished_at: datetime
    newest: bool


class Expiry:
    """The ended uploads of one journal, as far as their status files are concerned."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def next(self, before: datetime, limit: int) -> list[Expired]:
        """The next that ended before that."""
        at, number = self._reached()
        with self._journal.reading() as db:
            rows = db.execute(
                "SELECT id, name, finished_at,"
                " id = (SELECT max(id) FROM uploads n WHERE n.name = u.name AND n.nameless = 0) AS newest"
                " FROM uploads u WHERE finished_at IS NOT NULL AND finished_at < ? AND (finished_at, id) > (?, ?)"
                " ORDER BY finished_at, id LIMIT ?",
                (codec.timestamp(before), at, number, limit),
            ).fetchall()
        return [
            Expired(
                id=row["id"],
                name=row["name"],
                finished_at=datetime.fromisoformat(row["finished_at"]),
                newest=bool(row["newest"]),
            )
            for row in rows
        ]

    def done(self, last: Expired) -> None:
        """The files of this one, and of all before it, are removed. After a power cut it may be done again."""
        value = f"{codec.timestamp(last.finished_at)} {last.id}"
        with self._journal.writing(durable=False) as db:
            db.execute("INSERT OR REPLACE INTO service (key, value) VALUES (?, ?)", (_REACHED, value))

    def reached(self) -> datetime | None:
        """When the last one ended whose files are removed; None if there is none."""
        at, _ = self._reached()
        return datetime.fromisoformat(at) if at else None

    def _reached(self) -> tuple[str, int]:
        with self._journal.reading() as db:
            row = db.execute("SELECT value FROM service WHERE key = ?", (_REACHED,)).fetchone()
        if row is None:
            return "", 0
        at, _, number = row["value"].partition(" ")
        return at, int(number)
