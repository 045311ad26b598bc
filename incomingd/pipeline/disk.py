"""What is used on the disk, for the health.

The journal keeps the sums of pool and indexes. What failed uploads have left is added up by a thread of its own, at
most once a minute and only after something came or went, so that no upload waits for it.
"""

import contextlib
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from incomingd import fsio
from incomingd.config import Config
from incomingd.journal.kept import Space
from incomingd.places import Places
from incomingd.report.health import Disk

#: Seconds between two times that what failed uploads have left is added up.
_EVERY = 60.0


class DiskUse:
    """The disk of one instance. One thread at a time may use it."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="disk")
        self._rejected: int | None = None
        self._adding: Future[int] | None = None
        self._changed_at: int | None = None  # mtime of the folder when it was added up
        self._next = 0.0

    def close(self) -> None:
        """Wait for the thread."""
        self._thread.shutdown(cancel_futures=True)

    def look(self, config: Config, journal: Path, space: Space) -> Disk:
        """What is used now; ``rejected`` as it was when it was last added up. Raises ``OSError``."""
        places = Places(config)
        archive = os.statvfs(places.archive)
        return Disk(
            pool=space.pool,
            indexes=space.indexes,
            superseded_indexes=space.grace_only,
            index_space=config.publish.index_space,
            rejected=self._look_at_rejected(places.state / "rejected"),
            journal=journal.stat().st_size,
            free=archive.f_bavail * archive.f_frsize,
        )

    def _look_at_rejected(self, folder: Path) -> int | None:
        if self._adding is not None and self._adding.done():
            with contextlib.suppress(OSError):  # something was removed meanwhile: the next time finds it gone
                self._rejected = self._adding.result()
            self._adding = None
        changed_at = folder.stat().st_mtime_ns
        if self._adding is None and changed_at != self._changed_at and time.monotonic() >= self._next:
            self._changed_at, self._next = changed_at, time.monotonic() + _EVERY
            self._adding = self._thread.submit(_add_up, folder)
        return self._rejected


def _add_up(folder: Path) -> int:
    return sum(fsio.allocated(Path(parent) / name) for parent, _, names in os.walk(folder) for name in names)
