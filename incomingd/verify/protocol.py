"""What a check worker and its parent say to each other, over one socket.

A frame is a length of four bytes, the highest first, a letter, and that many bytes. The parent sends jobs (``J``) and
gets back ``H`` once there is a worker, ``F`` with a name before each file that is looked into, and then one of ``R``
(what the step came to), ``T`` (the machine's fault, try again), ``M`` (out of memory) and ``C`` (a bug, with its
trace). Jobs and answers are JSON; nothing is ever unpickled.

The process that workers are forked from says ``H`` when it is there, with a sentence if the self-test of the checks
failed (:mod:`.selftest`). ``S`` brings settings for those that it forks from then on, and has no answer. ``N``, which
brings a socket, asks it for a worker at the other end of that; ``W`` with a number, for how that worker has ended. It
answers with ``A`` and a number.
"""

import socket
import struct
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from incomingd.config import Config
from incomingd.model import Seal
from incomingd.verify.authorise import Authorisation
from incomingd.verify.keyring import Keyring

_HEAD = struct.Struct(">Ic")
#: A frame of more than this is none.
_MAX_FRAME = 64 << 20
_CHUNK = 1 << 20


class Step(StrEnum):
    """What a worker does with an upload: decide on its .changes, which comes to an ``Authorisation``; check it, or read
    a .commands file, which both come to a ``CheckReport``."""

    AUTHORISE = "authorise"
    CHECK = "check"
    COMMANDS = "commands"


#: The steps that read only what is signed, and decide who has signed it. Workers that take them take no others.
TEXTS = frozenset({Step.AUTHORISE, Step.COMMANDS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One job. ``authorisation`` is what the first step came to, for the second."""

    step: Step
    folder: Path
    seal: Seal
    queue: str
    now: datetime
    authorisation: Authorisation | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a worker is forked with: what uploads are judged by, and the folders that hold sealed ones.

    ``home`` is the uploaders' gnupg home.
    """

    config: Config
    home: Path
    folders: tuple[Path, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """What a check reads besides the upload."""
        suites = self.config.suites
        named = (path for suite in suites for path in (suite.overrides, suite.source_overrides))
        return (*Keyring(self.home).files, *(path for path in named if path))


def send(to: socket.socket, kind: bytes, data: bytes) -> None:
    """Send one frame. Raises ``OSError``, and ``TimeoutError`` where the socket has a time limit."""
    to.sendall(_HEAD.pack(len(data), kind) + data)


def receive(source: socket.socket) -> tuple[bytes, bytes]:
    """The next frame's letter and bytes. Raises ``EOFError``, ``ValueError`` for one too long, and as :func:`send`."""
    size, kind = _HEAD.unpack(_exactly(source, _HEAD.size))
    if size > _MAX_FRAME:
        raise ValueError(f"a frame of {size} bytes")
    return kind, _exactly(source, size)


def send_with(to: socket.socket, kind: bytes, passed: socket.socket) -> None:
    """Send a frame of no bytes that brings a socket along (SCM_RIGHTS, unix(7))."""
    socket.send_fds(to, [_HEAD.pack(0, kind)], [passed.fileno()])


def receive_with(source: socket.socket) -> tuple[bytes, bytes, socket.socket | None]:
    """As :func:`receive`, with the socket that the frame may have brought."""
    head, passed, _, _ = socket.recv_fds(source, _HEAD.size, 1)
    if not head:
        raise EOFError
    size, kind = _HEAD.unpack(head + _exactly(source, _HEAD.size - len(head)))
    return kind, _exactly(source, size), socket.socket(fileno=passed[0]) if passed else None


def _exactly(source: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        chunk = source.recv(min(count - len(data), _CHUNK))
        if not chunk:
            raise EOFError
        data += chunk
    return bytes(data)
