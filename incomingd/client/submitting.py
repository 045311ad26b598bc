"""Sends packages to an incoming folder, and waits until they are published if that is asked for."""

from __future__ import annotations

import hashlib
import re
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, FrozenSet, Optional, Protocol, Tuple

from incomingd.client.errors import NotSentError, TransportError, UsageError
from incomingd.client.following import Remote, Screen, Waiting
from incomingd.client.package_set import PackageSet, Signer, pack
from incomingd.client.text import UPLOAD_NAME
from incomingd.client.transport import Transport, transport

#: ``status/index.json`` is no upload's.
_INDEX = "index"
_LONGEST_STEM = 150
#: Characters of the bar, and seconds between two of them.
_WIDTH, _REDRAWN = 30, 0.1


@dataclass(frozen=True)
class Order:
    """What is to be sent where. ``status`` is the status folder there, if it is not beside the incoming folder."""

    given: Tuple[Path, ...]
    to: str
    suite: Optional[str] = None
    key: Optional[str] = None
    name: Optional[str] = None
    options: Tuple[str, ...] = ()
    waits: bool = False
    timeout: Optional[float] = None
    status: Optional[str] = None


class SubmitScreen(Screen, Protocol):
    """Where people are told, of sending too."""

    def sent(self, line: str) -> None:
        """All of it is there."""


def submit(order: Order, screen: SubmitScreen) -> Tuple[int, Any]:
    """The exit status, and what ``--json`` prints. Raises :class:`~incomingd.client.errors.ClientError`."""
    _check_name(order.name)
    with tempfile.TemporaryDirectory(prefix="incomingctl-") as folder, transport(order.to, order.options) as way:
        packages = pack(order.given, order.suite, Signer(order.key) if order.key else None, Path(folder))
        name = order.name or _unique(packages.stem)
        remote = Remote(way, order.status or way.status_folder(), _digests(packages))
        try:
            if order.waits:
                remote.pass_over(name)
            _send(way, packages, name, order.to, screen)
        except TransportError as error:
            raise NotSentError(error.message) from error
        if not order.waits:
            return 0, {"name": name, "files": [file.name for file in packages.files]}
        waiting = Waiting(remote, [name], screen)
        try:
            return waiting.run(order.timeout), waiting.found
        except (KeyboardInterrupt, SystemExit):
            screen.show(())
            screen.error(f"incomingctl: {name} was sent, and goes its way; to follow it there: incomingctl wait {name}")
            raise


def _check_name(name: Optional[str]) -> None:
    if name is not None and not UPLOAD_NAME.fullmatch(name):
        raise UsageError("--name must be a letter or digit, then at most 199 letters, digits and . _ + ~ -")
    if name == _INDEX:
        raise UsageError(f"--name must not be {_INDEX}: {_INDEX}.json in the status folder is no upload's")


def _unique(stem: str) -> str:
    """A name that tells people what it is, and that no other upload has."""
    plain = re.sub(r"[^A-Za-z0-9._+~-]", "-", stem)[:_LONGEST_STEM]
    return f"{plain}-{uuid.uuid4().hex[:12]}"


def _send(way: Transport, packages: PackageSet, name: str, to: str, screen: SubmitScreen) -> None:
    count = len(packages.files)
    what = f"{count} file{'' if count == 1 else 's'}, {packages.size / 1e6:.1f} MB"
    bar = _Bar(f"sending {what} to {to}", packages.size, screen)
    try:
        way.send(packages.files, name, bar.draw)
    finally:
        screen.show(())
    screen.sent(f"{name}: sent to {to} ({what})")


class _Bar:
    """How far sending has come: a bar, percent, and the rate so far."""

    def __init__(self, title: str, size: int, screen: Screen) -> None:
        self._title, self._size, self._screen = title, size, screen
        self._began = time.monotonic()
        self._drawn = float("-inf")
        screen.show([title])

    def draw(self, part: float) -> None:
        """``part`` of all is there."""
        now = time.monotonic()
        if now - self._drawn < _REDRAWN:
            return
        self._drawn = now
        done = min(int(part * _WIDTH), _WIDTH)
        rate = part * self._size / 1e6 / max(now - self._began, 0.001)
        bar = "#" * done + "-" * (_WIDTH - done)
        self._screen.show([self._title, f"[{bar}] {part:4.0%}  {rate:.1f} MB/s"])


def _digests(packages: PackageSet) -> FrozenSet[str]:
    """The SHA-256 of each .changes."""
    changes = (file for file in packages.files if file.suffix == ".changes")
    return frozenset(hashlib.sha256(file.read_bytes()).hexdigest() for file in changes)
