"""A directory per upload: when it is taken, and what becomes of it where it never is."""

import os
import time
from collections.abc import Callable

import pytest

from incomingd.intake import readiness
from incomingd.intake.readiness import ScanTime
from incomingd.model import plain
from tests.intake.conftest import Inbox, changes_text


def test_what_is_renamed_in_is_taken_at_once(inbox: Inbox) -> None:
    inbox.rename_in("job-1", hello_deb=b"deb")
    assert inbox.look() == ["job-1"]
    assert inbox.stage("job-1") == "claimed"
    assert list(inbox.path.iterdir()) == []
    assert (inbox.claim_of("job-1") / "hello.deb").read_bytes() == b"deb"


def test_what_is_renamed_in_is_taken_complete_or_not(inbox: Inbox) -> None:
    folder = inbox.fill(".job-1", hello_deb=b"deb")
    (folder / "hello.deb").unlink()
    folder.rename(inbox.path / "job-1")
    inbox.scan_events.arrived("default", "job-1", renamed_in=True)
    assert inbox.look() == ["job-1"]


def test_a_hidden_name_is_being_written_and_is_nobody_yet(inbox: Inbox) -> None:
    inbox.fill(".job-1", hello_deb=b"deb")
    assert inbox.look(after=100) == []
    assert inbox.uploads.open() == []


def test_the_order_is_that_of_the_renames(inbox: Inbox) -> None:
    names = ["zebra", "ant", "mole", "bee"]
    for name in names:
        inbox.rename_in(name)
    assert inbox.look() == names
    assert [u.name for u in inbox.uploads.open()] == names
    assert [u.sequence for u in inbox.uploads.open()] == [1, 2, 3, 4]


def test_written_in_place_it_is_known_at_once_and_taken_when_complete_and_settled(inbox: Inbox) -> None:
    folder = inbox.path / "job-1"
    folder.mkdir()
    assert inbox.look() == []
    assert inbox.stage("job-1") == "receiving"
    assert [u.name for u in inbox.told] == ["job-1"]
    (folder / "hello.changes").write_text(changes_text(hello_deb=4))
    assert inbox.look(after=100) == []
    (folder / "hello.deb").write_bytes(b"de")
    assert inbox.look(after=100) == []
    with (folder / "hello.deb").open("ab") as file:
        file.write(b"bs")
    assert inbox.look(after=15) == []
    assert inbox.incoming_folder.settling
    assert inbox.look(after=1.5) == []
    assert inbox.look(after=1) == ["job-1"]
    assert not inbox.incoming_folder.settling


def test_a_change_while_it_settles_starts_the_time_anew(inbox: Inbox) -> None:
    folder = inbox.fill("job-1", hello_deb=b"deb")
    assert inbox.look() == []
    (folder / "hello.deb").chmod(0o640)
    assert inbox.look(after=2.1) == []
    assert inbox.look(after=1.8) == []
    assert inbox.look(after=0.3) == ["job-1"]


def test_what_has_settled_before_the_daemon_started_does_not_wait_again(inbox: Inbox) -> None:
    inbox.fill("job-1", hello_deb=b"deb")
    inbox.wall_ahead = 10
    assert inbox.look() == ["job-1"]


@pytest.mark.parametrize("seconds", [-86400, 86400], ids=["past", "future"])
def test_times_that_the_uploader_set_say_nothing(inbox: Inbox, seconds: int) -> None:
    folder = inbox.fill("job-1", hello_deb=b"deb")
    os.utime(folder / "hello.deb", (time.time() + seconds,) * 2)
    assert inbox.look() == []
    assert inbox.look(after=2.1) == ["job-1"]


def test_every_changes_has_to_be_complete(inbox: Inbox) -> None:
    folder = inbox.fill("job-1", hello_deb=b"deb")
    (folder / "other.changes").write_text(changes_text(other_deb=3))
    assert inbox.look(after=100) == []
    (folder / "other.deb").write_bytes(b"deb")
    assert inbox.look(after=15) == []
    assert inbox.look(after=2.1) == ["job-1"]


def test_a_writer_that_pauses_is_waited_for(inbox: Inbox) -> None:
    folder = inbox.fill("job-1", hello_deb=b"deb")
    with (folder / "hello.deb").open("r+b"):
        assert inbox.look(after=100) == []
        assert inbox.look(after=100) == []
        assert not inbox.incoming_folder.settling
    assert inbox.look(after=1) == ["job-1"]


def test_a_signed_changes_that_is_cut_off_is_waited_for(inbox: Inbox) -> None:
    folder = inbox.path / "job-1"
    folder.mkdir()
    (folder / "hello.changes").write_text("-----BEGIN PGP SIGNED MESSAGE-----\n\n" + changes_text())
    assert inbox.look(after=100) == []
    with (folder / "hello.changes").open("a") as file:
        file.write("-----BEGIN PGP SIGNATURE-----\n\n-----END PGP SIGNATURE-----\n")
    assert inbox.look(after=15) == []
    assert inbox.look(after=2.1) == ["job-1"]


def test_a_changes_that_is_none_is_taken_to_be_refused(inbox: Inbox) -> None:
    folder = inbox.path / "job-1"
    folder.mkdir()
    (folder / "hello.changes").write_bytes(os.urandom(5000))
    inbox.look()
    assert inbox.look(after=2.1) == ["job-1"]


def test_an_incomplete_upload_says_what_it_waits_for_and_is_put_aside_in_the_end(inbox: Inbox) -> None:
    folder = inbox.fill("job-1", hello_deb=b"deb")
    (folder / "hello.deb").unlink()
    inbox.look()
    inbox.look(after=20)
    assert "hello.deb, which is not there" in inbox.newest("job-1").log[-1].message
    inbox.look(after=20)
    assert len(inbox.newest("job-1").log) == 2
    assert inbox.look(after=3600) == []
    assert inbox.stage("job-1") == "abandoned"
    assert inbox.codes("job-1") == ["upload-incomplete"]
    assert inbox.told[-1].stage == "abandoned"
    assert list(inbox.path.iterdir()) == []
    kept = inbox.places.rejected(inbox.newest("job-1").id)
    assert [p.name for p in kept.iterdir()] == ["hello.changes"]


def test_one_that_stays_open_for_writing_is_put_aside_in_the_end(inbox: Inbox) -> None:
    folder = inbox.fill("job-1", hello_deb=b"deb")
    with (folder / "hello.deb").open("r+b"):
        inbox.look()
        inbox.look(after=3601)
    assert inbox.stage("job-1") == "abandoned"
    assert "open for writing" in inbox.newest("job-1").problems[0].message


def test_where_nothing_more_will_come_the_first_look_takes_it(make_inbox: Callable[..., Inbox]) -> None:
    inbox = make_inbox(abandon_after="0s")
    (inbox.path / "job-1").mkdir()
    assert inbox.look() == ["job-1"]


def test_who_goes_before_it_is_taken_was_withdrawn(inbox: Inbox) -> None:
    folder = inbox.fill("job-1")
    inbox.look()
    folder.rename(inbox.path / "job-2")
    inbox.look()
    assert inbox.stage("job-1") == "cancelled"
    assert inbox.codes("job-1") == ["upload-withdrawn"]
    assert inbox.stage("job-2") == "receiving"


def test_after_a_restart_the_same_upload_is_met_again(inbox: Inbox) -> None:
    inbox.fill("job-1", hello_deb=b"deb")
    (inbox.path / "job-2").mkdir()
    inbox.look()
    first = inbox.newest("job-1").id
    (inbox.path / "job-2").rmdir()
    inbox.restart()
    inbox.wall_ahead = 100
    assert inbox.look() == ["job-1"]
    assert inbox.newest("job-1").id == first
    assert inbox.stage("job-2") == "cancelled"


def test_one_that_was_renamed_in_unheard_counts_as_written_in_place(inbox: Inbox) -> None:
    """Nothing on the disk tells the two apart for sure: ``rsync -a`` leaves a directory in the same state."""
    for name in ("whole", "part"):
        inbox.fill(f".{name}", hello_deb=b"deb").rename(inbox.path / name)
    (inbox.path / "part" / "hello.deb").unlink()
    inbox.wall_ahead = 100
    assert inbox.look() == ["whole"]
    assert inbox.look(after=100) == []
    assert inbox.stage("part") == "receiving"


def test_who_went_with_the_whole_directory_may_come_back_with_it(inbox: Inbox) -> None:
    folder = inbox.fill("job-1", hello_deb=b"deb")
    (folder / "hello.deb").unlink()
    inbox.look()
    first = inbox.newest("job-1").id
    inbox.path.rename(inbox.folder / "unmounted")
    inbox.look(after=10)
    assert "cannot be read" in inbox.incoming_folder.faults[0]
    inbox.path.mkdir()
    inbox.rename_in("job-2", hello_deb=b"deb")
    assert inbox.look(after=10) == ["job-2"]
    (fault,) = inbox.incoming_folder.faults
    assert "1 uploads waited in another directory" in fault
    assert "job-1" in fault
    assert inbox.stage("job-1") == "receiving"
    inbox.path.rmdir()
    (inbox.folder / "unmounted").rename(inbox.path)
    (folder / "hello.deb").write_bytes(b"deb")
    inbox.look(after=10)
    assert inbox.look(after=3) == ["job-1"]
    assert inbox.newest("job-1").id == first
    assert inbox.incoming_folder.faults == ()


def test_who_went_with_the_whole_directory_and_stays_away_is_given_up(inbox: Inbox) -> None:
    (inbox.path / "job-1").mkdir()
    inbox.look()
    inbox.path.rename(inbox.folder / "unmounted")
    inbox.path.mkdir()
    inbox.look()
    inbox.look(after=3500)
    assert inbox.stage("job-1") == "receiving"
    inbox.look(after=101)
    assert inbox.stage("job-1") == "cancelled"
    assert inbox.incoming_folder.faults == ()


@pytest.mark.parametrize(("stalled", "pause"), [(1, 1.8), (170, 1.8), (600, 6), (86400, 10)])
def test_what_completes_an_upload_is_noticed_before_it_has_settled(inbox: Inbox, stalled: float, pause: float) -> None:
    """So that nobody waits longer than ``settle`` for nothing; who let us wait for minutes, 1 % of that."""
    assert readiness.pause(stalled, inbox.queue.settle) == pytest.approx(pause)


def test_the_same_name_may_come_again(inbox: Inbox) -> None:
    for number in (1, 2):
        inbox.rename_in("job", hello_deb=b"deb")
        assert inbox.look() == ["job"]
        assert inbox.newest("job").id == number


def test_a_directory_and_a_flat_upload_may_have_one_name(inbox: Inbox) -> None:
    inbox.fill("hello", hello_deb=b"deb")
    (inbox.path / "hello.changes").write_text(changes_text(hello_deb=3))
    (inbox.path / "hello.deb").write_bytes(b"deb")
    inbox.look()
    assert sorted(inbox.look(after=3)) == ["hello", "hello"]


@pytest.mark.parametrize("name", [b"job 1", b"-job", b"j\xf6b", b"a:b", b"x" * 201, b"new\nline", b"%s{0}"])
def test_a_name_that_may_not_be_is_taken_to_be_refused(inbox: Inbox, name: bytes) -> None:
    folder = inbox.path / os.fsdecode(name)
    folder.mkdir()
    inbox.look()
    shown = plain(os.fsdecode(name))
    assert inbox.look(after=3) == [shown]
    assert not folder.exists()
    assert inbox.claim_of(shown).is_dir()


def test_what_is_nobodys_upload_is_left_alone_and_told_of_in_time(inbox: Inbox) -> None:
    (inbox.path / "lost+found").mkdir()
    (inbox.path / "notes.txt").write_text("")
    (inbox.path / "link").symlink_to("/etc")
    os.mkfifo(inbox.path / "pipe")
    inbox.look()
    assert inbox.incoming_folder.faults == ()
    inbox.look(after=3601)
    (fault,) = inbox.incoming_folder.faults
    assert "link, notes.txt, pipe" in fault
    assert inbox.uploads.open() == []


def test_what_a_sender_has_left_under_a_hidden_name_is_told_of_and_stays(inbox: Inbox) -> None:
    inbox.fill(".job-1", hello_deb=b"deb")
    (inbox.path / ".hello_1.0-1_amd64.deb.Xy12ab").write_bytes(b"half")
    (inbox.path / ".ssh").mkdir()
    (inbox.path / ".ssh/authorized_keys").touch()
    (inbox.path / ".profile").touch()
    inbox.look(after=1000)
    assert inbox.faults() == []
    inbox.wall_ahead += 3700
    inbox.look(after=3700)  # the clock goes on with us
    (fault,) = inbox.faults()
    assert "2 hidden names in" in fault
    assert ".hello_1.0-1_amd64.deb.Xy12ab, .job-1" in fault
    (inbox.path / ".hello_1.0-1_amd64.deb.Xy12ab").unlink()
    (inbox.path / ".job-1").rename(inbox.path / "job-1")
    assert inbox.look() == ["job-1"]
    assert inbox.faults() == []
    assert (inbox.path / ".ssh").exists()


def test_too_many_files_are_not_waited_for(make_inbox: Callable[..., Inbox]) -> None:
    inbox = make_inbox(max_files=5)
    folder = inbox.path / "job-1"
    folder.mkdir()
    for number in range(300):
        (folder / f"file{number}").touch()
    inbox.look()
    assert inbox.look(after=3) == ["job-1"]


def test_a_thousand_come_at_once(inbox: Inbox) -> None:
    names = [f"job-{number}" for number in range(1200)]
    for name in names:
        inbox.rename_in(name)
    taken = inbox.look()
    while len(taken) < len(names):
        taken += inbox.look()
    assert taken == names


def test_a_clock_that_jumps_takes_nobody_early(inbox: Inbox) -> None:
    folder = inbox.fill("job-1", hello_deb=b"deb")
    inbox.look()
    for jump, mode in ((3600, 0o600), (-3600, 0o640)):
        (folder / "hello.deb").chmod(mode)
        inbox.ahead += 2.1
        now = time.monotonic() + inbox.ahead
        inbox.incoming_folder.look(ScanTime(wall=time.time() + jump, monotonic=now, steady=False))
        inbox.incoming_folder.look(ScanTime(wall=time.time() + jump, monotonic=now + 1.9))
        assert inbox.claimed == []
    assert inbox.look(after=2.1) == ["job-1"]


@pytest.mark.parametrize("inside", [".job-1", "job-1"])
def test_an_upload_that_was_moved_into_a_directory_of_its_name_is_told_so(inbox: Inbox, inside: str) -> None:
    """As mv without -T does it."""
    (inbox.path / "job-1").mkdir()
    inbox.look()
    inbox.fill("job-2", hello_deb=b"deb").rename(inbox.path / "job-1" / inside)
    inbox.look(after=20)
    inbox.look(after=20)
    assert (
        f"it holds the directory {inside}: mv and scp -r put a directory into" in inbox.newest("job-1").log[-1].message
    )
    inbox.scan_events.arrived("default", "job-1", renamed_in=True)
    assert inbox.look(after=20) == ["job-1"]
    sealed = inbox.seal("job-1")
    assert any(f"it holds the directory {inside}: " in problem.message for problem in sealed.problems)
