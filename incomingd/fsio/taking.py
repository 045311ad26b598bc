"""Taking the bytes of others, hashed on the way: by rename where they are the daemon's alone, else by copy."""

import contextlib
import errno
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from incomingd.fsio.naming import NO_LINK
from incomingd.fsio.reading import CHUNK, directory, has_writer, regular
from incomingd.fsio.removing import remove
from incomingd.fsio.writing import open_new, write_all
from incomingd.model import Digests, FileEntry


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
    long = os.fstat(fd).st_size > 4 * CHUNK
    with ThreadPoolExecutor(1) if long else contextlib.nullcontext() as beside:
        while chunk := os.read(fd, CHUNK):
            size += len(chunk)
            if size > limit:
                raise OSError(errno.EFBIG, f"larger than {limit} bytes", name)
            hashes.update(chunk, beside)
            if target is not None:
                write_all(target, chunk)
    return FileEntry(name=name, size=size, digests=hashes.digests())


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
        with open_new(target, 0o644) as out:
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
        with open_new(target, 0o644) as out:
            return _read_hashed(fd, source.name, 1 << 62, out)


def _linked(source: Path, target: Path) -> bool:
    remove(target)
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in NO_LINK:
            raise
        return False
    return True


def copy_file(name: str, dir_fd: int, target: Path) -> None:
    """Copy the bytes of the regular file ``name`` to ``target``, whatever had that name. Not synced."""
    with regular(name, dir_fd) as fd, open_new(target, 0o644) as out:
        while chunk := os.read(fd, CHUNK):
            write_all(out, chunk)


def hash_file(path: Path) -> FileEntry:
    """Size and digests of a file of the daemon's own."""
    with directory(path.parent) as dir_fd, regular(path.name, dir_fd) as fd:
        return _read_hashed(fd, path.name, 1 << 62, None)
