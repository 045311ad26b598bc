"""Whether a configuration that was found, and not named, may be obeyed.

A configuration says which programs run and where an archive lies, so the one in the current directory counts only if no
other account could have put it there:

* it is a regular file, and it and the directory belong to the caller or to root (so does a link to it);
* neither is writable by others, nor by a group but root's and the caller's own (the group that has the account's name).

``--config`` and ``$INCOMINGD_CONFIG`` name a file, and are obeyed.
"""

import grp
import os
import pwd
import stat
from pathlib import Path

from incomingd.errors import ConfigError
from incomingd.model import plain


def check_found(file: Path) -> None:
    """Raises :class:`ConfigError` if ``file`` could be someone else's work. It is there, or is a link."""
    try:
        folder = file.parent.stat()
        statuses = {str(file.absolute()): file.lstat(), str(file.resolve()): file.stat()}
    except OSError as error:
        raise _refused(file, f"cannot be looked at: {error.strerror}") from error
    for name, status in ((str(file.parent.absolute()), folder), *statuses.items()):
        if status.st_uid not in (os.geteuid(), 0):
            raise _refused(file, f"{plain(name)} belongs to {_account(status.st_uid)}, not to you or root")
        if not stat.S_ISLNK(status.st_mode) and _others_may_write(status):
            found = f"{plain(name)} has mode {stat.S_IMODE(status.st_mode):04o} and can be written by other accounts"
            raise _refused(file, found)
    if not stat.S_ISREG(file.stat().st_mode):
        raise _refused(file, "it is not a regular file")


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


def _account(uid: int) -> str:
    try:
        return f"{plain(pwd.getpwuid(uid).pw_name)} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def _refused(file: Path, why: str) -> ConfigError:
    return ConfigError(
        [
            f"{plain(file.absolute())} was found in the current directory and is not used: {why}; if it is the one you "
            f"mean, name it: --config {file} (or $INCOMINGD_CONFIG), else go to another directory"
        ]
    )
