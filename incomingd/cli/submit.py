"""``incomingctl submit``: sends an upload from a CI job, and waits until it is published.

It needs no configuration and no rights here but to read the files, and only sshd on the other side: the status is read
from there as it was sent. All of it is :mod:`incomingd.client`.
"""

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from incomingd.cli.common import TERMINATED, json_option, print_json
from incomingd.cli.screen import Lines
from incomingd.client import submitting
from incomingd.client.errors import ClientError, UsageError


@click.command()
@click.argument("given", metavar="FILE… | DIR", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--to", required=True, metavar="PATH|[USER@]HOST:PATH", help="The incoming folder.")
@click.option("--suite", help="Where packages without a .changes are to go.")
@click.option("--key", metavar="FPR", help="Sign what is not signed yet with this key of your keyring.")
@click.option("--name", help="The upload's name; without it one is made up that no other has.")
@click.option(
    "-o", "options", multiple=True, metavar="OPTION=VALUE", help="For ssh, as its own -o; may be given again."
)
@click.option("--wait", "waits", is_flag=True, help="Follow the upload to its end, and exit as wait does.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Stop waiting after so many seconds.")
@click.option("--status", "status_folder", metavar="PATH", help="The status folder there; default: TO/../status.")
@json_option
@click.pass_context
def submit(
    ctx: click.Context,
    given: Sequence[Path],
    to: str,
    suite: str | None,
    key: str | None,
    name: str | None,
    options: Sequence[str],
    waits: bool,
    timeout: float | None,
    status_folder: str | None,
    as_json: bool,
) -> None:
    """Send packages to an incoming folder, here or on another machine.

    Give a .changes (what it lists goes with it), a directory with one, or packages and .dsc alone: these get a .changes
    for --suite. Over ssh it is sent by rsync if both sides have it, else by sftp or scp.

    Exits with 5 if the upload could not be sent, and with --wait as wait does.
    """
    # A CI job that is cancelled gets this: what was being sent must not be left behind there.
    signal.signal(signal.SIGTERM, _terminated)
    order = submitting.Order(
        given=tuple(given),
        to=to,
        suite=suite,
        key=key,
        name=name,
        options=tuple(options),
        waits=waits,
        timeout=timeout,
        status=status_folder,
    )
    try:
        with Lines(quiet=as_json) as screen:
            code, found = submitting.submit(order, screen)
    except UsageError as error:
        raise click.UsageError(error.message) from error
    except ClientError as error:
        raise _Failure(error) from error
    if as_json:
        print_json(found)
    ctx.exit(code)


class _Failure(click.ClickException):
    """It is told as every failure, with an exit status of its own."""

    def __init__(self, error: ClientError) -> None:
        super().__init__(error.message)
        self.exit_code = error.exit_code  # type: ignore[misc]  # a class variable in click's own classes


def _terminated(number: int, frame: object) -> NoReturn:
    raise SystemExit(TERMINATED)
