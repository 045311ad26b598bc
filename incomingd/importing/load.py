"""Reads an import's packages on all cores into its staging database, a chunk at a time.

Rules: a chunk's files are on the disk before the database says that they are there, so that after a power cut, too, the
same import goes on where it stood. A worker has limits on memory; one that dies ends the import with the names of what
it was reading, and nothing is changed.
"""

import ctypes
import os
import resource
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context

from incomingd import fsio, rules
from incomingd.errors import Retry
from incomingd.importing.reading import Reader, Task
from incomingd.journal.staging import Item, Origin, Staging
from incomingd.verify import overrides

_PR_SET_PDEATHSIG = 1
#: Packages that a worker reads in one go.
_AT_ONCE = 50
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
    with ProcessPoolExecutor(workers, get_context("spawn"), _begin, (task, os.getpid())) as pool:
        kept: list[Item] = []
        for items in _read_all(pool, iter(lambda: list(islice(numbered, _AT_ONCE)), []), workers * 2):
            kept += items
            done(len(items))
            if len(kept) >= _KEEP_AT_ONCE:
                _keep(task, staging, kept)
                kept = []
        _keep(task, staging, kept)


def _keep(task: Task, staging: Staging, items: Sequence[Item]) -> None:
    fsio.sync_file_systems([task.folder])
    staging.add(items)


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
