"""The values of a configuration: one parser for each kind, from what TOML gives to what the code uses.

A parser raises :class:`BadValueError`, whose text says what is allowed.
"""

import re
from collections.abc import Callable
from typing import Any

from incomingd.model import plain

Parser = Callable[[Any], Any]

WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~_-]{0,99}", re.ASCII)
_COMPONENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~_-]{0,99}(/[A-Za-z0-9][A-Za-z0-9.+~_-]{0,99})?", re.ASCII)
_ARCHITECTURE = re.compile(r"[a-z0-9][a-z0-9-]{0,49}", re.ASCII)
_FINGERPRINT = re.compile(r"[0-9A-F]{40}", re.ASCII)
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)([kKMGT]?)i?B?", re.ASCII)
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|min|h|d|w)?", re.ASCII)
_SIZE_UNITS = {"": 1, "k": 1 << 10, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_DURATION_UNITS = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}


class BadValueError(ValueError):
    """What is allowed, said by a parser that was given something else."""


def size(value: Any) -> int:
    """``"4G"`` or a plain number, as bytes; k, M, G and T are powers of 1024."""
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match:
        return int(float(match[1]) * _SIZE_UNITS[match[2]])
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise BadValueError('a size in bytes, or a string such as "64M" or "4G"')


def stanza_size(value: Any) -> int:
    """A size of at most 1 MiB: apt 2.6 cannot read a Packages in which one stanza is 200 bytes larger."""
    found = size(value)
    if found > 1 << 20:
        raise BadValueError('a size of at most "1M": apt cannot read an index with a larger stanza')
    return found


def duration(value: Any) -> float:
    """``"1d"``, ``"10s"``, ``"500ms"`` or a plain number of seconds, as seconds."""
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match:
        return float(match[1]) * _DURATION_UNITS[match[2] or "s"]
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf"):
        return float(value)
    raise BadValueError('seconds, or a string such as "30s", "10m", "12h" or "1d"')


def text(value: Any) -> str:
    """One line of text without control characters: it may end up in a Release file."""
    if isinstance(value, str) and value.isprintable():
        return value
    raise BadValueError("one line of text")


def word(value: Any) -> str:
    """A suite, codename or queue: one path component."""
    if isinstance(value, str) and WORD.fullmatch(value):
        return value
    raise BadValueError("a name of letters, digits and . + ~ _ -, the first a letter or digit")


def section(value: Any) -> str:
    """A section without its component, or ``*`` for every one."""
    if value == "*":
        return "*"
    return word(value)


def component(value: Any) -> str:
    """A component, perhaps with one slash (``updates/main``)."""
    if isinstance(value, str) and _COMPONENT.fullmatch(value):
        return value
    raise BadValueError('a component such as "main"')


def architecture(value: Any) -> str:
    """A Debian architecture that packages can be built for."""
    if isinstance(value, str) and _ARCHITECTURE.fullmatch(value) and value != "any":
        return value
    raise BadValueError('an architecture such as "amd64"')


def fingerprint(value: Any) -> str:
    """A full OpenPGP fingerprint; blanks between the groups are allowed, short key ids never are."""
    squeezed = value.replace(" ", "").upper() if isinstance(value, str) else ""
    if _FINGERPRINT.fullmatch(squeezed):
        return squeezed
    raise BadValueError("a full fingerprint of 40 hex digits")


def command(value: Any) -> tuple[str, ...]:
    """A program and its arguments, as they are: no shell reads them."""
    words = value if isinstance(value, list) and all(isinstance(one, str) and "\0" not in one for one in value) else []
    # The working folder is another one at each run.
    if words and words[0] and ("/" not in words[0] or words[0].startswith("/")):
        return tuple(words)
    raise BadValueError("a list: a program (its whole path, or a name in $PATH), then its arguments")


def flag(value: Any) -> bool:
    """true or false."""
    if isinstance(value, bool):
        return value
    raise BadValueError("true or false")


def count(low: int = 1, high: int = 1_000_000_000) -> Parser:
    """A whole number from ``low`` to ``high``."""

    def parse(value: Any) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        raise BadValueError(f"a whole number from {low} to {high}")

    return parse


def one_of(*choices: str) -> Parser:
    """One of the given words."""

    def parse(value: Any) -> str:
        if isinstance(value, str) and value in choices:
            return value
        raise BadValueError("one of " + ", ".join(f'"{c}"' for c in choices))

    return parse


def list_of(parse_one: Parser, *, at_least: int = 0) -> Parser:
    """A list, none twice, with each item parsed."""

    def parse(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) < at_least:
            raise BadValueError(f"a list of at least {at_least}" if at_least else "a list")
        items = tuple(_item(parse_one, item) for item in value)
        if len(set(items)) < len(items):
            raise BadValueError("a list with nothing in it twice")
        return items

    return parse


def _item(parse_one: Parser, item: Any) -> Any:
    try:
        return parse_one(item)
    except BadValueError as bad:
        raise BadValueError(f"a list, each {bad} ({shown(item)} is not)") from None


def shown(value: Any) -> str:
    """A value for a message."""
    return f'"{plain(value)}"' if isinstance(value, str) else plain(value)
