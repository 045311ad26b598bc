"""Names, and texts of others for people to read."""

from __future__ import annotations

import re

#: As the daemon has them: the name of an upload, and of a file in one.
UPLOAD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,199}", re.ASCII)
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~_-]{0,254}", re.ASCII)
_MOST = 200


def plain(value: object) -> str:
    """``value`` in a message: one line of printable characters, cut if it is long."""
    text = str(value)
    shown = printable(text[:_MOST])
    return shown if len(text) <= _MOST else f"{shown}… ({len(text)} characters)"


def printable(text: str) -> str:
    """Text with all that moves a cursor, begins a line or turns the direction of writing escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode("ascii") for c in text)


def without_epoch(version: str) -> str:
    """A version as file names spell it (Debian Policy 5.6.12)."""
    return version.partition(":")[2] or version


def without_prefix(text: str, prefix: str) -> str:
    """As ``str.removeprefix`` of Python 3.9."""
    return text[len(prefix) :] if prefix and text.startswith(prefix) else text
