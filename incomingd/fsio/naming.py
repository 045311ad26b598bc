"""Names for what is there: renames, links, folders."""

import contextlib
import ctypes
import errno
import os
import secrets
from pathlib import Path

from incomingd.fsio.reading import CHUNK, Allowed
from incomingd.fsio.writing import TEMPORARY, sync, temporary_of, write_new

#: Another file system or mount, no links there, or too many of them.
NO_LINK = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP)
_AT_FDCWD, _RENAME_NOREPLACE = -100, 1
_libc = ctypes.CDLL(None, use_errno=True)


def rename(
    source: Path | str, target: Path | str, *, source_fd: int | None = None, target_fd: int | None = None
) -> None:
    """rename(2), nothing more; on one file system. Names may be relative to directories that are open."""
    os.rename(source, target, src_dir_fd=source_fd, dst_dir_fd=target_fd)


def rename_new(
    source: Path | str, target: Path | str, *, source_fd: int | None = None, target_fd: int | None = None
) -> None:
    """As :func:`rename`, but a ``target`` that is there is never replaced: ``FileExistsError``."""
    where = [_AT_FDCWD if fd is None else fd for fd in (source_fd, target_fd)]
    if _libc.renameat2(where[0], os.fsencode(source), where[1], os.fsencode(target), _RENAME_NOREPLACE) == 0:
        return
    number = ctypes.get_errno()
    if number not in (errno.EINVAL, errno.ENOSYS):
        raise OSError(number, os.strerror(number), str(target))
    # The file system does not have that flag: the best that can be done is to look first.
    with contextlib.suppress(FileNotFoundError):
        os.stat(target, dir_fd=target_fd, follow_symlinks=False)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    os.rename(source, target, src_dir_fd=source_fd, dst_dir_fd=target_fd)


def take_out(source: str, target: Path, *, source_fd: int, allowed: Allowed) -> bool:
    """Rename ``source`` out of a directory that others can write in; True if it is what ``allowed`` accepts.

    What is renamed may be another file than the one that was looked at before, so ``allowed`` is asked about it
    afterwards. What it refuses is renamed back, to a hidden name if its own has been used again meanwhile. It never
    stays at ``target``: all that is there counts as allowed.
    """
    rename(source, target, source_fd=source_fd)
    if allowed(os.stat(target, follow_symlinks=False)):
        return True
    try:
        rename_new(target, source, target_fd=source_fd)
    except FileExistsError:
        rename_new(target, f".{source[:200]}.put-back-{secrets.token_hex(8)}", target_fd=source_fd)
    return False


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


def point(link: Path, target: str) -> None:
    """Make the symbolic link ``link``, in a folder that no one looks at yet. Not synced."""
    os.symlink(target, link)


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


def become_owner(folder: Path) -> None:
    """If root calls, go on as the folder's owner, for good: others could not read the files that root makes there."""
    if os.geteuid() == 0 and (owner := folder.stat()).st_uid != 0:
        os.setgroups([])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)
