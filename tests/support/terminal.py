"""A real pseudo terminal: a command that runs on one, and a shell that is typed into."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.instance import PATIENCE

#: What moves the cursor, sets colours, asks the terminal something, or sets its title.
_ESCAPES = re.compile(
    r"\x1b(\[[0-9;?>=<!]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|P[^\x1b]*\x1b\\|[()][A-Z0-9]|[=>78A-Z])"
)


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a command has written to its terminal, and its exit status."""

    code: int
    raw: str

    @property
    def text(self) -> str:
        """Without escape sequences, in lines as a pipe would have them."""
        return plain(self.raw)


def plain(raw: str) -> str:
    """What is left of a terminal's input if all that moves and paints is left out."""
    return _ESCAPES.sub("", raw).replace("\r\n", "\n").replace("\r", "").replace("\a", "")


def on_terminal(*words: str | Path, columns: int = 120, env: Mapping[str, str] | None = None) -> Shown:
    """Run a command to its end with standard output and error on a terminal; ``env`` is added to the environment."""
    with Terminal(words, columns=columns, env=env or {}) as terminal:
        raw = terminal.rest()
    return Shown(code=terminal.code, raw=raw)


class Terminal:
    """A process on a terminal of its own. As a context: what still runs at its end is killed."""

    def __init__(self, words: Sequence[str | Path], *, columns: int = 120, env: Mapping[str, str]) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        self._unread = ""
        environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
        self._process = subprocess.Popen(
            # In a session of its own that the terminal controls, as shells have to have it.
            ["setsid", "--ctty", *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment | {"TERM": "xterm", **env},
        )
        os.close(theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._ours)

    @property
    def code(self) -> int:
        """The exit status of the process, once it has ended."""
        return self._process.wait(PATIENCE)

    def type(self, text: str) -> None:
        """As a user types it."""
        os.write(self._ours, text.encode())

    def until(self, pattern: str) -> str:
        """What was written up to and with ``pattern``, without escape sequences."""
        end = time.monotonic() + PATIENCE
        while not (found := re.search(pattern, plain(self._unread))):
            data = self._read(max(0.0, end - time.monotonic()))
            assert data, f"{pattern!r} did not come: {self._unread!r}"
            self._unread += data
        self._unread = plain(self._unread)[found.end() :]
        return found.group()

    def rest(self) -> str:
        """All that is still written until the process ends, as it is."""
        while data := self._read(PATIENCE):
            self._unread += data
        self.code  # noqa: B018  # it is to have ended before it would be killed
        return self._unread

    def _read(self, seconds: float) -> str:
        if not select.select([self._ours], [], [], seconds)[0]:
            return ""
        try:
            return os.read(self._ours, 1 << 16).decode(errors="replace")
        except OSError:  # EIO: the other end is gone
            return ""
