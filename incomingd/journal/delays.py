"""Uploads that wait for a day: which are due, and when the next one is.

Rules:

* A delayed upload is in nobody's way, whatever stage it is in. When it is due it gets the next sequence number: it is
  published after all that were taken or due before, and before all that come later.
* One that was checked goes back to ``claimed`` then. Days have passed: its key may have been taken away, and the
  configuration changed.
* Time is the wall clock's, as the journal's other times are. Whoever asks does so again and again: a clock that was set
  makes an upload due sooner or later, never twice.
"""

from datetime import datetime

from incomingd import codec
from incomingd.journal import Journal
from incomingd.journal.order import NEXT_IN_SEQUENCE
from incomingd.journal.uploads import Uploads
from incomingd.model import Upload
from incomingd.states import Stage

_WAITING = "delayed = 1 AND finished_at IS NULL"


class Delays:
    """The delayed uploads of one journal. Every method is a transaction of its own, or part of the one that is open."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._uploads = Uploads(journal)

    def next_at(self) -> datetime | None:
        """When the next one is due; None where none is delayed."""
        with self._journal.reading() as db:
            row = db.execute(f"SELECT min(due_at) AS at FROM uploads WHERE {_WAITING}").fetchone()  # noqa: S608  # own words
        return None if row["at"] is None else datetime.fromisoformat(row["at"])

    def come_due(self, at: datetime) -> list[Upload]:
        """Give those that are due their place in the line; returns those that are to be checked once more. The others
        are being checked."""
        with self._journal.writing() as db:
            rows = db.execute(
                f"SELECT id FROM uploads WHERE {_WAITING} AND due_at <= ? ORDER BY due_at, sequence",  # noqa: S608  # own words
                (codec.timestamp(at),),
            ).fetchall()
            due = [self._into_the_line(row["id"], at) for row in rows]
        return [upload for upload, again in due if again]

    def reschedule(self, upload: Upload, due_at: datetime, at: datetime, message: str) -> Upload:
        """Another day for a delayed upload, ``at`` the earliest: then it is due with the next look."""
        with self._journal.writing() as db:
            db.execute("UPDATE uploads SET due_at = ? WHERE id = ?", (codec.timestamp(due_at), upload.id))
            self._uploads.log(upload.id, at, message)
            return self._uploads.get(upload.id)

    def _into_the_line(self, upload_id: int, at: datetime) -> tuple[Upload, bool]:
        with self._journal.writing() as db:
            db.execute(
                f"UPDATE uploads SET delayed = 0, {NEXT_IN_SEQUENCE}, stood_at = NULL WHERE id = ?",  # noqa: S608  # own words
                (upload_id,),
            )
            db.execute("UPDATE uploads SET stood_at = sequence WHERE id = ? AND aside IS NOT NULL", (upload_id,))
            upload = self._uploads.get(upload_id)
            if upload.stage is Stage.QUEUED:
                return self._uploads.move(upload, Stage.CLAIMED, at, "it is due, and checked once more"), True
            self._uploads.log(upload_id, at, "it is due")
            return upload, False
