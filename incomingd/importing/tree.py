"""Finds what is to be imported. Links to folders are not followed; hidden files and folders are passed over."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from incomingd.errors import ConfigError
from incomingd.journal.staging import Origin

_ENDINGS = (".deb", ".udeb", ".ddeb", ".dsc")


def find(paths: Iterable[Path]) -> list[Origin]:
    """Every package below ``paths``, or named by them, in the order of their names. Raises ``ConfigError``."""
    found: dict[str, Origin] = {}
    for path in paths:
        if not path.exists():
            raise ConfigError([f"{path}: there is no such file or folder"])
        if not path.is_dir() and not path.name.endswith(_ENDINGS):
            raise ConfigError([f"{path}: is neither a folder nor called {', '.join(_ENDINGS)}"])
        for origin in _below(os.path.realpath(path)):
            found[origin.path] = origin
    return sorted(found.values(), key=lambda origin: origin.path)


def _below(path: str) -> Iterator[Origin]:
    if not os.path.isdir(path):  # noqa: PTH112  # half the time of Path for 50,000 files
        status = os.stat(path)  # noqa: PTH116
        yield Origin(path=path, size=status.st_size, mtime_ns=status.st_mtime_ns)
        return
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _below(entry.path)
            elif entry.name.endswith(_ENDINGS):
                status = entry.stat(follow_symlinks=False)
                yield Origin(path=entry.path, size=status.st_size, mtime_ns=status.st_mtime_ns)
