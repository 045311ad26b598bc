"""What every verb stands on: the instance that it is about, exit codes, and how facts are printed."""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from incomingd import fsio
from incomingd.cli.terminal import Painted, is_coloured, is_terminal, painted
from incomingd.client.errors import FAILED, HALTED, INTERRUPTED, TERMINATED, TIMED_OUT, USAGE
from incomingd.config import Config
from incomingd.config.reader import find, load
from incomingd.errors import ConfigError
from incomingd.model import printable
from incomingd.places import Places

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

    from incomingd.journal import Journal

__all__ = ["FAILED", "HALTED", "INTERRUPTED", "TERMINATED", "TIMED_OUT", "USAGE"]

_F = TypeVar("_F", bound=Callable[..., Any])


class Instance:
    """The instance that a call is about; its configuration is looked for only by verbs that need one."""

    def __init__(self, file: Path | None) -> None:
        self._file = file

    @property
    def file(self) -> Path:
        """Where the configuration is. Raises ``ConfigError``."""
        return find(self._file)

    @cached_property
    def config(self) -> Config:
        """The configuration. Raises ``ConfigError``."""
        return load(self.file)

    @property
    def places(self) -> Places:
        """Where everything lies."""
        return Places(self.config)

    def become_owner(self) -> None:
        """Go on as the state folder's owner where root calls: the daemon could not read the files that root makes."""
        if self.places.state.exists():
            fsio.become_owner(self.places.state)

    def journal(self, *, writing: bool = False) -> "Journal":
        """The journal, to be read only but for ``writing``; opened as its owner, since sqlite makes files beside it.

        Raises ``ConfigError`` where there is none, ``Halt`` and ``Retry``.
        """
        from incomingd.journal import Journal  # sqlite: scripts that read status files do without

        self.become_owner()
        path = self.places.journal
        if not path.exists():
            raise ConfigError(
                [f"{path}: there is no journal yet, or you may not see it; start incomingd, or ask as its user or root"]
            )
        return Journal(path, read_only=not writing)


needs_instance = click.make_pass_decorator(Instance)


def json_option(command: _F) -> _F:
    """``--json``, for every verb that prints facts."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def echo(*parts: object, err: bool = False) -> None:
    """Print a line for people, of these parts. What an upload or a key says in it moves no cursor, turns no text around
    and begins no line of its own; a part that is :class:`~incomingd.cli.terminal.Painted` has its colour."""
    # That colours are wanted is decided here: click would take them away while rich draws on the same terminal.
    click.echo("".join(painted(part, err=err) for part in parts), err=err, color=True)


def print_json(value: Any) -> None:
    """One JSON document; what is not printable is escaped as JSON has it, so that it is read back unchanged."""
    text = json.dumps(value, ensure_ascii=False, indent=1)
    if not text.replace("\n", "").isprintable():
        text = "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
    click.echo(text)


def console(*, stderr: bool = False) -> "Console":
    """Where tables and progress go. In a pipe no line is cut or wrapped, and nothing is painted."""
    # rich takes 60 ms to load, and most calls by scripts print a line or JSON.
    from rich.console import Console

    terminal = is_terminal(err=stderr)
    return Console(
        stderr=stderr,
        width=None if terminal else 1000,
        force_terminal=terminal,  # else $FORCE_COLOR would have it paint in a pipe, too
        no_color=not is_coloured(err=stderr),
        highlight=False,
        markup=False,
        emoji=False,
    )


@contextlib.contextmanager
def under_way(*, quiet: bool = False) -> Iterator[Callable[[Iterable[str]], None]]:
    """Lines on standard error that say what is being done, for as long as it is; yields what replaces them.

    What is printed meanwhile needs a place of its own: replace them by none first. Nothing is drawn if that is no
    terminal: a CI job's log is spared, and the time to load rich.
    """
    if quiet or not is_terminal(err=True):
        yield lambda _: None
        return
    drawing = _Drawing(console(stderr=True))
    try:
        yield drawing.show
    finally:
        drawing.show(())


class _Drawing:
    """Lines on a terminal beside something that moves. They leave no trace."""

    def __init__(self, console: "Console") -> None:
        self._console = console
        self._shown: Status | None = None

    def show(self, lines: Iterable[str]) -> None:
        from rich.text import Text

        # A Text, since a string would be read as rich's own markup, whatever the console is told.
        text = Text("\n".join(map(printable, lines)))
        if not text:
            if self._shown:
                self._shown.stop()
            self._shown = None
        elif self._shown:
            self._shown.update(text)
        else:
            self._shown = self._console.status(text)
            self._shown.start()


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns under headings; nothing at all if there are no rows. A narrow terminal folds cells and cuts nothing."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(
            *(
                Text(
                    "" if cell is None else printable(str(cell)),
                    style=cell.colour if isinstance(cell, Painted) else "",
                )
                for cell in row
            )
        )
    if table.row_count:
        console().print(table)
