"""Reads an import's packages on all cores into its staging database, a chunk at a time.

Rules: a chunk's files are on the disk before the database says that they are there, so that after a power cut, too, the
same import goes on where it stood. A reader that dies ends the import with the names of what it was reading, and
nothing is changed.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from incomingd import fsio
from incomingd.errors import Retry
from incomingd.importing import readers
from incomingd.importing.readers import Readers
from incomingd.importing.reading import Task
from incomingd.journal.staging import Item, Origin, Staging
from incomingd.verify import overrides, selftest

#: Packages that are synced and noted in one go: waiting for the disk costs the same for one and for thousands.
_KEEP_AT_ONCE = 2000


def load(task: Task, staging: Staging, origins: Sequence[Origin], done: Callable[[int], None]) -> None:
    """Read every origin into ``staging``; ``done`` is told how many more were read. Raises ``Retry`` and ``Halt``."""
    if not origins:
        return
    selftest.run()
    overrides.load([task.suite])  # what is wrong with the files a reader could not say
    first = staging.next_id()
    chunks = readers.chunks(origins, first)
    count = min(task.config.service.workers or os.cpu_count() or 1, readers.most(len(origins)))
    with Readers(count, task, origins, first) as processes, _Keeper(task, staging) as keeper:
        for read in processes.read(chunks):
            keeper.add(read.items)
            done(len(read.items))
            if read.failure:
                raise Retry(read.failure)


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
