"""Room on the disk of ``state/``: what an upload needs is set apart before it is copied.

Several uploads are sealed at a time, and none must fill the disk under the others: each takes what it needs from what
is free and not promised to another one. A part of the disk is never promised: the journal, the status files and the
archive have to be written too.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from incomingd.errors import Retry

#: Of the disk one part in so many is never promised, and no more than so many bytes.
_RESERVED, _MOST_RESERVED = 20, 1 << 30


class Share:
    """What one upload was promised and has not used yet."""

    def __init__(self, room: "Room", size: int) -> None:
        self.left = size
        self._room = room

    def used(self, size: int) -> None:
        """So many bytes were written: they are no longer free, so they need not be promised."""
        self._room.give_back(self, size)


class Room:
    """The room on one disk. May be used by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._promised = 0

    @contextmanager
    def reserve(self, folder: Path, size: int) -> Iterator[Share]:
        """Set apart ``size`` bytes on the file system of ``folder``. Raises ``Retry`` if there is not so much."""
        share = Share(self, size)
        if not size:
            yield share
            return
        with self._lock:
            status = os.statvfs(folder)
            free = status.f_bavail * status.f_frsize - self._promised
            spare = free - min(status.f_blocks * status.f_frsize // _RESERVED, _MOST_RESERVED)
            if size > spare:
                raise Retry(
                    f"{folder}: {_mib(size)} are needed there, and {_mib(max(spare, 0))} can be used; make room, or "
                    "cancel the upload"
                )
            self._promised += size
        try:
            yield share
        finally:
            share.used(share.left)

    def give_back(self, share: Share, size: int) -> None:
        """A share needs so much less."""
        with self._lock:
            size = min(size, share.left)
            share.left -= size
            self._promised -= size


def _mib(size: int) -> str:
    return f"{size / (1 << 20):,.0f} MiB"
