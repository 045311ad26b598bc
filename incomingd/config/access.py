"""Which other accounts could put something else under a path, by its owners and modes.

Rules:

* A file or folder belongs to whom it should, and can be written by no one else, nor by a group but root's and the
  caller's own (the group that has the account's name).
* Whoever can rename in a folder decides what its names lead to, so every folder on the way counts, and every link. In
  a sticky folder (``/tmp``) only the owners of an entry can rename it.

Fails with ``OSError`` if something cannot be looked at.
"""

import errno
import grp
import os
import pwd
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

from incomingd.model import plain

#: As the kernel (path_resolution(7)).
_MOST_LINKS = 40


def foreign_owner(path: Path, status: os.stat_result, owners: Collection[int]) -> str:
    """A sentence that names the owner of ``path`` if it is not among ``owners``; otherwise empty."""
    if status.st_uid in owners:
        return ""
    expected = " or ".join(account_name(uid) for uid in sorted(set(owners), reverse=True))
    return f"{plain(path)} belongs to {account_name(status.st_uid)}, not to {expected}"


def written_by_others(path: Path, status: os.stat_result) -> str:
    """A sentence that says how other accounts can write ``path``, if they can; else empty."""
    if stat.S_ISLNK(status.st_mode) or not _others_may_write(status):
        return ""
    return f"{plain(path)} has mode {stat.S_IMODE(status.st_mode):04o} and can be written by other accounts"


def changeable(path: Path, owners: Collection[int]) -> str:
    """A sentence that says how an account outside of ``owners`` could replace ``path``, by any folder or link on the
    way to it; empty if none could.

    ``path`` must exist. Its own folder must not be writable by others, not even if it is sticky.
    """
    last = (path.absolute(), path.absolute().parent, path.resolve().parent)
    for step in _steps(path.absolute()):
        status = step.lstat()
        if found := foreign_owner(step, status, owners):
            return found
        is_sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
        if (step in last or not is_sticky) and (found := written_by_others(step, status)):
            return found
    return ""


def account_name(uid: int) -> str:
    """An account for people to read."""
    try:
        return f"{plain(pwd.getpwuid(uid).pw_name)} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def _steps(path: Path) -> Iterator[Path]:
    """Every folder and link that the kernel looks at on its way to ``path``, and what it arrives at."""
    at, links = Path("/"), 0
    yield at
    todo = list(reversed(path.parts))
    while todo:
        part = todo.pop()
        step = at.parent if part == ".." else at / part  # an absolute part begins at / again
        yield step
        if not step.is_symlink():
            at = step
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        todo += reversed(step.readlink().parts)


def _others_may_write(status: os.stat_result) -> bool:
    if status.st_mode & stat.S_IWOTH:
        return True
    return bool(status.st_mode & stat.S_IWGRP) and not _is_own_group(status.st_gid)


def _is_own_group(gid: int) -> bool:
    """True for root's group and for the one that Debian makes with each account, which has its name."""
    try:
        return gid == 0 or grp.getgrgid(gid).gr_name == pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return False
