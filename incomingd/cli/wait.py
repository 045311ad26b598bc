"""``incomingctl wait``: blocks until uploads have ended, for the end of a CI job.

It polls the status files. An upload that still lies in an incoming folder has not ended, whatever a status file of its
name says: that is of an older one. Once it was seen it is followed by its id: NAME.json may tell of another one later.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import click

from incomingd.cli import completion
from incomingd.cli.called import upload_name
from incomingd.cli.edge import (
    FAILED,
    HALTED,
    TIMED_OUT,
    Instance,
    echo,
    json_option,
    needs_instance,
    print_json,
    under_way,
)
from incomingd.cli.polled import FAILED as UPLOAD_FAILED
from incomingd.cli.polled import SUCCEEDED, account, followed, problem_lines, status_option
from incomingd.cli.status import due, print_warning
from incomingd.cli.terminal import state

#: Seconds between two looks: short at first, since an upload takes some 100 ms.
_SOONEST, _LATEST = 0.02, 0.5
#: Seconds that a halted service is given to take and check what has just been sent: whatever is wrong with it is told
#: all the same, and who asks learns where it waits.
_CHECKED_WITHIN = 2.0


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

    NAME is that of the upload's directory, or of its .changes. Exits with 0 where all SUCCEEDED, 1 where any FAILED
    (and prints why), 3 where the time was over or an upload was unknown by then, 4 where the service is halted.
    """
    polled = followed(instance, status_folder)
    waiting = Waiting(polled, [upload_name(name) for name in names], quiet=as_json, near=polled.near)
    code = waiting.run(timeout)
    if as_json:
        print_json(waiting.found)
    ctx.exit(code)


class Source(Protocol):
    """Where status files are read, as :class:`~incomingd.cli.polled.Polled` does."""

    def upload(self, name: str) -> dict[str, Any] | None:
        """The newest upload of that name, or the one with that id if ``name`` is ``#ID``."""

    def look(self, name: str) -> tuple[bool, dict[str, Any] | None]:
        """The newest upload of that name, and whether a newer one lies in an incoming folder that has no status yet."""

    def halted(self) -> str | None:
        """Why nothing is published, where the service is halted."""

    def held(self) -> str | None:
        """Why nothing is published, where publishing is on hold."""

    def is_others(self, upload: dict[str, Any]) -> bool:
        """True if another account than the caller has sent it, as far as that can be told."""


class Waiting:
    """The uploads that are waited for; ``ended`` holds what ended, in that order, ``under_way`` what has not.

    ``near`` says of a name that no upload has, as the end of a line, which one may be meant.
    """

    def __init__(
        self, polled: Source, names: Sequence[str], *, quiet: bool, near: Callable[[str], str] = lambda _: ""
    ) -> None:
        self.polled = polled
        self.open: dict[str, int | None] = dict.fromkeys(names)  # each with its id, once it was seen
        self.ended: list[dict[str, Any]] = []
        self.under_way: list[dict[str, Any]] = []
        self.quiet = quiet
        self._near = near

    @property
    def found(self) -> list[dict[str, Any]]:
        """The status of each upload that is known, those first that have ended."""
        return [*self.ended, *self.under_way]

    def run(self, timeout: float | None) -> int:
        """Wait; the exit code."""
        began = time.monotonic()
        pause, until = _SOONEST, None if timeout is None else began + timeout
        with under_way(quiet=self.quiet) as show:
            while True:
                lines, ended = self._look()
                if ended:
                    show(())
                for upload in ended:
                    self._tell(upload)
                if not self.open:
                    return FAILED if any(upload["state"] == UPLOAD_FAILED for upload in self.ended) else 0
                halted, held, now = self.polled.halted(), self.polled.held(), time.monotonic()
                over = until is not None and now >= until
                stopped = halted and (over or self._all_queued() or now >= began + _CHECKED_WITHIN)
                if stopped or over:
                    show(())
                if stopped:
                    return self._give_up(lines, f"the service is halted: {halted}", HALTED)
                if over:
                    return self._give_up(lines, f"not ended after {timeout:g} s", TIMED_OUT)
                show([*lines, held] if held else lines)
                time.sleep(pause if until is None else max(0.0, min(pause, until - time.monotonic())))
                pause = min(pause * 1.2, _LATEST)

    def _all_queued(self) -> bool:
        return len(self.under_way) == len(self.open) and all(one["stage"] == "queued" for one in self.under_way)

    def _look(self) -> tuple[list[str], list[dict[str, Any]]]:
        """One line for each upload that has not ended; and those that now have."""
        lines, ended = [], []
        self.under_way = []
        for name, number in list(self.open.items()):
            waits, upload = self.polled.look(name) if number is None else (False, self.polled.upload(f"#{number}"))
            if waits:
                lines.append(f"{name}: has not been taken yet")
            elif upload is None:
                lines.append(f"{name}: unknown so far; nothing of that name is in incoming{self._near(name)}")
            elif upload["finished_at"] is None:
                if not self.polled.is_others(upload):  # else the caller's own may come yet
                    self.open[name] = upload["id"]
                lines.append(_under_way(upload))
                self.under_way.append(upload)
            else:
                del self.open[name]
                ended.append(upload)
        self.ended += ended
        return lines, ended

    def _tell(self, upload: dict[str, Any]) -> None:
        if self.quiet:
            return
        last = upload["log"][-1]["message"] if upload["log"] else upload["stage"]
        others = f", sent by {account(upload)}" if self.polled.is_others(upload) else ""
        echo(f"{upload['name']}: ", state(upload["state_name"]), f"{others}: {last}")
        for line in problem_lines(upload):
            echo(f"  {line}")
        if upload["state"] == SUCCEEDED:
            for warning in upload["warnings"]:
                print_warning(upload, warning)

    def _give_up(self, lines: Sequence[str], why: str, code: int) -> int:
        for line in lines:
            echo(line, err=True)
        echo(f"incomingctl: {why}", err=True)
        return code


def _under_way(upload: dict[str, Any]) -> str:
    ahead = upload["position"]
    where = f", {ahead} ahead of it" if ahead else ""
    last = f": {upload['log'][-1]['message']}" if upload["log"] else ""
    return f"{upload['name']}: {upload['state_name']}, {upload['stage']}{where}{due(upload, err=True)}{last}"
