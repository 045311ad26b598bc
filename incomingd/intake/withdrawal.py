"""Taking an upload out of incoming before it was complete, since whoever may do so has cancelled it.

Rules: what lies there is claimed as it is, like any other upload, so that it is kept with the rejected ones. It is done
inside the journal transaction that ends the upload: no other thread or process can move it meanwhile, and a crash
leaves an upload that was withdrawn, never one that is published after all.

Fails with ``OSError`` where it cannot be moved, and then has moved nothing.
"""

from collections.abc import Sequence

from incomingd.config import QueueConfig
from incomingd.intake import scan
from incomingd.intake.claim import move_to_claims, opened
from incomingd.model import Upload, UploadKind
from incomingd.places import Places


def take_out(places: Places, upload: Upload) -> None:
    """Move a ``receiving`` upload to its claim; nothing is done where it, or its queue, is gone."""
    queue = places.config.queue(upload.queue, upload.delay)
    if queue is None:
        return  # nobody looks into its incoming folder any more
    try:
        move_to_claims(places, upload, queue, _members(queue, upload))
    except FileNotFoundError:
        return  # withdrawn at this moment


def _members(queue: QueueConfig, upload: Upload) -> Sequence[str] | None:
    """A flat upload's files as they lie in incoming now."""
    if upload.kind is UploadKind.DIRECTORY:
        return None
    with opened(queue) as fd:
        file_name = scan.survey(fd).uploads.get((upload.kind, upload.name))
        if file_name is None:
            raise FileNotFoundError(upload.name)
        return scan.flat_members(file_name, scan.read_listing(fd, file_name))
