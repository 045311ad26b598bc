"""What a check worker and its parent say to each other, over one socket.

A frame is a length of four bytes, the highest first, a letter, and that many bytes. The parent sends jobs (``J``) and
gets back ``H`` once there is a worker, and for each job one of ``R`` (what the step came to), ``T`` (the machine's
fault, try again), ``K`` (gpgv was ended from outside), ``M`` (out of memory) and ``C`` (a bug, with its trace).
Neither side sends another frame before it has the other's. Jobs and answers are JSON; nothing is ever unpickled.

Before each file that it looks into a worker notes the name in a file that both have open (:class:`Note`). The parent
reads it only if no report comes: a frame for each file would wake it each time, at a tenth of what a check costs.

The process that workers are forked from says ``H`` when it is there, with a sentence if the self-test of the checks
failed (:mod:`.selftest`). ``S`` brings settings for those that it forks from then on, and has no answer. ``N``, which
brings a socket and such a file, asks it for a worker at the other end of that; ``W`` with a number, for how that worker
has ended. It answers with ``A`` and a number.
"""

import os
import socket
import struct
import time
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
_CHUNK = 1 << 16


class Step(StrEnum):
    """What a worker does with an upload: decide on its .changes, which comes to an ``Authorisation``; check it, or read
    a .commands file, which both come to a ``CheckReport``."""

    AUTHORISE = "authorise"
    CHECK = "check"
    COMMANDS = "commands"


#: The steps that read only what is signed, and decide who has signed it. Workers that take them take no others.
TEXTS = frozenset({Step.AUTHORISE, Step.COMMANDS})
#: Bytes that they take, besides so many times those of the largest text. One of 1 MiB is read with less than half.
_OF_TEXTS, _FOR_EACH_BYTE = 128 << 20, 24


def memory(step: Step, config: Config) -> int:
    """The bytes of memory (address space) that a worker may have for a step."""
    most = config.checks.worker_memory
    return min(most, _OF_TEXTS + _FOR_EACH_BYTE * config.max_text) if step in TEXTS else most


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


class Note:
    """A file in memory that a worker and its parent share: the name of what the worker is reading, as it says."""

    _LENGTH = 256  # as long as a name can be, and a zero byte

    def __init__(self, fd: int | None = None) -> None:
        self.fd = os.memfd_create("reading") if fd is None else fd

    def write(self, name: str) -> None:
        """Note a name; an empty one if nothing is being read."""
        os.pwrite(self.fd, name.encode("utf-8", "replace")[: self._LENGTH - 1].ljust(self._LENGTH, b"\0"), 0)

    def read(self) -> str | None:
        """The name that was noted last; None if nothing was being read."""
        return os.pread(self.fd, self._LENGTH, 0).partition(b"\0")[0].decode("utf-8", "replace") or None

    def close(self) -> None:
        """Close it here."""
        os.close(self.fd)


def send(to: socket.socket, kind: bytes, data: bytes) -> None:
    """Send one frame. Raises ``OSError``, and ``TimeoutError`` where the socket has a time limit."""
    to.sendall(_HEAD.pack(len(data), kind) + data)


def receive(source: socket.socket, seconds: float | None = None) -> tuple[bytes, bytes]:
    """The other side's frame: its letter and bytes, within ``seconds``, else by the socket's own limit.

    Raises ``EOFError``, ``ValueError`` for a frame that is too long or not alone, and as :func:`send`.
    """
    until = None if seconds is None else time.monotonic() + seconds
    if seconds != source.gettimeout() and seconds is not None:
        source.settimeout(seconds)
    data = bytearray()
    size, kind = 0, b""
    while not kind or len(data) < _HEAD.size + size:
        if data and until is not None:  # else who sends a byte now and then would never be late
            source.settimeout(max(until - time.monotonic(), 0.001))
        chunk = source.recv(_CHUNK)
        if not chunk:
            raise EOFError
        data += chunk
        if not kind and len(data) >= _HEAD.size:
            size, kind = _HEAD.unpack_from(data)
        if size > _MAX_FRAME or (kind and len(data) > _HEAD.size + size):
            raise ValueError(f"a frame of {size} bytes, and {len(data)} have come")
    return kind, bytes(memoryview(data)[_HEAD.size :])


def send_with(to: socket.socket, kind: bytes, *passed: int) -> None:
    """Send a frame of no bytes that brings descriptors along (SCM_RIGHTS, unix(7))."""
    socket.send_fds(to, [_HEAD.pack(0, kind)], passed)


def receive_with(source: socket.socket) -> tuple[bytes, bytes, list[int]]:
    """The next frame, of several that may have come, with the descriptors that it has brought."""
    head, passed, _, _ = socket.recv_fds(source, _HEAD.size, 2)
    for fd in passed:
        # Nothing that is executed later is to have it: gpgv could answer in its worker's place. (recv_fds passes no
        # flags on, so MSG_CMSG_CLOEXEC cannot be had.)
        os.set_inheritable(fd, False)
    if not head:
        raise EOFError
    size, kind = _HEAD.unpack(head + _exactly(source, _HEAD.size - len(head)))
    return kind, _exactly(source, size), passed


def _exactly(source: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        chunk = source.recv(min(count - len(data), _CHUNK))
        if not chunk:
            raise EOFError
        data += chunk
    return bytes(data)
