"""What an operator has asked for and the daemon has to attend to: publishing on hold, and uploads that were cancelled.

Any process that may write the journal asks; the daemon reads. A request is a row, so it outlives a restart and needs
no answer: a signal only makes the daemon look sooner.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from incomingd import codec
from incomingd.journal import Journal

_HOLD = "hold"
_CANCELLED = "cancelled/"
_OBEYED = "obeyed/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Since when, and why, nothing is published; ``reason`` may be empty."""

    at: datetime
    reason: str = ""

    def __str__(self) -> str:
        why = f": {self.reason}" if self.reason else ""
        return f"publishing is on hold since {codec.timestamp(self.at)}{why}; incomingctl release ends it"


class Control:
    """The requests in one journal. Every method is a transaction of its own, or part of the one that is open."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def hold(self, hold: Hold) -> None:
        """Publish nothing from the next publish on; another hold before is replaced."""
        self._set(_HOLD, codec.dumps(hold))

    def release(self) -> bool:
        """Publish again; False where publishing was not on hold."""
        with self._journal.writing() as db:
            return db.execute("DELETE FROM service WHERE key = ?", (_HOLD,)).rowcount > 0

    def held(self) -> Hold | None:
        """The hold that is on."""
        with self._journal.reading() as db:
            row = db.execute("SELECT value FROM service WHERE key = ?", (_HOLD,)).fetchone()
        return codec.loads(row["value"], Hold) if row else None

    def note_cancelled(self, upload_id: int) -> None:
        """This upload was cancelled: it is to be told, and what it brought is to be put aside."""
        self._set(f"{_CANCELLED}{upload_id}", "")

    def cancelled(self) -> list[int]:
        """The cancelled uploads that nobody has attended to yet."""
        with self._journal.reading() as db:
            rows = db.execute("SELECT key FROM service WHERE key GLOB ?", (f"{_CANCELLED}*",)).fetchall()
        return sorted(int(row["key"].removeprefix(_CANCELLED)) for row in rows)

    def forget_cancelled(self, upload_ids: Iterable[int]) -> None:
        """They have been attended to."""
        keys = [(f"{_CANCELLED}{number}",) for number in upload_ids]
        if keys:
            with self._journal.writing() as db:
                db.executemany("DELETE FROM service WHERE key = ?", keys)

    def note_commands(self, digest: str, at: datetime, forget_before: datetime) -> bool:
        """These commands were taken; False where they were before. Those of before ``forget_before`` are forgotten:
        their signatures are too old to be believed."""
        with self._journal.writing() as db:
            known = db.execute("SELECT 1 FROM service WHERE key = ?", (f"{_OBEYED}{digest}",)).fetchone()
            if known is None:
                db.execute(
                    "DELETE FROM service WHERE key GLOB ? AND value < ?",
                    (f"{_OBEYED}*", codec.timestamp(forget_before)),
                )
                self._set(f"{_OBEYED}{digest}", codec.timestamp(at))
            return known is None

    def _set(self, key: str, value: str) -> None:
        with self._journal.writing() as db:
            db.execute("INSERT OR REPLACE INTO service (key, value) VALUES (?, ?)", (key, value))
