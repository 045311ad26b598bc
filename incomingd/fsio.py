"""Every rename, sync, no-follow open and durable write that there is.

Rules:

* A name from an upload is opened relative to its directory's descriptor, with ``O_NOFOLLOW | O_NONBLOCK``, and is
  used only when it is a regular file: a link is never followed and a FIFO never blocks.
* *Durable* means: after the call a power cut leaves the new content under the name, or (had it come earlier) the old
  one, never a part. It is temp, write, fsync, rename, fsync of the directory.
* *Atomic* is the same without the syncs: for what is derived from the journal and can be written anew.

Failures are ``OSError``; a missing place on the disk and a missing right are the environment's, and the caller says so.
"""

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import os
import stat
import struct
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from incomingd.model import Digests, FileEntry

_CHUNK = 1 << 20
_TEMPORARY = ".new-"
#: From this many on, one syncfs(2) is cheaper than a sync of each (100 new files of 20 kB: 11 ms against 44 ms).
_SYNC_WHOLE = 64
#: Levels of directories in directories after which a removal gives up.
_DEEPEST = 100_000
#: struct flock: type, whence, start, length, process.
_FLOCK = "hhqqi0q"
#: Another file system or mount, no links there, or too many of them.
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP)
_libc = ctypes.CDLL(None, use_errno=True)


class NotRegularError(OSError):
    """What was to be read is a link, a directory, a FIFO, a device or a socket."""


@contextlib.contextmanager
def directory(path: Path | str, dir_fd: int | None = None) -> Iterator[int]:
    """A descriptor of a directory, which must not be a link itself."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def regular(name: str, dir_fd: int) -> Iterator[int]:
    """A read-only descriptor of the regular file ``name`` in ``dir_fd``. Raises :class:`NotRegularError` for others."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY, dir_fd=dir_fd)
    except OSError as error:
        # ELOOP: a link; ENXIO: a socket or a device without a driver.
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise NotRegularError(error.errno, "not a regular file", name) from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise NotRegularError(errno.EINVAL, "not a regular file", name)
        yield fd
    finally:
        os.close(fd)


def read_regular(name: str, dir_fd: int, limit: int) -> bytes:
    """At most ``limit`` bytes of the regular file ``name``; a longer one raises ``OSError`` with ``EFBIG``."""
    with regular(name, dir_fd) as fd:
        if os.fstat(fd).st_size > limit:
            raise OSError(errno.EFBIG, f"larger than {limit} bytes", name)
        chunks = []
        # The size may grow while it is read: what counts is what was read.
        while chunk := os.read(fd, _CHUNK):
            chunks.append(chunk)
            limit -= len(chunk)
            if limit < 0:
                raise OSError(errno.EFBIG, "grew past the limit while it was read", name)
        return b"".join(chunks)


def has_writer(fd: int) -> bool:
    """True where some process has the file open, or mapped, for writing.

    A read lease is refused with EAGAIN while there is a writer (fcntl(2), "Leases"). It needs the file's owner or
    CAP_LEASE, and a file system that has leases; where it cannot be told the answer is False, and the settle time alone
    must do. A lease that is broken while it is held sends SIGIO: the daemon ignores that signal.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


class _Hashes:
    """MD5, SHA-1 and SHA-256 of one stream; MD5, the slowest, in a thread of its own where the stream is long."""

    def __init__(self) -> None:
        self.md5 = hashlib.md5(usedforsecurity=False)
        self.sha1 = hashlib.sha1(usedforsecurity=False)
        self.sha256 = hashlib.sha256()

    def update(self, chunk: bytes, beside: ThreadPoolExecutor | None) -> None:
        waiting = beside.submit(self.md5.update, chunk) if beside else None
        self.sha256.update(chunk)
        self.sha1.update(chunk)
        if waiting:
            waiting.result()
        else:
            self.md5.update(chunk)

    def digests(self) -> Digests:
        return Digests(md5=self.md5.hexdigest(), sha1=self.sha1.hexdigest(), sha256=self.sha256.hexdigest())


def _read_hashed(fd: int, name: str, limit: int, target: int | None) -> FileEntry:
    """Read ``fd`` to its end, hash it, and write it to ``target``; at most ``limit`` bytes, else EFBIG."""
    hashes, size = _Hashes(), 0
    long = os.fstat(fd).st_size > 4 * _CHUNK
    with ThreadPoolExecutor(1) if long else contextlib.nullcontext() as beside:
        while chunk := os.read(fd, _CHUNK):
            size += len(chunk)
            if size > limit:
                raise OSError(errno.EFBIG, f"larger than {limit} bytes", name)
            hashes.update(chunk, beside)
            if target is not None:
                _write_all(target, chunk)
    return FileEntry(name=name, size=size, digests=hashes.digests())


def _write_all(fd: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def seal_file(name: str, dir_fd: int, target: Path, limit: int) -> FileEntry:
    """Make ``target`` a file of the daemon's own with the bytes of ``name``, and return what those bytes are.

    Where the file already is the daemon's own, with one link and no writer, it is renamed and only read; otherwise it
    is copied. Nothing that somebody else holds open, linked or mapped can change ``target`` afterwards. ``target`` may
    be there from an earlier try. Not synced: until the upload is published the original, or this very file, is kept.
    """
    with regular(name, dir_fd) as fd:
        before = os.fstat(fd)
        if before.st_size > limit:
            raise OSError(errno.EFBIG, f"larger than {limit} bytes", name)
        if _take_over(fd, name, dir_fd, target):
            return _read_hashed(fd, name, limit, None)
        with _new_file(target, 0o644) as out:
            entry = _read_hashed(fd, name, limit, out)
    return entry


def _take_over(fd: int, name: str, dir_fd: int, target: Path) -> bool:
    """Rename instead of copying, where that is as safe."""
    status = os.fstat(fd)
    if status.st_uid != os.geteuid() or status.st_nlink != 1:
        return False
    # First the mode, then the look for writers: afterwards nobody else can open it for writing any more, not even
    # through /proc/self/fd of a descriptor that was opened for reading.
    os.fchmod(fd, 0o644)
    if has_writer(fd) or os.fstat(fd).st_nlink != 1:
        return False
    try:
        os.rename(name, target, src_dir_fd=dir_fd)
    except OSError as error:
        if error.errno == errno.EXDEV:
            return False
        raise
    # The name may have been given to another file in between: what was renamed must be what was opened.
    return os.path.samestat(os.fstat(fd), os.stat(target, follow_symlinks=False))


def take_copy(source: Path, target: Path, *, link: bool = False) -> FileEntry:
    """Make ``target`` a copy of the regular file ``source``, and return what it holds. Not synced.

    ``link`` makes it a second name instead, where one can be had: right only where nobody changes files in place.
    """
    with directory(source.parent) as dir_fd, regular(source.name, dir_fd) as fd:
        if link and _linked(source, target):
            return _read_hashed(fd, source.name, 1 << 62, None)
        with _new_file(target, 0o644) as out:
            return _read_hashed(fd, source.name, 1 << 62, out)


def _linked(source: Path, target: Path) -> bool:
    remove(target)
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        return False
    return True


def copy_file(name: str, dir_fd: int, target: Path) -> None:
    """Copy the bytes of the regular file ``name`` to ``target``, whatever had that name. Not synced."""
    with regular(name, dir_fd) as fd, _new_file(target, 0o644) as out:
        while chunk := os.read(fd, _CHUNK):
            _write_all(out, chunk)


def hash_file(path: Path) -> FileEntry:
    """Size and digests of a file of the daemon's own."""
    with directory(path.parent) as dir_fd, regular(path.name, dir_fd) as fd:
        return _read_hashed(fd, path.name, 1 << 62, None)


@contextlib.contextmanager
def _new_file(path: Path, mode: int) -> Iterator[int]:
    """A descriptor of a new, empty file, in place of whatever had the name."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        os.fchmod(fd, mode)  # whatever the umask
        yield fd
    finally:
        os.close(fd)


def write_new(path: Path, chunks: Iterable[bytes], mode: int = 0o644) -> None:
    """Write a file that nobody looks at yet, in place of whatever had the name. Not synced: see :func:`sync`."""
    with _new_file(path, mode) as fd:
        for chunk in chunks:
            _write_all(fd, chunk)


def write_atomic(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace a derived file: a reader sees the old bytes or the new ones. Not synced."""
    temporary = path.with_name(f"{_TEMPORARY}{path.name[:200]}.{os.getpid()}")
    write_new(temporary, [data], mode)
    os.replace(temporary, path)


def write_durable(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace a file so that a power cut leaves the old bytes or the new ones, and after the call the new ones."""
    temporary = path.with_name(f"{_TEMPORARY}{path.name[:200]}.{os.getpid()}")
    write_new(temporary, [data], mode)
    sync([temporary])
    os.replace(temporary, path)
    sync([path.parent])


def sync(paths: Iterable[Path]) -> None:
    """Wait until the named files and directories are on the disk. They must lie on one file system where many."""
    todo = list(paths)
    if len(todo) < _SYNC_WHOLE:
        for path in todo:
            _on_descriptor(path, os.fsync)
        return
    sync_file_systems(todo)


def sync_file_systems(paths: Iterable[Path]) -> None:
    """Wait until all that was written to the file systems of these paths is on the disk (syncfs(2))."""
    devices: dict[int, Path] = {}
    for path in paths:
        devices.setdefault(os.stat(path, follow_symlinks=False).st_dev, path)
    for path in devices.values():
        _on_descriptor(path, _syncfs)


@contextlib.contextmanager
def new_file(path: Path, mode: int = 0o644) -> Iterator[BinaryIO]:
    """A new, empty file that nobody looks at yet, open for writing. Not synced: see :func:`sync`."""
    with _new_file(path, mode) as fd, open(fd, "wb", buffering=_CHUNK, closefd=False) as out:
        yield out


def _on_descriptor(path: Path, act: Callable[[int], None]) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        act(fd)
    finally:
        os.close(fd)


def _syncfs(fd: int) -> None:
    if _libc.syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def lock_holder(path: Path) -> int | None:
    """The process that holds a lock on the whole file (fcntl(2), F_GETLK); None where nobody does. Takes no lock."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, asked))
    finally:
        os.close(fd)
    return None if kind == fcntl.F_UNLCK else int(pid)


def rename(source: Path, target: Path) -> None:
    """rename(2), nothing more; on one file system."""
    os.rename(source, target)


def rename_durable(source: Path, target: Path) -> None:
    """rename(2), and wait for both directories."""
    os.rename(source, target)
    sync(dict.fromkeys((target.parent, source.parent)))


def place(source: Path, target: Path) -> None:
    """Give the bytes of ``source`` the name ``target`` too: a link where that can be had, else a copy. Not synced.

    ``target`` is replaced at once where it is there.
    """
    with contextlib.suppress(OSError):  # nearly always it is not there, and one call does it
        os.link(source, target, follow_symlinks=False)
        return
    temporary = target.with_name(f"{_TEMPORARY}{target.name[:200]}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    try:
        os.link(source, temporary, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        with source.open("rb") as original:
            write_new(temporary, iter(lambda: original.read(_CHUNK), b""))
    os.replace(temporary, target)
    # rename(2) of two links to one inode does nothing and leaves both.
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()


def link(source: Path, target: Path) -> None:
    """A second name for a file that never changes in place; one that is there stays."""
    with contextlib.suppress(FileExistsError):
        os.link(source, target, follow_symlinks=False)


def points_to(link: Path, target: str) -> bool:
    """True where ``link`` is a symbolic link with just that text."""
    try:
        return os.readlink(link) == target
    except OSError:
        return False


def holds(path: Path, data: bytes) -> bool:
    """True where the file is there and has just these bytes."""
    try:
        return path.read_bytes() == data
    except FileNotFoundError:
        return False


def switch(link: Path, target: str) -> None:
    """Make the symbolic link ``link`` point to ``target`` by one rename, durably."""
    temporary = link.with_name(f"{_TEMPORARY}{link.name}")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    temporary.symlink_to(target)
    os.replace(temporary, link)
    sync([link.parent])


def make_directories(path: Path, mode: int = 0o755) -> list[Path]:
    """Make ``path`` and what is missing above it; return the directories to :func:`sync` for it to last."""
    try:
        path.mkdir(mode)
    except FileExistsError:
        return []
    except FileNotFoundError:
        above = make_directories(path.parent, mode)
        path.mkdir(mode)
    else:
        above = []
    path.chmod(mode)  # whatever the umask
    return list(dict.fromkeys([*above, path, path.parent]))


def remove_tree(path: Path) -> None:
    """Remove ``path``, whatever it is, with all that is in it, following no link; nothing is done where it is gone.

    However deep: what is nested is moved up before it is emptied, so neither the stack nor the open descriptors grow.
    """
    try:
        with directory(path) as fd:
            _empty(fd)
        path.rmdir()
    except FileNotFoundError:
        return
    except NotADirectoryError:
        path.unlink()


def _empty(top: int) -> None:
    number = 0
    # Somebody may go on filling it: then it ends as "not empty".
    for _ in range(_DEEPEST):
        folders = _unlink_files(top)
        if not folders:
            return
        for folder in folders:
            with directory(folder, top) as fd:
                for nested in _unlink_files(fd):
                    number = _move_up(nested, fd, top, number)
            os.rmdir(folder, dir_fd=top)


def _unlink_files(fd: int) -> list[str]:
    """Unlink all that is no directory; the directories that are left."""
    with os.scandir(fd) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in found:
        if not is_folder:
            os.unlink(name, dir_fd=fd)
    return [name for name, is_folder in found if is_folder]


def _move_up(name: str, source: int, target: int, number: int) -> int:
    while True:
        number += 1
        try:
            os.rename(name, f".{_TEMPORARY}{number}", src_dir_fd=source, dst_dir_fd=target)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        else:
            return number


def remove(path: Path) -> None:
    """Unlink a file; nothing is done where it is not there."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def remove_empty(path: Path, stop: Path) -> None:
    """Remove ``path`` and then its parents, as long as they are empty, up to, not with, ``stop``."""
    for folder in (path, *path.parents):
        if folder == stop or stop not in folder.parents:
            return
        try:
            folder.rmdir()
        except OSError:  # not empty, or gone
            return
