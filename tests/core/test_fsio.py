"""What the daemon's hands do: never through a link, never half, never too much."""

import errno
import hashlib
import mmap
import os
import socket
import subprocess
from pathlib import Path

import pytest

from incomingd import fsio

BYTES = b"the bytes of an upload\n" * 1000


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "uploaded"
    folder.mkdir()
    (folder / "a.deb").write_bytes(BYTES)
    return folder


# -- reading what others wrote ----------------------------------------------------------------------------------------


def odd(folder: Path, kind: str) -> None:
    path = folder / "odd"
    match kind:
        case "link":
            path.symlink_to("a.deb")
        case "dangling link":
            path.symlink_to("nowhere")
        case "fifo":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "socket":
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(path))


@pytest.mark.parametrize("kind", ["link", "dangling link", "fifo", "directory", "socket"])
def test_only_regular_files_are_read_and_nothing_blocks(source: Path, kind: str) -> None:
    odd(source, kind)
    with fsio.directory(source) as fd:
        with pytest.raises(fsio.NotRegularError):
            fsio.read_regular("odd", fd, 100)
        with pytest.raises(fsio.NotRegularError):
            fsio.seal_file("odd", fd, source.parent / "sealed", 100)


def test_a_directory_that_is_a_link_is_refused(source: Path) -> None:
    (source.parent / "link").symlink_to(source)
    with pytest.raises(OSError, match="link") as refused, fsio.directory(source.parent / "link"):
        pass
    assert refused.value.errno in (errno.ELOOP, errno.ENOTDIR)


def test_what_is_larger_than_allowed_is_not_read(source: Path) -> None:
    with fsio.directory(source) as fd:
        assert fsio.read_regular("a.deb", fd, len(BYTES)) == BYTES
        with pytest.raises(OSError, match="larger than") as refused:
            fsio.read_regular("a.deb", fd, len(BYTES) - 1)
        assert refused.value.errno == errno.EFBIG
        with pytest.raises(OSError, match="larger than"):
            fsio.seal_file("a.deb", fd, source.parent / "sealed", len(BYTES) - 1)


# -- sealing ----------------------------------------------------------------------------------------------------------


def seal(source: Path) -> Path:
    target = source.parent / "sealed"
    with fsio.directory(source) as fd:
        entry = fsio.seal_file("a.deb", fd, target, 1 << 20)
    assert (entry.name, entry.size) == ("a.deb", len(BYTES))
    assert entry.digests.md5 == hashlib.md5(BYTES).hexdigest()
    assert entry.digests.sha1 == hashlib.sha1(BYTES).hexdigest()
    assert entry.digests.sha256 == hashlib.sha256(BYTES).hexdigest()
    return target


def test_what_is_the_daemons_own_is_renamed(source: Path) -> None:
    inode = (source / "a.deb").stat().st_ino
    assert seal(source).stat().st_ino == inode
    assert not (source / "a.deb").exists()


def test_what_somebody_has_open_is_copied(source: Path) -> None:
    with (source / "a.deb").open("r+b") as writer:
        sealed = seal(source)
        writer.write(b"XXX")
    assert sealed.read_bytes() == BYTES


def test_what_somebody_has_mapped_is_copied(source: Path) -> None:
    with (source / "a.deb").open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)
    sealed = seal(source)
    mapped[:3] = b"XXX"
    mapped.flush()
    mapped.close()
    assert sealed.read_bytes() == BYTES


def test_what_has_a_second_name_is_copied(source: Path) -> None:
    (source / "second").hardlink_to(source / "a.deb")
    sealed = seal(source)
    (source / "second").write_bytes(b"XXX")
    assert sealed.read_bytes() == BYTES


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_is_anothers_is_copied(source: Path) -> None:
    os.chown(source / "a.deb", 12345, 12345)
    sealed = seal(source)
    assert sealed.stat().st_uid == 0
    assert (source / "a.deb").exists()


def test_sealing_again_replaces_what_an_earlier_try_left(source: Path) -> None:
    (source.parent / "sealed").write_bytes(b"half")
    (source.parent / "sealed").chmod(0o400)
    assert seal(source).read_bytes() == BYTES


def test_a_long_file_has_the_same_digests(tmp_path: Path) -> None:
    data = os.urandom(1 << 20) * 6
    (tmp_path / "long").write_bytes(data)
    found = fsio.hash_file(tmp_path / "long")
    for algorithm in ("md5", "sha1", "sha256"):
        assert getattr(found.digests, algorithm) == hashlib.new(algorithm, data).hexdigest()


# -- writing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [fsio.write_atomic, fsio.write_durable])
def test_a_file_is_replaced_whole_whatever_the_umask(tmp_path: Path, write: object) -> None:
    path = tmp_path / ("n" * 250)
    before = os.umask(0o077)
    try:
        for data in (b"old", b"new"):
            write(path, data)  # type: ignore[operator]
    finally:
        os.umask(before)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_of_a_replaced_file_never_sees_a_part(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    fsio.write_atomic(path, b"a" * 100_000)
    with path.open("rb") as reader:
        fsio.write_atomic(path, b"b" * 100_000)
        assert set(reader.read()) == {ord("a")}
    assert set(path.read_bytes()) == {ord("b")}


def test_a_link_is_switched_in_one_step(tmp_path: Path) -> None:
    for target in ("one", "two"):
        (tmp_path / target).mkdir()
        fsio.switch(tmp_path / "current", target)
        assert fsio.points_to(tmp_path / "current", target)
    assert not fsio.points_to(tmp_path / "current", "one")
    assert not fsio.points_to(tmp_path / "nothing", "one")


def test_placing_can_be_done_twice_and_replaces(tmp_path: Path, source: Path) -> None:
    target = tmp_path / "pool.deb"
    for _ in range(2):
        fsio.place(source / "a.deb", target)
    target.unlink()
    target.write_bytes(b"litter")
    fsio.place(source / "a.deb", target)
    assert target.read_bytes() == BYTES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pool.deb", "uploaded"]


def test_placing_across_file_systems_copies(tmp_path: Path, source: Path) -> None:
    other = Path("/dev/shm")
    if other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("/dev/shm is on the same file system")
    target = other / f"incomingd-test-{os.getpid()}"
    try:
        fsio.place(source / "a.deb", target)
        assert target.read_bytes() == BYTES
    finally:
        target.unlink()


def test_many_files_are_synced_as_few_are(tmp_path: Path) -> None:
    files = [tmp_path / str(number) for number in range(100)]
    for file in files:
        file.touch()
    fsio.sync(files)
    fsio.sync(files[:3])
    with pytest.raises(FileNotFoundError):
        fsio.sync([tmp_path / "nothing"])


def test_folders_are_made_with_the_mode_that_was_asked_for(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        made = fsio.make_directories(tmp_path / "a/b/c", 0o755)
    finally:
        os.umask(before)
    assert (tmp_path / "a/b/c").stat().st_mode & 0o777 == 0o755
    assert set(made) == {tmp_path, tmp_path / "a", tmp_path / "a/b", tmp_path / "a/b/c"}
    assert fsio.make_directories(tmp_path / "a/b/c") == []


# -- removing ---------------------------------------------------------------------------------------------------------


def test_a_tree_is_removed_without_following_links(tmp_path: Path, source: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/out").symlink_to(source)
    (tree / "a/b/file").touch()
    os.mkfifo(tree / "fifo")
    fsio.remove_tree(tree)
    fsio.remove_tree(tree)
    assert not tree.exists()
    assert (source / "a.deb").exists()


def test_a_link_in_place_of_a_tree_is_removed_itself(tmp_path: Path, source: Path) -> None:
    (tmp_path / "link").symlink_to(source)
    fsio.remove_tree(tmp_path / "link")
    assert not os.path.lexists(tmp_path / "link")
    assert (source / "a.deb").exists()


def test_a_tree_deeper_than_any_path_is_removed(tmp_path: Path) -> None:
    script = "import os\nfor _ in range(3000):\n os.mkdir('deep'); os.chdir('deep')"
    (tmp_path / "tree").mkdir()
    subprocess.run(["python3", "-c", script], cwd=tmp_path / "tree", check=True)
    fsio.remove_tree(tmp_path / "tree")
    assert not (tmp_path / "tree").exists()


def test_empty_folders_are_removed_up_to_a_stop(tmp_path: Path) -> None:
    (tmp_path / "pool/main/h/hello").mkdir(parents=True)
    (tmp_path / "pool/main/other").touch()
    fsio.remove_empty(tmp_path / "pool/main/h/hello", tmp_path / "pool")
    assert sorted(path.name for path in (tmp_path / "pool/main").iterdir()) == ["other"]
    fsio.remove_empty(tmp_path / "elsewhere", tmp_path / "pool")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files away")
def test_the_owner_is_given_to_the_file_and_not_to_what_its_name_leads_to(tmp_path: Path) -> None:
    (secret := tmp_path / "secret").write_text("root's\n")
    (file := tmp_path / "file").symlink_to(secret)
    fsio.write_durable(file, b"new\n", 0o640, owner=(12000, 12001))
    status = file.lstat()
    assert (status.st_uid, status.st_gid, status.st_mode) == (12000, 12001, 0o100640)
    assert secret.stat().st_uid == 0
    assert secret.read_text() == "root's\n"
