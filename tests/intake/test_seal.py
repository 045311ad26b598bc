"""The daemon's own copy: what is taken into it, what is refused, and what nobody can change any more."""

import errno
import hashlib
import itertools
import mmap
import os
import shutil
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from incomingd import fsio
from incomingd.errors import Obstructed, Retry
from incomingd.fsio import taking
from incomingd.intake.room import Room
from incomingd.model import Seal
from tests.intake.conftest import NOBODY, Inbox, as_nobody, changes_text, needs_root


@pytest.fixture
def claimed(inbox: Inbox) -> Path:
    """The claim of job-1: hello.deb and hello.changes."""
    inbox.rename_in("job-1", hello_deb=b"deb")
    inbox.look()
    return inbox.claim_of("job-1")


def seal_it(inbox: Inbox, name: str = "job-1") -> Seal:
    return inbox.seal(name)


def sealed(inbox: Inbox, name: str = "job-1") -> dict[str, bytes]:
    folder = inbox.places.sealed(inbox.newest(name).id)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def codes(result: Seal) -> list[tuple[str, str | None]]:
    return [(problem.code, problem.file) for problem in result.problems]


def test_every_file_is_sealed_and_hashed(inbox: Inbox, claimed: Path) -> None:
    result = seal_it(inbox)
    assert result.problems == ()
    assert [entry.name for entry in result.files] == ["hello.changes", "hello.deb"]
    for entry in result.files:
        content = sealed(inbox)[entry.name]
        assert entry.size == len(content)
        assert entry.digests.sha256 == hashlib.sha256(content).hexdigest()
        assert entry.digests.sha1 == hashlib.sha1(content).hexdigest()
        assert entry.digests.md5 == hashlib.md5(content).hexdigest()


def test_sealing_twice_comes_to_the_same(inbox: Inbox, claimed: Path) -> None:
    os.link(claimed / "hello.deb", claimed.parent / "elsewhere")  # this one is copied, the .changes is renamed
    first = seal_it(inbox)
    assert (claimed / "hello.deb").exists()
    assert not (claimed / "hello.changes").exists()
    assert seal_it(inbox) == first


def test_what_is_larger_than_listed_is_not_copied(inbox: Inbox, claimed: Path) -> None:
    """However large it is: of a sparse file of a terabyte nothing is read."""
    with (claimed / "hello.deb").open("r+b") as file:
        file.truncate(1 << 40)
    for _ in range(2):
        result = seal_it(inbox)
        assert codes(result) == [("size-mismatch", "hello.deb")]
        assert "more than the 3 bytes that are listed" in result.problems[0].message
        assert sorted(sealed(inbox)) == ["hello.changes"]


def test_what_no_changes_lists_is_not_copied(inbox: Inbox, claimed: Path) -> None:
    with (claimed / "core.img").open("wb") as file:
        file.truncate(1 << 40)
    result = seal_it(inbox)
    assert (result.problems, result.left_out) == ((), ("core.img",))
    assert sorted(sealed(inbox)) == ["hello.changes", "hello.deb"]


def test_of_a_package_without_a_changes_no_more_than_a_queue_allows(make_inbox: Callable[..., Inbox]) -> None:
    inbox = make_inbox(allow_bare_debs=True, signatures="optional", default_suite="stable", max_upload=1000)
    for name, size in (("small", 600), ("large", 1 << 40)):
        folder = inbox.path / name
        folder.mkdir()
        for file in ("a.deb", "b.deb"):
            (folder / file).write_bytes(b"x" * min(size, 400))
            os.truncate(folder / file, min(size, 1 << 40) if file == "a.deb" else 400)
        inbox.scan_events.arrived("default", name, renamed_in=True)
    inbox.look()
    assert codes(seal_it(inbox, "small")) == []
    assert codes(seal_it(inbox, "large")) == [("upload-too-large", None)]
    assert sealed(inbox, "large") == {}


def test_more_changes_than_a_queue_allows(make_inbox: Callable[..., Inbox]) -> None:
    inbox = make_inbox(max_changes=1)
    inbox.rename_in("job-1", hello_deb=b"deb")
    (inbox.path / "job-1/other.changes").write_text("")
    inbox.look()
    assert codes(seal_it(inbox)) == [("too-many-changes", None)]
    assert sealed(inbox) == {}


def test_what_a_writer_still_holds_open_does_not_reach_the_seal(inbox: Inbox) -> None:
    folder = inbox.fill(".job-1", hello_deb=b"good")
    with (folder / "hello.deb").open("r+b") as writer:
        folder.rename(inbox.path / "job-1")
        inbox.scan_events.arrived("default", "job-1", renamed_in=True)
        inbox.look()
        seal_it(inbox)
        writer.write(b"evil")
    assert sealed(inbox)["hello.deb"] == b"good"
    assert (inbox.claim_of("job-1") / "hello.deb").read_bytes() == b"evil"


def test_what_is_mapped_does_not_reach_the_seal(inbox: Inbox) -> None:
    folder = inbox.fill(".job-1", hello_deb=b"good")
    with (folder / "hello.deb").open("r+b") as writer:
        mapped = mmap.mmap(writer.fileno(), 4)
    folder.rename(inbox.path / "job-1")
    inbox.scan_events.arrived("default", "job-1", renamed_in=True)
    inbox.look()
    seal_it(inbox)
    mapped[:] = b"evil"
    assert sealed(inbox)["hello.deb"] == b"good"
    mapped.close()


def test_another_name_of_a_file_does_not_reach_the_seal(inbox: Inbox, tmp_path: Path) -> None:
    folder = inbox.fill(".job-1", hello_deb=b"good")
    os.link(folder / "hello.deb", tmp_path / "kept")
    folder.rename(inbox.path / "job-1")
    inbox.scan_events.arrived("default", "job-1", renamed_in=True)
    inbox.look()
    seal_it(inbox)
    (tmp_path / "kept").write_bytes(b"evil")
    assert sealed(inbox)["hello.deb"] == b"good"


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        here = os.open(path.parent, os.O_RDONLY)
        made.bind(f"/proc/self/fd/{here}/{path.name}")
        os.close(here)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda path: path.symlink_to("/etc/passwd"), "symbolic link"),
        (lambda path: path.symlink_to("hello.deb"), "symbolic link"),
        (lambda path: path.symlink_to("/nowhere"), "symbolic link"),
        (os.mkfifo, "FIFO"),
        (lambda path: path.mkdir(), "directory"),
        (make_socket, "socket"),
        pytest.param(lambda path: os.mknod(path, stat.S_IFCHR, os.makedev(1, 5)), "device", marks=needs_root),
    ],
)
def test_what_is_no_regular_file_is_refused(
    inbox: Inbox, claimed: Path, make: Callable[[Path], None], kind: str
) -> None:
    make(claimed / "x.deb")
    result = seal_it(inbox)
    assert codes(result) == [("not-regular-file", "x.deb")]
    assert kind in result.problems[0].message
    assert sorted(sealed(inbox)) == ["hello.changes", "hello.deb"]


def test_a_link_in_the_place_of_the_directory_is_refused(inbox: Inbox, tmp_path: Path) -> None:
    inbox.rename_in("job-1")
    inbox.look()
    claim = inbox.claim_of("job-1")
    shutil.rmtree(claim)
    claim.symlink_to(tmp_path)
    assert codes(seal_it(inbox)) == [("not-regular-file", None)]
    assert sealed(inbox) == {}


BAD_NAMES = [b"a b", b"-x", b"\xff", b"\xc3\xa4", b"a:1", b"new\nline", b"a%2f"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_file_that_no_changes_can_list_is_left_out(inbox: Inbox, claimed: Path, name: bytes) -> None:
    (claimed / os.fsdecode(name + b".deb")).write_text("")
    for _ in range(2):  # the second try finds but this file in the claim
        result = seal_it(inbox)
        assert result.problems == ()
        assert len(result.left_out) == 1
        assert result.left_out[0].isprintable()
        assert sorted(sealed(inbox)) == ["hello.changes", "hello.deb"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_changes_with_a_bad_name_is_refused(inbox: Inbox, claimed: Path, name: bytes) -> None:
    (claimed / os.fsdecode(name + b".changes")).write_text("")
    result = seal_it(inbox)
    assert [code for code, _ in codes(result)] == ["bad-file-name"]
    assert result.problems[0].message.isprintable()
    assert result.left_out == ()


@pytest.mark.parametrize(("beside", "refused"), [("a.deb", True), ("a.changes", False)])
def test_a_package_with_a_bad_name_is_refused_where_it_would_be_the_upload(
    make_inbox: Callable[..., Inbox], beside: str, refused: bool
) -> None:
    inbox = make_inbox(allow_bare_debs=True, signatures="optional", default_suite="stable")
    folder = inbox.path / "job-1"
    folder.mkdir()
    for name in (beside, "a\nb.deb", "a b.txt"):
        (folder / name).write_text("x")
    inbox.scan_events.arrived("default", "job-1", renamed_in=True)
    inbox.look()
    for _ in range(2):
        result = seal_it(inbox)
        assert codes(result) == ([("bad-file-name", "a\\nb.deb")] if refused else [])
        assert result.left_out == (("a b.txt",) if refused else ("a\\nb.deb", "a b.txt"))


def test_all_that_is_wrong_is_told_at_once(inbox: Inbox, claimed: Path) -> None:
    os.mkfifo(claimed / "pipe.deb")
    (claimed / "hello.deb").unlink()
    (claimed / "hello.deb").mkdir()
    (claimed / "link deb").symlink_to("/etc/passwd")
    assert codes(seal_it(inbox)) == [
        ("not-regular-file", "hello.deb"),
        ("not-regular-file", "link deb"),
        ("not-regular-file", "pipe.deb"),
    ]


def test_of_other_files_nothing_is_told_while_the_changes_is_in_doubt(inbox: Inbox, claimed: Path) -> None:
    os.mkfifo(claimed / "pipe.deb")
    (claimed / "a b.changes").write_text("")
    (claimed / "c.changes").symlink_to("/etc/passwd")
    assert codes(seal_it(inbox)) == [("bad-file-name", "a b.changes"), ("not-regular-file", "c.changes")]
    assert sorted(sealed(inbox)) == ["hello.changes"]


def test_temporary_files_of_transfers_are_left_out(inbox: Inbox, claimed: Path) -> None:
    (claimed / ".hello.deb.Ab12Cd").write_text("half")
    (claimed / ".~tmp~").mkdir()
    result = seal_it(inbox)
    assert result.problems == ()
    assert sorted(sealed(inbox)) == ["hello.changes", "hello.deb"]


def test_a_bad_name_of_an_upload_is_refused(inbox: Inbox) -> None:
    inbox.rename_in("job 1", hello_deb=b"deb")
    inbox.look()
    assert codes(seal_it(inbox, "job 1")) == [("bad-upload-name", None)]


def test_too_many_files_are_refused_unread(make_inbox: Callable[..., Inbox]) -> None:
    inbox = make_inbox(max_files=3)
    inbox.rename_in("job-1", **{f"f{n}_deb": b"" for n in range(500)})
    inbox.look()
    result = seal_it(inbox)
    assert codes(result) == [("too-many-files", None)]
    assert sealed(inbox) == {}


def test_a_file_that_grows_while_it_is_copied_meets_the_limit(
    make_inbox: Callable[..., Inbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = make_inbox(max_upload="1M")
    inbox.rename_in("job-1", hello_deb=b"x")
    inbox.look()
    grown = inbox.claim_of("job-1") / "hello.deb"
    os.link(grown, inbox.folder / "kept")
    real = os.fstat

    def fstat_then_grow(fd: int) -> os.stat_result:
        status = real(fd)
        os.truncate(inbox.folder / "kept", 5 << 20)
        return status

    monkeypatch.setattr(taking, "has_writer", lambda fd: False)
    monkeypatch.setattr(taking.os, "fstat", fstat_then_grow)
    result = seal_it(inbox)
    monkeypatch.undo()
    assert codes(result) == [("size-mismatch", "hello.deb")]
    assert all(len(content) <= 1 << 20 for content in sealed(inbox).values())


def test_a_full_disk_is_not_the_uploaders_fault(inbox: Inbox, claimed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(fsio, "seal_file", full)
        with pytest.raises(Retry, match="No space left"):
            seal_it(inbox)
    assert seal_it(inbox).problems == ()


def test_a_link_that_an_interrupted_try_left_is_refused(inbox: Inbox, claimed: Path) -> None:
    seal_it(inbox)
    (inbox.places.sealed(1) / "hello.deb").unlink()
    (inbox.places.sealed(1) / "hello.deb").symlink_to("/etc/passwd")
    assert codes(seal_it(inbox)) == [("not-regular-file", "hello.deb")]
    assert sorted(sealed(inbox)) == ["hello.changes"]


@pytest.mark.parametrize("error", [errno.EAGAIN, errno.EIO, errno.ETXTBSY, errno.ESTALE])
@pytest.mark.parametrize("act", ["open", "read"])
def test_a_file_that_cannot_be_read_now_is_the_uploads_own_fault(
    inbox: Inbox, claimed: Path, monkeypatch: pytest.MonkeyPatch, error: int, act: str
) -> None:
    """As with a write lease on it. What was copied before is removed, and nothing else is lost."""
    (claimed / "hello.deb").rename(claimed / "z.deb")
    os.link(claimed / "z.deb", claimed / "hello.deb")
    (claimed / "hello.changes").write_text(changes_text(hello_deb=3, z_deb=3))
    os.link(claimed / "hello.changes", inbox.folder / "changes")
    with monkeypatch.context() as patch:
        failing(patch, act, "z.deb", error)
        with pytest.raises(Obstructed, match="cannot be read") as raised:
            seal_it(inbox)
    assert (raised.value.problem.code, raised.value.problem.file) == ("file-busy", "z.deb")
    assert sorted(sealed(inbox)) == []
    assert sorted(path.name for path in claimed.iterdir()) == ["hello.changes", "hello.deb", "z.deb"]
    assert seal_it(inbox).problems == ()


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_what_the_machine_lacks_is_not_the_uploads_fault(
    inbox: Inbox, claimed: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    with monkeypatch.context() as patch:
        failing(patch, "open", "hello.deb", error)
        with pytest.raises(Retry):
            seal_it(inbox)
    assert seal_it(inbox).problems == ()


def failing(patch: pytest.MonkeyPatch, act: str, name: str, error: int) -> None:
    """Have the system fail to open, or to read, the file of that name."""
    opened: set[int] = set()
    real_open, real_read = os.open, os.read

    def open_(path: Any, *args: Any, **kwargs: Any) -> int:
        if act == "open" and path == name:
            raise OSError(error, os.strerror(error))
        fd = real_open(path, *args, **kwargs)
        opened.discard(fd)
        if path == name:
            opened.add(fd)
        return fd

    def read(fd: int, count: int) -> bytes:
        if fd in opened:
            raise OSError(error, os.strerror(error))
        return real_read(fd, count)

    patch.setattr(os, "open", open_)
    patch.setattr(os, "read", read if act == "read" else real_read)


def test_room_is_made_sure_of_before_anything_is_copied(
    inbox: Inbox, claimed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.link(claimed / "hello.deb", inbox.folder / "kept")
    os.link(claimed / "hello.changes", inbox.folder / "changes")
    total, wanted = 1000, 3 + (claimed / "hello.changes").stat().st_size
    free = [wanted]
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=free[0], f_frsize=1, f_blocks=total))
    with pytest.raises(Retry, match="make room"):
        seal_it(inbox)
    assert sealed(inbox) == {}
    free[0] = wanted + total // 20
    assert seal_it(inbox).problems == ()


def test_room_that_one_upload_was_promised_no_other_one_gets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room()
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=1000, f_frsize=1, f_blocks=1000))
    with room.reserve(tmp_path, 500) as first:
        with pytest.raises(Retry), room.reserve(tmp_path, 500):
            pass
        first.used(100)
        with room.reserve(tmp_path, 500) as second:
            second.used(600)  # more than it was promised takes nothing from others
            with pytest.raises(Retry), room.reserve(tmp_path, 600):
                pass
    with room.reserve(tmp_path, 950):
        pass


def test_a_claim_that_has_vanished_is_told_of(inbox: Inbox, claimed: Path) -> None:
    shutil.rmtree(claimed)
    assert codes(seal_it(inbox)) == [("upload-lost", None)]


@needs_root
def test_a_file_that_the_daemon_may_not_read_says_what_to_do(
    make_inbox: Callable[..., Inbox], open_folder: Path
) -> None:
    inbox = make_inbox(open_folder)
    inbox.rename_in("job-1", hello_deb=b"deb", other_deb=b"x")
    inbox.look()
    claim = inbox.claim_of("job-1")
    (claim / "hello.deb").chmod(0o600)
    for path in (inbox.state, *inbox.state.rglob("*")):
        if path != claim / "hello.deb":
            os.chown(path, NOBODY, NOBODY)
    result = as_nobody(lambda: inbox.seal("job-1"))
    assert codes(result) == [("unreadable-file", "hello.deb")]
    assert "umask" in result.problems[0].message
    assert [entry.name for entry in result.files] == ["hello.changes", "other.deb"]


def test_whoever_swaps_files_for_links_meanwhile_never_gets_a_secret_out(inbox: Inbox) -> None:
    """The uploader's working directory is still inside: he can do with the claim what he likes."""
    (inbox.folder / "secret").write_text("SECRET")
    (inbox.folder / "own").write_text("own")
    inbox.rename_in("job-1", **{f"f{n}_deb": b"x" * 10 for n in range(30)})
    inbox.look()
    claim = inbox.claim_of("job-1")
    stop = threading.Event()

    def attack() -> None:
        makers = [
            lambda path: path.symlink_to(inbox.folder / "secret"),
            os.mkfifo,
            lambda path: path.write_text("other"),
            lambda path: os.link(inbox.folder / "own", path),
        ]
        for number in itertools.count():
            if stop.is_set():
                return
            new = claim / ".new"
            makers[number % len(makers)](new)
            new.replace(claim / f"f{number % 30}.deb")

    attacker = threading.Thread(target=attack)
    attacker.start()
    try:
        for _ in range(30):
            try:
                result = seal_it(inbox)
            except Retry:
                continue
            assert {p.code for p in result.problems} <= {"not-regular-file", "changed-while-read"}
            for entry in result.files:
                path = inbox.places.sealed(1) / entry.name
                assert not path.is_symlink()
            for path in inbox.places.sealed(1).iterdir():
                assert path.is_symlink() or b"SECRET" not in path.read_bytes()
    finally:
        stop.set()
        attacker.join()
