"""Intake: from the incoming directories to claimed, sealed uploads.

::

    scan_events, watch          events say "look now" (inotify, pyinotify, polling); they decide nothing
    scan, sweep                 what lies there, read some entries at a time
    listing                     what a .changes seems to list, read within bounds
    readiness, waiting          when an upload is complete and quiet
    accounts                    what one account may use, so that others are not delayed by it
    incoming_folder             one incoming directory: rows for new uploads, an order for those that are taken
    folder_faults               what is wrong with it, for health
    ownership                   who owns the files of an upload, and which of them it may have
    claim, flat                 the one rename out of the uploader's reach
    seal                        the daemon's own copy
    cleanup                     what is kept or removed when an upload has ended

:class:`Intake` runs the incoming folders of all queues. A fault of one of them is a sentence in :meth:`Intake.faults`
and does not disturb the others.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime

from incomingd.config import Config, QueueConfig
from incomingd.errors import ConfigError, Retry
from incomingd.intake.accounts import Failures
from incomingd.intake.incoming_folder import FolderContext, IncomingFolder
from incomingd.intake.readiness import ScanTime
from incomingd.intake.scan_events import ScanEvents
from incomingd.intake.watch import unavailable
from incomingd.journal.uploads import Uploads
from incomingd.model import Upload
from incomingd.places import Places

log = logging.getLogger(__name__)

#: The wall clock has jumped where it and the monotonic one drift apart by more seconds than that between two looks.
_JUMP = 0.5
#: Looks take at most half of the time, and a flood of hints waits at most so many seconds for the next one.
_LONGEST_REST = 2.0
#: Seconds until the next look where the journal cannot be written.
_RETRY = 5.0


def preflight(config: Config) -> None:
    """What no running daemon could mend. Raises :class:`~incomingd.errors.ConfigError` with every fault."""
    reasons = ((queue.name, unavailable(queue.watch)) for queue in config.queues)
    errors = [f"{config.file}: [incoming.{name}] watch: {reason}" for name, reason in reasons if reason]
    if errors:
        raise ConfigError(errors)


def _queues(config: Config) -> list[QueueConfig]:
    """Every directory that uploads are dropped into."""
    return [folder for queue in config.queues for folder in queue.folders()]


class Intake:
    """All queues. One thread looks and waits; any other may call the rest."""

    def __init__(
        self,
        config: Config,
        places: Places,
        uploads: Uploads,
        clock: Callable[[], datetime],
        on_change: Callable[[Upload], None],
        on_taking: Callable[[Sequence[Upload]], None],
        on_claimed: Callable[[Upload], None],
        on_ended: Callable[[Upload], None],
        failures: Failures,
    ) -> None:
        self._scan_events = ScanEvents()
        self._clock = clock
        self._context = FolderContext(
            uploads=uploads,
            scan_events=self._scan_events,
            clock=clock,
            on_change=on_change,
            on_taking=on_taking,
            on_claimed=on_claimed,
            on_ended=on_ended,
            failures=failures,
        )
        self._lock = threading.Lock()
        self._watching = False
        self._config = config
        self._folders = [IncomingFolder(queue, places, self._context) for queue in _queues(config)]
        self._trouble = ""
        self._drift: float | None = None
        self._rest_until = 0.0

    def start_watching(self) -> None:
        """Set the watches. What lies there already is found by the first look."""
        with self._lock:
            self._watching = True
            for folder in self._folders:
                folder.start_watching()

    def stop_watching(self) -> None:
        """End the watches."""
        with self._lock:
            self._watching = False
            for folder in self._folders:
                folder.stop_watching()

    def look(self) -> float:
        """One look at every queue: registers whoever is new, takes what is ready, puts aside what is abandoned.

        Returns the seconds until the next look is of use; infinite where only a hint can bring something.
        """
        with self._lock:
            started = time.monotonic()
            scan_time = self._now(started)
            try:
                due = min(
                    (folder.look(scan_time) for folder in self._folders),
                    default=float("inf"),
                )
                self._trouble = ""
            except Retry as failure:
                self._trouble = f"nothing can be taken in: {failure}"
                log.warning("%s", self._trouble)
                due = started + _RETRY
            ended = time.monotonic()
            self._rest_until = ended + min(ended - started, _LONGEST_REST)
            return max(due - ended, 0.0)

    def _now(self, monotonic: float) -> ScanTime:
        wall = self._clock().timestamp()
        drift, before = wall - monotonic, self._drift
        self._drift = drift
        steady = before is None or abs(drift - before) <= _JUMP
        return ScanTime(wall=wall, monotonic=monotonic, steady=steady)

    def wait(self, timeout: float) -> None:
        """Wait until there may be something to see, at most ``timeout`` seconds."""
        self._scan_events.wait(timeout, self._rest_until)

    def wake(self) -> None:
        """End a :meth:`wait` at once, from any thread."""
        self._scan_events.wake()

    def faults(self) -> tuple[str, ...]:
        """What is wrong, one sentence each, as the last look found it."""
        faults = [fault for folder in self._folders for fault in folder.faults]
        faults += self._context.failures.sentences(time.monotonic())
        return (self._trouble, *faults) if self._trouble else tuple(faults)

    def settling(self) -> bool:
        """True where something is complete and only has to stay unchanged for a while."""
        return any(folder.settling for folder in self._folders)

    def reload(self, config: Config) -> None:
        """Take up new settings. Queues that are gone are not looked at any more; their uploads stay where they are."""
        with self._lock:
            places = Places(config)
            known = {(folder.queue.name, folder.queue.path): folder for folder in self._folders}
            folders = []
            for queue in _queues(config):
                folder = known.pop((queue.name, queue.path), None)
                if folder is not None:
                    folder.configure(queue, places)
                else:
                    folder = IncomingFolder(queue, places, self._context)
                    if self._watching:
                        folder.start_watching()
                folders.append(folder)
            for folder in known.values():
                folder.close()
            self._folders, self._config = folders, config
