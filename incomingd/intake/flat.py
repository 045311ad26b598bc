"""Claiming a flat upload: a rename for each of its files.

Rules:

* Only what belongs to the owner of the .changes is taken (:mod:`.ownership`); what belongs to another account counts
  as absent, and stays.
* A file that another waiting .changes of the same owner lists too stays for that one; this one gets a link or a copy.
* If one rename is refused, those before it are undone: the upload lies in incoming whole.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from incomingd import fsio
from incomingd.intake import ownership, scan
from incomingd.intake.listing import MOST_ROWS, read_listing
from incomingd.intake.ownership import Ownership
from incomingd.model import UploadKind

#: Bytes of a shared file that are copied, by the thread that claims, if there can be no link.
_MOST_SHARED = 4 << 30
#: Bytes of other .changes that are read for one claim, after a restart.
_MOST_LISTED = 16 << 20


def gone(name: str) -> FileNotFoundError:
    """The upload, or the file, does not lie in incoming."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)


class FlatMove:
    """The renames that claim one flat upload, from the incoming directory ``fd``."""

    def __init__(self, fd: int, claim: Path, uid: int | None, members: Sequence[str]) -> None:
        """``uid`` is the upload's owner, if the journal has one; ``members`` are its files, the .changes first."""
        self._fd = fd
        self._claim = claim
        self._members = members
        self._mine = ownership.of_flat(os.fstat(fd), self._owner() if uid is None else uid)
        self._moved: list[str] = []

    def _owner(self) -> int:
        """Of an upload that came before owners were kept: the owner of its .changes, wherever that lies."""
        name = self._members[0]
        try:
            return (self._claim / name).lstat().st_uid
        except FileNotFoundError:
            return os.stat(name, dir_fd=self._fd, follow_symlinks=False).st_uid

    def run(self, listed_elsewhere: Callable[[], Collection[str]] | None) -> None:
        """Do the renames; ``listed_elsewhere`` as for :func:`~incomingd.intake.claim.move_to_claims`."""
        fsio.make_directories(self._claim, 0o700)
        changes = self._members[0]
        missing = [name for name in self._members if not os.path.lexists(self._claim / name)]
        elsewhere: Collection[str] = ()
        if missing:
            elsewhere = listed_elsewhere() if listed_elsewhere else _listed_elsewhere(self._fd, changes, self._mine)
        try:
            for name in missing:
                self._take(name, shared=name != changes and name in elsewhere)
        except OSError:
            self._put_back()
            raise

    def _take(self, name: str, *, shared: bool) -> None:
        is_changes = name == self._members[0]
        if not self._lies_there(name, is_changes=is_changes):
            taken = False
        elif shared:
            taken = self._share(name)
        else:
            allowed = self._is_own if is_changes else self._is_member
            taken = fsio.take_out(name, self._claim / name, source_fd=self._fd, allowed=allowed)
        if taken and not shared:
            self._moved.append(name)
        if is_changes and not taken:
            raise gone(name)

    def _is_own(self, status: os.stat_result) -> bool:
        return status.st_uid == self._mine.uid and self._is_member(status)

    def _is_member(self, status: os.stat_result) -> bool:
        """A directory of that name is another upload, and no file of this one."""
        return self._mine.allows(status) and not stat.S_ISDIR(status.st_mode)

    def _lies_there(self, name: str, *, is_changes: bool) -> bool:
        try:
            status = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return self._is_own(status) if is_changes else self._is_member(status)

    def _share(self, name: str) -> bool:
        target = self._claim / name
        try:
            fsio.link(name, target, source_fd=self._fd)
        except OSError:  # not allowed for files of others (fs.protected_hardlinks), or the file system has no links
            return self._copy(name, target)
        if self._is_member(target.lstat()):
            return True
        fsio.remove(target)
        return False

    def _copy(self, name: str, target: Path) -> bool:
        """What cannot be copied either is missed by the checks."""
        try:
            fsio.copy_file(name, self._fd, target, _MOST_SHARED, self._mine.allows)
        except (fsio.NotRegularError, fsio.ForeignFileError, PermissionError, FileNotFoundError):
            return False
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise
            return False
        return True

    def _put_back(self) -> None:
        for name in self._moved:
            with contextlib.suppress(OSError):
                fsio.rename_new(self._claim / name, name, target_fd=self._fd)
        with contextlib.suppress(OSError):
            self._claim.rmdir()


def _listed_elsewhere(fd: int, own: str, mine: Ownership) -> Collection[str]:
    """What the other waiting .changes of the same owner list, as far as so many bytes of them say."""
    listed: set[str] = set()
    left = _MOST_LISTED
    for (kind, _), file_name in scan.survey(fd).uploads.items():
        if kind is not UploadKind.FLAT or file_name == own:
            continue
        try:
            status = os.stat(file_name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            continue
        left -= status.st_size if status.st_uid == mine.uid else 0
        if left < 0:
            break
        if status.st_uid == mine.uid:
            listed.update(scan.flat_members(file_name, read_listing(fd, file_name, mine.strictly(), MOST_ROWS)))
    return listed
