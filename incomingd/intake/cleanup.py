"""What an upload leaves behind: kept for the uploader and the operator if it failed, removed if it was published.

Rules:

* What is sealed is kept, and of what was claimed nothing more: what no .changes lists is gone. An upload that ended
  before it was sealed, or before it was sealed whole, keeps the files of its claim: the regular ones of its owner. What
  has to be copied for that is no more than a queue allows, no more than is ever kept, and only if there is room.
* A claim's owner can have moved directories of other accounts into it that he could not empty. The daemon does not
  empty them for him.

Both can be done twice, from whatever an interrupted try left. An uploader can make a directory that the daemon cannot
remove or move (with a right taken away through an open descriptor); that is logged and left, it stops nobody.
"""

import errno
import logging
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from incomingd import fsio
from incomingd.config import QueueConfig
from incomingd.errors import Retry
from incomingd.intake import ownership, scan
from incomingd.intake.ownership import Ownership
from incomingd.intake.room import Room
from incomingd.model import Upload, plain
from incomingd.places import Places
from incomingd.states import Stage

log = logging.getLogger(__name__)


def keep_rejected(places: Places, upload: Upload, queue: QueueConfig | None, room: Room) -> None:
    """Keep what a failed upload brought in ``state/rejected/ID``."""
    kept, sealed = places.rejected(upload.id), places.sealed(upload.id)
    try:
        fsio.make_directories(kept.parent, 0o700)
        if queue is not None:
            claim = places.claim(queue, upload.id)
            if _is_sealed_in_part(upload, sealed):
                most = min(queue.max_upload, places.config.limits.rejected_max)
                _keep_claim(claim, sealed, queue, _Kept(kept, room, most))
            for copies in (sealed, kept):
                _on_the_disk(copies)
            fsio.remove_tree(claim, foreign=False)  # before what is sealed is moved: whether it was is known by it
        _keep_sealed(sealed, kept)
    except OSError as error:
        log.warning("%s: what it brought cannot all be moved to %s: %s", plain(upload), kept, error)


def remove_published(places: Places, upload: Upload, queue: QueueConfig | None) -> None:
    """Remove what a published upload brought: the archive has it."""
    for path in (places.sealed(upload.id), places.claim(queue, upload.id) if queue else None):
        try:
            if path is not None:
                fsio.remove_tree(path, foreign=False)
        except OSError as error:
            log.warning("%s: %s cannot be removed: %s", plain(upload), path, error)


def _is_sealed_in_part(upload: Upload, sealed: Path) -> bool:
    """True if files of it may be in its claim alone."""
    if not sealed.is_dir():
        return True
    return (
        upload.stage is not Stage.REJECTED and not upload.changes
    )  # it was withdrawn before its checks came to an end


def _keep_claim(claim: Path, sealed: Path, queue: QueueConfig, kept: "_Kept") -> None:
    try:
        with fsio.directory(claim) as fd:
            mine = ownership.of_directory(os.fstat(fd))
            fsio.make_directories(kept.folder, 0o700)
            found = [name for name, status in scan.entries(fd, queue) if _is_file_of(status, mine)]
            for name in found:
                if not os.path.lexists(sealed / name):
                    kept.take(fd, name, mine)
    except (FileNotFoundError, NotADirectoryError):
        return  # it is gone, or a link or a FIFO in a directory's place, which holds nothing to keep


@dataclass(slots=True)
class _Kept:
    """The folder that files are kept in, and how many bytes may still be copied there."""

    folder: Path
    room: Room
    left: int

    def take(self, fd: int, name: str, mine: Ownership) -> None:
        """Keep one file of the directory ``fd``."""
        target = self.folder / name
        try:
            fsio.take_out(name, target, source_fd=fd, allowed=lambda found: _is_file_of(found, mine))
        except OSError as error:
            # The claims may lie on incoming's file system, the state elsewhere.
            if error.errno not in (errno.EXDEV, errno.EACCES, errno.EPERM):
                raise
            try:
                self._copy(fd, name, target, mine)
            except (OSError, Retry) as failure:
                log.warning("%s: is not kept: %s", plain(name), failure)

    def _copy(self, fd: int, name: str, target: Path, mine: Ownership) -> None:
        size = os.stat(name, dir_fd=fd, follow_symlinks=False).st_size
        with self.room.reserve(self.folder, min(size, self.left)):
            self.left -= fsio.copy_file(name, fd, target, min(size, self.left), mine.allows)


def _on_the_disk(folder: Path) -> None:
    """Copies are synced before what they were made from goes: a power cut takes none of both."""
    if folder.is_dir():
        fsio.sync([*folder.iterdir(), folder])


def _is_file_of(status: os.stat_result, mine: Ownership) -> bool:
    return stat.S_ISREG(status.st_mode) and mine.allows(status)


def _keep_sealed(sealed: Path, kept: Path) -> None:
    if not sealed.is_dir():
        return
    if not os.path.lexists(kept) and any(sealed.iterdir()):
        fsio.rename(sealed, kept)
        return
    for path in sorted(sealed.iterdir()):
        fsio.rename(path, kept / path.name)
    fsio.remove_tree(sealed)
