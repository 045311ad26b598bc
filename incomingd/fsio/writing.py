"""New files, whole or not at all, and waiting until they are on the disk."""

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from incomingd.fsio.reading import CHUNK

#: What nobody has to know yet is called so.
TEMPORARY = ".new-"
#: From this many on, one syncfs(2) is cheaper than a sync of each (100 new files of 20 kB: 11 ms against 44 ms).
_SYNC_WHOLE = 64
_libc = ctypes.CDLL(None, use_errno=True)


def temporary_of(path: Path) -> Path:
    """Where what is to have the name ``path`` is made: beside it, and nobody else's."""
    return path.with_name(f"{TEMPORARY}{path.name[:200]}.{os.getpid()}")


@contextlib.contextmanager
def open_new(path: Path, mode: int, owner: tuple[int, int] | None = None) -> Iterator[int]:
    """A descriptor of a new, empty file, in place of whatever had the name. ``owner`` is a uid and a gid."""
    how = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(path, how, mode)
    except FileExistsError:
        os.unlink(path)
        fd = os.open(path, how, mode)
    try:
        if owner is not None:  # by the descriptor: the name may lead to another file at any time
            os.fchown(fd, *owner)
        os.fchmod(fd, mode)  # whatever the umask
        yield fd
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """write(2) until all is written."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def write_new(path: Path, chunks: Iterable[bytes], mode: int = 0o644, *, owner: tuple[int, int] | None = None) -> None:
    """Write a file that nobody looks at yet, in place of whatever had the name. Not synced: see :func:`sync`.

    ``owner`` is a uid and a gid; without it the file is the caller's.
    """
    with open_new(path, mode, owner) as fd:
        for chunk in chunks:
            write_all(fd, chunk)


def write_atomic(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace a derived file: a reader sees the old bytes or the new ones. Not synced."""
    temporary = temporary_of(path)
    write_new(temporary, [data], mode)
    os.replace(temporary, path)


def write_durable(path: Path, data: bytes, mode: int = 0o644, *, owner: tuple[int, int] | None = None) -> None:
    """Replace a file so that a power cut leaves the old bytes or the new ones, and after the call the new ones.

    ``owner`` is a uid and a gid, which the file has before it has its name.
    """
    temporary = temporary_of(path)
    write_new(temporary, [data], mode, owner=owner)
    sync([temporary])
    os.replace(temporary, path)
    sync([path.parent])


@contextlib.contextmanager
def new_file(path: Path, mode: int = 0o644, *, synced: bool = False) -> Iterator[BinaryIO]:
    """A new, empty file that nobody looks at yet, open for writing. Its bytes are ``synced`` at the end, not its name:
    see :func:`sync`."""
    with open_new(path, mode) as fd:
        with open(fd, "wb", buffering=CHUNK, closefd=False) as out:
            yield out
        if synced:
            os.fsync(fd)


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
