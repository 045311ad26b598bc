"""Claiming: one rename out of the uploader's reach, into an area of the daemon's own on the same file system.

Rules:

* The journal row with the sequence number is committed before the rename. A crash in between is mended by doing the
  rename again: :func:`complete_claim`.
* A directory is claimed by the rename of the directory; a flat upload by that of its .changes, its files follow. A
  file that another waiting .changes of the same owner lists too stays for that one, and this one gets a link or a copy.
* Only what belongs to the upload's owner is moved (:mod:`.ownership`). What was renamed is looked at again, since a
  name may be given to another file at any time: a file or directory of another account is renamed back.
* Nothing is read or followed here, and no mode is changed: whatever was under the name goes to the claims area, and
  sealing looks at it.

:func:`move_to_claims` fails with ``OSError`` and then has moved nothing: the upload lies where it was.
"""

import contextlib
import logging
import os
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from incomingd import fsio
from incomingd.config import QueueConfig
from incomingd.intake import delayed, scan
from incomingd.intake.flat import FlatMove, gone
from incomingd.model import UPLOAD_NAME, Upload, UploadKind, plain
from incomingd.places import Places

log = logging.getLogger(__name__)

#: What is removed from incoming passes through the claims folder under this name.
_STRAY = ".stray"


def root_of(queue: QueueConfig) -> Path:
    """A queue's incoming directory; the operator may have made its path a link."""
    return Path(os.path.realpath(queue.path))


@contextlib.contextmanager
def opened(queue: QueueConfig) -> Iterator[int]:
    """A descriptor of a queue's incoming directory, which the operator may have made a link, or of one for delayed
    uploads in it.

    What lies in incoming may be swapped by whoever may write there: below it no link is followed, and whoever takes
    something out does so by the descriptor. Raises ``OSError``.
    """
    if queue.delay is None:
        with fsio.directory(queue.path, follow=True) as fd:
            yield fd
        return
    with delayed.opened(queue) as fd:
        yield fd


def complete_claim(places: Places, upload: Upload, queue: QueueConfig, members: Sequence[str] | None) -> None:
    """Do the renames of a claim that the journal has. May be done twice; does nothing where all is moved already.

    Where they are refused the upload stays in incoming: sealing tries once more, and says why it cannot go on.
    """
    try:
        move_to_claims(places, upload, queue, members)
    except FileNotFoundError:
        log.warning("%s: is neither in %s nor among the claims", plain(upload), queue.path)
    except OSError as error:
        log.warning("%s: cannot be moved out of %s yet: %s", plain(upload), queue.path, error)


def move_to_claims(
    places: Places,
    upload: Upload,
    queue: QueueConfig,
    members: Sequence[str] | None,
    listed_elsewhere: Callable[[], Collection[str]] | None = None,
) -> None:
    """Move an upload from incoming to its claim. ``listed_elsewhere`` gives the file names that other waiting
    .changes of the same owner list; without it they are read. Raises ``FileNotFoundError`` if the upload is in neither
    place; what lies in incoming under its name and belongs to another account is another upload."""
    claim = places.claim(queue, upload.id)
    fsio.make_directories(claim.parent, 0o700)
    if members is None and os.path.lexists(claim):
        return
    with opened(queue) as fd:
        if members is None:
            name = _file_name(fd, upload)
            if not fsio.take_out(name, claim, source_fd=fd, allowed=lambda found: upload.uid in (None, found.st_uid)):
                raise gone(name)
            return
        FlatMove(fd, claim, upload.uid, members).run(listed_elsewhere)


def _file_name(fd: int, upload: Upload) -> str:
    """The directory's own name. A bad one is escaped in the journal and has to be found again."""
    if UPLOAD_NAME.fullmatch(upload.name):
        return upload.name
    found = scan.survey(fd).uploads
    if (UploadKind.DIRECTORY, upload.name) not in found:
        raise gone(upload.name)
    return found[UploadKind.DIRECTORY, upload.name]


def remove_stray(places: Places, queue: QueueConfig, fd: int, name: str) -> bool:
    """Remove a file of no upload from the incoming directory ``fd``; False if another file has its name by now.

    The daemon may remove what a sticky directory protects from others. So the file is taken out first, and what was
    taken is compared with what was old enough: a sender may use the name again at any time. Raises ``OSError``.
    """
    old = os.stat(name, dir_fd=fd, follow_symlinks=False)
    target = places.claims(queue) / _STRAY
    fsio.remove(target)
    if not fsio.take_out(name, target, source_fd=fd, allowed=lambda taken: os.path.samestat(taken, old)):
        return False
    fsio.remove(target)
    return True


def refusal(fd: int, kind: UploadKind, file_name: str) -> str:
    """Why the daemon could not take an upload of the incoming directory ``fd`` now; empty where nothing is seen.

    rename(2) of a directory into another parent changes its "..", so it needs the right to write in the directory
    itself, not only in incoming.
    """
    if kind is not UploadKind.DIRECTORY:
        return ""
    try:
        status = os.stat(file_name, dir_fd=fd, follow_symlinks=False)
        if _may_take(file_name, fd):
            return ""
        if status.st_uid == os.geteuid() and _is_opened(file_name, fd) and _may_take(file_name, fd):
            return ""
    except OSError as error:
        return f"{plain(file_name)} cannot be looked at: {error.strerror}"
    return (
        f"the directory {plain(file_name)} has mode {stat.S_IMODE(status.st_mode):04o} and belongs to uid "
        f"{status.st_uid}; the daemon (uid {os.geteuid()}) has to be able to read and write in it to take it: run "
        "it by the packaged unit, upload with one account, or set default ACLs on incoming (docs/operators.md)"
    )


def _may_take(file_name: str, fd: int) -> bool:
    wanted = os.R_OK | os.W_OK | os.X_OK
    return os.access(file_name, wanted, dir_fd=fd, effective_ids=True, follow_symlinks=False)


def _is_opened(file_name: str, fd: int) -> bool:
    """Give the daemon the right to write in a directory of its own account, as ``rsync -a`` of a read-only one makes
    it. The owner is that of what was opened, and no one else gets a right."""
    with fsio.directory(file_name, fd) as own:
        status = os.fstat(own)
        if status.st_uid != os.geteuid():
            return False
        os.fchmod(own, stat.S_IMODE(status.st_mode) | stat.S_IRWXU)
        return True
