"""The uploads and their stages.

Rules: a stage moves by compare-and-set along :data:`incomingd.states.MOVES`, and a move that is refused raises
:class:`StaleMoveError` (a bug, or two daemons on one journal). The sequence number is given at the claim and never
changes, but for delayed uploads (:mod:`.delays`) and those that stood aside (:mod:`.order`). Every method is a
transaction of its own, or part of the one that is open.
"""

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

from incomingd import codec
from incomingd.journal import Journal, order
from incomingd.journal.expiry import Expiry
from incomingd.journal.names import NameRight, right_of, right_of_request
from incomingd.journal.order import IN_LINE, NEXT_IN_SEQUENCE
from incomingd.model import (
    Cause,
    ChangesSummary,
    CheckedChanges,
    CheckReport,
    LogLine,
    Operation,
    Owner,
    Problem,
    Published,
    Upload,
    UploadKind,
)
from incomingd.states import MOVES, Stage, may_move

_T = TypeVar("_T")
_OPEN = ", ".join(f"'{stage}'" for stage in Stage if MOVES[stage])
_PASSED_OVER = "(delayed OR aside IS NOT NULL)"
_IN_ORDER = f"ORDER BY {_PASSED_OVER}, CASE WHEN delayed THEN due_at END, sequence IS NULL, sequence, id"
#: Stages that recovery brings an upload to again where a power cut has taken the move back.
_MADE_AGAIN = (Stage.CHECKING, Stage.QUEUED)


class StaleMoveError(RuntimeError):
    """The upload was not in the stage that the mover took it to be in, or the table does not allow the move."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One upload on its way: in the line, or ``passed_over``, since it is delayed or stands aside."""

    id: int
    stage: Stage
    passed_over: bool


@dataclass(frozen=True, slots=True)
class InFlight:
    """How much one account has taken and not ended: uploads, and the bytes that they had at their claims."""

    uploads: int
    bytes: int


class Uploads:
    """The uploads of one journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    @property
    def expiry(self) -> Expiry:
        """Which of them are so old that their status files are removed."""
        return Expiry(self._journal)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Make all that is done inside one transaction: many uploads, one wait for the disk."""
        with self._journal.writing():
            yield

    def see(
        self,
        name: str,
        queue: str,
        kind: UploadKind,
        at: datetime,
        message: str,
        *,
        delay: int | None = None,
        owner: Owner | None = None,
    ) -> Upload:
        """A new upload, ``receiving``, with a new id; ``delay`` are the days of the folder that it was sent to."""
        uid, account = (owner.uid, owner.account) if owner else (None, None)
        with self._journal.writing() as db:
            right = right_of(db, name, owner, at) if owner else NameRight(holder=None)
            cursor = db.execute(
                "INSERT INTO uploads (name, queue, kind, stage, seen_at, delay, uid, account, holder, nameless)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(name, queue, kind, Stage.RECEIVING, codec.timestamp(at), delay),
                    *(uid, account, right.holder, right.nameless),
                ),
            )
            upload_id = int(cursor.lastrowid or 0)
            self.log(upload_id, at, message)
            return self.get(upload_id)

    def see_again(self, upload_id: int, name: str, queue: str, seen_at: datetime, owner: Owner | None) -> Upload:
        """An upload that the journal had forgotten, ``receiving``, under the id that it had."""
        uid, account = (owner.uid, owner.account) if owner else (None, None)
        with self._journal.writing() as db:
            db.execute(
                "INSERT INTO uploads (id, name, queue, kind, stage, seen_at, uid, account, holder)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(upload_id, name, queue, UploadKind.DIRECTORY, Stage.RECEIVING),
                    *(codec.timestamp(seen_at), uid, account, uid),
                ),
            )
            return self.get(upload_id)

    def ask(self, name: str, operation: Operation, at: datetime, message: str) -> Upload:
        """An operator's request: ``queued`` at once, with the next sequence number."""
        with self._journal.writing() as db:
            right = right_of_request(db, name, at)
            cursor = db.execute(
                "INSERT INTO uploads (name, queue, kind, stage, seen_at, claimed_at, started_at, operation, holder,"
                " nameless, sequence)"
                " VALUES (?, '', ?, ?, ?, ?, ?, ?, ?, ?, (SELECT coalesce(max(sequence), 0) + 1 FROM uploads))",
                (
                    *(name, UploadKind.OPERATION, Stage.QUEUED, *[codec.timestamp(at)] * 3),
                    *(codec.dumps(operation), right.holder, right.nameless),
                ),
            )
            upload_id = int(cursor.lastrowid or 0)
            self.log(upload_id, at, message)
            return self.get(upload_id)

    def operation(self, upload_id: int) -> Operation:
        """What the operator asked for."""
        with self._journal.reading() as db:
            row = db.execute("SELECT operation FROM uploads WHERE id = ?", (upload_id,)).fetchone()
        return codec.loads(row["operation"], Operation)

    def claim(
        self,
        upload: Upload,
        at: datetime,
        members: Sequence[str] | None,
        message: str,
        *,
        due_at: datetime | None = None,
        owner: Owner | None = None,
        size: int = 0,
    ) -> Upload:
        """``receiving`` to ``claimed``: gives the sequence number. ``members`` are a flat upload's files.

        ``size`` is that of its files, in bytes. With ``due_at`` it delays no other upload until then. ``owner`` is who
        owned it at that moment, if that is not whom the journal has.
        """
        listed = None if members is None else json.dumps(list(members))
        due = None if due_at is None else codec.timestamp(due_at)
        with self._journal.writing() as db:
            self._move(db, upload, Stage.CLAIMED)
            db.execute(
                "UPDATE uploads SET claimed_at = ?, members = ?, due_at = ?, delayed = ?, bytes = ?,"  # noqa: S608  # own words
                f" {NEXT_IN_SEQUENCE} WHERE id = ?",
                (codec.timestamp(at), listed, due, due_at is not None and due_at > at, size, upload.id),
            )
            if owner is not None and (owner.uid, owner.account) != (upload.uid, upload.account):
                db.execute(
                    "UPDATE uploads SET uid = ?, account = ? WHERE id = ?", (owner.uid, owner.account, upload.id)
                )
            self.log(upload.id, at, message)
            return self.get(upload.id)

    def unclaim(self, upload: Upload, at: datetime, message: str) -> Upload:
        """``claimed`` back to ``receiving``: takes the sequence number back, since nothing of it was moved."""
        with self._journal.writing() as db:
            self._move(db, upload, Stage.RECEIVING)
            db.execute(
                "UPDATE uploads SET claimed_at = NULL, members = NULL, due_at = NULL, delayed = 0, bytes = 0,"
                " sequence = NULL WHERE id = ?",
                (upload.id,),
            )
            self.log(upload.id, at, message)
            return self.get(upload.id)

    def move(self, upload: Upload, target: Stage, at: datetime, message: str | None = None) -> Upload:
        """Any other move. To an ended stage it sets ``finished_at``; to ``checking`` ``started_at``.

        What it returns has the log that ``upload`` has, with the new line, and no word of a new delay.
        """
        with self._journal.writing(durable=target not in _MADE_AGAIN) as db:
            return self._moved(db, upload, target, at, message, {})

    def queue(self, upload: Upload, report: CheckReport, at: datetime, message: str) -> Upload:
        """``checking`` to ``queued``, with what the checks found. Returns as :meth:`move`."""
        found = {"changes": report.summaries, "warnings": report.warnings}
        with self._journal.writing(durable=False) as db:
            queued = self._moved(db, upload, Stage.QUEUED, at, message, found, facts=codec.dumps(report.changes))
            order.put_into_line(db, upload.id, (one.source for one in report.summaries))
            return queued

    def stand_aside(
        self, upload: Upload, cause: Cause, at: datetime, message: str | None, *, holds: Iterable[str] = ()
    ) -> Upload:
        """``checking`` back to ``claimed``, and out of the line until it is queued. ``holds`` are the source packages
        whose later uploads wait. What a power cut takes back is found again by the next try."""
        same = upload.aside is cause
        since = upload.aside_since if same and upload.aside_since else at
        holds = sorted(set(holds))
        with self._journal.writing(durable=False) as db:
            moved = self._moved(db, upload, Stage.CLAIMED, at, message, {})
            db.execute(
                "UPDATE uploads SET aside = ?, aside_since = ?, tries = ?, holds = ?,"
                " stood_at = coalesce(stood_at, sequence) WHERE id = ?",
                (
                    *(cause, codec.timestamp(since), upload.tries + 1 if same else 1),
                    *(json.dumps(holds) if holds else "", upload.id),
                ),
            )
            return replace(moved, aside=cause, aside_since=since, tries=upload.tries + 1 if same else 1)

    def reject(
        self,
        upload: Upload,
        problems: Iterable[Problem],
        at: datetime,
        message: str,
        *,
        report: CheckReport | None = None,
        target: Stage = Stage.REJECTED,
    ) -> Upload:
        """To an ended stage that failed, with every problem. Returns as :meth:`move`."""
        found: dict[str, Any] = {"problems": tuple(problems)}
        if report is not None:
            found |= {"changes": report.summaries, "warnings": report.warnings}
        with self._journal.writing() as db:
            return self._moved(db, upload, target, at, message, found)

    def publish(
        self,
        upload: Upload,
        published: Published,
        at: datetime,
        message: str,
        *,
        already_published: bool,
        superseded_by: str | None = None,
        warnings: Sequence[Problem] = (),
    ) -> Upload:
        """``publishing`` to ``published``, with ``warnings`` besides those of the checks. Returns as :meth:`move`."""
        found: dict[str, Any] = {"published": published, "already_published": already_published}
        if superseded_by is not None:
            found["superseded_by"] = superseded_by
        if warnings:
            found["warnings"] = (*upload.warnings, *warnings)
        with self._journal.writing() as db:
            return self._moved(db, upload, Stage.PUBLISHED, at, message, found)

    def log(self, upload_id: int, at: datetime, message: str) -> None:
        """One more line in an upload's log."""
        with self._journal.writing() as db:
            db.execute(
                "INSERT INTO log (upload, at, message) VALUES (?, ?, ?)", (upload_id, codec.timestamp(at), message)
            )

    def get(self, upload_id: int) -> Upload:
        """One upload with its log. Raises ``KeyError``."""
        with self._journal.reading() as db:
            row = db.execute("SELECT * FROM uploads WHERE id = ?", (upload_id,)).fetchone()
            if row is None:
                raise KeyError(upload_id)
            lines = db.execute("SELECT at, message FROM log WHERE upload = ? ORDER BY rowid", (upload_id,)).fetchall()
        return _upload(row, lines)

    def newest(self, name: str) -> Upload | None:
        """The upload that was seen last under that name and is not nameless."""
        with self._journal.reading() as db:
            row = db.execute(
                "SELECT id FROM uploads WHERE name = ? AND nameless = 0 ORDER BY id DESC LIMIT 1", (name,)
            ).fetchone()
        return self.get(row["id"]) if row else None

    def many(self, upload_ids: Iterable[int]) -> list[Upload]:
        """Several uploads with their logs, in the order of their ids; those that are not there are left out."""
        wanted = (json.dumps(list(upload_ids)),)
        with self._journal.reading() as db:
            rows = db.execute(
                "SELECT * FROM uploads WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id", wanted
            ).fetchall()
            lines: dict[int, list[sqlite3.Row]] = {row["id"]: [] for row in rows}
            for line in db.execute(
                "SELECT upload, at, message FROM log WHERE upload IN (SELECT value FROM json_each(?)) ORDER BY rowid",
                wanted,
            ):
                lines.get(line["upload"], []).append(line)
        return [_upload(row, lines[row["id"]]) for row in rows]

    def newest_ids(self, names: Iterable[str]) -> dict[str, int]:
        """By name, the id of the upload that was seen last under it and is not nameless."""
        with self._journal.reading() as db:
            rows = db.execute(
                "SELECT value AS name,"
                " (SELECT max(id) FROM uploads WHERE name = value AND nameless = 0) AS id FROM json_each(?)",
                (json.dumps(list(names)),),
            ).fetchall()
        return {row["name"]: row["id"] for row in rows}

    def line(self) -> list[Standing]:
        """Every upload that has not ended, in the order of :meth:`open`."""
        with self._journal.reading() as db:
            rows = db.execute(
                f"SELECT id, stage, {_PASSED_OVER} AS passed_over FROM uploads"  # noqa: S608  # own words
                f" WHERE finished_at IS NULL {_IN_ORDER}"
            ).fetchall()
        return [Standing(row["id"], Stage(row["stage"]), bool(row["passed_over"])) for row in rows]

    def waiting(self) -> tuple[int, int]:
        """How many uploads have not ended: those on their way, and those delayed."""
        with self._journal.reading() as db:
            row = db.execute(
                "SELECT count(*) AS every, count(*) FILTER (WHERE delayed) AS delayed FROM uploads"
                " WHERE finished_at IS NULL"
            ).fetchone()
        return row["every"] - row["delayed"], row["delayed"]

    def in_flight(self) -> dict[int, InFlight]:
        """What each account has on its way, by user id; read from an index that has nothing else."""
        with self._journal.reading() as db:
            rows = db.execute(
                "SELECT uid, count(*) AS uploads, sum(bytes) AS bytes FROM uploads"
                " WHERE finished_at IS NULL AND sequence IS NOT NULL AND uid IS NOT NULL GROUP BY uid"
            ).fetchall()
        return {row["uid"]: InFlight(row["uploads"], row["bytes"]) for row in rows}

    def is_busy(self) -> bool:
        """True if an upload was taken that has not ended, is not delayed and does not stand aside."""
        with self._journal.reading() as db:
            row = db.execute(f"SELECT 1 FROM uploads WHERE {IN_LINE} LIMIT 1").fetchone()  # noqa: S608  # own words
        return row is not None

    def more_come(self) -> bool:
        """True if an upload is claimed or being checked: more is to be published in a moment. One that is delayed, or
        stands aside, does not count."""
        with self._journal.reading() as db:
            row = db.execute(
                f"SELECT 1 FROM uploads WHERE {IN_LINE} AND stage IN (?, ?) LIMIT 1",  # noqa: S608  # own words
                (Stage.CLAIMED, Stage.CHECKING),
            ).fetchone()
        return row is not None

    def last_id(self) -> int:
        """The highest id that was given; 0 for none."""
        with self._journal.reading() as db:
            row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'uploads'").fetchone()
        return int(row["seq"]) if row else 0

    def pass_over_ids(self, last: int) -> None:
        """Give no id up to ``last`` from now on."""
        with self._journal.writing() as db:
            if db.execute("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'uploads'", (last,)).rowcount == 0:
                db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('uploads', ?)", (last,))

    def last_ended(self, limit: int) -> list[int]:
        """The ids of the uploads that ended last, the newest first."""
        with self._journal.reading() as db:
            rows = db.execute(
                "SELECT id FROM uploads WHERE finished_at IS NOT NULL ORDER BY finished_at DESC, id DESC LIMIT ?",
                (limit,),
            ).fetchall()
        return [row["id"] for row in rows]

    def open(self) -> list[Upload]:
        """Every upload that has not ended, without logs: those with a sequence number in its order, then those that
        have not been taken, then the delayed ones as they become due."""
        with self._journal.reading() as db:
            rows = db.execute(
                f"SELECT * FROM uploads WHERE finished_at IS NULL AND stage IN ({_OPEN}) {_IN_ORDER}"  # noqa: S608  # own words
            ).fetchall()
        return [_upload(row, ()) for row in rows]

    def head(self, limit: int) -> list[Upload]:
        """The run of uploads that are to be published next (:func:`.order.head`)."""
        with self._journal.reading() as db:
            return [_upload(row, ()) for row in order.head(db, limit)]

    def facts(self, upload_id: int) -> tuple[CheckedChanges, ...]:
        """What the checks made of a queued upload. Raises :class:`StaleMoveError` where it no longer is."""
        with self._journal.reading() as db:
            row = db.execute("SELECT facts FROM uploads WHERE id = ?", (upload_id,)).fetchone()
        if row["facts"] is None:
            raise StaleMoveError(f"upload {upload_id} is no longer queued")
        return codec.loads(row["facts"], tuple[CheckedChanges, ...])

    def members(self, upload_id: int) -> tuple[str, ...] | None:
        """A flat upload's own files as they were claimed, the .changes first; None for a directory."""
        with self._journal.reading() as db:
            row = db.execute("SELECT members FROM uploads WHERE id = ?", (upload_id,)).fetchone()
        return None if row["members"] is None else tuple(json.loads(row["members"]))

    def ended(self, limit: int) -> list[Upload]:
        """The uploads that ended last, the newest first."""
        last = self.last_ended(limit)
        found = {upload.id: upload for upload in self.many(last)}
        return [found[number] for number in last]

    def _moved(
        self,
        db: sqlite3.Connection,
        upload: Upload,
        target: Stage,
        at: datetime,
        message: str | None,
        found: Mapping[str, Any],
        **columns: object,
    ) -> Upload:
        """``found`` are fields of the upload that are set with the move; ``columns`` what the journal alone has.

        It is not read again: each of its four moves would cost three times as much.
        """
        now = codec.timestamp(at)
        moment = datetime.fromisoformat(now)
        name = "started_at" if target is Stage.CHECKING else "finished_at" if target.ended else ""
        set_at: dict[str, Any] = {name: moment} if name else {}
        if target.ended or target is Stage.CLAIMED:
            columns["facts"] = None
        columns |= {key: value if isinstance(value, bool) else codec.dumps(value) for key, value in found.items()}
        self._move(db, upload, target, **columns, **dict.fromkeys(set_at, now))
        log = upload.log
        if message is not None:
            self.log(upload.id, at, message)
            log = (*log, LogLine(at=moment, message=message))
        return replace(upload, stage=target, log=log, **found, **set_at)

    def _move(self, db: sqlite3.Connection, upload: Upload, target: Stage, **columns: object) -> None:
        """Set the stage, and other columns with it, where it is the one that the mover took it to be in."""
        if not may_move(upload.stage, target):
            raise StaleMoveError(f"{upload}: {upload.stage} to {target} is not an allowed move")
        sets = ", ".join(f"{name} = ?" for name in ("stage", *columns))
        cursor = db.execute(
            f"UPDATE uploads SET {sets} WHERE id = ? AND stage = ?",  # noqa: S608  # own words
            (target, *columns.values(), upload.id, upload.stage),
        )
        if cursor.rowcount != 1:
            raise StaleMoveError(f"{upload}: is no longer {upload.stage} and cannot go to {target}")


def _upload(row: sqlite3.Row, lines: Iterable[Any]) -> Upload:
    return Upload(
        id=row["id"],
        name=row["name"],
        queue=row["queue"],
        kind=UploadKind(row["kind"]),
        stage=Stage(row["stage"]),
        sequence=row["sequence"],
        seen_at=datetime.fromisoformat(row["seen_at"]),
        claimed_at=_time(row["claimed_at"]),
        started_at=_time(row["started_at"]),
        finished_at=_time(row["finished_at"]),
        delay=row["delay"],
        due_at=_time(row["due_at"]),
        delayed=bool(row["delayed"]),
        uid=row["uid"],
        account=row["account"],
        nameless=bool(row["nameless"]),
        aside=Cause(row["aside"]) if row["aside"] else None,
        aside_since=_time(row["aside_since"]),
        tries=row["tries"],
        changes=_values(row["changes"], tuple[ChangesSummary, ...]),
        published=codec.loads(row["published"], Published) if row["published"] else None,
        already_published=bool(row["already_published"]),
        superseded_by=codec.loads(row["superseded_by"], str) if row["superseded_by"] else None,
        warnings=_values(row["warnings"], tuple[Problem, ...]),
        problems=_values(row["problems"], tuple[Problem, ...]),
        log=tuple(LogLine(at=datetime.fromisoformat(line["at"]), message=line["message"]) for line in lines),
    )


def _values(text: str, kind: type[tuple[_T, ...]]) -> tuple[_T, ...]:
    return () if text == "[]" else codec.loads(text, kind)


def _time(value: str | None) -> datetime | None:
    return datetime.fromisoformat(value) if value else None
