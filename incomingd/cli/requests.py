"""What an operator asks for: put into the journal's queue, done by the daemon, waited for as an upload is.

A request has a name and a status like an upload's, and its place in the one sequence. Where no daemon runs it waits in
the journal; the next one does it.
"""

import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from incomingd.cli.common import TIMED_OUT, Instance, echo, json_option, print_json
from incomingd.cli.near import did_you_mean
from incomingd.cli.running_daemon import running
from incomingd.cli.screen import Lines
from incomingd.cli.status_reader import StatusReader
from incomingd.client.following import Waiting
from incomingd.errors import ConfigError
from incomingd.journal.uploads import Uploads
from incomingd.model import Operation, Upload

_F = TypeVar("_F", bound=Callable[..., Any])


def waiting_options(command: _F) -> _F:
    """``--no-wait``, ``--timeout`` and ``--json``, for every verb that asks for something."""
    command = click.option("--no-wait", is_flag=True, help="Ask for it, and do not wait until it is done.")(command)
    seconds = click.FloatRange(min=0)
    command = click.option("--timeout", type=seconds, metavar="SECONDS", help="Give up waiting after so many seconds.")(
        command
    )
    return json_option(command)


def check_suite(instance: Instance, name: str) -> str:
    """``name``, where it is a suite's. Raises ``ConfigError``."""
    if instance.config.suite(name) is None:
        known = [suite.name for suite in instance.config.suites]
        raise ConfigError([f"there is no suite {name}; there are {', '.join(known)}{did_you_mean(name, known)}"])
    return name


def ask(instance: Instance, words: str, operation: Operation) -> Upload:
    """Put the request into the queue and tell the daemon; ``words`` become its name."""
    name = re.sub(r"[^A-Za-z0-9._+~-]", "-", words)[:200]
    journal = instance.journal(writing=True)
    try:
        asked = Uploads(journal).ask(name, operation, datetime.now(UTC), f"asked for by {_who()}")
    finally:
        journal.close()
    return asked


def await_end(instance: Instance, asked: Upload, *, no_wait: bool, timeout: float | None, as_json: bool) -> int:
    """Wait until the request has ended, and say how; the exit code."""
    attended = running(instance.places, wake=True)
    if not attended:
        echo(
            f"incomingctl: {asked.name}: no incomingd runs on this instance; the request waits in its journal, and the "
            "next one to start does it",
            err=True,
        )
    if no_wait or not attended:
        _say_asked(asked, as_json=as_json)
        return 0 if no_wait else TIMED_OUT
    # By its number: an older request may have had the same name.
    with Lines(quiet=as_json) as screen:
        waiting = Waiting(StatusReader.of(instance.config), [f"#{asked.id}"], screen)
        code = waiting.run(timeout)
    if as_json:
        print_json(waiting.found)
    return code


def _say_asked(asked: Upload, *, as_json: bool) -> None:
    if as_json:
        print_json([{"name": asked.name, "id": asked.id, "stage": str(asked.stage)}])
    else:
        echo(f"{asked.name}: asked for; see: incomingctl wait '#{asked.id}'")


def _who() -> str:
    """Who runs this, by name where there is one; through sudo, who ran that."""
    return os.environ.get("SUDO_USER") or os.environ.get("LOGNAME") or f"uid {os.getuid()}"
