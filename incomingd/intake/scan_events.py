"""Events: what the watchers have reported since the last scan. They say "look now"; the scan alone decides.

A lost event costs time (until the next periodic scan), never an upload. Two events carry more than that: that a
directory was *renamed in*, so that it is complete as it is; and every name that was reported, so that the scan can tell
which arrivals were not. Any thread may report events; one thread waits for them.
"""

import threading
import time
from dataclasses import dataclass, field

#: Names kept between two looks. More than that is an overflow of our own: they are found by the scan.
_MOST = 100_000


@dataclass(slots=True)
class NewEvents:
    """Events of one queue: names of directories renamed in, in that order, and every name that was reported."""

    renamed_in: dict[str, None] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)


class ScanEvents:
    """The events that no scan has taken up yet."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._heard: dict[str, NewEvents] = {}
        self._rung = False
        self._woken = False

    def arrived(self, queue: str, name: str, *, renamed_in: bool = False) -> None:
        """Something visible appeared under ``name``."""
        with self._changed:
            new_events = self._heard.setdefault(queue, NewEvents())
            # Made anew: what was renamed in under that name before is not there any more.
            new_events.renamed_in.pop(name, None)
            if len(new_events.names) < _MOST:
                new_events.names.add(name)
                if renamed_in:
                    new_events.renamed_in[name] = None
            self._ring()

    def look(self) -> None:
        """Something happened."""
        with self._changed:
            self._ring()

    def _ring(self) -> None:
        self._rung = True
        self._changed.notify_all()

    def wake(self) -> None:
        """End :meth:`wait` at once: there is something else to do."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def wait(self, timeout: float, not_before: float) -> None:
        """Wait for an event, at most ``timeout`` seconds; one ends the wait at ``not_before`` (monotonic) at the
        earliest, so that a flood of events leads to few scans."""
        with self._changed:
            self._changed.wait_for(lambda: self._rung or self._woken, timeout)
            if self._rung and not self._woken:
                self._changed.wait_for(lambda: self._woken, max(not_before - time.monotonic(), 0.0))
            self._rung = self._woken = False

    def take(self, queue: str) -> NewEvents:
        """The events of ``queue`` since the last call."""
        with self._changed:
            return self._heard.pop(queue, None) or NewEvents()
