"""Whether a configuration that was found, and not named, may be obeyed.

A configuration says which programs run and where an archive lies, so the one in the current directory counts only if no
other account could have put it there:

* it is a regular file, and it and the directory belong to the caller or to root (so does a link to it);
* neither is writable by others, nor by a group but root's and the caller's own (the group that has the account's name).

``--config`` and ``$INCOMINGD_CONFIG`` name a file, and are obeyed.
"""

import os
import stat
from pathlib import Path

from incomingd.config.access import account_name, written_by_others
from incomingd.errors import ConfigError
from incomingd.model import plain


def check_found(file: Path) -> None:
    """Raises :class:`ConfigError` if ``file`` could be someone else's work. It is there, or is a link."""
    try:
        folder = file.parent.stat()
        statuses = {file.absolute(): file.lstat(), file.resolve(): file.stat()}
    except OSError as error:
        raise _refused(file, f"cannot be looked at: {error.strerror}") from error
    for path, status in ((file.parent.absolute(), folder), *statuses.items()):
        if status.st_uid not in (os.geteuid(), 0):
            raise _refused(file, f"{plain(path)} belongs to {account_name(status.st_uid)}, not to you or root")
        if found := written_by_others(path, status):
            raise _refused(file, found)
    if not stat.S_ISREG(file.stat().st_mode):
        raise _refused(file, "it is not a regular file")


def _refused(file: Path, why: str) -> ConfigError:
    return ConfigError(
        [
            f"{plain(file.absolute())} was found in the current directory and is not used: {why}; if it is the one you "
            f"mean, name it: --config {file} (or $INCOMINGD_CONFIG), else go to another directory"
        ]
    )
