"""The rename out of the uploader's reach: cut short, refused, impossible."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from incomingd import fsio
from incomingd.fsio import naming
from incomingd.intake.claim import complete_claim
from tests.intake.conftest import NOBODY, Inbox, as_nobody, needs_root

SHM = Path("/dev/shm")


def claim_in_the_journal_only(inbox: Inbox, name: str) -> None:
    """What a kill between the journal's commit and the rename leaves."""
    inbox.uploads.claim(inbox.newest(name), inbox.newest(name).seen_at, None, "claimed")


def test_a_kill_between_journal_and_rename_is_mended(inbox: Inbox) -> None:
    inbox.fill("job-1", hello_deb=b"deb")
    inbox.look()
    claim_in_the_journal_only(inbox, "job-1")
    for _ in range(2):
        complete_claim(inbox.places, inbox.newest("job-1"), inbox.queue, None)
        assert sorted(p.name for p in inbox.claim_of("job-1").iterdir()) == ["hello.changes", "hello.deb"]
    assert not (inbox.path / "job-1").exists()
    inbox.restart()
    inbox.look()
    assert inbox.stage("job-1") == "claimed"


def test_a_name_that_had_to_be_escaped_is_found_again(inbox: Inbox) -> None:
    (inbox.path / os.fsdecode(b"j\xf6b")).mkdir()
    inbox.look()
    (upload,) = inbox.uploads.open()
    claim_in_the_journal_only(inbox, upload.name)
    complete_claim(inbox.places, inbox.newest(upload.name), inbox.queue, None)
    assert inbox.claim_of(upload.name).is_dir()
    assert list(inbox.path.iterdir()) == []


def test_one_that_is_nowhere_is_refused_with_a_reason(inbox: Inbox) -> None:
    (inbox.path / "job-1").mkdir()
    inbox.look()
    claim_in_the_journal_only(inbox, "job-1")
    (inbox.path / "job-1").rmdir()
    complete_claim(inbox.places, inbox.newest("job-1"), inbox.queue, None)
    result = inbox.seal("job-1")
    assert [problem.code for problem in result.problems] == ["upload-lost"]


def test_one_that_start_up_could_not_mend_is_mended_by_sealing(inbox: Inbox) -> None:
    inbox.fill("job-1", hello_deb=b"deb")
    inbox.look()
    claim_in_the_journal_only(inbox, "job-1")
    result = inbox.seal("job-1")
    assert [entry.name for entry in result.files] == ["hello.changes", "hello.deb"]


def test_what_goes_between_journal_and_rename_was_withdrawn(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox.rename_in("job-1")
    inbox.rename_in("job-2")
    real = naming.rename

    def withdraw_first(source: Path | str, target: Path | str, **descriptors: int) -> None:
        if source == "job-1":
            (inbox.path / source).rename(inbox.folder / "gone")
        real(source, target, **descriptors)

    monkeypatch.setattr(naming, "rename", withdraw_first)
    assert inbox.look() == ["job-2"]
    assert inbox.stage("job-1") == "cancelled"


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES, errno.EBUSY, errno.EIO])
def test_one_that_cannot_be_renamed_after_all_holds_up_nobody(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    inbox.rename_in("job-1")
    inbox.rename_in("job-2")
    real = naming.rename

    def refuse_first(source: Path | str, target: Path | str, **descriptors: int) -> None:
        if source == "job-1":
            raise OSError(number, os.strerror(number))
        real(source, target, **descriptors)

    with monkeypatch.context() as patch:
        patch.setattr(naming, "rename", refuse_first)
        assert inbox.look() == ["job-2"]
        inbox.look(after=6)
    one = inbox.newest("job-1")
    assert (one.stage, one.sequence, one.claimed_at) == ("receiving", None, None)
    assert os.strerror(number) in one.log[-1].message
    assert inbox.told[-1].name == "job-1"
    assert "job-1" in inbox.incoming_folder.faults[0]
    assert inbox.look(after=6) == ["job-1"]
    assert inbox.newest("job-1").sequence == 3
    inbox.look()
    assert inbox.incoming_folder.faults == ()


def test_a_flat_upload_that_cannot_be_moved_whole_stays_whole(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    (inbox.path / "hello.deb").write_bytes(b"deb")
    (inbox.path / "hello.changes").write_text("Files:\n 0 3 a b hello.deb\n")
    inbox.look()
    real = naming.rename

    def refuse_deb(source: Path | str, target: Path | str, **descriptors: int) -> None:
        if source == "hello.deb":
            raise PermissionError(errno.EPERM, "Operation not permitted")
        real(source, target, **descriptors)

    with monkeypatch.context() as patch:
        patch.setattr(naming, "rename", refuse_deb)
        assert inbox.look(after=3) == []
    assert sorted(p.name for p in inbox.path.iterdir()) == ["hello.changes", "hello.deb"]
    inbox.look(after=6)
    assert inbox.look(after=3) == ["hello"]


@pytest.mark.skipif(not SHM.is_dir(), reason="needs a second file system")
def test_claims_on_another_file_system_are_told_of_and_nothing_is_lost(make_inbox: Callable[..., Inbox]) -> None:
    inbox = make_inbox(claims=str(SHM / f"incomingd-{os.getpid()}"))
    try:
        inbox.rename_in("job-1", hello_deb=b"deb")
        assert inbox.look() == []
        (fault,) = inbox.incoming_folder.faults
        for word in (str(inbox.path), str(inbox.queue.claims), "[incoming.default] claims", "file systems"):
            assert word in fault
        assert inbox.stage("job-1") == "receiving"
        assert "file systems" in inbox.newest("job-1").log[-1].message
        assert (inbox.path / "job-1" / "hello.deb").read_bytes() == b"deb"
        assert not any(p.name.startswith(".") for p in inbox.path.iterdir())
        # The operator corrects the setting and reloads.
        inbox.configure()
        inbox.wall_ahead = 10
        assert inbox.look() == ["job-1"]
        assert inbox.incoming_folder.faults == ()
    finally:
        fsio.remove_tree(SHM / f"incomingd-{os.getpid()}")


def test_an_incoming_directory_that_is_not_there_is_told_of(inbox: Inbox) -> None:
    inbox.fill("job-1", hello_deb=b"deb")
    inbox.look()
    inbox.path.rename(inbox.folder / "away")
    inbox.look()
    assert str(inbox.path) in inbox.incoming_folder.faults[0]
    assert inbox.stage("job-1") == "receiving"
    inbox.path.mkdir()  # an empty mount point
    inbox.look(after=6)
    assert inbox.stage("job-1") == "receiving"
    inbox.path.rmdir()
    (inbox.folder / "away").rename(inbox.path)
    assert inbox.look(after=6) == ["job-1"]
    assert inbox.incoming_folder.faults == ()


def test_what_does_not_come_back_is_withdrawn_in_the_end(inbox: Inbox) -> None:
    inbox.fill("job-1", hello_deb=b"deb")
    inbox.look()
    inbox.path.rename(inbox.folder / "away")
    inbox.path.mkdir()
    inbox.look(after=60)
    assert inbox.stage("job-1") == "receiving"
    inbox.look(after=3601)
    assert inbox.stage("job-1") == "cancelled"


def test_an_incoming_path_may_be_a_link_of_the_operators(inbox: Inbox) -> None:
    inbox.path.rename(inbox.folder / "elsewhere")
    inbox.path.symlink_to("elsewhere")
    inbox.rename_in("job-1")
    assert inbox.look() == ["job-1"]


def test_a_read_only_directory_of_the_daemons_own_account_is_no_hindrance(inbox: Inbox) -> None:
    folder = inbox.fill("job-1", hello_deb=b"deb")
    folder.chmod(0o555)
    inbox.look()
    assert inbox.look(after=3) == ["job-1"]


class TestTwoAccounts:
    """The daemon is nobody, the uploader is root."""

    @pytest.fixture
    def shared(self, make_inbox: Callable[..., Inbox], open_folder: Path) -> Inbox:
        inbox = make_inbox(open_folder)
        for path in (inbox.state, *inbox.state.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        inbox.path.chmod(0o777)
        return inbox

    def run(self, inbox: Inbox, *afters: float) -> tuple[list[str], tuple[str, ...], str]:
        def act() -> tuple[list[str], tuple[str, ...], str]:
            inbox.journal._own.__dict__.clear()  # a fork may not use its parent's connection
            taken: list[str] = []
            for after in afters:
                taken += inbox.look(after=after)
            upload = inbox.uploads.newest("job-1")
            return taken, inbox.incoming_folder.faults, upload.log[-1].message if upload else ""

        return as_nobody(act)

    @needs_root
    def test_a_directory_that_the_daemon_may_not_write_in_says_what_to_do(self, shared: Inbox) -> None:
        folder = shared.fill("job-1", hello_deb=b"deb")
        folder.chmod(0o755)
        taken, faults, message = self.run(shared, 0, 3)
        assert taken == []
        for text in (faults[0], message):
            assert "mode 0755" in text
            assert "ACL" in text
        folder.chmod(0o777)
        assert self.run(shared, 0, 10)[0] == ["job-1"]

    @needs_root
    def test_a_directory_that_the_daemon_may_not_read_says_what_to_do(self, shared: Inbox) -> None:
        folder = shared.fill("job-1", hello_deb=b"deb")
        folder.chmod(0o700)
        taken, faults, message = self.run(shared, 0, 3)
        assert taken == []
        assert "mode 0700" in faults[0]
        assert "mode 0700" in message

    @needs_root
    def test_files_whose_mode_is_corrected_later_are_given_time(self, shared: Inbox) -> None:
        folder = shared.fill("job-1", hello_deb=b"deb")
        folder.chmod(0o777)
        (folder / "hello.changes").chmod(0o600)
        assert self.run(shared, 0, 5)[0] == []
        assert self.run(shared, 0, 11)[0] == ["job-1"]

    @needs_root
    def test_an_incoming_directory_that_the_daemon_may_not_write_to(self, shared: Inbox) -> None:
        shared.fill("job-1", hello_deb=b"deb").chmod(0o777)
        shared.path.chmod(0o755)
        taken, faults, message = self.run(shared, 0, 3)
        assert taken == []
        assert "cannot be written to" in faults[0]
        assert "cannot be written to" in message
        shared.path.chmod(0o777)
        assert self.run(shared, 0, 10)[0] == ["job-1"]

    @needs_root
    def test_a_sticky_incoming_directory_refuses_the_rename_and_holds_up_nobody(self, shared: Inbox) -> None:
        shared.fill("job-1", hello_deb=b"deb").chmod(0o777)
        shared.path.chmod(0o777 | stat.S_ISVTX)
        taken, faults, message = self.run(shared, 0, 3)
        assert taken == []
        assert "Operation not permitted" in faults[0]
        assert "Operation not permitted" in message
        assert shared.stage("job-1") == "receiving"
