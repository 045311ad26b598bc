"""Whose the name of an upload is."""

from datetime import UTC, datetime, timedelta

import pytest

from incomingd.journal import Journal
from incomingd.journal.uploads import Uploads
from incomingd.model import Operation, OperationKind, Owner, Upload, UploadKind
from incomingd.states import Stage

T0 = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ALICE, MALLORY = Owner(uid=1001, account="alice"), Owner(uid=1002, account="mallory")
DAEMON = Owner(uid=990, account="incomingd", operator=True)
DAY = timedelta(days=1)
ROLLBACK = Operation(kind=OperationKind.ROLLBACK, suite="stable", generation=3)


def see(
    uploads: Uploads, owner: Owner | None, at: datetime = T0, kind: UploadKind = UploadKind.DIRECTORY, queue: str = "a"
) -> Upload:
    return uploads.see("job", queue, kind, at, "seen", owner=owner)


def end(uploads: Uploads, upload: Upload, at: datetime = T0) -> None:
    uploads.reject(upload, [], at, "withdrawn", target=Stage.CANCELLED)


def newest(uploads: Uploads) -> int:
    return uploads.newest_ids(["job"])["job"]


@pytest.mark.parametrize("kind", [UploadKind.DIRECTORY, UploadKind.FLAT, UploadKind.COMMANDS])
def test_it_is_its_accounts_in_every_queue_and_kind(uploads: Uploads, kind: UploadKind) -> None:
    first = see(uploads, ALICE)
    other = see(uploads, MALLORY, kind=kind, queue="b")
    assert (first.nameless, other.nameless, newest(uploads)) == (False, True, first.id)
    again = see(uploads, ALICE, kind=kind, queue="b")
    assert (again.nameless, newest(uploads)) == (False, again.id)


def test_it_is_free_one_day_after_the_end_and_not_before(uploads: Uploads) -> None:
    end(uploads, see(uploads, ALICE), T0 + DAY)
    assert see(uploads, MALLORY, T0 + 2 * DAY - timedelta(seconds=1)).nameless
    other = see(uploads, MALLORY, T0 + 2 * DAY)
    assert (other.nameless, newest(uploads)) == (False, other.id)
    assert see(uploads, ALICE, T0 + 2 * DAY).nameless


def test_one_that_is_refused_does_not_hold_it(uploads: Uploads) -> None:
    end(uploads, see(uploads, ALICE))
    see(uploads, MALLORY, T0)
    third = Owner(uid=1003, account=None)
    assert not see(uploads, third, T0 + DAY).nameless


def test_uploads_of_unknown_owners_hold_none(uploads: Uploads) -> None:
    see(uploads, None)
    assert not see(uploads, MALLORY).nameless


def test_a_restart_changes_nothing(uploads: Uploads, journal: Journal) -> None:
    see(uploads, ALICE)
    refused = see(uploads, MALLORY)
    journal.close()
    after = Uploads(Journal(journal.path))
    assert after.get(refused.id).nameless
    assert see(after, MALLORY).nameless


def test_what_the_operator_sends_in_again_leaves_the_name_with_its_account(uploads: Uploads) -> None:
    end(uploads, see(uploads, ALICE))
    again = see(uploads, DAEMON)
    assert (again.nameless, newest(uploads)) == (False, again.id)
    end(uploads, again)
    assert see(uploads, MALLORY).nameless
    assert not see(uploads, ALICE).nameless


def test_a_request_is_done_under_a_name_that_is_taken_and_takes_one_that_is_free(uploads: Uploads) -> None:
    see(uploads, MALLORY)
    assert uploads.ask("job", ROLLBACK, T0, "asked for").nameless
    request = uploads.ask("rollback", ROLLBACK, T0, "asked for")
    assert not request.nameless
    assert uploads.see("rollback", "a", UploadKind.FLAT, T0, "seen", owner=MALLORY).nameless


def test_a_flood_of_refused_ones_makes_nothing_longer(uploads: Uploads, journal: Journal) -> None:
    see(uploads, ALICE)

    def steps() -> int:
        """Of sqlite's machine, for one more upload of that name and its status."""
        count = 0

        def step() -> int:
            nonlocal count
            count += 1
            return 0

        with journal.writing() as db:
            db.set_progress_handler(step, 1)
            see(uploads, MALLORY)
            newest(uploads)
            db.set_progress_handler(None, 0)
        return count

    few = steps()
    with uploads.together():
        for _ in range(300):
            see(uploads, MALLORY)
    assert steps() < few * 1.5
