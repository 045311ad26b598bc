"""Taking an upload out of the queue, and sending it in again: the steps behind ``cancel`` and ``retry``.

Rules:

* A cancel is one journal transaction. What still lies in incoming is claimed inside of it: no other process can move
  the upload meanwhile, and a crash leaves an upload that was withdrawn, never one that is published after all.
* Sending again is what an uploader does: one rename into incoming. The daemon then takes it as any other upload.
"""

import errno
import os
from datetime import UTC, datetime
from pathlib import Path

import click

from incomingd import fsio, rules
from incomingd.config import Config, QueueConfig
from incomingd.intake import delayed
from incomingd.intake.claim import complete_claim, opened
from incomingd.intake.cleanup import keep_rejected
from incomingd.intake.room import Room
from incomingd.intake.withdrawal import take_out
from incomingd.journal import Journal
from incomingd.journal.control import Control
from incomingd.journal.uploads import Uploads
from incomingd.model import UPLOAD_NAME, Upload, UploadKind, plain
from incomingd.places import Places
from incomingd.report.health import HealthState
from incomingd.report.status import StatusFiles
from incomingd.states import Stage, may_move


def cancel_upload(journal: Journal, places: Places, upload: Upload, reason: str) -> Upload | None:
    """Cancel it, whatever stage it has reached; None where it is too late. Raises ``OSError`` where it still lies in
    incoming and cannot be taken out of there."""
    uploads = Uploads(journal)
    with journal.writing():
        upload = uploads.get(upload.id)
        if not may_move(upload.stage, Stage.CANCELLED):
            return None
        if upload.stage is Stage.RECEIVING:
            take_out(places, upload)
        found = f"the operator cancelled it{': ' if reason else ''}{plain(reason)}"
        problem = rules.UPLOAD_CANCELLED.problem(found)
        ended = uploads.reject(upload, [problem], datetime.now(UTC), found, target=Stage.CANCELLED)
        Control(journal).note_cancelled(upload.id)
    return ended


def end_alone(journal: Journal, places: Places, ended: Upload) -> None:
    """What the daemon does once an upload was cancelled, while none runs: put its files aside, write its status."""
    queue, uploads = places.config.queue(ended.queue, ended.delay), Uploads(journal)
    if queue is not None:
        complete_claim(places, ended, queue, uploads.members(ended.id))
    keep_rejected(places, ended, queue, Room())
    Control(journal).forget_cancelled([ended.id])
    files = StatusFiles(places, uploads, HealthState(started_at=datetime.now(UTC)).health)
    files.prepare()
    files.note(ended.id, now=True)
    files.draw(everything=False, published=False)
    files.write()


def send_again(config: Config, places: Places, old: Upload) -> str:
    """Move what was kept of a failed upload back into its queue's incoming folder; the name under which it is there.

    Raises ``click.ClickException`` where that cannot be, with what to do.
    """
    if old.kind is UploadKind.OPERATION:
        raise click.ClickException(f"{old}: it is a request and brought no files; ask for it anew")
    if old.kind is UploadKind.COMMANDS:
        raise click.ClickException(f"{old}: commands are never taken twice; sign and send new ones")
    queue = _folder(config, old)
    if queue is None:
        raise click.ClickException(f"{old}: [incoming.{old.queue}] is not configured any more; send it in by hand")
    name = old.name if UPLOAD_NAME.fullmatch(old.name) and not old.nameless else f"retry-{old.id}"
    kept = places.rejected(old.id)
    if queue.delay is not None:
        delayed.prepare(queue)
    with opened(queue) as fd:
        taken = click.ClickException(f"{queue.path / name} is there already; wait until it is taken, or remove it")
        if _lies_there(fd, name):
            raise taken
        if not kept.is_dir():
            raise click.ClickException(f"{old}: nothing is kept of it in {kept}; send it in by hand")
        if old.stage is Stage.REJECTED and all(path.suffix == ".changes" for path in kept.iterdir()):
            raise click.ClickException(
                f"{old}: it was refused before what its .changes lists was looked at, so only the .changes is kept, in "
                f"{kept}; send the whole upload again"
            )
        try:
            fsio.rename_new(kept, name, target_fd=fd)
        except FileExistsError:
            raise taken from None
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # The claims are on incoming's file system, and out of the uploaders' reach.
            copy = places.claims(queue) / f".retry-{old.id}"
            _copy(kept, copy)
            fsio.rename_new(copy, name, target_fd=fd)
            fsio.remove_tree(kept)
    return name


def _lies_there(fd: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _folder(config: Config, old: Upload) -> QueueConfig | None:
    """Where it was sent, as long as it was not due there; else the queue itself. None where that is gone."""
    queue = config.queue(old.queue)
    if queue is None or not old.delayed or old.delay is None or old.delay > queue.delayed:
        return queue
    return queue.delayed_by(old.delay)


def _copy(kept: Path, copy: Path) -> None:
    """The regular files."""
    fsio.remove_tree(copy)
    fsio.make_directories(copy, 0o700)
    with fsio.directory(kept) as fd:
        with os.scandir(fd) as entries:
            names = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
        for name in names:
            fsio.copy_file(name, fd, copy / name, 1 << 62)
