"""Whose the files of an upload are, and which files it may have.

Rules:

* Every file belongs to the owner of the upload's directory; in a flat upload, to the owner of its .changes.
* Files of other accounts are allowed only in a directory that root or the daemon owns and no one else can write in:
  then root or the daemon has put them there.
* Root's own files are files of another account too, and so are the daemon's: the daemon may read them, and its sender
  may not. This also holds if the daemon runs as root.

Whether a file is allowed is asked about what was opened (fstat(2)) or about what was renamed, never about a name alone.
"""

import functools
import os
import pwd
import stat
from dataclasses import dataclass, replace

from incomingd.model import plain

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """The account ``uid`` owns an upload; ``anyone``: its directory may hold files of other accounts as well."""

    uid: int
    anyone: bool = False

    def allows(self, status: os.stat_result) -> bool:
        """True if the upload may have the file of this status."""
        return self.anyone or status.st_uid == self.uid

    def strictly(self) -> "Ownership":
        """The same, without files of other accounts."""
        return replace(self, anyone=False)

    def refusal(self, uid: int) -> str:
        """What is wrong with a file of the account ``uid``, as a part of a sentence."""
        return f"belongs to {shown(uid)}, and the upload to {shown(self.uid)}"


def of_directory(status: os.stat_result) -> Ownership:
    """What holds for an upload in the directory of this status."""
    return Ownership(uid=status.st_uid, anyone=_is_closed(status))


def of_flat(folder: os.stat_result, uid: int) -> Ownership:
    """What holds for a flat upload whose .changes belongs to ``uid``, in the incoming directory of this status."""
    return Ownership(uid=uid, anyone=_is_closed(folder))


def _is_closed(folder: os.stat_result) -> bool:
    """True if root or the daemon owns the directory and no one else can write in it.

    With an ACL the group's bits are its mask: what they lack, no account and group that the ACL names has (acl(5)).
    """
    return folder.st_uid in (0, os.geteuid()) and not folder.st_mode & _OTHERS_WRITE


def shown(uid: int) -> str:
    """An account for a message: ``uid 0 (root)``."""
    name = account_name(uid)
    return f"uid {uid} ({name})" if name else f"uid {uid}"


@functools.lru_cache(maxsize=1000)
def account_name(uid: int) -> str | None:
    """The name of an account, as far as there is one."""
    try:
        return plain(pwd.getpwuid(uid).pw_name)
    except KeyError:
        return None
