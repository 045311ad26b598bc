"""The processes that read an import's packages: confined, within limits, JSON in return.

Rules:

* A process is confined before it looks at a package (:mod:`.process`). A package that takes it over reaches what is
  imported, and writes into the process's own folder: not even what another one has read.
* Its answers are never unpickled, and count only if they can be true (:mod:`.answers`).
* Each process works on one chunk and has the next one waiting, so that it is not idle while its answer is noted.
* The processes end when this one does, in whatever way. What they have started ends before the daemon is asked to
  publish the import.
"""

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Self

from incomingd import codec, fsio
from incomingd.errors import Retry
from incomingd.importing import protocol
from incomingd.importing.answers import faults
from incomingd.importing.protocol import Answers, Chunk, Frames, Order
from incomingd.importing.reading import Task
from incomingd.journal.staging import Item, Origin
from incomingd.model import plain, printable
from incomingd.sandbox import environment, limits
from incomingd.verify.keyring import Keyring

#: Packages that a process reads in one go, and bytes of their names: what waits for it has room in a socket, so that no
#: one waits for the other to read.
_AT_ONCE, _NAMES = 50, 32 << 10
#: Chunks for each process: one in hand, one that waits.
_AHEAD = 2
_PIECE = 1 << 16
_COMMAND = (sys.executable, "-P", "-m", "incomingd.importing.process")
#: What it gets of the environment besides: how names of files are encoded, and the way to a server.
_LOCALE = ("LANG", "LC_ALL", "LC_CTYPE")
_NETWORK = ("http_proxy", "https_proxy", "no_proxy", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """What was read of a chunk, and why no more of it; empty if all of it was."""

    items: list[Item]
    failure: str = ""


@dataclass(slots=True, kw_only=True)
class _Process:
    """One of the processes, with the chunks that it was given and has not answered."""

    place: str
    popen: subprocess.Popen[bytes]
    socket: socket.socket
    errors: IO[bytes]
    frames: Frames = field(default_factory=Frames)
    given: deque[Chunk] = field(default_factory=deque)


def most(count: int) -> int:
    """How many processes so many packages can keep busy."""
    return -(-count // _AT_ONCE)


def chunks(origins: Iterable[Origin], first: int) -> Iterator[Chunk]:
    """What is to be read, numbered from ``first`` on, in pieces for one process each."""
    chunk: Chunk = []
    length = 0
    for number, origin in enumerate(origins, first):
        size = sum(len(os.fsencode(name)) for name in (origin.path, *origin.beside))
        if chunk and (len(chunk) >= _AT_ONCE or length + size > _NAMES):
            yield chunk
            chunk, length = [], 0
        chunk.append((number, origin))
        length += size
    if chunk:
        yield chunk


class Readers:
    """So many processes, from ``with`` on. At its end they and all that they have started are gone.

    ``first`` is the number of the first package: names of folders follow from it, so that an import that goes on gives
    none again.
    """

    def __init__(self, count: int, task: Task, origins: Sequence[Origin], first: int) -> None:
        self._task = task
        self._processes: list[_Process] = []
        limits.adopt_orphans()
        files, folders = readable(task, origins)
        linked = {path.parent for path in files} | set(folders) if task.link else set()
        try:
            for number in range(count):
                order = Order(
                    task=task,
                    place=f"{first}-{number}",
                    files=(*Keyring(task.keyring).files, *files),
                    folders=folders,
                    linked=tuple(linked),
                    hidden=_hidden(task),
                )
                fsio.make_directories(task.files / order.place, 0o700)
                self._processes.append(_started(order))
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        """Kill them, whatever they do; what is theirs alone is nowhere noted."""
        for process in self._processes:
            process.socket.close()
            process.errors.close()
            # Each has a session to itself, which nothing that it starts can leave.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.popen.pid, signal.SIGKILL)
            process.popen.wait()
            with contextlib.suppress(ChildProcessError):
                while True:  # until the last of them cannot write any more
                    os.waitpid(-process.popen.pid, 0)

    def read(self, chunks: Iterator[Chunk]) -> Iterator[Read]:
        """What each chunk came to, in the order in which they are ready. Raises ``Retry``."""
        with selectors.DefaultSelector() as selector:
            for process in self._processes:
                selector.register(process.socket, selectors.EVENT_READ, process)
            for _ in range(_AHEAD):
                for process, chunk in zip(self._processes, chunks, strict=False):
                    _give(process, chunk)
            while any(process.given for process in self._processes):
                for key, _ in selector.select():
                    yield from self._take(key.data, chunks)

    def _take(self, process: _Process, chunks: Iterator[Chunk]) -> Iterator[Read]:
        """What has come from a process; it gets more to read for each answer."""
        try:
            piece = process.socket.recv(_PIECE)
            answers = process.frames.take(piece)
        except (OSError, ValueError):
            piece, answers = b"", []
        if not piece:
            names = _named(process.given[0]) if process.given else "its last packages"
            words = _last_words(process.errors)
            raise Retry(f"a process that reads packages died, at one of {names} and those after it{words}")
        for answer in answers:
            if not process.given:
                raise Retry("a process that reads packages answers what it was not asked")
            chunk = process.given.popleft()
            for following in chunks:
                _give(process, following)
                break
            yield self._checked(answer, chunk, process.place)

    def _checked(self, answer: bytes, chunk: Chunk, place: str) -> Read:
        try:
            read = codec.loads(answer, Answers)
        except (codec.CodecError, RecursionError) as error:
            raise Retry(f"{_named(chunk)}: what a process has read of it makes no sense: {plain(error)}") from error
        if len(read.answers) != len(chunk) and not read.failure:
            raise Retry(f"{_named(chunk)}: a process has read {len(read.answers)} of {len(chunk)} packages")
        items = []
        for (number, origin), one in zip(chunk, read.answers, strict=False):
            fault = next(faults(one, number, origin, self._task, place), None)
            if fault:
                raise Retry(f"{plain(origin.path)}: what a process has read of it cannot be true: {fault}")
            items.append(
                Item(id=number, origin=origin, problems=one.problems, package=one.package, warnings=one.warnings)
            )
        return Read(items=items, failure=printable(read.failure))


def _started(order: Order) -> _Process:
    names = (*_LOCALE, *(_NETWORK if order.task.server else ()))
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            popen = subprocess.Popen(
                [*_COMMAND, str(os.getpid())],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                cwd="/",
                env=environment.bare(*names),
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise Retry(f"no process that reads packages can be started: {error}") from error
    assert popen.stderr is not None  # noqa: S101  # it is a pipe
    process = _Process(place=order.place, popen=popen, socket=ours, errors=popen.stderr)
    with contextlib.suppress(OSError):  # that it is gone is told when its answer is asked for
        protocol.send(ours, order)
    return process


def _give(process: _Process, chunk: Chunk) -> None:
    process.given.append(chunk)
    with contextlib.suppress(OSError):  # as above
        protocol.send(process.socket, chunk)


def _last_words(errors: IO[bytes]) -> str:
    """The last line that a process has printed, as the end of a message; empty if it has printed nothing."""
    os.set_blocking(errors.fileno(), False)
    lines = (errors.read(_PIECE) or b"").decode("utf-8", "replace").split("\n")
    said = next((line for line in reversed(lines) if line.strip()), "")
    return f": {plain(said)}" if said else ""


def _named(chunk: Chunk) -> str:
    return ", ".join(plain(origin.path) for _, origin in chunk[:3])


# -- what a process may reach -----------------------------------------------------------------------------------------


def readable(task: Task, origins: Iterable[Origin]) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Files and folders: those that are imported, and the files to which links lead from a signed repository.

    A .dsc is imported with what is beside it.
    """
    if task.server is not None:
        return (), ()
    given = {Path(os.path.realpath(path)) for path in task.roots}
    files = {path for path in given if not path.is_dir() and path.suffix != ".dsc"}
    folders = {path if path.is_dir() else path.parent for path in given - files}
    listed: dict[str, set[str]] = {}
    for one in origins:
        if one.sha256:
            folder, _, name = one.path.rpartition("/")
            listed.setdefault(folder, set()).update((name, *one.beside))
    for folder, names in listed.items():
        found = (Path(os.path.realpath(path)) for path in _led_away(folder, names, folders))
        files |= {path for path in found if not path.is_dir() and folders.isdisjoint(path.parents)}
    return tuple(files), tuple(folders)


def _led_away(folder: str, names: Collection[str], folders: Collection[Path]) -> Iterator[str]:
    """Those files of a folder that may be elsewhere: links, or all if the folder itself is."""
    real = Path(os.path.realpath(folder))
    if set(folders).isdisjoint((real, *real.parents)):
        yield from (f"{folder}/{name}" for name in names)
        return
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        yield from (entry.path for entry in entries if entry.is_symlink() and entry.name in names)


def _hidden(task: Task) -> tuple[Path, ...]:
    """The state and what others send: no package is imported from there, unless the operator names the very folder."""
    config = task.config
    roots = [Path(os.path.realpath(path)) for path in task.roots]
    places = (path for queue in config.queues for path in (queue.path, queue.claims) if path)
    others = (path.resolve() for path in places)
    return config.service.state.resolve(), *(
        path for path in others if not any(path == root or path in root.parents for root in roots)
    )
