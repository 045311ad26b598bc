"""An upload in incoming that somebody wants to take back before it was taken: whose it is, and out with it.

Rules: whose it is shows from its .changes alone, which is copied before it is verified. A .changes of another account
than the upload's is not read. What lies there is claimed as
it is, like any other upload, so that it is kept with the rejected ones. It is done inside the journal transaction that
ends the upload: no other thread or process can move it meanwhile, and a crash leaves an upload that was withdrawn,
never one that is published after all.

Fails with ``OSError`` where it cannot be copied or moved, and then has moved nothing.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from incomingd import fsio
from incomingd.config import QueueConfig
from incomingd.intake import ownership, scan
from incomingd.intake.claim import move_to_claims, opened
from incomingd.intake.listing import read_listing
from incomingd.intake.ownership import Ownership
from incomingd.model import FileEntry, Upload, UploadKind
from incomingd.places import Places


def copy_changes(upload: Upload, queue: QueueConfig, target: Path, limit: int) -> tuple[FileEntry, ...]:
    """Copy each .changes of an upload as it lies in incoming to the new folder ``target``.

    Nothing where one of them cannot be read, is longer than ``limit`` bytes, or there are more than a queue allows.
    """
    try:
        with opened(queue) as fd:
            texts = dict(_read_changes(fd, upload, queue, limit))
    except OSError:
        return ()
    if len(texts) > queue.max_changes:
        return ()
    fsio.remove_tree(target)
    fsio.make_directories(target, 0o700)
    for name, text in texts.items():
        fsio.write_new(target / name, [text], 0o600)
    return tuple(fsio.hash_file(target / name) for name in texts)


def _read_changes(fd: int, upload: Upload, queue: QueueConfig, limit: int) -> Iterator[tuple[str, bytes]]:
    file_name = _file_name(fd, upload)
    if upload.kind is not UploadKind.DIRECTORY:
        mine = _flat_ownership(fd, file_name, upload).strictly()
        yield file_name, fsio.read_regular(file_name, fd, limit, mine.allows)
        return
    with fsio.directory(file_name, fd) as own:
        mine = ownership.of_directory(os.fstat(own))
        names = sorted(name for name, _ in scan.entries(own, queue) if name.endswith(scan.CHANGES))
        for name in names[: queue.max_changes + 1]:
            yield name, fsio.read_regular(name, own, limit, mine.allows)


def _file_name(fd: int, upload: Upload) -> str:
    if upload.kind is UploadKind.LONE:
        return upload.name
    found = scan.survey(fd).uploads.get((upload.kind, upload.name))
    if found is None:
        raise FileNotFoundError(upload.name)
    return found


def _flat_ownership(fd: int, file_name: str, upload: Upload) -> Ownership:
    uid = os.stat(file_name, dir_fd=fd, follow_symlinks=False).st_uid if upload.uid is None else upload.uid
    return ownership.of_flat(os.fstat(fd), uid)


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
        file_name = _file_name(fd, upload)
        if upload.kind is UploadKind.LONE:
            return (file_name,)
        mine = _flat_ownership(fd, file_name, upload).strictly()
        return scan.flat_members(file_name, read_listing(fd, file_name, mine, queue.max_files))
