"""Talks to the service manager (sd_notify(3)): ready, status, reloading, stopping, and the watchdog.

The watchdog is fed by the pipeline's own loops and by nothing else: each promises to beat within half of the
watchdog's time, and a beat feeds the watchdog only while all others have kept their promise. Where one hangs, feeding
stops, and the service manager ends the process and starts it anew. During start-up and stop, when no watchdog runs, the
same beats ask for more time: an archive that has much to be brought up to date is not cut off on the way.
"""

import contextlib
import os
import threading
import time
from collections.abc import Iterator

import sdnotify

from incomingd.model import printable

#: A loop with nothing to do beats at least this often, in seconds, or four times in the watchdog's time.
_IDLE = 20.0


class Heartbeat:
    """The daemon's heartbeat; without a service manager all of it does nothing."""

    def __init__(self) -> None:
        self._notifier = sdnotify.SystemdNotifier()
        self._lock = threading.Lock()
        self._within = _watchdog() / 2
        self._beats: dict[str, float] = {}
        self._ready = self._stopping = False
        self._status = ""
        #: How long, in seconds, a loop may wait for something to do before it beats again.
        self.idle = min(_IDLE, self._within / 2)

    def register(self, name: str) -> None:
        """A loop that beats from now on."""
        with self._lock:
            self._beats[name] = time.monotonic()

    def unregister(self, name: str) -> None:
        """The loop has ended, as asked."""
        with self._lock:
            self._beats.pop(name, None)

    def beat(self, name: str) -> None:
        """The loop goes on."""
        now = time.monotonic()
        with self._lock:
            self._beats[name] = now
            kept = all(now - beat <= self._within for beat in self._beats.values())
        if kept:
            self._notifier.notify("WATCHDOG=1" + self._more_time())

    def _more_time(self) -> str:
        if (self._ready and not self._stopping) or self._within == float("inf"):
            return ""
        return f"\nEXTEND_TIMEOUT_USEC={self._within * 2e6:.0f}"

    def ready(self) -> None:
        """Start-up is over; told once."""
        if not self._ready:
            self._ready = True
            self._notifier.notify("READY=1")

    def status(self, line: str) -> None:
        """One line for ``systemctl status``; told when it changes."""
        line = printable(" ".join(line.split()))  # a second line would be another message
        if line != self._status:
            self._status = line
            self._notifier.notify(f"STATUS={line}")

    @contextlib.contextmanager
    def reloading(self) -> Iterator[None]:
        """Tell that the configuration is being taken up."""
        if not self._ready:  # then the end of it would be told as the end of start-up
            yield
            return
        self._notifier.notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            yield
        finally:
            self._notifier.notify("READY=1")

    def stopping(self) -> None:
        """Tell that the daemon ends."""
        self._stopping = True
        self._notifier.notify("STOPPING=1")


def _watchdog() -> float:
    """The service manager's watchdog time in seconds (sd_watchdog_enabled(3)); infinite where it has none for us."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return float("inf")
    time_given = os.environ.get("WATCHDOG_USEC", "")
    return int(time_given) / 1e6 if time_given.isdecimal() and int(time_given) else float("inf")
