"""``incomingctl status``: one upload, or the queue and the health of the service. Reads the status folder only."""

import os
from pathlib import Path
from typing import Any

import click

from incomingd.cli import completion
from incomingd.cli.common import FAILED, HALTED, Instance, echo, json_option, needs_instance, print_json, print_table
from incomingd.cli.status_reader import StatusReader, followed, status_option
from incomingd.cli.terminal import Painted, bad, state, when
from incomingd.cli.upload_names import upload_name
from incomingd.client.following import UPLOAD_FAILED, account, problem_lines
from incomingd.model import shown_size

#: How many of the ended uploads are shown to people.
_ENDED_SHOWN = 10
#: What is used on the disk, in the order in which it is shown.
_DISK = ("pool", "indexes", "rejected", "journal", "free")


@click.command()
@click.argument("name", required=False, shell_complete=completion.uploads)
@status_option
@json_option
@needs_instance
@click.pass_context
def status(ctx: click.Context, instance: Instance, name: str | None, status_folder: Path | None, as_json: bool) -> None:
    """Show one upload, or the queue and the health of the service.

    NAME is an upload's name, or #ID. Exits with 1 where that upload FAILED or is unknown, or where the daemon died;
    with 4 where the service is halted.
    """
    status_reader = followed(instance, status_folder)
    ctx.exit(_service(status_reader, as_json) if name is None else _upload(status_reader, upload_name(name), as_json))


def _upload(status_reader: StatusReader, name: str, as_json: bool) -> int:
    upload = status_reader.upload(name)
    if upload is None:
        what = (
            "waits in incoming and has not been seen yet"
            if status_reader.dropped(name)
            else f"no upload has that name{status_reader.near(name)}"
        )
        echo(f"incomingctl: {name}: {what}", err=True)
        return FAILED
    if as_json:
        print_json(upload)
    else:
        print_upload(upload)
        if upload["finished_at"] is None:
            for line in status_reader.hindrances():
                echo("  ", bad("waits:"), f" {line}")
    return FAILED if upload["state"] == UPLOAD_FAILED else 0


def print_upload(upload: dict[str, Any]) -> None:
    """One upload for people: what it is, what became of it, and its log."""
    ahead = f", {upload['position']} ahead of it" if upload["position"] else ""
    echo(
        f"{upload['name']} (#{upload['id']}): ",
        *(state(upload["state_name"]), f", {upload['stage']}{ahead}{due(upload)}"),
    )
    if upload.get("uploader"):
        echo(f"  sent by {account(upload)}")
    for changes in upload["changes"]:
        signed = changes["signed_by"] or "nobody that is trusted"
        # A text that nobody vouches for was not read.
        what = f"{changes['source']} {changes['version']} for {changes['distribution']}, " if changes["source"] else ""
        echo(f"  {changes['file']}: {what}signed by {signed}")
    published = upload["published"]
    if published:
        for suite, result in published["suites"].items():
            echo(f"  in {suite} since generation {result['generation']}")
        for file in published["files"]:
            echo(f"    {file}")
    for line in problem_lines(upload):
        echo("  ", bad("problem:"), f" {line}")
    for warning in upload["warnings"]:
        print_warning(upload, warning)
    times = [when(line["at"]) for line in upload["log"]]
    width = max(map(len, times), default=0)
    for at, line in zip(times, upload["log"], strict=True):
        echo(f"  {at:{width}}  {line['message']}")


def print_warning(upload: dict[str, Any], warning: dict[str, Any]) -> None:
    """One line: the file, and what is odd about it."""
    echo("  ", Painted("warning:", "yellow"), f" {warning['file'] or upload['name']}: {warning['message']}")


def due(upload: dict[str, Any], *, err: bool = False) -> str:
    """When a delayed upload that has not ended is due, as the rest of a line; empty for all others."""
    # A status file of before there were any has no such field.
    return f", due {when(upload['due_at'], err=err)}" if upload.get("due_at") and not upload["finished_at"] else ""


def _service(status_reader: StatusReader, as_json: bool) -> int:
    index = status_reader.index()
    if index is None:
        echo("incomingctl: the daemon has not run on this instance yet; start it with: incomingd", err=True)
        return FAILED
    health = index["health"]
    died = health["state"] != "stopped" and not _alive(int(health["pid"]))
    if died:
        health |= {"state": "died", "reasons": ["the daemon ended without saying so; start it again, nothing is lost"]}
    if as_json:
        print_json(index)
    else:
        _print_service(index)
    return HALTED if health["state"] == "halted" else FAILED if died else 0


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _used(disk: dict[str, Any]) -> str:
    """What is used on the disk, in one line."""
    used = ", ".join(f"{kind} {shown_size(disk[kind])}" for kind in _DISK if disk[kind] is not None)
    superseded, space = shown_size(disk["superseded_indexes"]), shown_size(disk["index_space"])
    return f"{used}; superseded indexes {superseded} of {space}"


def _print_service(index: dict[str, Any]) -> None:
    health = index["health"]
    # What it was doing is of no use once it does nothing.
    doing = f": {health['doing']}" if health["state"] in ("ok", "degraded") else ""
    echo(f"incomingd {health['version']}, pid {health['pid']}, ", state(health["state"]), doing)
    for reason in health["reasons"]:
        echo(f"  {reason}")
    if disk := health.get("disk"):
        echo(f"disk: {_used(disk)}")
    flight, ended = index["in_flight"], index["ended"]
    echo(f"{len(flight)} in flight, the last {min(len(ended), _ENDED_SHOWN)} that ended:")
    print_table(
        ("ID", "NAME", "STATE", "STAGE", "AHEAD", "SINCE", "DUE"),
        (
            (
                *(u["id"], u["name"], state(u["state_name"]), u["stage"], u["position"]),
                when(u["finished_at"] or u["seen_at"]),
                when(u["due_at"]) if u.get("due_at") and not u["finished_at"] else None,
            )
            for u in (*flight, *ended[:_ENDED_SHOWN])
        ),
    )
