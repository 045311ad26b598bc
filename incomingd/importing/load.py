"""Reads an import's packages on all cores into its staging database, a chunk at a time.

Rules: a chunk's files are on the disk before the database says that they are there, so that after a power cut, too, the
same import goes on where it stood. A worker has limits on memory; one that dies ends the import with the names of what
it was reading, and nothing is changed.
"""

import contextlib
import gc
import os
import resource
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from multiprocessing import active_children, get_context
from typing import Self

from incomingd import fsio, rules
from incomingd.errors import Retry
from incomingd.importing.reading import Reader, Task
from incomingd.journal.staging import Item, Origin, Staging
from incomingd.sandbox import limits
from incomingd.verify import overrides, selftest

#: Packages that a worker reads in one go.
_AT_ONCE = 50
#: Chunks for each worker that are under way: what is being noted must not let them wait.
_AHEAD = 6
#: Packages that are synced and noted in one go: waiting for the disk costs the same for one and for thousands.
_KEEP_AT_ONCE = 2000

_Numbered = list[tuple[int, Origin]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """What a worker has read of a chunk, and why it went no further; empty if all of it was."""

    items: list[Item]
    failure: str = ""


_reader: Reader | None = None


def load(task: Task, staging: Staging, origins: Sequence[Origin], done: Callable[[int], None]) -> None:
    """Read every origin into ``staging``; ``done`` is told how many more were read. Raises ``Retry`` and ``Halt``."""
    if not origins:
        return
    selftest.run()
    overrides.load([task.suite])  # what is wrong with the files a worker could not say
    numbered = enumerate(origins, staging.next_id())
    workers = min(task.config.service.workers or os.cpu_count() or 1, -(-len(origins) // _AT_ONCE))
    with _processes(workers, task) as pool, _Keeper(task, staging) as keeper:
        for read in _read_all(pool, iter(lambda: list(islice(numbered, _AT_ONCE)), []), workers * _AHEAD):
            keeper.add(read.items)
            done(len(read.items))
            if read.failure:
                raise Retry(read.failure)


@contextlib.contextmanager
def _processes(count: int, task: Task) -> Iterator[ProcessPoolExecutor]:
    """The processes that read. If something fails here, or is interrupted, they are ended where they are."""
    # Spawned, not forked: this process may have a thread that draws.
    with ProcessPoolExecutor(count, get_context("spawn"), _begin, (task, os.getpid())) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in active_children():
                process.terminate()
            raise


class _Keeper:
    """Notes what was read once it is on the disk; while it waits for that the workers go on.

    At the end all that was read is noted, also if the import fails: it is not read again.
    """

    def __init__(self, task: Task, staging: Staging) -> None:
        self._folder, self._staging = task.folder, staging
        self._read: list[Item] = []
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="sync")
        self._synced: Future[None] | None = None
        self._items: list[Item] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._keep()
            self._finish()
        finally:
            self._beside.shutdown()

    def add(self, items: Sequence[Item]) -> None:
        """These were read; note what is on the disk by now."""
        self._read += items
        if self._synced is not None and self._synced.done():
            self._finish()
        if len(self._read) >= _KEEP_AT_ONCE:
            self._keep()

    def _keep(self) -> None:
        """Have what was read synced, and note what was before."""
        self._finish()
        self._items, self._read = self._read, []
        self._synced = self._beside.submit(fsio.sync_file_systems, [self._folder])

    def _finish(self) -> None:
        """Wait until what is being synced is noted."""
        if self._synced is not None:
            self._synced.result()
            self._staging.add(self._items)
            self._synced = None


def _read_all(pool: ProcessPoolExecutor, chunks: Iterator[_Numbered], ahead: int) -> Iterator[_Read]:
    """What each chunk came to, in the order in which they are ready; at most ``ahead`` chunks are under way."""
    waiting: dict[Future[_Read], _Numbered] = {}
    for chunk in chunks:
        waiting[pool.submit(_read, chunk)] = chunk
        if len(waiting) >= ahead:
            yield from _ready(waiting)
    while waiting:
        yield from _ready(waiting)


def _ready(waiting: dict[Future[_Read], _Numbered]) -> Iterator[_Read]:
    for future in wait(waiting, return_when=FIRST_COMPLETED).done:
        chunk = waiting.pop(future)
        try:
            yield future.result()
        except BrokenProcessPool as error:
            names = ", ".join(origin.path for _, origin in chunk[:3])
            raise Retry(f"a process that reads packages died, at one of {names} and those after it") from error


def _begin(task: Task, parent: int) -> None:
    global _reader  # noqa: PLW0603  # what the worker process is for
    # A worker waits for its queue for ever; if its parent is killed, nothing else would end it.
    limits.end_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    _reader = Reader(task)
    gc.freeze()  # what was imported is no garbage: it need not be looked through again and again
    limits.at_most({resource.RLIMIT_AS: task.config.checks.worker_memory})


def _read(chunk: _Numbered) -> _Read:
    assert _reader is not None  # noqa: S101  # _begin has made it
    items: list[Item] = []
    for number, origin in chunk:
        try:
            items.append(_reader.read(number, origin))
        except Retry as failure:
            return _Read(items=items, failure=str(failure))
        except MemoryError:
            problem = rules.CHECK_MEMORY.problem("reading it takes more memory than that", file=origin.path)
            items.append(Item(id=number, origin=origin, problems=(problem,), package=None))
    return _Read(items=items)
