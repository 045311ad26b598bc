"""Whose the files of an upload are, and what happens if a name is given to another account's file meanwhile."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from incomingd import fsio
from incomingd.fsio import naming
from incomingd.intake import claim, ownership
from incomingd.intake.ownership import Ownership
from tests.intake.conftest import Inbox, changes_text, needs_root

ALICE, MALLORY = 13001, 13002

pytestmark = needs_root


def before_the_rename(monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[[], Any]) -> None:
    """Have something happen between the last look at ``name`` and its rename."""
    real = naming.rename
    acts = [act]

    def rename(source: Path | str, target: Path | str, **descriptors: int) -> None:
        if source == name and acts:
            acts.pop()()
        real(source, target, **descriptors)

    monkeypatch.setattr(naming, "rename", rename)


def status(uid: int, mode: int) -> os.stat_result:
    return os.stat_result((mode, 1, 1, 1, uid, 0, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("uid", "mode", "anyone"),
    [
        (0, 0o40755, True),
        (0, 0o40700, True),
        (0, 0o40775, False),
        (0, 0o42770, False),
        (0, 0o41777, False),
        (ALICE, 0o40755, False),
        (ALICE, 0o40700, False),
    ],
)
def test_files_of_others_are_allowed_where_only_root_can_write(uid: int, mode: int, anyone: bool) -> None:
    mine = ownership.of_directory(status(uid, mode))
    assert mine.allows(status(uid, 0o100600))
    assert mine.allows(status(MALLORY, 0o100600)) is anyone
    assert mine.allows(status(0, 0o100600)) is (uid == 0)


def test_a_refusal_names_both_accounts() -> None:
    assert Ownership(uid=4_000_000).refusal(0) == "belongs to uid 0 (root), and the upload to uid 4000000"


def test_a_directory_that_is_swapped_before_the_rename_is_put_back(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox.rename_in("job-1", hello_deb=b"deb")
    inbox.look(after=-1)  # it was seen, and could not be taken yet
    inbox.rename_in("job-2", hello_deb=b"mine")
    os.chown(inbox.path / "job-2", MALLORY, 0)

    def swap() -> None:
        (inbox.path / "job-2").rename(inbox.folder / "away")
        inbox.fill("job-2", hello_deb=b"theirs")
        os.chown(inbox.path / "job-2", ALICE, 0)

    before_the_rename(monkeypatch, "job-2", swap)
    inbox.look()
    assert inbox.newest("job-2").uid == MALLORY
    assert inbox.stage("job-2") == "cancelled"
    assert (inbox.path / "job-2/hello.deb").read_bytes() == b"theirs"
    inbox.look()
    assert inbox.look(after=3) == ["job-2"]
    # It is another upload, and the name was Mallory's less than a day ago.
    assert (inbox.claimed[-1].uid, inbox.claimed[-1].nameless) == (ALICE, True)


def test_the_owner_at_the_claim_is_the_one_that_counts(inbox: Inbox) -> None:
    inbox.fill("job-1", hello_deb=b"deb")
    os.chown(inbox.path / "job-1", ALICE, 0)
    inbox.look()
    assert inbox.newest("job-1").uid == ALICE
    os.chown(inbox.path / "job-1", MALLORY, 0)
    inbox.look(after=3)
    assert inbox.look(after=3) == []
    # It is another upload by now, and that of Alice is gone.
    assert inbox.codes("job-1") == ["upload-withdrawn"]
    inbox.look()
    assert inbox.look(after=3) == ["job-1"]
    assert (inbox.claimed[-1].uid, inbox.claimed[-1].nameless) == (MALLORY, True)


def test_a_member_that_is_swapped_before_its_rename_is_put_back(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox.path.chmod(0o3777)
    for name, text in (("hello.deb", "mine"), ("hello.changes", changes_text(hello_deb=4))):
        (inbox.path / name).write_text(text)
        os.chown(inbox.path / name, MALLORY, 0)

    def swap() -> None:
        (inbox.path / "hello.deb").unlink()
        (inbox.path / "hello.deb").write_text("theirs")
        os.chown(inbox.path / "hello.deb", ALICE, 0)

    before_the_rename(monkeypatch, "hello.deb", swap)
    inbox.look()
    assert inbox.look(after=3) == ["hello"]
    assert [path.name for path in inbox.claim_of("hello").iterdir()] == ["hello.changes"]
    assert (inbox.path / "hello.deb").read_text() == "theirs"
    result = inbox.seal("hello")
    assert [(one.code, one.file) for one in result.absent] == [("foreign-file", "hello.deb")]


def test_what_is_put_back_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "incoming").mkdir()
    (tmp_path / "incoming/x").write_text("first")
    with fsio.directory(tmp_path / "incoming") as fd:

        def again(found: os.stat_result) -> bool:
            (tmp_path / "incoming/x").write_text("second")
            return False

        assert fsio.take_out("x", tmp_path / "taken", source_fd=fd, allowed=again) is False
    assert (tmp_path / "incoming/x").read_text() == "second"
    assert not (tmp_path / "taken").exists()
    [hidden] = (tmp_path / "incoming").glob(".x.put-back-*")
    assert hidden.read_text() == "first"


def test_a_file_that_cannot_be_put_back_is_not_read(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sender swaps it for another account's before the rename, and uses its name again before it is put back."""
    inbox.path.chmod(0o3770)
    for name, text in (("hello.changes", changes_text(hello_deb=4)), ("hello.deb", "mine")):
        (inbox.path / name).write_text(text)
        os.chown(inbox.path / name, MALLORY, 0)
    real = naming.rename

    def rename(source: Path | str, target: Path | str, **descriptors: int) -> None:
        if source == "hello.deb":
            (inbox.path / "hello.deb").write_text("SECRET")
            os.chown(inbox.path / "hello.deb", ALICE, 0)
        real(source, target, **descriptors)
        if source == "hello.deb":
            (inbox.path / "hello.deb").write_text("mine")
            os.chown(inbox.path / "hello.deb", MALLORY, 0)

    monkeypatch.setattr(naming, "rename", rename)
    inbox.look()
    assert inbox.look(after=3) == ["hello"]
    assert [path.name for path in inbox.claim_of("hello").iterdir()] == ["hello.changes"]
    result = inbox.seal("hello")
    assert [entry.name for entry in result.files] == ["hello.changes"]
    [hidden] = inbox.path.glob(".hello.deb.put-back-*")
    assert (hidden.read_text(), hidden.stat().st_uid) == ("SECRET", ALICE)


@pytest.mark.parametrize("number", [0, errno.EINVAL, errno.ENOSYS])
def test_a_rename_that_replaces_nothing_on_any_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    if number:
        monkeypatch.setattr(naming, "_libc", type("", (), {"renameat2": staticmethod(lambda *_: -1)}))
        monkeypatch.setattr(naming.ctypes, "get_errno", lambda: number)
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    with pytest.raises(FileExistsError):
        fsio.rename_new(tmp_path / "a", tmp_path / "b")
    fsio.rename_new(tmp_path / "a", tmp_path / "c")
    assert sorted((path.name, path.read_text()) for path in tmp_path.iterdir()) == [("b", "b"), ("c", "a")]


def test_a_stray_whose_name_is_used_again_is_not_removed(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    (inbox.path / "x.deb").write_text("old")
    inbox.places.claims(inbox.queue).mkdir(parents=True)
    inbox.folder.joinpath("kept").hardlink_to(inbox.path / "x.deb")  # else the new one may get its inode

    def again() -> None:
        (inbox.path / "x.deb").unlink()
        (inbox.path / "x.deb").write_text("new")

    before_the_rename(monkeypatch, "x.deb", again)
    with fsio.directory(inbox.path) as fd:
        assert claim.remove_stray(inbox.places, inbox.queue, fd, "x.deb") is False
        assert (inbox.path / "x.deb").read_text() == "new"
        assert claim.remove_stray(inbox.places, inbox.queue, fd, "x.deb") is True
    assert list(inbox.path.iterdir()) == list(inbox.places.claims(inbox.queue).iterdir()) == []


def test_no_mode_is_changed_before_a_directory_is_claimed(inbox: Inbox) -> None:
    folder = inbox.fill("job-1", hello_deb=b"deb")
    folder.chmod(0o500)
    (folder / "hello.deb").chmod(0o400)
    os.chown(folder, MALLORY, 0)
    inbox.look()
    with fsio.directory(inbox.path) as fd:
        assert claim.refusal(fd, inbox.newest("job-1").kind, "job-1") == ""
    assert folder.stat().st_mode & 0o777 == 0o500
    assert inbox.look(after=3) == ["job-1"]
    taken = inbox.claim_of("job-1")
    assert [path.stat().st_mode & 0o777 for path in (taken, taken / "hello.deb")] == [0o500, 0o400]
    result = inbox.seal("job-1")
    assert [(one.code, one.file) for one in result.problems] == [("foreign-file", "hello.changes")]
    assert (taken / "hello.deb").stat().st_mode & 0o777 == 0o400
    assert list(inbox.places.sealed(1).iterdir()) == []


def test_only_the_owners_directories_are_emptied(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "mine/deeper").mkdir(parents=True)
    (tree / "mine/deeper/theirs").mkdir()
    (tree / "mine/deeper/theirs/precious").touch()
    (tree / "empty").mkdir()
    (tree / "file").touch()
    for path in (tree, *tree.rglob("*")):
        os.chown(path, ALICE if path.name in ("theirs", "precious", "empty") else MALLORY, 0)
    for _ in range(2):
        with pytest.raises(PermissionError, match="other accounts"):
            fsio.remove_tree(tree, foreign=False)
        assert [path.name for path in tree.rglob("*") if path.is_file()] == ["precious"]
        assert len(list(tree.iterdir())) == 1
    fsio.remove_tree(tree)
    assert not tree.exists()


def test_a_file_that_is_swapped_before_it_is_opened_is_not_read(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner is asked of what was opened."""
    inbox.rename_in("job-1", hello_deb=b"deb")
    for path in (inbox.path / "job-1", *(inbox.path / "job-1").iterdir()):
        os.chown(path, MALLORY, 0)
    inbox.look()
    taken = inbox.claim_of("job-1") / "hello.deb"
    real = os.open

    def swap(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if path == "hello.deb" and taken.read_bytes() == b"deb":
            (taken.parent / ".new").write_bytes(b"SECRET")
            (taken.parent / ".new").replace(taken)
        return real(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", swap)
    result = inbox.seal("job-1")
    assert [(one.code, one.file) for one in result.problems] == [("foreign-file", "hello.deb")]
    assert [path.name for path in inbox.places.sealed(1).iterdir()] == ["hello.changes"]
