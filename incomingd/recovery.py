"""Start-up: brings each unfinished upload back into the normal way, and clears away what ended ones left.

There is no second way through the rooms: an upload goes back to the last stage whose results are on the disk, and the
pipeline does the rest. That stage is ``claimed``: sealed copies are not synced, a power cut may have taken them, and
sealing and checking them again costs little.
"""

import logging
from collections.abc import Callable
from datetime import datetime

from incomingd import fsio
from incomingd.config import Config
from incomingd.intake.claim import complete_claim
from incomingd.intake.cleanup import keep_rejected, remove_published
from incomingd.intake.room import Room
from incomingd.journal.uploads import StaleMoveError, Uploads
from incomingd.model import Upload, UploadKind
from incomingd.places import Places
from incomingd.states import Stage

log = logging.getLogger(__name__)


def recover(config: Config, places: Places, uploads: Uploads, clock: Callable[[], datetime]) -> None:
    """Mend what an end at any moment left. May be done twice. Raises ``OSError`` where the folders cannot be used."""
    for folder in (places.state, places.state / "sealed", places.state / "rejected"):
        fsio.make_directories(folder, 0o700)
    open_uploads = uploads.open()
    for upload in open_uploads:
        if upload.sequence is None:
            continue
        try:
            _back_to_claimed(config, places, uploads, upload, clock)
        except StaleMoveError:
            if uploads.get(upload.id).stage is not Stage.CANCELLED:  # by an operator, at this moment
                raise
    _clear_away(config, places, uploads, {upload.id for upload in open_uploads})


def _back_to_claimed(
    config: Config, places: Places, uploads: Uploads, upload: Upload, clock: Callable[[], datetime]
) -> None:
    if upload.stage is Stage.PUBLISHING:
        upload = uploads.move(upload, Stage.QUEUED, clock())
    if upload.kind is UploadKind.OPERATION:  # brought nothing that would have to be read again
        return
    if upload.stage is not Stage.CLAIMED:
        upload = uploads.move(upload, Stage.CLAIMED, clock(), "taken up again after a restart")
        log.info("%s: taken up again", upload)
    queue = config.queue(upload.queue, upload.delay)
    if queue is not None:  # else the pipeline halts on it, with a message
        complete_claim(places, upload, queue, uploads.members(upload.id))


def _clear_away(config: Config, places: Places, uploads: Uploads, still_open: set[int]) -> None:
    """Folders of uploads that have ended: their end was told, their clearing away was not finished."""
    parents = [places.state / "sealed", *(places.claims(queue) for queue in config.queues)]
    names = {child.name for parent in parents if parent.is_dir() for child in parent.iterdir()}
    for upload_id in sorted(int(name) for name in names if name.isdecimal()):
        if upload_id in still_open:
            continue
        try:
            upload = uploads.get(upload_id)
        except KeyError:
            log.warning("state: %d is no upload that the journal knows; its files are left alone", upload_id)
            continue
        queue = config.queue(upload.queue)
        if upload.stage is Stage.PUBLISHED:
            remove_published(places, upload, queue)
        elif queue is not None:
            keep_rejected(places, upload, queue, Room())
