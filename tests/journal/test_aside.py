"""Uploads that stand aside: others pass, those of the same source may wait, and the order of each source is kept."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from incomingd.journal import Journal
from incomingd.journal.delays import Delays
from incomingd.journal.order import IN_LINE
from incomingd.journal.uploads import Uploads
from incomingd.model import Cause, ChangesSummary, CheckReport, Problem, Published, Upload, UploadKind
from incomingd.states import Stage

T0 = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)


def checking(uploads: Uploads, name: str, *, due_at: datetime | None = None) -> Upload:
    seen = uploads.see(name, "default", UploadKind.DIRECTORY, T0, "seen")
    return uploads.move(uploads.claim(seen, T0, None, "claimed", due_at=due_at), Stage.CHECKING, T0)


def queue(uploads: Uploads, upload: Upload, *sources: str) -> Upload:
    summaries = tuple(ChangesSummary(file=f"{source}.changes", source=source) for source in sources)
    report = CheckReport(summaries=summaries, changes=(), problems=(), warnings=())
    uploads.queue(upload, report, T0, "checked")
    return uploads.get(upload.id)


def queued(uploads: Uploads, name: str, *sources: str) -> Upload:
    return queue(uploads, checking(uploads, name), *(sources or (name.split("-")[0],)))


def aside(uploads: Uploads, upload: Upload, cause: Cause = Cause.MACHINE, holds: Sequence[str] = ()) -> Upload:
    return uploads.stand_aside(upload, cause, T0, "stands aside", holds=holds)


def returns(uploads: Uploads, upload: Upload, *sources: str) -> Upload:
    return queue(uploads, uploads.move(uploads.get(upload.id), Stage.CHECKING, T0), *sources)


def head(uploads: Uploads, limit: int = 10) -> list[str]:
    return [upload.name for upload in uploads.head(limit)]


def publish(uploads: Uploads) -> list[str]:
    """All that is at the head, as the publisher takes it."""
    names = []
    for upload in uploads.head(10):
        moved = uploads.move(upload, Stage.PUBLISHING, T0)
        uploads.publish(moved, Published(suites={}, files=()), T0, "published", already_published=False)
        names.append(upload.name)
    return names


@pytest.mark.parametrize("cause", list(Cause))
def test_others_pass_one_that_stands_aside(uploads: Uploads, cause: Cause) -> None:
    one = aside(uploads, checking(uploads, "one"), cause)
    queued(uploads, "two")
    assert (one.stage, one.aside) == (Stage.CLAIMED, cause)
    assert not uploads.more_come()
    assert head(uploads) == ["two"]
    assert [(standing.id, standing.passed_over) for standing in uploads.line()] == [(2, False), (1, True)]
    assert [upload.name for upload in uploads.open()] == ["two", "one"]


def test_others_pass_it_while_it_is_tried_again(uploads: Uploads) -> None:
    one = aside(uploads, checking(uploads, "one"))
    uploads.move(one, Stage.CHECKING, T0)
    queued(uploads, "two")
    assert not uploads.more_come()
    assert head(uploads) == ["two"]


def test_it_returns_with_a_new_number(uploads: Uploads) -> None:
    one = aside(uploads, checking(uploads, "one"))
    queued(uploads, "two")
    back = returns(uploads, one, "one")
    assert (back.sequence, back.aside, back.aside_since, back.tries) == (3, None, None, 1)
    assert head(uploads) == ["two", "one"]


def test_tries_are_counted_for_each_cause_and_last_over_a_restart(uploads: Uploads, journal: Journal) -> None:
    one = checking(uploads, "one")
    for number in (1, 2, 3):
        one = aside(uploads, one)
        assert (one.tries, one.aside_since) == (number, T0)
        one = uploads.move(uploads.get(one.id), Stage.CHECKING, T0 + timedelta(seconds=number))
    other = uploads.stand_aside(one, Cause.UPLOAD, T0 + timedelta(hours=1), None)
    assert (other.tries, other.aside_since) == (1, T0 + timedelta(hours=1))
    assert Uploads(journal).get(one.id).aside is Cause.UPLOAD


def test_only_later_uploads_of_its_source_wait_behind_it(uploads: Uploads) -> None:
    queued(uploads, "a-1")
    one = aside(uploads, checking(uploads, "a-2"), holds=["a"])
    queued(uploads, "b-1")
    queued(uploads, "a-3")
    queued(uploads, "c-1")
    assert head(uploads) == ["a-1", "b-1", "c-1"]
    assert head(uploads, 2) == ["a-1", "b-1"]
    assert publish(uploads) == ["a-1", "b-1", "c-1"]
    assert head(uploads) == []
    assert not uploads.more_come()
    returns(uploads, one, "a")
    assert head(uploads) == ["a-2", "a-3"]


def test_what_is_later_than_those_waits_too(uploads: Uploads) -> None:
    """The order of b is kept: b-2 was claimed after the upload that brings both."""
    one = aside(uploads, checking(uploads, "a-1"), holds=["a"])
    queued(uploads, "b-1")
    queued(uploads, "both", "a", "b")
    queued(uploads, "b-2")
    queued(uploads, "c-1")
    assert head(uploads) == ["b-1", "c-1"]
    returns(uploads, one, "a")
    assert head(uploads) == ["b-1", "c-1", "a-1", "both", "b-2"]


def test_one_whose_own_fault_it_is_holds_nothing(uploads: Uploads) -> None:
    one = aside(uploads, checking(uploads, "a-1"), Cause.UPLOAD)
    queued(uploads, "a-2")
    assert head(uploads) == ["a-2"]
    returns(uploads, one, "a")
    assert head(uploads) == ["a-2", "a-1"]


def test_one_that_is_checked_while_it_returns_keeps_behind_it(uploads: Uploads) -> None:
    one = aside(uploads, checking(uploads, "a-1"), holds=["a"])
    later, other = checking(uploads, "a-2"), checking(uploads, "b-1")
    returns(uploads, one, "a")
    queue(uploads, later, "a")
    queue(uploads, other, "b")
    assert head(uploads) == ["b-1", "a-1", "a-2"]


def test_two_of_one_source_that_stand_aside_return_in_any_order(uploads: Uploads) -> None:
    one = aside(uploads, checking(uploads, "a-1"), holds=["a"])
    two = aside(uploads, checking(uploads, "a-2"), holds=["a"])
    returns(uploads, two, "a")
    assert head(uploads) == []
    returns(uploads, one, "a")
    assert head(uploads) == ["a-1", "a-2"]


def test_it_no_longer_holds_anything_when_it_has_ended(uploads: Uploads) -> None:
    one = aside(uploads, checking(uploads, "a-1"), holds=["a"])
    queued(uploads, "a-2")
    uploads.reject(one, [Problem(code="x", message="y")], T0, "cancelled", target=Stage.CANCELLED)
    assert head(uploads) == ["a-2"]


def test_a_delayed_one_that_stands_aside_returns_to_its_delay(uploads: Uploads, journal: Journal) -> None:
    due = T0 + timedelta(days=1)
    one = aside(uploads, checking(uploads, "a-1", due_at=due), holds=["a"])
    back = returns(uploads, one, "a")
    assert back.delayed
    queued(uploads, "a-2")
    assert head(uploads) == ["a-2"]
    (again,) = Delays(journal).come_due(due)
    assert again.stage is Stage.CLAIMED
    returns(uploads, again, "a")
    assert head(uploads) == ["a-2", "a-1"]


def test_one_that_comes_due_while_it_stands_aside(uploads: Uploads, journal: Journal) -> None:
    due = T0 + timedelta(days=1)
    one = aside(uploads, checking(uploads, "a-1", due_at=due), holds=["a"])
    queued(uploads, "a-2")
    assert Delays(journal).come_due(due) == []
    queued(uploads, "a-3")
    assert head(uploads) == ["a-2"]
    returns(uploads, one, "a")
    assert head(uploads) == ["a-2", "a-1", "a-3"]


def test_the_head_is_read_from_an_index(uploads: Uploads, journal: Journal) -> None:
    """However many uploads have ended."""
    with journal.reading() as db:
        for line in ("SELECT * FROM uploads WHERE {} ORDER BY sequence", "SELECT 1 FROM uploads WHERE {} LIMIT 1"):
            plan = " ".join(row["detail"] for row in db.execute(f"EXPLAIN QUERY PLAN {line.format(IN_LINE)}"))
            assert "uploads_" in plan, plan
            assert "SCAN uploads USING INDEX" in plan or "SEARCH" in plan, plan
            assert "TEMP B-TREE" not in plan, plan
