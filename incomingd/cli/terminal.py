"""What differs on a terminal: good and bad states have colours, and times are told as people tell them.

In a pipe there is no escape sequence, whatever the environment says, and times are exact and in UTC: scripts read them.
"""

import os
import sys
from dataclasses import dataclass
from datetime import UTC, datetime

import click

from incomingd.model import printable

#: The states of uploads and of the service that have a colour. All others are on their way, or so on purpose.
_COLOURS = {
    "SUCCEEDED": "green",
    "FAILED": "red",
    "ok": "green",
    "degraded": "yellow",
    "held": "yellow",
    "halted": "red",
    "died": "red",
}
#: Terminals that know no colours, as rich has them.
_DUMB = ("dumb", "unknown")
#: Each unit of time in seconds, with the number from which on the next one is used.
_UNITS = (("s", 1, 60), ("min", 60, 60), ("h", 3600, 24), ("day", 86400, 31))


@dataclass(frozen=True, slots=True)
class Painted:
    """A text that has a colour on a terminal. It is escaped before it is painted."""

    text: str
    colour: str

    def __str__(self) -> str:
        return self.text


def state(word: str) -> Painted | str:
    """A state's name, in its colour if it is a good or a bad one."""
    colour = _COLOURS.get(word)
    return word if colour is None else Painted(word, colour)


def bad(text: str) -> Painted | str:
    """``text`` in the colour of what has failed; empty if it is."""
    return Painted(text, "red") if text else ""


def is_terminal(*, err: bool = False) -> bool:
    """True if standard output, or standard error, is a terminal."""
    stream = sys.stderr if err else sys.stdout
    # While rich draws it has put something of its own before them, which of old did not know.
    return bool(getattr(stream, "rich_proxied_file", stream).isatty())


def is_coloured(*, err: bool = False) -> bool:
    """True on a terminal that knows colours, unless the user wants none (https://no-color.org)."""
    dumb = os.environ.get("TERM", "").lower() in _DUMB
    return is_terminal(err=err) and not dumb and not os.environ.get("NO_COLOR")


def painted(part: object, *, err: bool = False) -> str:
    """``part`` as it is printed: escaped, and in its colour on a terminal that has colours."""
    text = printable(str(part))
    return click.style(text, fg=part.colour) if isinstance(part, Painted) and is_coloured(err=err) else text


def when(at: str, *, err: bool = False) -> str:
    """A time as a table has it: as it stands in a pipe, and on a terminal by its distance from now.

    ``at`` is in ISO 8601, and in UTC if it names no zone. What is no time is not changed.
    """
    if not is_terminal(err=err):
        return at
    try:
        then = datetime.fromisoformat(at)
    except ValueError:
        return at
    return distance(then if then.tzinfo else then.replace(tzinfo=UTC), datetime.now(UTC))


def distance(at: datetime, now: datetime) -> str:
    """``2 min ago``, ``in 3 h``, or ``now``; the day itself if it is more than a month away."""
    seconds = (at - now).total_seconds()
    for unit, size, limit in _UNITS:
        number = round(abs(seconds) / size)
        if not number:
            return "now"
        if number < limit:
            span = f"{number} {unit}{'s' if unit == 'day' and number > 1 else ''}"
            return f"in {span}" if seconds > 0 else f"{span} ago"
    return at.astimezone(UTC).date().isoformat()
