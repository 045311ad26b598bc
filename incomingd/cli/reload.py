"""``incomingctl reload``: has the daemon take up its configuration, and returns when it is in force.

A SIGHUP alone returns at once, and the next command may still meet the old settings.
"""

import os
import signal
import time
from typing import Any

import click

from incomingd import fsio
from incomingd.cli.common import FAILED, TIMED_OUT, USAGE, Instance, echo, needs_instance
from incomingd.cli.status_reader import StatusReader
from incomingd.config.warnings import warnings
from incomingd.publish import identity

#: Seconds between two looks at index.json.
_PAUSE = 0.05


@click.command()
@click.option(
    "--timeout", type=click.FloatRange(min=0), default=240.0, show_default=True, metavar="SECONDS", help="Wait so long."
)
@needs_instance
@click.pass_context
def reload(ctx: click.Context, instance: Instance, timeout: float) -> None:
    """Have the daemon take up its configuration; return when it is in force.

    A configuration with errors is not sent: each error is printed, and the daemon keeps the old one. Exits with 1 if
    no daemon runs, 2 if the configuration is refused, 3 on timeout: then it is taken up after the publish that runs.
    """
    status_reader = StatusReader.of(instance.config)  # raises ConfigError with every error
    daemon = fsio.lock_holder(instance.places.lock)
    if daemon is None:
        echo("incomingctl: no incomingd runs on this instance; it reads the configuration when it starts", err=True)
        ctx.exit(FAILED)
    for line in (*warnings(instance.config), *identity.changes(instance.config)):
        echo(f"warning: {line}", err=True)
    before = _health(status_reader).get("reloads", 0)
    os.kill(daemon, signal.SIGHUP)
    until = time.monotonic() + timeout
    while (health := _health(status_reader)).get("reloads", 0) == before or health.get("pid") != daemon:
        if fsio.lock_holder(instance.places.lock) != daemon:
            echo("incomingctl: the daemon ended before the configuration was in force; see its log", err=True)
            ctx.exit(FAILED)
        if time.monotonic() >= until:
            echo(
                f"incomingctl: not in force after {timeout:g} s; it will be taken up after the publish that runs now: "
                f"{health.get('doing', 'unknown')}",
                err=True,
            )
            ctx.exit(TIMED_OUT)
        time.sleep(_PAUSE)
    refused = [reason for reason in health.get("reasons", ()) if reason.startswith("the new configuration is refused")]
    for reason in refused:
        echo(f"incomingctl: {reason}", err=True)
    if refused:
        ctx.exit(USAGE)
    echo("the configuration is in force")


def _health(status_reader: StatusReader) -> dict[str, Any]:
    found: dict[str, Any] = (status_reader.index() or {}).get("health", {})
    return found
