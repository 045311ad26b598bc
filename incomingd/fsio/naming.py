"""Names for what is there: renames, links, folders."""

import contextlib
import errno
import os
from pathlib import Path

from incomingd.fsio.reading import CHUNK
from incomingd.fsio.writing import TEMPORARY, sync, temporary_of, write_new

#: Another file system or mount, no links there, or too many of them.
NO_LINK = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP)


def rename(
    source: Path | str, target: Path | str, *, source_fd: int | None = None, target_fd: int | None = None
) -> None:
    """rename(2), nothing more; on one file system. Names may be relative to directories that are open."""
    os.rename(source, target, src_dir_fd=source_fd, dst_dir_fd=target_fd)


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
    temporary = temporary_of(target)
    _copy_or_link(source, temporary)
    os.replace(temporary, target)
    # rename(2) of two links to one inode does nothing and leaves both.
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()


def write_twice(path: Path, also: Path, data: bytes) -> None:
    """:func:`write_atomic` under two names, with one writing where the file system has links."""
    temporary, second = temporary_of(path), temporary_of(also)
    write_new(temporary, [data])
    _copy_or_link(temporary, second)
    os.replace(temporary, path)
    os.replace(second, also)


def _copy_or_link(source: Path, target: Path) -> None:
    """Not synced; ``target`` is nobody else's."""
    for _ in range(2):
        try:
            os.link(source, target, follow_symlinks=False)
        except FileExistsError:  # a crash has left it
            target.unlink()
        except OSError as error:
            if error.errno not in NO_LINK:
                raise
            with source.open("rb") as original:
                write_new(target, iter(lambda: original.read(CHUNK), b""))
            return
        else:
            return


def link(source: Path | str, target: Path, *, source_fd: int | None = None) -> None:
    """A second name for a file that never changes in place; one that is there stays. ``source`` may be relative to an
    open directory."""
    with contextlib.suppress(FileExistsError):
        os.link(source, target, src_dir_fd=source_fd, follow_symlinks=False)


def switch(link: Path, target: str) -> None:
    """Make the symbolic link ``link`` point to ``target`` by one rename, durably."""
    temporary = link.with_name(f"{TEMPORARY}{link.name}")
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
