"""What is kept of failed uploads, and for how long: ``[limits] rejected_for`` and ``rejected_max``.

Rules:

* What an upload brought is put aside after its end was told, by a thread of its own: no upload waits for it.
* What is older than ``rejected_for`` is removed. If all together is more than ``rejected_max``, the oldest goes of the
  account of which most is kept: an account that fills the folder removes its own.
* How much is kept of which upload is in the journal. What that does not know, or knows wrongly (an operator removed it,
  a power cut), is found by one look through the folder after each start.
* All of it in small steps: what has just failed is put aside between them.
"""

import contextlib
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

from incomingd import fsio
from incomingd.config import Config
from incomingd.errors import Halt, Retry
from incomingd.intake.cleanup import keep_rejected
from incomingd.intake.room import Room
from incomingd.journal import Journal
from incomingd.journal.rejects import Rejects
from incomingd.model import Upload
from incomingd.places import Places

log = logging.getLogger(__name__)

#: Seconds between two looks whether something has become too old.
_EVERY = 600.0
#: Folders that are removed, and names that are looked at, in one step.
_AT_ONCE, _LOOKED_AT = 20, 1000


class Keeping:
    """One for each pipeline. ``places`` says where everything lies by the configuration that is in force."""

    def __init__(
        self, journal: Journal, places: Callable[[], Places], clock: Callable[[], datetime], room: Room
    ) -> None:
        self._kept = Rejects(journal)
        self._places = places
        self._clock = clock
        self._room = room
        self._hands = ThreadPoolExecutor(1, thread_name_prefix="keep")
        self._stopping = threading.Event()
        self._due_at = float("-inf")

    @property
    def _config(self) -> Config:
        return self._places().config

    def start(self) -> None:
        """Look through the folder once."""
        self._submit(self._reconcile)

    def keep(self, upload: Upload) -> None:
        """Put aside what a failed upload brought."""
        self._hands.submit(self._keep, upload)

    def tend(self) -> float:
        """Have removed what is too old by now; seconds until more may be."""
        now = time.monotonic()
        if now >= self._due_at:
            self._due_at = now + _EVERY
            self._submit(self._remove_some)
        return self._due_at - now

    def close(self) -> None:
        """Put aside all that has failed, and remove nothing more."""
        self._stopping.set()
        self._hands.shutdown()

    def _submit(self, step: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # it is closed
            self._hands.submit(self._guarded, step)

    def _guarded(self, step: Callable[[], None]) -> None:
        """What cannot be done now is done later."""
        if self._stopping.is_set():
            return
        try:
            step()
        except (Retry, Halt, OSError) as failure:
            log.warning("what is kept of failed uploads is looked at later: %s", failure)

    def _keep(self, upload: Upload) -> None:
        places = self._places()
        try:
            keep_rejected(places, upload, places.config.queue(upload.queue), self._room)
        except OSError as error:
            log.warning("%s: cannot be cleared away yet: %s", upload, error)
        self._guarded(lambda: self._measure(upload.id))
        self._guarded(self._remove_some)

    def _measure(self, upload_id: int) -> None:
        size = _size(self._places(), upload_id)
        if size is not None:
            self._kept.note(upload_id, size)

    # -- limits -------------------------------------------------------------------------------------------------------

    def _remove_some(self) -> None:
        """One step; another one follows if there is more to remove."""
        limits = self._config.limits
        removed = 0
        if limits.rejected_for:
            before = self._clock() - timedelta(seconds=limits.rejected_for)
            for upload_id in self._kept.ended_before(before, _AT_ONCE):
                self._remove(upload_id, "it is older than rejected_for")
                removed += 1
        while removed < _AT_ONCE and self._kept.total() > limits.rejected_max:
            oldest = self._kept.oldest_of_the_largest()
            if oldest is None:
                return
            self._remove(oldest, "what is kept is more than rejected_max")
            removed += 1
        if removed >= _AT_ONCE:
            self._submit(self._remove_some)

    def _remove(self, upload_id: int, why: str) -> None:
        folder = self._places().rejected(upload_id)
        log.info("%s: removed, %s", folder, why)
        try:
            fsio.remove_tree(folder)
        except OSError as error:
            log.warning("%s: cannot be removed: %s", folder, error)
        self._kept.forget([upload_id])

    # -- after a start ------------------------------------------------------------------------------------------------

    def _reconcile(self) -> None:
        """Bring the journal to what lies there, a piece at a time."""
        known = self._kept.ids()
        folder = self._places().state / "rejected"
        self._look(os.scandir(folder), known, set())

    def _look(self, found: Iterator[os.DirEntry[str]], known: set[int], seen: set[int]) -> None:
        some = [entry.name for entry in itertools.islice(found, _LOOKED_AT)]
        numbers = {int(name) for name in some if name.isdecimal()}
        for number in numbers - known:
            self._measure(number)
        seen |= numbers
        if some:
            self._submit(lambda: self._look(found, known, seen))
        else:
            self._kept.forget(known - seen)
            self._remove_some()


def _size(places: Places, upload_id: int) -> int | None:
    """The bytes on the disk that are kept of an upload; None if nothing is."""
    folder = places.rejected(upload_id)
    try:
        with os.scandir(folder) as entries:
            blocks = sum(entry.stat(follow_symlinks=False).st_blocks for entry in entries)
        return (blocks + folder.stat().st_blocks) * 512
    except (FileNotFoundError, NotADirectoryError):
        return None
