"""Delayed uploads are in nobody's way, and get their place in the line when they are due."""

from datetime import UTC, datetime, timedelta

from incomingd.journal.delays import Delays
from incomingd.journal.uploads import Uploads
from incomingd.model import CheckReport, Upload, UploadKind
from incomingd.states import Stage

T0 = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
DAY = timedelta(days=1)
NOTHING = CheckReport(summaries=(), changes=(), problems=(), warnings=())


def claimed(uploads: Uploads, name: str, days: int | None = None) -> Upload:
    upload = uploads.see(name, "default", UploadKind.FLAT, T0, "seen", delay=days)
    due_at = None if days is None else T0 + days * DAY
    return uploads.claim(upload, T0, [f"{name}.changes"], "claimed", due_at=due_at)


def queued(uploads: Uploads, name: str, days: int | None = None) -> Upload:
    upload = uploads.move(claimed(uploads, name, days), Stage.CHECKING, T0)
    return uploads.queue(upload, NOTHING, T0, "checked")


def head(uploads: Uploads) -> list[str]:
    return [upload.name for upload in uploads.head(10)]


def test_nobody_waits_for_one_whatever_stage_it_is_in(uploads: Uploads) -> None:
    queued(uploads, "late", 3)
    claimed(uploads, "unchecked", 3)
    queued(uploads, "first")
    uploads.move(claimed(uploads, "checking", 3), Stage.CHECKING, T0)
    queued(uploads, "second")
    assert head(uploads) == ["first", "second"]
    assert [upload.name for upload in uploads.open()] == ["first", "second", "late", "unchecked", "checking"]
    assert [one.passed_over for one in uploads.line()] == [False, False, True, True, True]


def test_the_order_is_that_of_becoming_due(uploads: Uploads, delays: Delays) -> None:
    for name, days in (("three", 3), ("one", 1), ("two", 2), ("eight", 8)):
        queued(uploads, name, days)
    queued(uploads, "now")
    assert delays.next_at() == T0 + DAY
    again = delays.come_due(T0 + 3 * DAY)
    assert [upload.name for upload in again] == ["one", "two", "three"]
    assert {upload.stage for upload in again} == {Stage.CLAIMED}
    queued(uploads, "later")
    for upload in again:
        uploads.queue(uploads.move(upload, Stage.CHECKING, T0), NOTHING, T0, "checked again")
    assert head(uploads) == ["now", "one", "two", "three", "later"]
    assert delays.come_due(T0 + 3 * DAY) == []
    assert delays.next_at() == T0 + 8 * DAY


def test_one_that_is_being_checked_keeps_its_stage(uploads: Uploads, delays: Delays) -> None:
    upload = uploads.move(claimed(uploads, "slow", 1), Stage.CHECKING, T0)
    later = queued(uploads, "later")
    assert delays.come_due(T0 + DAY) == []
    upload = uploads.get(uploads.queue(upload, NOTHING, T0, "checked").id)
    assert (upload.delayed, upload.due_at) == (False, T0 + DAY)
    assert later.sequence is not None
    assert upload.sequence is not None
    assert upload.sequence > later.sequence


def test_0_day_is_due_when_it_is_taken(uploads: Uploads, delays: Delays) -> None:
    upload = queued(uploads, "soon", 0)
    assert (upload.due_at, upload.delayed, upload.sequence) == (T0, False, 1)
    assert head(uploads) == ["soon"]
    assert delays.next_at() is None


def test_another_day(uploads: Uploads, delays: Delays) -> None:
    upload = queued(uploads, "late", 7)
    upload = delays.reschedule(upload, T0 + DAY, T0, "rescheduled")
    assert upload.due_at == T0 + DAY
    assert upload.log[-1].message == "rescheduled"
    assert [one.name for one in delays.come_due(T0 + DAY)] == ["late"]


def test_one_that_has_ended_is_never_due(uploads: Uploads, delays: Delays) -> None:
    uploads.reject(queued(uploads, "late", 1), [], T0, "cancelled", target=Stage.CANCELLED)
    assert delays.next_at() is None
    assert delays.come_due(T0 + DAY) == []


def test_one_that_could_not_be_taken_is_due_from_its_next_claim(uploads: Uploads, delays: Delays) -> None:
    upload = uploads.unclaim(claimed(uploads, "late", 2), T0, "refused")
    assert (upload.due_at, upload.delayed, upload.delay) == (None, False, 2)
    assert delays.next_at() is None
    again = uploads.claim(upload, T0 + DAY, None, "claimed", due_at=T0 + 3 * DAY)
    assert (again.due_at, again.delayed) == (T0 + 3 * DAY, True)
