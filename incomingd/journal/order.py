"""The order of publishing: who is at its head, and who is passed over.

Rules:

* Uploads are published in the order of their sequence numbers. One that is delayed, or stands aside, is in nobody's
  way, whatever stage it is in.
* One that stands aside for a fault of the machine, and was authorised, *holds* its source packages: later uploads of
  these wait, and what is later than those, of the same sources. No others do.
* When it returns it gets the next number. Uploads that waited behind it get theirs after it, so that each source's
  uploads are published in the order in which they were claimed.
"""

import contextlib
import json
import sqlite3
from collections.abc import Iterable

from incomingd import codec
from incomingd.model import ChangesSummary, UploadKind
from incomingd.states import Stage

#: Gives an upload the next sequence number.
NEXT_IN_SEQUENCE = "sequence = (SELECT coalesce(max(sequence), 0) + 1 FROM uploads)"
#: Those that the order is made of.
IN_LINE = "finished_at IS NULL AND sequence IS NOT NULL AND NOT delayed AND aside IS NULL"


class _Held:
    """Source packages, each with the number from which on its uploads wait."""

    def __init__(self, rows: Iterable[sqlite3.Row]) -> None:
        self._since: dict[str, int] = {}
        for row in rows:
            self._note(json.loads(row["holds"]), row["stood_at"])

    def __bool__(self) -> bool:
        return bool(self._since)

    def _note(self, sources: Iterable[str], since: int) -> None:
        for source in sources:
            self._since[source] = min(since, self._since.get(source, since))

    def holds(self, row: sqlite3.Row) -> bool:
        """True if this upload has to wait; then later ones of its sources wait behind it too."""
        sources = _sources(row)
        if not any(self._since.get(source, row["sequence"]) < row["sequence"] for source in sources):
            return False
        self._note(sources, row["sequence"])
        return True


def _sources(row: sqlite3.Row) -> set[str]:
    return {one.source for one in codec.loads(row["changes"], tuple[ChangesSummary, ...])}


def head(db: sqlite3.Connection, limit: int) -> list[sqlite3.Row]:
    """The run of ``queued`` uploads at the head: none before them is still being checked. Those that wait behind one
    that stands aside are passed over, and commands: who came after them is not meant.

    An operator's request makes a run of its own: it is decided on the archive as committed.
    """
    held = _Held(
        db.execute(
            "SELECT holds, stood_at FROM uploads WHERE stood_at IS NOT NULL AND finished_at IS NULL"
            " AND aside IS NOT NULL AND holds <> ''"
        )
    )
    run: list[sqlite3.Row] = []
    with contextlib.closing(
        db.execute(
            f"SELECT * FROM uploads WHERE {IN_LINE} AND kind != ? ORDER BY sequence",  # noqa: S608  # own words
            (UploadKind.COMMANDS,),
        )
    ) as rows:
        for row in rows:
            if held and row["stage"] == Stage.QUEUED and held.holds(row):
                continue
            if row["stage"] != Stage.QUEUED or (run and row["kind"] == UploadKind.OPERATION):
                break
            run.append(row)
            if row["kind"] == UploadKind.OPERATION or len(run) == limit:
                break
    return run


def put_into_line(db: sqlite3.Connection, upload_id: int, sources: Iterable[str]) -> None:
    """An upload of these sources is ``queued`` now: give it its place, and those that waited behind it theirs."""
    own = db.execute("SELECT aside, holds, sequence, stood_at FROM uploads WHERE id = ?", (upload_id,)).fetchone()
    if own["aside"] is None:
        if _was_overtaken(db, own["sequence"], set(sources)):
            _renumber(db, upload_id)
        return
    _renumber(db, upload_id, "aside = NULL, aside_since = NULL")
    if own["holds"]:
        for number in _waited_behind(db, upload_id, own["stood_at"], set(json.loads(own["holds"]))):
            _renumber(db, number)


def _waited_behind(db: sqlite3.Connection, upload_id: int, since: int, sources: set[str]) -> list[int]:
    rows = db.execute(
        f"SELECT id, changes FROM uploads WHERE {IN_LINE} AND sequence > ? AND id <> ? AND stage = ?"  # noqa: S608  # own words
        " AND kind NOT IN (?, ?) ORDER BY sequence",
        (since, upload_id, Stage.QUEUED, UploadKind.COMMANDS, UploadKind.OPERATION),
    ).fetchall()
    found = []
    for row in rows:
        if not sources.isdisjoint(_sources(row)):
            sources |= _sources(row)
            found.append(row["id"])
    return found


def _was_overtaken(db: sqlite3.Connection, sequence: int, sources: set[str]) -> bool:
    """True if an upload that was claimed before this one, and held one of its sources, has returned after it."""
    rows = db.execute(
        "SELECT holds FROM uploads WHERE stood_at < ? AND finished_at IS NULL AND aside IS NULL AND sequence > ?"
        " AND holds <> ''",
        (sequence, sequence),
    ).fetchall()
    return any(not sources.isdisjoint(json.loads(row["holds"])) for row in rows)


def _renumber(db: sqlite3.Connection, upload_id: int, also: str = "") -> None:
    sets = ", ".join(filter(None, (NEXT_IN_SEQUENCE, also)))
    db.execute(f"UPDATE uploads SET {sets} WHERE id = ?", (upload_id,))  # noqa: S608  # own words
