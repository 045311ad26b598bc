"""Talks to the service manager (sd_notify(3)): ready, status, reloading, stopping, and the watchdog.

The watchdog is fed by the pipeline's own loops and by nothing else: each promises to beat within a time of its own, and
a beat feeds the watchdog only while all others have kept their promise. Where one hangs, feeding stops, and the service
manager ends the process and starts it anew.
"""

import contextlib
import threading
import time
from collections.abc import Iterator

import sdnotify


class Pulse:
    """The daemon's pulse; without a service manager all of it does nothing."""

    def __init__(self) -> None:
        self._notifier = sdnotify.SystemdNotifier()
        self._lock = threading.Lock()
        self._promises: dict[str, float] = {}
        self._beats: dict[str, float] = {}
        self._ready = False
        self._status = ""

    def register(self, name: str, within: float) -> None:
        """A loop that will beat at least every ``within`` seconds."""
        with self._lock:
            self._promises[name] = within
            self._beats[name] = time.monotonic()

    def unregister(self, name: str) -> None:
        """The loop has ended, as asked."""
        with self._lock:
            self._promises.pop(name, None)

    def beat(self, name: str) -> None:
        """The loop goes on."""
        now = time.monotonic()
        with self._lock:
            self._beats[name] = now
            kept = all(now - self._beats[loop] <= within for loop, within in self._promises.items())
        if kept:
            self._notifier.notify("WATCHDOG=1")

    def ready(self) -> None:
        """Start-up is over; told once."""
        if not self._ready:
            self._ready = True
            self._notifier.notify("READY=1")

    def status(self, line: str) -> None:
        """One line for ``systemctl status``; told when it changes."""
        if line != self._status:
            self._status = line
            self._notifier.notify(f"STATUS={line}")

    @contextlib.contextmanager
    def reloading(self) -> Iterator[None]:
        """Tell that the configuration is being taken up."""
        self._notifier.notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            yield
        finally:
            self._notifier.notify("READY=1")

    def stopping(self) -> None:
        """Tell that the daemon ends."""
        self._notifier.notify("STOPPING=1")
