"""When status files are written: soon, and all that is new in one go.

Rules:

* An upload's end is written at once, everything else within :data:`_SOON`, changed positions once a second.
* index.json is written at once where no upload is on its way; otherwise it can wait for half a second.
* The journal is read while ``visible`` is held: not between a commit and the switch that shows it to clients.

A folder that cannot be written makes the service degraded, and is tried again.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable

from incomingd.errors import Retry
from incomingd.journal.uploads import Uploads
from incomingd.model import Upload
from incomingd.places import Places
from incomingd.report.health import Board
from incomingd.report.status import StatusFiles

log = logging.getLogger(__name__)

#: Seconds between two rounds of writing, where nobody's end is among the news.
_SOON = 0.03
#: Seconds between two times that changed positions are written.
_POSITIONS_EVERY = 1.0
#: Seconds between two times that index.json is written while uploads are on their way.
_INDEX_EVERY = 0.5
#: Seconds until a folder that could not be written is tried again.
_TRY_AGAIN = 2.0


class Reporter:
    """Writes the status folder. Any thread tells the news; one thread calls :meth:`wait` and :meth:`report`."""

    def __init__(
        self, places: Places, uploads: Uploads, board: Board, visible: threading.Lock, is_switched: Callable[[], bool]
    ) -> None:
        """``is_switched`` says whether clients see all that the journal has as published."""
        self._files = StatusFiles(places, uploads, board.health)
        self._board = board
        self._visible = visible
        self._is_switched = is_switched
        self._news = threading.Event()
        self._urgent = threading.Event()
        self._positions_at = float("-inf")
        self._index_at: float | None = None  # when it must be written; None where it has nothing new to say
        self._failed = False

    def prepare(self) -> None:
        """Make the folders; everything is to be written anew. Raises ``OSError``."""
        self._files.prepare()
        self._files.note_all()
        self._news.set()

    def tell(self, uploads: Iterable[Upload]) -> None:
        """These have moved."""
        moved = list(uploads)
        self._files.note(upload.id for upload in moved)
        self.wake(now=any(upload.stage.ended for upload in moved))

    def wake(self, *, now: bool = False) -> None:
        """There is news; ``now``: do not wait for more."""
        if now:
            self._urgent.set()
        self._news.set()

    def wait(self, timeout: float) -> None:
        """Wait for news, at most ``timeout`` seconds, and then a moment for more."""
        if self._failed:
            timeout = min(timeout, _TRY_AGAIN)
        if self._index_at is not None:
            timeout = min(timeout, max(self._index_at - time.monotonic(), 0.0))
        if self._news.wait(timeout):
            self._urgent.wait(_SOON)
        self._news.clear()
        self._urgent.clear()

    def report(self, *, whole: bool = False) -> None:
        """Write what is new; ``whole``: index.json too, whatever is on its way."""
        now = time.monotonic()
        try:
            index = self._draw(now, whole=whole)
            self._files.write()
            if index:
                self._files.write_index()
        except OSError as error:
            self._fail(Retry(f"status files cannot be written: {error}"))
        except Retry as failure:
            self._fail(failure)
        else:
            self._failed = False

    def _draw(self, now: float, *, whole: bool) -> bool:
        """True where index.json is drawn too."""
        with self._visible:
            published = self._is_switched()
            if now >= self._positions_at:
                self._files.note_positions()
                self._positions_at = now + _POSITIONS_EVERY
            busy = self._files.draw(published=published)
            if self._index_at is None:
                self._index_at = now + _INDEX_EVERY
            if busy and now < self._index_at and not whole:
                return False
            self._files.draw_index(published=published)
            self._index_at = None
            return True

    def _fail(self, failure: Retry) -> None:
        log.warning("%s", failure)
        self._board.degrade(failure)
        self._failed = True
