"""How far something is, on a terminal or in a log."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from incomingd.cli.common import console, echo

#: Seconds between two lines of progress if there is no terminal.
_LINE_EVERY = 10.0


@contextlib.contextmanager
def progress(total: int) -> Iterator[Callable[[int], None]]:
    """Shows how far it is and how long it will take: a bar on a terminal, else a line now and then."""
    if not total:
        yield lambda _: None
    elif sys.stderr.isatty():
        with _bar(total) as advance:
            yield advance
    else:
        yield _Lines(total).advance


@contextlib.contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("reading"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True)) as shown:
        bar = shown.add_task("reading", total=total)
        yield lambda count: shown.advance(bar, count)


class _Lines:
    """Progress for a log."""

    def __init__(self, total: int) -> None:
        self._total, self._count = total, 0
        self._started = self._told = time.monotonic()

    def advance(self, count: int) -> None:
        self._count += count
        now = time.monotonic()
        if now - self._told < _LINE_EVERY and self._count < self._total:
            return
        self._told = now
        left = (now - self._started) / self._count * (self._total - self._count)
        about = f", about {left:.0f} s left" if self._count < self._total else ""
        echo(f"read {self._count} of {self._total} packages{about}", err=True)
