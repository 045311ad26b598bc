"""``incomingctl wait``: blocks until uploads have ended, for the end of a CI job.

It polls the status files. An upload that still lies in an incoming folder has not ended, whatever a status file of its
name says: that is of an older one.
"""

from collections.abc import Sequence
from pathlib import Path

import click

from incomingd.cli import completion
from incomingd.cli.common import Instance, json_option, needs_instance, print_json
from incomingd.cli.screen import Lines
from incomingd.cli.status_reader import followed, status_option
from incomingd.cli.upload_names import upload_name
from incomingd.client.following import Waiting


@click.command()
@click.argument("names", metavar="NAME…", nargs=-1, required=True, shell_complete=completion.uploads)
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Give up after so many seconds.")
@status_option
@json_option
@needs_instance
@click.pass_context
def wait(
    ctx: click.Context,
    instance: Instance,
    names: Sequence[str],
    timeout: float | None,
    status_folder: Path | None,
    as_json: bool,
) -> None:
    """Wait until each upload has ended, and say how.

    NAME is that of the upload's directory, or of its .changes. Exits with 0 if all SUCCEEDED, 1 if any FAILED
    (and prints why), 3 on timeout or if an upload is unknown by then, 4 if the service is halted.
    """
    status_reader = followed(instance, status_folder)
    with Lines(quiet=as_json) as screen:
        waiting = Waiting(status_reader, [upload_name(name) for name in names], screen, status_reader.near)
        code = waiting.run(timeout)
    if as_json:
        print_json(waiting.found)
    ctx.exit(code)
