"""When status files are written: soon, and all that is new in one go.

Rules:

* An upload whose name was used before is written before it leaves its incoming folder: whoever sees that it is gone
  must not take the status of the older one for its own. If the name is another account's, index.json is.
* That an upload was seen, or has ended, is written at once. The stages between may pass in milliseconds: where each
  one stands is written in rounds, with the positions that have changed and index.json.
* The journal is read while ``visible`` is held: not between a commit and the switch that shows it to clients.

A folder that cannot be written makes the service degraded, and is tried again.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from incomingd import rules
from incomingd.errors import Retry
from incomingd.journal.uploads import Uploads
from incomingd.model import Upload
from incomingd.places import Places
from incomingd.report import restored
from incomingd.report.health import HealthState
from incomingd.report.status import StatusFiles
from incomingd.states import Stage

log = logging.getLogger(__name__)

#: Seconds that a sighting waits for others: what comes together is read and written together.
_MOMENT = 0.01
#: Seconds between two rounds while uploads are on their way, and between two times that positions are written.
_ROUND, _POSITIONS = 0.5, 1.0
#: Rounds, which write the more the longer the queue is, take no more than one part of the time in this many.
_SHARE = 50
#: Seconds until a folder that could not be written is tried again.
_TRY_AGAIN = 2.0
#: Old status files that are removed at a time, some milliseconds' work, and seconds until there may be more.
_REMOVED_AT_ONCE, _TIDY_EVERY = 50, 600.0
#: Stages that nobody waits for.
_BETWEEN = frozenset({Stage.CHECKING, Stage.QUEUED, Stage.PUBLISHING})


class Reporter:
    """Writes the status folder. Any thread tells the news; one thread calls :meth:`wait` and :meth:`report`."""

    def __init__(
        self,
        places: Places,
        uploads: Uploads,
        health_state: HealthState,
        visible: threading.Lock,
        is_switched: Callable[[], bool],
    ) -> None:
        """``is_switched`` says whether clients see all that the journal has as published."""
        self._places = places
        self._uploads = uploads
        self._files = StatusFiles(places, uploads, health_state.health)
        self._health_state = health_state
        self._visible = visible
        self._is_switched = is_switched
        self._news = threading.Event()
        self._ended = threading.Event()
        self._round_at: float | None = None  # None where there is nothing that a round would tell
        self._positions_at = self._rest_until = float("-inf")
        self._tidy_at = float("-inf")
        self._failed = False
        self._writing = threading.Lock()  # one thread at a time draws and writes

    def prepare(self, now: datetime) -> None:
        """Make the folders; everything is to be written anew. Before any upload is seen. Raises ``OSError`` and
        ``Retry``."""
        self._files.prepare()
        self._mark_unknown(now)
        self._files.note_all()
        self._news.set()

    def _mark_unknown(self, now: datetime) -> None:
        """What came after the backup from which the journal was restored did not happen, as far as the archive is
        concerned, and its ids are not given again. What had failed stays as it is."""
        unknown = restored.unknown(self._places, self._uploads.last_id())
        if not unknown:
            return
        for one in unknown:
            if not one.failed:
                problem = rules.JOURNAL_RESTORED.problem(f"it was {one.stage} before that")
                seen = self._uploads.see_again(one.id, one.name, one.queue, one.seen_at, one.owner)
                self._uploads.reject(seen, [problem], now, "the journal was restored", target=Stage.CANCELLED)
        self._uploads.pass_over_ids(unknown[-1].id)
        log.warning(
            "the journal was restored: %d uploads that came after the backup, up to #%d, are not known to it; their "
            "status files say so, and those that had not failed have to be sent again",
            len(unknown),
            unknown[-1].id,
        )

    def tell(self, uploads: Iterable[Upload]) -> None:
        """These have moved."""
        for upload in uploads:
            between = upload.stage in _BETWEEN
            self._files.note(upload.id, now=not between)
            if upload.stage.ended:
                self._ended.set()
            if not between or self._round_at is None:
                self._news.set()

    def announce(self, uploads: Iterable[Upload]) -> None:
        """These are about to be taken: write those now that have an older status under their name.

        A nameless one has no file of its name. What tells its sender of it is index.json.
        """
        reused = [upload for upload in uploads if self._files.hides(upload)]
        if reused:
            self._files.note(*(upload.id for upload in reused), now=True)
            nameless = any(upload.nameless for upload in reused)
            self._report(self._draw_round if nameless else self._draw_noted)

    def wake(self, *, now: bool = False) -> None:
        """There is news of the service; ``now``: it does not wait for a sighting's moment."""
        if now:
            self._ended.set()
        self._news.set()

    def wait(self, timeout: float) -> None:
        """Wait until there is something to write, at most ``timeout`` seconds."""
        if self._failed:
            timeout = min(timeout, _TRY_AGAIN)
        if self._round_at is not None:
            timeout = min(timeout, max(self._round_at - time.monotonic(), 0.0))
        if self._news.wait(timeout):
            self._ended.wait(_MOMENT)
        self._news.clear()
        self._ended.clear()

    def report(self, *, whole: bool = False) -> bool:
        """Write what is new; ``whole``: do not wait for the next round. True where that was a round, or failed."""
        return self._report(lambda: self._draw(time.monotonic(), whole=whole))

    def _report(self, draw: Callable[[], bool]) -> bool:
        is_round = False
        try:
            with self._writing:
                started = time.monotonic()
                is_round = draw()
                self._files.write()
                if is_round:
                    self._files.write_index()
                    self._rest_until = started + (time.monotonic() - started) * _SHARE
        except OSError as error:
            self._fail(Retry(f"status files cannot be written: {error}"))
        except Retry as failure:
            self._fail(failure)
        else:
            if self._failed:
                self._health_state.clear_degraded()
            self._failed = False
        return is_round or self._failed

    def tidy(self, keep: float, now: datetime) -> None:
        """Remove some status files of uploads that ended more than ``keep`` seconds ago; 0: they stay for good."""
        at = time.monotonic()
        if not keep or at < self._tidy_at:
            return
        try:
            with self._writing:
                more = self._files.remove_old(now - timedelta(seconds=keep), _REMOVED_AT_ONCE)
        except (OSError, Retry) as error:
            log.warning("old status files cannot be removed: %s", error)
            more = False
        self._tidy_at = at + (_ROUND if more else _TIDY_EVERY)

    def _draw_noted(self) -> bool:
        """Read what somebody waits for; never a round."""
        with self._visible:
            self._files.draw(everything=False, published=self._is_switched())
            return False

    def _draw_round(self) -> bool:
        return self._draw(time.monotonic(), whole=True)

    def _draw(self, now: float, *, whole: bool) -> bool:
        """Read what is to be written; True where that was a round."""
        with self._visible:
            published = self._is_switched()
            busy = self._files.is_busy()
            if self._round_at is None:
                self._round_at = max(now + _ROUND, self._rest_until)
            if busy and now < self._round_at and not whole:
                self._files.draw(everything=False, published=published)
                return False
            self._files.look_at_line()
            self._round_at = None  # before the notes are taken: what is noted after that starts the next round
            if now >= self._positions_at:
                self._files.note_positions()
                self._positions_at = now + _POSITIONS
            self._files.note_index()
            self._files.draw(everything=True, published=published)
            return True

    def _fail(self, failure: Retry) -> None:
        log.warning("%s", failure)
        self._health_state.degrade(failure)
        self._failed = True
