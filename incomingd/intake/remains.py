"""What an upload leaves behind: kept for the uploader and the operator where it failed, removed where it was published.

Both can be done twice, from whatever an interrupted try left. An uploader can make a directory that the daemon cannot
remove or move (with a right taken away through an open descriptor); that is logged and left, it stops nobody.
"""

import errno
import logging
import os
import stat
from pathlib import Path

from incomingd import fsio
from incomingd.config import QueueConfig
from incomingd.intake import scan
from incomingd.model import Upload, plain
from incomingd.places import Places

log = logging.getLogger(__name__)


def reject_remains(places: Places, upload: Upload, queue: QueueConfig | None) -> None:
    """Keep all that a failed upload brought in ``state/rejected/ID``."""
    kept = places.rejected(upload.id)
    try:
        fsio.make_directories(kept.parent, 0o700)
        if queue is not None:
            _keep_claim(places.claim(queue, upload.id), kept, queue)
        _keep_sealed(places.sealed(upload.id), kept)
    except OSError as error:
        log.warning("%s: what it brought cannot all be moved to %s: %s", plain(upload), kept, error)


def discard_remains(places: Places, upload: Upload, queue: QueueConfig | None) -> None:
    """Remove what a published upload brought: the archive has it."""
    for path in (places.sealed(upload.id), places.claim(queue, upload.id) if queue else None):
        try:
            if path is not None:
                fsio.remove_tree(path)
        except OSError as error:
            log.warning("%s: %s cannot be removed: %s", plain(upload), path, error)


def _keep_claim(claim: Path, kept: Path, queue: QueueConfig) -> None:
    try:
        is_directory = stat.S_ISDIR(claim.lstat().st_mode)
    except FileNotFoundError:
        return
    if not is_directory:
        fsio.remove_tree(claim)  # a link or a FIFO in a directory's place holds nothing to keep
    elif not _moved_whole(claim, kept):
        _copy_regular(claim, kept, queue)
        fsio.remove_tree(claim)


def _moved_whole(claim: Path, kept: Path) -> bool:
    if os.path.lexists(kept):
        return False
    try:
        fsio.rename(claim, kept)
    except OSError as error:
        # The claims may lie on incoming's file system, the state elsewhere.
        if error.errno not in (errno.EXDEV, errno.EACCES, errno.EPERM):
            raise
        return False
    return True


def _copy_regular(claim: Path, kept: Path, queue: QueueConfig) -> None:
    fsio.make_directories(kept, 0o700)
    with fsio.directory(claim) as fd:
        for name, status in scan.entries(fd, queue):
            if stat.S_ISREG(status.st_mode):
                try:
                    fsio.copy_file(name, fd, kept / name)
                except (PermissionError, FileNotFoundError, fsio.NotRegularError) as error:
                    log.warning("%s: cannot be kept: %s", plain(name), error)


def _keep_sealed(sealed: Path, kept: Path) -> None:
    """Files that sealing renamed out of the claim go back to the others; copies of what is there are dropped."""
    if not sealed.is_dir():
        return
    for path in sorted(sealed.iterdir()):
        if not os.path.lexists(kept / path.name):
            fsio.make_directories(kept, 0o700)
            fsio.rename(path, kept / path.name)
    fsio.remove_tree(sealed)
