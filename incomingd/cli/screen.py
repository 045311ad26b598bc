"""Where ``wait`` and ``submit`` tell people how uploads stand: lines that move on a terminal, and lines that stay."""

import contextlib
from collections.abc import Callable, Iterable
from typing import Any, Self

from incomingd.cli.common import echo, under_way
from incomingd.cli.status import print_warning
from incomingd.cli.terminal import state, when
from incomingd.client.following import SUCCEEDED, account, problem_lines


class Lines:
    """Use it as a context. ``quiet``: nothing is told but why the program ends."""

    def __init__(self, *, quiet: bool) -> None:
        self._last_change = quiet
        self._stack = contextlib.ExitStack()
        self._show: Callable[[Iterable[str]], None] = lambda _: None

    def __enter__(self) -> Self:
        self._show = self._stack.enter_context(under_way(quiet=self._last_change))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def show(self, lines: Iterable[str]) -> None:
        """What is being done; nothing is drawn if this is no terminal."""
        self._show(lines)

    def sent(self, line: str) -> None:
        """All of it is there."""
        if not self._last_change:
            echo(line)

    def ended(self, upload: dict[str, Any], *, others: bool) -> None:
        """An upload has ended, with its problems or warnings."""
        if self._last_change:
            return
        last = upload["log"][-1]["message"] if upload["log"] else upload["stage"]
        sender = f", sent by {account(upload)}" if others else ""
        echo(f"{upload['name']}: ", state(upload["state_name"]), f"{sender}: {last}")
        for line in problem_lines(upload):
            echo(f"  {line}")
        if upload["state"] == SUCCEEDED:
            for warning in upload["warnings"]:
                print_warning(upload, warning)

    def error(self, line: str) -> None:
        """Why the program ends."""
        echo(line, err=True)

    def due(self, at: str) -> str:
        """A time of a status file, as standard error has it."""
        return when(at, err=True)
