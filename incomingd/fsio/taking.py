"""Taking the bytes of others, hashed on the way: by rename if they are the daemon's alone, else by copy."""

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from incomingd.fsio.naming import NO_LINK, take_out
from incomingd.fsio.reading import (
    CHUNK,
    Allowed,
    ForeignFileError,
    NotRegularError,
    directory,
    has_writer,
    regular,
)
from incomingd.fsio.removing import remove
from incomingd.fsio.writing import open_new, temporary_of, write_all
from incomingd.model import Digests, FileEntry

#: Is told how many bytes were written.
Wrote = Callable[[int], None]


def _no_one(_: int) -> None:
    """Is told, and does nothing."""


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


class UnreadError(OSError):
    """The file that was to be taken cannot be opened or read; its number says why."""


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    """Tell errors with the file that is taken from those with the one that is written."""
    try:
        yield
    except (NotRegularError, ForeignFileError):
        raise
    except OSError as error:
        raise UnreadError(error.errno, error.strerror, name) from error


def _read(fd: int, name: str) -> bytes:
    with _reading(name):
        return os.read(fd, CHUNK)


def _read_hashed(fd: int, name: str, limit: int, target: int | None, wrote: Wrote = _no_one) -> FileEntry:
    """Read ``fd`` to its end, hash it, and write it to ``target``; at most ``limit`` bytes, else EFBIG.

    ``wrote`` is told of each part that was written.
    """
    hashes, size = _Hashes(), 0
    long = os.fstat(fd).st_size > 4 * CHUNK
    with ThreadPoolExecutor(1) if long else contextlib.nullcontext() as beside:
        while chunk := _read(fd, name):
            size += len(chunk)
            if size > limit:
                raise OSError(errno.EFBIG, f"larger than {limit} bytes", name)
            hashes.update(chunk, beside)
            if target is not None:
                write_all(target, chunk)
                wrote(len(chunk))
    return FileEntry(name=name, size=size, digests=hashes.digests())


def seal_file(
    name: str, dir_fd: int, target: Path, limit: int, allowed: Allowed | None = None, wrote: Wrote = _no_one
) -> FileEntry:
    """Make ``target`` a file of the daemon's own with the bytes of ``name``, and return what those bytes are.

    If the file already is the daemon's own, with one link and no writer, it is renamed and only read; otherwise it
    is copied. Nothing that somebody else holds open, linked or mapped can change ``target`` afterwards. ``target`` may
    be there from an earlier try, and lies in a directory that no one else can reach. Not synced: until the upload is
    published the original, or this very file, is kept. ``allowed`` as for :func:`regular`; ``wrote`` is told of each
    part that is copied.

    Errors with ``name`` itself are :class:`UnreadError`. After any error ``target`` is not there.
    """
    with contextlib.ExitStack() as stack:
        with _reading(name):
            fd = stack.enter_context(regular(name, dir_fd, allowed))
        before = os.fstat(fd)
        if before.st_size > limit:
            raise OSError(errno.EFBIG, f"larger than {limit} bytes", name)
        is_own = before.st_uid == os.geteuid() and before.st_nlink == 1 and not has_writer(fd)
        if is_own and _moved(before, name, dir_fd, target):
            return _made_own(fd, name, target, limit)
        try:
            with open_new(target, 0o644) as out:
                return _read_hashed(fd, name, limit, out, wrote)
        except OSError:
            with contextlib.suppress(OSError):
                remove(target)
            raise


def _moved(opened: os.stat_result, name: str, dir_fd: int, target: Path) -> bool:
    """Rename instead of copying. The name may have been given to another file meanwhile, which then stays there."""
    try:
        return take_out(name, target, source_fd=dir_fd, allowed=lambda moved: os.path.samestat(moved, opened))
    except OSError as error:
        if error.errno == errno.EXDEV:
            return False
        raise


def own_file(path: Path) -> FileEntry:
    """Make sure that ``path``, which was renamed there, is the daemon's alone, and return what it holds."""
    with directory(path.parent) as dir_fd, regular(path.name, dir_fd) as fd:
        return _made_own(fd, path.name, path, 1 << 62)


def _made_own(fd: int, name: str, path: Path, limit: int) -> FileEntry:
    """``fd`` is the file at ``path``, in the daemon's own directory. If it has got another name or a writer meanwhile,
    it is replaced by a copy. That one is synced: the original is gone then."""
    # First the mode, then the look for writers: afterwards no one else can open it for writing any more, not even
    # through /proc/self/fd of a descriptor that was opened for reading.
    os.fchmod(fd, 0o644)
    if os.fstat(fd).st_nlink == 1 and not has_writer(fd):
        return _read_hashed(fd, name, limit, None)
    temporary = temporary_of(path)
    try:
        with open_new(temporary, 0o644) as out:
            entry = _read_hashed(fd, name, limit, out)
            os.fsync(out)
        os.replace(temporary, path)
    except OSError:
        remove(temporary)
        raise
    return entry


def take_copy(source: Path, target: Path, *, link: bool = False, limit: int = 1 << 62) -> FileEntry:
    """Make ``target`` a copy of the regular file ``source``, and return what it holds. Not synced.

    A file of more than ``limit`` bytes raises ``OSError`` with ``EFBIG``, and ``target`` has to be removed.
    ``link`` makes it a second name instead, where one can be had: right only where nobody changes files in place.
    """
    with directory(source.parent, through=True) as dir_fd, regular(source.name, dir_fd) as fd:
        if os.fstat(fd).st_size > limit:
            raise OSError(errno.EFBIG, f"larger than {limit} bytes", source.name)
        if link and _linked(source, target):
            return _read_hashed(fd, source.name, limit, None)
        with open_new(target, 0o644) as out:
            return _read_hashed(fd, source.name, limit, out)


def _linked(source: Path, target: Path) -> bool:
    remove(target)
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in NO_LINK:
            raise
        return False
    return True


def copy_file(name: str, dir_fd: int, target: Path, limit: int, allowed: Allowed | None = None) -> int:
    """Copy the bytes of the regular file ``name`` to ``target``, whatever had that name; the number of bytes. Not
    synced. More than ``limit`` bytes are never copied: EFBIG. ``allowed`` as for :func:`regular`."""
    with regular(name, dir_fd, allowed) as fd:
        if os.fstat(fd).st_size > limit:
            raise OSError(errno.EFBIG, f"larger than {limit} bytes", name)
        size = 0
        try:
            with open_new(target, 0o644) as out:
                while chunk := os.read(fd, CHUNK):
                    size += len(chunk)
                    if size > limit:
                        raise OSError(errno.EFBIG, f"larger than {limit} bytes", name)
                    write_all(out, chunk)
        except OSError:
            remove(target)
            raise
        return size


def hash_file(path: Path) -> FileEntry:
    """Size and digests of a file of the daemon's own."""
    with directory(path.parent) as dir_fd, regular(path.name, dir_fd) as fd:
        return _read_hashed(fd, path.name, 1 << 62, None)
