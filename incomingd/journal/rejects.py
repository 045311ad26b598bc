"""What is kept of failed uploads: how many bytes of each, so that no one has to walk through the folders to know."""

from collections.abc import Iterable
from datetime import datetime

from incomingd import codec
from incomingd.journal import Journal


class Rejects:
    """The sizes in one journal. What a power cut takes back is measured again at the next start."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def note(self, upload_id: int, size: int) -> None:
        """So many bytes are kept of this upload."""
        with self._journal.writing(durable=False) as db:
            db.execute("UPDATE uploads SET kept = ? WHERE id = ? AND finished_at IS NOT NULL", (size, upload_id))

    def forget(self, upload_ids: Iterable[int]) -> None:
        """Nothing is kept of these any more."""
        with self._journal.writing(durable=False) as db:
            db.executemany("UPDATE uploads SET kept = NULL WHERE id = ?", [(number,) for number in upload_ids])

    def ids(self) -> set[int]:
        """The uploads of which something is kept."""
        with self._journal.reading() as db:
            return {row["id"] for row in db.execute("SELECT id FROM uploads WHERE kept IS NOT NULL")}

    def total(self) -> int:
        """The bytes that are kept of all together."""
        with self._journal.reading() as db:
            return int(db.execute("SELECT coalesce(sum(kept), 0) FROM uploads WHERE kept IS NOT NULL").fetchone()[0])

    def ended_before(self, at: datetime, limit: int) -> list[int]:
        """Uploads that ended before, the oldest first."""
        with self._journal.reading() as db:
            rows = db.execute(
                "SELECT id FROM uploads WHERE kept IS NOT NULL AND finished_at < ? ORDER BY finished_at LIMIT ?",
                (codec.timestamp(at), limit),
            ).fetchall()
        return [row["id"] for row in rows]

    def oldest_of_the_largest(self) -> int | None:
        """The oldest upload of the account of which most is kept."""
        with self._journal.reading() as db:
            row = db.execute(
                "SELECT id FROM uploads WHERE kept IS NOT NULL AND uid IS"
                " (SELECT uid FROM uploads WHERE kept IS NOT NULL GROUP BY uid ORDER BY sum(kept) DESC, uid LIMIT 1)"
                " ORDER BY finished_at, id LIMIT 1"
            ).fetchone()
        return None if row is None else int(row["id"])
