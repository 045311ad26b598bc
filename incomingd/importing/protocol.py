"""What an import and the processes that read its packages say to each other, over one socket each.

A frame is a length of four bytes, the highest first, and that many bytes. The import sends an :class:`Order`, then
chunks of packages; both are pickled, since the import has read no package. A process answers each chunk with
:class:`Answers` as JSON: what it says is never unpickled.
"""

import pickle
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from incomingd.importing.reading import Task
from incomingd.journal.staging import Origin, StagedPackage
from incomingd.model import Problem

_HEAD = struct.Struct(">I")
#: An answer of more than this is none.
_MOST_BYTES = 256 << 20
#: Packages with their numbers.
Chunk = list[tuple[int, Origin]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a process is started for. ``place`` is its own folder below that of files; ``files`` and ``folders`` are
    what it may read, ``linked`` from where it may link, and ``hidden`` what it may not see even there."""

    task: Task
    place: str
    files: tuple[Path, ...]
    folders: tuple[Path, ...]
    linked: tuple[Path, ...]
    hidden: tuple[Path, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a process says of one package: an ``Item`` without what it was told itself."""

    id: int
    problems: tuple[Problem, ...]
    package: StagedPackage | None = None
    warnings: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What it says of a chunk, and why no more of it; empty if all of it was read."""

    answers: list[Answer]
    failure: str = ""


def send(to: socket.socket, value: Order | Chunk | bytes) -> None:
    """Send one frame. Raises ``OSError``."""
    data = value if isinstance(value, bytes) else pickle.dumps(value)
    to.sendall(_HEAD.pack(len(data)) + data)


def receive(source: BinaryIO) -> bytes:
    """The next frame. For a process only: it waits for all of it. Raises ``EOFError``."""
    head = source.read(_HEAD.size)
    if len(head) < _HEAD.size:
        raise EOFError
    return source.read(_HEAD.unpack(head)[0])


class Frames:
    """Frames as they arrive, piece by piece: who sends half of one, or too much, keeps nobody waiting."""

    def __init__(self) -> None:
        self._data = bytearray()

    def take(self, piece: bytes) -> list[bytes]:
        """The frames that ``piece`` completes. Raises ``ValueError`` for one that is too long."""
        self._data += piece
        found = []
        while len(self._data) >= _HEAD.size:
            (size,) = _HEAD.unpack_from(self._data)
            if size > _MOST_BYTES:
                raise ValueError(f"a frame of {size} bytes")
            end = _HEAD.size + size
            if len(self._data) < end:
                break
            found.append(bytes(self._data[_HEAD.size : end]))
            del self._data[:end]
        return found
