"""The folders for delayed uploads: made as incoming is, looked at as incoming is, and never left by a link."""

import os
import stat
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from incomingd.intake.readiness import ScanTime
from tests.intake.conftest import Inbox, changes_text, needs_root


@pytest.fixture
def inbox(make_inbox: Callable[..., Inbox]) -> Inbox:
    return make_inbox(delayed=3)


def drop(folder: Path, name: str = "hello") -> None:
    """A whole flat upload."""
    (folder / "hello.deb").write_bytes(b"deb")
    (folder / f"{name}.changes").write_text(changes_text(hello_deb=b"deb"))


def test_they_are_there_once_incoming_was_looked_at(inbox: Inbox) -> None:
    inbox.path.chmod(0o2775)
    inbox.look_everywhere()
    assert sorted(path.name for path in (inbox.path / "DELAYED").iterdir()) == ["0-day", "1-day", "2-day", "3-day"]
    for folder in (inbox.path / "DELAYED", inbox.path / "DELAYED/2-day"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o2775
    assert inbox.uploads.open() == []


@needs_root
def test_they_belong_to_whom_incoming_belongs(inbox: Inbox) -> None:
    os.chown(inbox.path, 65534, 1)
    inbox.look_everywhere()
    status = (inbox.path / "DELAYED/3-day").stat()
    assert (status.st_uid, status.st_gid) == (65534, 1)


def test_an_upload_is_taken_at_once_and_due_after_its_days(inbox: Inbox) -> None:
    inbox.look_everywhere()
    drop(inbox.path / "DELAYED/2-day")
    assert inbox.look_everywhere() == []
    assert inbox.look_everywhere(after=3) == ["hello"]
    upload = inbox.newest("hello")
    assert upload.claimed_at is not None
    assert upload.due_at == upload.claimed_at + timedelta(days=2)
    assert upload.delayed
    assert sorted(path.name for path in inbox.claim_of("hello").iterdir()) == ["hello.changes", "hello.deb"]
    assert list((inbox.path / "DELAYED/2-day").iterdir()) == []


def test_a_directory_too(inbox: Inbox) -> None:
    inbox.look_everywhere()
    inbox.fill("job-1", hello_deb=b"deb").rename(inbox.path / "DELAYED/3-day/job-1")
    inbox.look_everywhere()
    assert inbox.look_everywhere(after=3) == ["job-1"]
    assert inbox.newest("job-1").delay == 3


def test_the_same_name_in_two_of_them_is_two_uploads(inbox: Inbox) -> None:
    inbox.look_everywhere()
    for folder in (inbox.path, inbox.path / "DELAYED/1-day", inbox.path / "DELAYED/3-day"):
        drop(folder)
    inbox.look_everywhere()
    assert sorted(str(upload.delay) for upload in inbox.uploads.open()) == ["1", "3", "None"]
    inbox.restart()
    inbox.look_everywhere()
    assert len(inbox.uploads.open()) == 3
    assert inbox.look_everywhere(after=3) == ["hello"] * 3


def test_what_was_heard_of_incoming_is_not_lost_on_them(inbox: Inbox) -> None:
    """What is renamed in while the folders are looked at is taken by the next look, complete or not."""
    inbox.look_everywhere()
    incomplete = inbox.path / ".job-1"
    incomplete.mkdir()
    (incomplete / "hello.changes").write_text(changes_text(hello_deb=9))
    inbox.look()
    incomplete.rename(inbox.path / "job-1")
    inbox.scan_events.arrived("default", "job-1", renamed_in=True)
    for incoming_folder in inbox.incoming_folders[1:]:
        incoming_folder.look(ScanTime(wall=time.time(), monotonic=time.monotonic()))
    assert inbox.look() == ["job-1"]


def test_what_is_put_beside_them_is_told_of(inbox: Inbox) -> None:
    """Nobody takes it: a longer delay than there is, say of before the setting was lowered."""
    inbox.look_everywhere()
    folder = inbox.path / "DELAYED"
    (folder / "4-day").mkdir()
    inbox.look_everywhere(after=61)
    assert inbox.faults() == []
    drop(folder / "4-day")
    drop(folder)
    inbox.look_everywhere(after=61)
    (fault,) = inbox.faults()
    assert f"3 names in {folder} are none of 0-day to 3-day" in fault
    assert "4-day, hello.changes, hello.deb" in fault
    inbox.configure(delayed=4)
    for name in ("hello.changes", "hello.deb"):
        (folder / name).unlink()
    inbox.look_everywhere()
    inbox.look_everywhere(after=3)
    assert inbox.faults() == []
    assert inbox.newest("hello").delay == 4


def test_commands_are_not_delayed(inbox: Inbox) -> None:
    inbox.look_everywhere()
    (inbox.path / "DELAYED/3-day/joan.commands").write_text("Commands:\n cancel hello\n")
    inbox.look_everywhere()
    assert inbox.look_everywhere(after=3) == ["joan"]
    assert inbox.newest("joan").due_at is None


def test_without_the_setting_it_is_a_name_as_any_other(make_inbox: Callable[..., Inbox]) -> None:
    inbox = make_inbox()
    inbox.rename_in("DELAYED", hello_deb=b"deb")
    assert inbox.look_everywhere() == ["DELAYED"]


def test_no_link_leads_elsewhere(inbox: Inbox, tmp_path: Path) -> None:
    """Whoever may write in incoming could have the daemon take what lies in folders that are not theirs."""
    theirs = tmp_path / "theirs/3-day"
    theirs.mkdir(parents=True)
    drop(theirs)
    (inbox.path / "DELAYED").symlink_to(theirs.parent)
    inbox.look_everywhere()
    assert inbox.look_everywhere(after=3) == []
    assert "cannot be read" in inbox.faults()[0]
    (inbox.path / "DELAYED").unlink()
    (inbox.path / "DELAYED").mkdir()
    (inbox.path / "DELAYED/3-day").symlink_to(theirs)
    inbox.look_everywhere()
    assert inbox.look_everywhere(after=3) == []
    assert sorted(path.name for path in theirs.iterdir()) == ["hello.changes", "hello.deb"]


def test_a_link_that_is_put_there_between_look_and_rename_leads_nowhere(inbox: Inbox, tmp_path: Path) -> None:
    inbox.look_everywhere()
    theirs = tmp_path / "theirs/3-day"
    (theirs / "job-1").mkdir(parents=True)
    inbox.fill("job-1", hello_deb=b"deb").rename(inbox.path / "DELAYED/3-day/job-1")
    inbox.look_everywhere()

    def swap(*_: object) -> None:
        (inbox.path / "DELAYED").rename(tmp_path / "moved")
        (inbox.path / "DELAYED").symlink_to(theirs.parent)

    inbox.on_taking = swap
    inbox.restart()
    inbox.look_everywhere()
    inbox.look_everywhere(after=3)
    assert (theirs / "job-1").is_dir()
