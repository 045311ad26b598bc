"""Reads an import's packages on all cores into its staging database, a chunk at a time.

Rules: a chunk's files are on the disk before the database says that they are there, so that after a power cut, too, the
same import goes on where it stood. A worker has limits on memory; one that dies ends the import with the names of what
it was reading, and nothing is changed.
"""

import ctypes
import gc
import os
import resource
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context
from typing import Self

from incomingd import fsio, rules
from incomingd.errors import Retry
from incomingd.importing.reading import Reader, Task
from incomingd.journal.staging import Item, Origin, Staging
from incomingd.verify import overrides

_PR_SET_PDEATHSIG = 1
#: Packages that a worker reads in one go.
_AT_ONCE = 50
#: Chunks for each worker that are under way: what is being noted must not let them wait.
_AHEAD = 6
#: Packages that are synced and noted in one go: waiting for the disk costs the same for one and for thousands.
_KEEP_AT_ONCE = 2000

_Numbered = list[tuple[int, Origin]]
_reader: Reader | None = None


def load(task: Task, staging: Staging, origins: Sequence[Origin], done: Callable[[int], None]) -> None:
    """Read every origin into ``staging``; ``done`` is told how many more were read. Raises ``Retry``."""
    if not origins:
        return
    overrides.load([task.suite])  # what is wrong with the files a worker could not say
    numbered = enumerate(origins, staging.next_id())
    workers = min(task.config.service.workers or os.cpu_count() or 1, -(-len(origins) // _AT_ONCE))
    # Spawned, not forked: this process may have a thread that draws.
    with (
        ProcessPoolExecutor(workers, get_context("spawn"), _begin, (task, os.getpid())) as pool,
        _Keeper(task, staging) as keeper,
    ):
        kept: list[Item] = []
        for items in _read_all(pool, iter(lambda: list(islice(numbered, _AT_ONCE)), []), workers * _AHEAD):
            kept += items
            done(len(items))
            keeper.look()
            if len(kept) >= _KEEP_AT_ONCE:
                keeper.keep(kept)
                kept = []
        keeper.keep(kept)
        keeper.finish()


class _Keeper:
    """Notes what was read once it is on the disk; while it waits for that the workers go on."""

    def __init__(self, task: Task, staging: Staging) -> None:
        self._folder, self._staging = task.folder, staging
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="sync")
        self._synced: Future[None] | None = None
        self._items: Sequence[Item] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._beside.shutdown()

    def keep(self, items: Sequence[Item]) -> None:
        """Have these synced, and note those before them."""
        self.finish()
        self._items = items
        self._synced = self._beside.submit(fsio.sync_file_systems, [self._folder])

    def look(self) -> None:
        """Note what is on the disk by now."""
        if self._synced is not None and self._synced.done():
            self.finish()

    def finish(self) -> None:
        """Wait until all are noted."""
        if self._synced is not None:
            self._synced.result()
            self._staging.add(self._items)
            self._synced = None


def _read_all(pool: ProcessPoolExecutor, chunks: Iterator[_Numbered], ahead: int) -> Iterator[list[Item]]:
    """What each chunk came to, in the order in which they are ready; at most ``ahead`` chunks are under way."""
    waiting: dict[Future[list[Item]], _Numbered] = {}
    for chunk in chunks:
        waiting[pool.submit(_read, chunk)] = chunk
        if len(waiting) >= ahead:
            yield from _ready(waiting)
    while waiting:
        yield from _ready(waiting)


def _ready(waiting: dict[Future[list[Item]], _Numbered]) -> Iterator[list[Item]]:
    for future in wait(waiting, return_when=FIRST_COMPLETED).done:
        chunk = waiting.pop(future)
        try:
            yield future.result()
        except BrokenProcessPool as error:
            names = ", ".join(origin.path for _, origin in chunk[:3])
            raise Retry(f"a process that reads packages died, at one of {names} and those after it") from error


def _begin(task: Task, parent: int) -> None:
    global _reader  # noqa: PLW0603  # what the worker process is for
    # A worker waits for its queue for ever; where its parent is killed, nobody would end it.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    _reader = Reader(task)
    gc.freeze()  # what was imported is no garbage: it need not be looked through again and again
    most = task.config.checks.worker_memory
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _read(chunk: _Numbered) -> list[Item]:
    assert _reader is not None  # noqa: S101  # _begin has made it
    items = []
    for number, origin in chunk:
        try:
            items.append(_reader.read(number, origin))
        except MemoryError:
            problem = rules.CHECK_MEMORY.problem("reading it takes more memory than that", file=origin.path)
            items.append(Item(id=number, origin=origin, problems=(problem,), package=None))
    return items
