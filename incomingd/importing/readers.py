"""The processes that read an import's packages: confined, within limits, JSON in and JSON out.

Rules:

* A reader is confined (:func:`incomingd.sandbox.profiles.confine_reader`) before it looks at a package. A package that
  takes it over reaches what is imported and the import's own folder.
* What a reader answers is never unpickled, and counts only if it may be true of what it was given (:func:`faults`).
* Each has a chunk in hand and one that waits, so that none is idle while its last answer is noted.
* If this process ends, in whatever way, they do.
"""

import contextlib
import gc
import multiprocessing
import os
import resource
import signal
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Self

from incomingd import codec, rules
from incomingd.config import SuiteConfig
from incomingd.errors import Retry
from incomingd.importing.reading import Reader, Task, folder_of, sections_of, staged_binary
from incomingd.journal.staging import Item, Origin, StagedFile, StagedPackage
from incomingd.model import (
    FILE_NAME,
    LOOSE_FILE_NAME,
    PACKAGE_NAME,
    BinaryKind,
    Problem,
    plain,
    pool_directory,
    printable,
)
from incomingd.sandbox import limits, profiles
from incomingd.verify.changes import VERSION
from incomingd.verify.keyring import Keyring

#: Packages that a reader reads in one go, and bytes of their names: less than a pipe holds, so that no one waits for
#: the other to read.
_AT_ONCE, _NAMES = 50, 32 << 10
#: Chunks for each reader: one in hand, one that waits.
_AHEAD = 2
#: An answer of more than this is none.
_MOST_BYTES = 256 << 20
_KINDS = tuple(BinaryKind)

_Chunk = list[tuple[int, Origin]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """What was read of a chunk, and why no more of it; empty if all of it was."""

    items: list[Item]
    failure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a reader says of one package: an :class:`Item` without what it was told itself."""

    id: int
    problems: tuple[Problem, ...]
    package: StagedPackage | None = None
    warnings: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answers:
    """The frame of one chunk."""

    answers: list[Answer]
    failure: str = ""


def most(count: int) -> int:
    """How many readers so many packages can keep busy."""
    return -(-count // _AT_ONCE)


def chunks(origins: Iterable[Origin], first: int) -> Iterator[_Chunk]:
    """What is to be read, numbered from ``first`` on, in pieces for one reader each."""
    chunk: _Chunk = []
    length = 0
    for number, origin in enumerate(origins, first):
        size = len(os.fsencode(origin.path))
        if chunk and (len(chunk) >= _AT_ONCE or length + size > _NAMES):
            yield chunk
            chunk, length = [], 0
        chunk.append((number, origin))
        length += size
    if chunk:
        yield chunk


class Readers:
    """So many processes, from ``with`` on. If something fails there, or is interrupted, they are killed."""

    def __init__(self, count: int, task: Task, origins: Sequence[Origin]) -> None:
        self._task = task
        # Spawned, not forked: this process may have a thread that draws.
        context = multiprocessing.get_context("spawn")
        access = (Keyring(task.keyring).files, tuple(_folders(task, origins)))
        self._processes: list[tuple[BaseProcess, Connection]] = []
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, task, access, os.getpid()), daemon=True)
            self._processes.append((process, ours))
            process.start()
            theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process, connection in self._processes:
            connection.close()
            process.kill()  # whatever it does; what is its own alone is nowhere noted
            process.join()

    def read(self, chunks: Iterator[_Chunk]) -> Iterator[Read]:
        """What each chunk came to, in the order in which they are ready. Raises ``Retry``."""
        hands: dict[Connection, list[_Chunk]] = {connection: [] for _, connection in self._processes}
        for _ in range(_AHEAD):
            for connection, chunk in zip(hands, chunks, strict=False):
                self._give(connection, chunk, hands[connection])
        while any(hands.values()):
            for ready in wait([one for one, given in hands.items() if given]):
                connection = next(one for one in hands if one is ready)
                given = hands[connection]
                chunk = given[0]
                answer = _received(connection, chunk)
                del given[0]
                for following in chunks:
                    self._give(connection, following, given)
                    break
                yield self._checked(answer, chunk)

    def _give(self, connection: Connection, chunk: _Chunk, given: list[_Chunk]) -> None:
        given.append(chunk)
        with contextlib.suppress(OSError):  # that it is gone is told when its answer is asked for
            connection.send(chunk)

    def _checked(self, answer: bytes, chunk: _Chunk) -> Read:
        try:
            read = codec.loads(answer, _Answers)
        except (codec.CodecError, RecursionError) as error:
            raise Retry(f"{_named(chunk)}: what a process has read of it makes no sense: {plain(error)}") from error
        if len(read.answers) != len(chunk) and not read.failure:
            raise Retry(f"{_named(chunk)}: a process has read {len(read.answers)} of {len(chunk)} packages")
        items = []
        for (number, origin), one in zip(chunk, read.answers, strict=False):
            fault = next(faults(one, number, origin, self._task), None)
            if fault:
                raise Retry(f"{plain(origin.path)}: what a process has read of it cannot be true: {fault}")
            items.append(
                Item(id=number, origin=origin, problems=one.problems, package=one.package, warnings=one.warnings)
            )
        return Read(items=items, failure=printable(read.failure))


def _received(connection: Connection, chunk: _Chunk) -> bytes:
    try:
        return connection.recv_bytes(_MOST_BYTES)
    except (EOFError, OSError) as error:
        raise Retry(f"a process that reads packages died, at one of {_named(chunk)} and those after it") from error


def _named(chunk: _Chunk) -> str:
    return ", ".join(plain(origin.path) for _, origin in chunk[:3])


# -- what a reader may reach ------------------------------------------------------------------------------------------


def _folders(task: Task, origins: Iterable[Origin]) -> Iterator[Path]:
    """Those that are imported, and those that links lead to from a signed repository."""
    if task.server is not None:
        return
    given = (Path(os.path.realpath(path)) for path in task.roots)
    roots = {path if path.is_dir() else path.parent for path in given}
    yield from roots
    listed = {os.path.dirname(one.path) for one in origins if one.sha256}  # noqa: PTH120  # half the time of Path
    yield from {found for folder in listed for found in _led_to(folder) if roots.isdisjoint((found, *found.parents))}


def _led_to(folder: str) -> Iterator[Path]:
    yield Path(os.path.realpath(folder))
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                yield Path(os.path.realpath(entry.path)).parent


# -- what an answer may be --------------------------------------------------------------------------------------------


def faults(answer: Answer, number: int, origin: Origin, task: Task) -> Iterator[str]:
    """What no reader that does its work says of ``origin``: names become paths, and values are published."""
    package = answer.package
    if answer.id != number:
        yield "it is another package"
    if (package is None) != bool(answer.problems):
        yield "it is neither read nor refused"
    if package is not None:
        yield from _misspelled(package, task.suite)
        yield from _misplaced(package, number, origin)
        yield from _mislisted(package)


def _misspelled(package: StagedPackage, suite: SuiteConfig) -> Iterator[str]:
    if not all(PACKAGE_NAME.fullmatch(name) for name in (package.name, package.source)):
        yield "its name is none"
    if not all(VERSION.fullmatch(version) for version in (package.version, package.source_version)):
        yield "its version is none"
    if package.component not in suite.components:
        yield "the suite has no such component"
    if package.kind == "dsc":
        if (package.architecture, package.name) != ("source", package.source):
            yield "a source has another name or architecture"
    elif package.kind not in _KINDS or package.architecture not in ("all", *suite.binary_architectures):
        yield "the suite has no such kind or architecture"
    if package.sections != sections_of(package.kind, package.component, package.architecture, suite):
        yield "it is listed elsewhere"


def _misplaced(package: StagedPackage, number: int, origin: Origin) -> Iterator[str]:
    """Where its files are, and where they are to be."""
    if not package.files or package.sha256 != package.files[0].file.digests.sha256 or not package.files[0].staged:
        yield "its own file is missing"
    for file in package.files:
        if not (FILE_NAME if package.kind == "dsc" else LOOSE_FILE_NAME).fullmatch(file.file.name):
            yield "a file has no proper name"
        if file.path != f"{pool_directory(package.component, package.source)}/{file.file.name}":
            yield "a file belongs elsewhere in the pool"
        beside = f"{folder_of(number)}/{number}/{file.file.name}"
        if file.staged not in (None, beside, staged_binary(number, origin)):
            yield "a file is staged elsewhere"
        if not _is_sized(file):
            yield "a file has no proper size or digest"


def _is_sized(file: StagedFile) -> bool:
    digests = (file.file.digests.md5, file.file.digests.sha1, file.file.digests.sha256)
    return file.file.size >= 0 and all(digest.isascii() and (digest.isalnum() or not digest) for digest in digests)


def _mislisted(package: StagedPackage) -> Iterator[str]:
    """Its stanza is one, of the file that it lists."""
    text, own = package.stanza, next(iter(package.files), None)
    if own is None:
        return
    wanted = [f"\nVersion: {package.version}\n", f"\nArchitecture: {package.architecture}\n"]
    wanted += [f"\nFilename: {own.path}\n", f"\nSize: {own.file.size}\n", f"\nSHA256: {package.sha256}\n"]
    if package.kind == "dsc":
        wanted = [f"\nVersion: {package.version}\n", f"\nDirectory: {own.path.rpartition('/')[0]}\n"]
    if (
        text.find(b"\n\n") != len(text) - 2
        or b"\0" in text
        or not text.startswith(f"Package: {package.name}\n".encode())
    ):
        yield "its stanza is none"
    if not all(text.count(line.encode()) == 1 for line in wanted):
        yield "its stanza is another one's"


# -- in the process ---------------------------------------------------------------------------------------------------


def _serve(parent: Connection, task: Task, access: tuple[Collection[Path], Collection[Path]], pid: int) -> None:
    """Read the chunks that the parent sends, until it ends."""
    limits.end_with_parent(pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    reader = Reader(task)
    codec.prepare(_Answers)
    gc.freeze()  # what was imported is no garbage: it need not be looked through again and again
    limits.at_most({resource.RLIMIT_AS: task.config.checks.worker_memory})
    files, folders = access
    profiles.confine_reader(
        [*files, *folders],
        folders if task.link else (),
        task.folder,
        [task.config.service.state.resolve()],
        network=task.server is not None,
    )
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            chunk: _Chunk = parent.recv()  # the parent has read no package
            parent.send_bytes(codec.dumps(_read(reader, chunk)).encode())


def _read(reader: Reader, chunk: _Chunk) -> _Answers:
    answers: list[Answer] = []
    for number, origin in chunk:
        try:
            item = reader.read(number, origin)
            answers.append(Answer(id=number, problems=item.problems, package=item.package, warnings=item.warnings))
        except Retry as failure:
            return _Answers(answers=answers, failure=printable(str(failure)))
        except MemoryError:
            problem = rules.CHECK_MEMORY.problem("reading it takes more memory than that", file=plain(origin.path))
            answers.append(Answer(id=number, problems=(problem,)))
    return _Answers(answers=answers)
