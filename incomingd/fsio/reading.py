"""Opening and looking: never through a link, never for long."""

import contextlib
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

CHUNK = 1 << 20
#: Says by its status whether a file may be used.
Allowed = Callable[[os.stat_result], bool]
#: struct flock: type, whence, start, length, process.
_FLOCK = "hhqqi0q"


class NotRegularError(OSError):
    """What was to be read is a link, a directory, a FIFO, a device or a socket."""


class ForeignFileError(OSError):
    """The file is not one that may be used here, by its status: it belongs to the account ``uid``."""

    def __init__(self, uid: int, name: str) -> None:
        super().__init__(errno.EPERM, f"it belongs to uid {uid}", name)
        self.uid = uid


@contextlib.contextmanager
def directory(
    path: Path | str, dir_fd: int | None = None, *, through: bool = False, follow: bool = False
) -> Iterator[int]:
    """A descriptor of a directory, which must not be a link itself, or may be one (``follow``).

    ``through``: only to open what is in it; whoever watches it is not told, as of all others (open(2), ``O_PATH``).
    """
    how = os.O_PATH if through else os.O_RDONLY
    how |= os.O_DIRECTORY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    fd = os.open(path, how, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def regular(name: str, dir_fd: int, allowed: Allowed | None = None) -> Iterator[int]:
    """A read-only descriptor of the regular file ``name`` in ``dir_fd``. Raises :class:`NotRegularError` for others.

    ``allowed`` is asked about what was opened, so no other file can be put under the name after it was asked; a file
    that it refuses raises :class:`ForeignFileError`.
    """
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY, dir_fd=dir_fd)
    except OSError as error:
        # ELOOP: a link; ENXIO: a socket or a device without a driver.
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise NotRegularError(error.errno, "not a regular file", name) from error
        raise
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise NotRegularError(errno.EINVAL, "not a regular file", name)
        if allowed is not None and not allowed(status):
            raise ForeignFileError(status.st_uid, name)
        yield fd
    finally:
        os.close(fd)


def read_regular(name: str, dir_fd: int, limit: int, allowed: Allowed | None = None) -> bytes:
    """At most ``limit`` bytes of the regular file ``name``; a longer one raises ``OSError`` with ``EFBIG``.

    ``allowed`` as for :func:`regular`.
    """
    with regular(name, dir_fd, allowed) as fd:
        if os.fstat(fd).st_size > limit:
            raise OSError(errno.EFBIG, f"larger than {limit} bytes", name)
        chunks = []
        # The size may grow while it is read: what counts is what was read.
        while chunk := os.read(fd, CHUNK):
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


def allocated(path: Path) -> int:
    """How many bytes the file takes on the disk; some file systems know it only later, so at least its size."""
    status = os.stat(path, follow_symlinks=False)
    return max(status.st_blocks * 512, status.st_size)


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
