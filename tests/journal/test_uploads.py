"""An upload moves along the table, by compare-and-set, and its sequence is that of the claims."""

from datetime import UTC, datetime, timedelta

import pytest

from incomingd.journal.uploads import StaleMoveError, Uploads
from incomingd.model import CheckReport, Problem, Published, SuiteResult, Upload, UploadKind
from incomingd.states import Stage

T0 = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
NOTHING = CheckReport(summaries=(), changes=(), problems=(), warnings=())


def seen(uploads: Uploads, name: str = "job-1") -> Upload:
    return uploads.see(name, "default", UploadKind.DIRECTORY, T0, "seen")


def queued(uploads: Uploads, name: str = "job-1") -> Upload:
    upload = uploads.claim(seen(uploads, name), T0, None, "claimed")
    upload = uploads.move(upload, Stage.CHECKING, T0)
    return uploads.queue(upload, NOTHING, T0, "checked")


def test_the_whole_way(uploads: Uploads) -> None:
    upload = queued(uploads)
    upload = uploads.move(upload, Stage.PUBLISHING, T0)
    done = Published(suites={"stable": SuiteResult(generation=1, inrelease_sha256="ab")}, files=("pool/x",))
    upload = uploads.publish(upload, done, T0 + timedelta(seconds=1), "published", already_published=False)
    assert upload.stage is Stage.PUBLISHED
    assert upload.published == done
    assert upload.finished_at == T0 + timedelta(seconds=1)
    assert [line.message for line in upload.log] == ["seen", "claimed", "checked", "published"]
    assert uploads.open() == []
    assert uploads.last_ended(10) == [upload.id]


def test_the_sequence_is_the_order_of_the_claims_not_of_the_sightings(uploads: Uploads) -> None:
    first, second = seen(uploads, "a"), seen(uploads, "b")
    later = uploads.claim(second, T0, None, "claimed")
    latest = uploads.claim(first, T0, None, "claimed")
    assert (later.sequence, latest.sequence) == (1, 2)
    assert [u.name for u in uploads.open()] == ["b", "a"]


def test_a_move_by_a_stale_hand_raises(uploads: Uploads) -> None:
    upload = uploads.claim(seen(uploads), T0, None, "claimed")
    uploads.move(upload, Stage.CHECKING, T0)
    with pytest.raises(StaleMoveError):
        uploads.move(upload, Stage.CHECKING, T0)


def test_a_move_that_the_table_has_not_raises_and_changes_nothing(uploads: Uploads) -> None:
    upload = seen(uploads)
    with pytest.raises(StaleMoveError):
        uploads.move(upload, Stage.PUBLISHED, T0, "cheating")
    assert uploads.get(upload.id) == upload


def test_the_head_stops_at_the_first_that_is_still_being_checked(uploads: Uploads) -> None:
    queued(uploads, "a")
    queued(uploads, "b")
    slow = uploads.move(uploads.claim(seen(uploads, "slow"), T0, None, "claimed"), Stage.CHECKING, T0)
    queued(uploads, "c")
    assert [u.name for u in uploads.head(10)] == ["a", "b"]
    assert [u.name for u in uploads.head(1)] == ["a"]
    uploads.reject(slow, [Problem(code="x", message="y")], T0, "rejected")
    assert [u.name for u in uploads.head(10)] == ["a", "b", "c"]


def test_the_newest_of_a_name(uploads: Uploads) -> None:
    seen(uploads)
    again = seen(uploads)
    newest = uploads.newest("job-1")
    assert newest is not None
    assert newest.id == again.id
    assert uploads.newest("nobody") is None


def test_going_back_to_claimed_forgets_what_the_checks_found(uploads: Uploads) -> None:
    upload = uploads.move(queued(uploads), Stage.CLAIMED, T0, "after a restart")
    assert upload.stage is Stage.CLAIMED
    assert upload.sequence == 1


def test_a_flat_upload_remembers_its_members(uploads: Uploads) -> None:
    upload = uploads.see("x", "default", UploadKind.FLAT, T0, "seen")
    uploads.claim(upload, T0, ["x.changes", "x.deb"], "claimed")
    assert uploads.members(upload.id) == ("x.changes", "x.deb")
