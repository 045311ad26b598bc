"""``incomingctl hold``, ``release``, ``queue``, ``cancel`` and ``retry``: what an operator does to the queue.

Requests go into the journal and a signal tells the daemon to look; without a daemon they hold for the next one. A
cancel is one compare-and-set beside the daemon's own moves: it either comes in time or says that it came too late.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from incomingd import codec
from incomingd.cli import completion
from incomingd.cli.common import FAILED, Instance, echo, json_option, needs_instance, print_json, print_table
from incomingd.cli.running_daemon import running, running_daemon
from incomingd.cli.status_reader import StatusReader
from incomingd.cli.terminal import when
from incomingd.cli.upload_names import names, newest, upload_name
from incomingd.cli.withdraw import cancel_upload, end_alone, send_again
from incomingd.journal.control import Control, Hold
from incomingd.journal.rejects import Rejects
from incomingd.journal.uploads import Uploads
from incomingd.model import Upload, UploadKind, plain
from incomingd.report.status import render
from incomingd.states import Stage

#: Seconds that the daemon is given to say in the status folder what it has taken notice of.
_PATIENCE = 10.0


@click.command()
@click.argument("reason", nargs=-1)
@json_option
@needs_instance
def hold(instance: Instance, reason: Sequence[str], as_json: bool) -> None:
    """Put publishing on hold; uploads still come in, are checked and wait in the queue.

    The hold lasts over restarts, until release. What is being published at this moment is published first: when this
    returns, the archive stays as it is. REASON is shown to everyone who asks for the status.
    """
    held = Hold(at=datetime.now(UTC), reason=" ".join(" ".join(reason).split()))  # one line, as all that is logged
    journal = instance.journal(writing=True)
    try:
        Control(journal).hold(held)
    finally:
        journal.close()
    if as_json:
        print_json({"hold": _hold_shown(held)})
    else:
        echo(str(held))
    if not _told(instance, lambda state: state in ("held", "halted")):
        echo("incomingctl: what is being published now goes on; see: incomingctl status", err=True)


@click.command()
@json_option
@needs_instance
def release(instance: Instance, as_json: bool) -> None:
    """Publish again what waits since hold."""
    journal = instance.journal(writing=True)
    try:
        was_held = Control(journal).release()
        waiting = Uploads(journal).waiting()[0]
    finally:
        journal.close()
    if was_held:
        _told(instance, lambda state: state != "held")
    if as_json:
        print_json({"was_held": was_held, "waiting": waiting})
    else:
        echo(f"publishing goes on; {waiting} in the queue" if was_held else "publishing was not on hold")


def _told(instance: Instance, is_so: Callable[[str], bool]) -> bool:
    """Wake the daemon, and wait until the service's state is what was asked for; True where no daemon runs."""
    if not running(instance.places, wake=True):
        return True
    status_reader, until = StatusReader.of(instance.config), time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        if is_so((status_reader.index() or {}).get("health", {}).get("state", "")):
            return True
        time.sleep(0.02)
    return False


@click.command()
@json_option
@needs_instance
def queue(instance: Instance, as_json: bool) -> None:
    """Show what waits: the uploads and requests in the order in which they will be published.

    Those that are still being received follow, without a position, then those that stand aside, and then delayed ones,
    as they become due.
    """
    journal = instance.journal()
    try:
        held = Control(journal).held()
        waiting = Uploads(journal).open()
    finally:
        journal.close()
    rows = list(_with_positions(waiting))
    if as_json:
        print_json({"hold": _hold_shown(held), "uploads": [_shown(upload, ahead) for upload, ahead in rows]})
        return
    if held:
        echo(str(held))
    print_table(
        ("POSITION", "ID", "NAME", "QUEUE", "STAGE", "SINCE", "DUE"),
        (
            (
                *(ahead, upload.id, upload.name, upload.queue or upload.kind, _stage(upload), when(_since(upload))),
                when(_seconds(upload.due_at)) if upload.due_at else None,
            )
            for upload, ahead in rows
        ),
    )
    if not rows:
        echo("nothing waits")


def _with_positions(waiting: Iterable[Upload]) -> Iterable[tuple[Upload, int | None]]:
    ahead = 0
    for upload in waiting:
        if upload.sequence is None or upload.delayed or upload.aside:
            yield upload, None
        else:
            yield upload, ahead
            ahead += 1


def _hold_shown(held: Hold | None) -> dict[str, str] | None:
    return None if held is None else {"at": codec.timestamp(held.at), "reason": held.reason}


def _shown(upload: Upload, ahead: int | None) -> dict[str, Any]:
    shown = render(upload, ahead)
    del shown["log"]
    return shown


def _stage(upload: Upload) -> str:
    return f"{upload.stage}, aside" if upload.aside else str(upload.stage)


def _since(upload: Upload) -> str:
    return _seconds(upload.claimed_at or upload.seen_at)


def _seconds(at: datetime) -> str:
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")


@click.command()
@click.argument("name", metavar="NAME|#ID", shell_complete=completion.open_uploads)
@click.option("--reason", default="", help="Shown to the uploader.")
@json_option
@needs_instance
@click.pass_context
def cancel(ctx: click.Context, instance: Instance, name: str, reason: str, as_json: bool) -> None:
    """Cancel an upload, or a request, that has not been published yet.

    It ends as FAILED, and its files are kept in state/rejected/ID. Exits with 1 where it comes too late.
    """
    instance.become_owner()
    with running_daemon(instance.places) as alone:
        journal = instance.journal(writing=True)
        try:
            found = _open_upload(Uploads(journal), upload_name(name))
            ended = None if found is None else cancel_upload(journal, instance.places, found, reason)
            if found is not None and ended and alone:
                end_alone(journal, instance.places, ended)
            now = None if found is None else Uploads(journal).get(found.id)
        finally:
            journal.close()
    if now is None:
        echo(f"incomingctl: {_unknown(instance, upload_name(name))}", err=True)
        ctx.exit(FAILED)
    if ended is None:
        echo(f"incomingctl: {now}: too late, it is {now.stage} already", err=True)
        ctx.exit(FAILED)
    if not alone:
        running(instance.places, wake=True)
        _await_status(instance, now)
    if as_json:
        print_json(_shown(now, None))
    else:
        echo(f"{now}: cancelled")


def _open_upload(uploads: Uploads, name: str) -> Upload | None:
    """The newest upload of that name that has not ended; else the newest of all."""
    mine = [upload for upload in uploads.open() if upload.name in map(plain, names(name))]
    return max(mine, key=lambda upload: upload.id) if mine else newest(uploads, name)


def _unknown(instance: Instance, name: str) -> str:
    status_reader = StatusReader.of(instance.config)
    if status_reader.dropped(name):
        return f"{name} lies in incoming and has not been seen yet: remove it there"
    meant = status_reader.near(name) or "; see: incomingctl queue"
    return f"no upload has the name {json.dumps(name, ensure_ascii=False)}{meant}"


def _await_status(instance: Instance, upload: Upload) -> None:
    """Until the status file says so too, and the files have been put aside."""
    status_reader, until = StatusReader.of(instance.config), time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        shown = status_reader.upload(f"#{upload.id}")
        if shown and shown["finished_at"]:
            return
        time.sleep(0.02)


@click.command()
@click.argument("name", metavar="NAME|#ID", shell_complete=completion.failed_uploads)
@json_option
@needs_instance
@click.pass_context
def retry(ctx: click.Context, instance: Instance, name: str, as_json: bool) -> None:
    """Send an upload that FAILED in again, from its kept files.

    It gets a new id and a new place in the queue; the files move from state/rejected/ID back to incoming, to be taken
    and checked like any other upload. Follow it with wait or status, by its name.
    """
    journal = instance.journal()
    try:
        known = upload_name(name)
        old = newest(Uploads(journal), known)
    finally:
        journal.close()
    if old is None:
        echo(f"incomingctl: {_unknown(instance, known)}", err=True)
        ctx.exit(FAILED)
    if old.stage not in (Stage.REJECTED, Stage.CANCELLED, Stage.ABANDONED):
        aside = "; it stands aside and is tried again by itself" if old.aside else ""
        echo(f"incomingctl: {old}: it is {old.stage}; only what FAILED can be sent in again{aside}", err=True)
        ctx.exit(FAILED)
    if old.kind is not UploadKind.OPERATION:
        _await_kept(instance, old)
    sent = send_again(instance.config, instance.places, old)
    journal = instance.journal(writing=True)
    try:
        Rejects(journal).forget([old.id])
    finally:
        journal.close()
    if as_json:
        print_json({"name": sent, "retry_of": old.id})
    else:
        echo(f"{old}: sent in again as {sent}; follow it with: incomingctl wait {sent}")


def _await_kept(instance: Instance, old: Upload) -> None:
    """The files of what has just ended are put aside a moment later."""
    until = time.monotonic() + _PATIENCE
    kept = instance.places.rejected(old.id)
    while not os.path.lexists(kept) and time.monotonic() < until and running(instance.places):
        time.sleep(0.02)
