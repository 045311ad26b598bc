"""Watches an incoming directory: the events of a back end (watchdog's inotify, pyinotify, polling) become scan events.

Rules:

* A rename into incoming is told within milliseconds: watchdog's grouping delay, which holds renames inside the watched
  directory back for half a second, is set to nothing; full events tell a rename from outside from a mkdir.
* Only the top level is watched: a tree of a thousand directories costs one watch, and whoever writes in place is
  followed by the scan.
* The kernel is asked whether a watch still lives (/proc/self/fdinfo): an unmounted or removed directory ends it without
  a word, and a queue that overflowed may have dropped that word. :meth:`Watch.tend` sets it again.
* A watch that cannot be had (the inotify limits) is a fault for people to read; the periodic scan goes on without it.
"""

import contextlib
import errno
import importlib
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from watchdog import events
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers.api import BaseObserver
from watchdog.observers.inotify import InotifyObserver
from watchdog.observers.polling import PollingObserver

from incomingd.config import QueueConfig
from incomingd.intake.scan_events import ScanEvents

log = logging.getLogger(__name__)

#: Seconds between two of watchdog's polls.
_POLL = 1.0
#: Seconds between two tries to set a watch, and between two looks whether it lives.
_TEND_EVERY = 5.0
#: After so many events about hidden names a look is due all the same: others may have been dropped among them.
_FLOOD = 1000
_TELLING = frozenset({"created", "moved", "deleted", "closed"})
#: What the kernel is asked for; else every write(2) into a file in incoming is an event, and every look of ours.
_HEARD = (
    *(events.FileCreatedEvent, events.DirCreatedEvent, events.FileMovedEvent, events.DirMovedEvent),
    *(events.FileDeletedEvent, events.DirDeletedEvent, events.FileClosedEvent),
)
_WATCH_LINE = re.compile(r"^inotify wd:.*$", re.MULTILINE)


#: The class whose docstring says that it holds events for ``delay`` seconds: since watchdog 7, and before.
_GROUPERS = (
    ("watchdog.observers.inotify_move_event_grouper", "InotifyMoveEventGrouper"),
    ("watchdog.observers.inotify_buffer", "InotifyBuffer"),
)


def _drop_grouping_delay() -> bool:
    """False if this watchdog has no such class: then a rename inside incoming is told half a second later."""
    for module, name in _GROUPERS:
        with contextlib.suppress(ImportError, AttributeError):
            getattr(importlib.import_module(module), name).delay = 0.0
            return True
    return False


_drop_grouping_delay()


def unavailable(backend: str) -> str:
    """Why a back end cannot be used here, as a sentence; empty where it can."""
    if backend != "pyinotify":
        return ""
    try:
        import pyinotify  # noqa: F401  # is it there?
    except ImportError as error:
        return (
            f'"pyinotify" cannot be imported here ({error}); it needs the extra of that name and a Python before 3.12: '
            'use "inotify" instead'
        )
    return ""


class _Source(Protocol):
    """A running back end."""

    def is_alive(self) -> bool: ...

    def stop(self) -> None: ...


class Watch:
    """The watch on one queue's incoming directory."""

    def __init__(self, queue: QueueConfig, root: Path, scan_events: ScanEvents) -> None:
        self.fault = ""
        self._queue = queue
        self._root = root
        self._scan_events = scan_events
        self._source: _Source | None = None
        self._identity: tuple[int, int] | None = None
        self._marks: frozenset[str] = frozenset()
        self._tend_at = float("-inf")

    def tend(self, identity: tuple[int, int] | None, now: float) -> bool:
        """Set the watch where it is missing; ``identity`` is the directory's device and inode, None where it is not
        there. True where it was set just now: what lies there already was not announced."""
        if identity == self._identity and now < self._tend_at:
            return False
        self._tend_at = now + _TEND_EVERY
        if identity is not None and identity == self._identity and self._lives():
            return False
        self.stop()
        if identity is None:
            return False
        return self._start(identity)

    def _start(self, identity: tuple[int, int]) -> bool:
        before = _kernel_watches()
        try:
            self._source = _START[self._queue.watch](self._queue, self._root, self._scan_events)
        except OSError as error:
            fault = _start_fault(self._queue, error)
            if fault != self.fault:
                log.warning("%s", fault)
            self.fault = fault
            return False
        self._marks = _kernel_watches() - before
        self._identity = identity
        self.fault = ""
        return True

    def _lives(self) -> bool:
        return self._source is not None and self._source.is_alive() and self._marks <= _kernel_watches()

    def stop(self) -> None:
        """End the watch."""
        source, self._source, self._identity = self._source, None, None
        if source is not None:
            source.stop()


def _start_fault(queue: QueueConfig, error: OSError) -> str:
    advice = {
        errno.ENOSPC: "raise the sysctl fs.inotify.max_user_watches",
        errno.EMFILE: "raise the sysctl fs.inotify.max_user_instances",
    }.get(error.errno or 0, 'try watch = "polling"')
    return (
        f"{queue.path} cannot be watched: {error.strerror or error}; {advice}; "
        "until then uploads are found by the periodic scan alone"
    )


def _kernel_watches() -> frozenset[str]:
    """Every inotify watch of this process, as the kernel tells it; empty where it does not."""
    found: set[str] = set()
    try:
        for descriptor in Path("/proc/self/fd").iterdir():
            try:
                if str(descriptor.readlink()) == "anon_inode:inotify":
                    text = Path("/proc/self/fdinfo", descriptor.name).read_text(encoding="ascii")
                    found.update(f"{descriptor.name}: {line}" for line in _WATCH_LINE.findall(text))
            except OSError:  # closed meanwhile
                continue
    except OSError:
        return frozenset()
    return frozenset(found)


class _Listener:
    """Turns what a back end reports into scan events."""

    def __init__(self, queue: QueueConfig, root: Path, scan_events: ScanEvents) -> None:
        self._queue = queue.name
        self._root = str(root)
        self._scan_events = scan_events
        self._passed_over = 0

    def inside(self, path: str | bytes | None) -> str:
        """The name in the incoming directory that ``path`` is; empty where it is none."""
        folder, name = os.path.split(os.fsdecode(path or ""))
        return name if folder == self._root else ""

    def arrived(self, name: str, *, renamed_in: bool) -> None:
        if name.startswith("."):
            self.pass_over()
        else:
            self._scan_events.arrived(self._queue, name, renamed_in=renamed_in)

    def changed(self, name: str) -> None:
        if name.startswith("."):
            self.pass_over()
        else:
            self._scan_events.look()

    def pass_over(self) -> None:
        self._passed_over += 1
        if self._passed_over % _FLOOD == 0:
            self._scan_events.look()

    def overflowed(self) -> None:
        self._scan_events.look()


class _Handler(FileSystemEventHandler):
    def __init__(self, listener: _Listener) -> None:
        self._listener = listener

    def on_any_event(self, event: FileSystemEvent) -> None:
        # A change of the incoming directory itself comes with every other event and says nothing of its own.
        source = self._listener.inside(event.src_path)
        target = self._listener.inside(getattr(event, "dest_path", ""))
        if event.event_type not in _TELLING or not (source or target):
            self._listener.pass_over()
        elif target:
            self._listener.arrived(target, renamed_in=event.is_directory)
        elif event.event_type == "created":
            self._listener.arrived(source, renamed_in=False)
        else:
            self._listener.changed(source)


def _schedule(observer: BaseObserver, handler: FileSystemEventHandler, path: str) -> None:
    try:
        observer.schedule(handler, path, recursive=False, event_filter=list(_HEARD))
    except TypeError:  # before watchdog 4
        observer.schedule(handler, path, recursive=False)


class _Watchdog:
    def __init__(self, observer: BaseObserver, queue: QueueConfig, root: Path, scan_events: ScanEvents) -> None:
        self._observer = observer
        try:
            _schedule(observer, _Handler(_Listener(queue, root, scan_events)), str(root))
            observer.start()
        except BaseException:
            observer.stop()
            raise

    def is_alive(self) -> bool:
        emitters = list(self._observer.emitters)
        return self._observer.is_alive() and bool(emitters) and all(emitter.is_alive() for emitter in emitters)

    def stop(self) -> None:
        self._observer.stop()
        self._observer.join()


class _Pyinotify:
    def __init__(self, queue: QueueConfig, root: Path, scan_events: ScanEvents) -> None:
        import pyinotify

        listener = _Listener(queue, root, scan_events)

        class Process(pyinotify.ProcessEvent):  # type: ignore[misc]  # ships no types
            def process_default(self, event: Any) -> None:
                if event.mask & pyinotify.IN_Q_OVERFLOW:
                    listener.overflowed()
                elif event.mask & (pyinotify.IN_MOVED_TO | pyinotify.IN_CREATE):
                    moved = bool(event.mask & pyinotify.IN_MOVED_TO)
                    listener.arrived(event.name, renamed_in=event.dir and moved)
                else:
                    listener.changed(getattr(event, "name", ""))

        try:
            manager = pyinotify.WatchManager()
        except OSError as error:  # it has a text and no number
            raise OSError(errno.EMFILE, str(error)) from error
        mask = (
            pyinotify.IN_MOVED_TO
            | pyinotify.IN_MOVED_FROM
            | pyinotify.IN_CREATE
            | pyinotify.IN_DELETE
            | pyinotify.IN_CLOSE_WRITE
        )
        self._notifier = pyinotify.ThreadedNotifier(manager, Process())
        self._notifier.daemon = True
        try:
            manager.add_watch(str(root), mask, quiet=False)
        except pyinotify.WatchManagerError as error:
            os.close(manager.get_fd())
            raise OSError(errno.ENOSPC, str(error)) from error
        self._notifier.start()

    def is_alive(self) -> bool:
        return bool(self._notifier.is_alive())

    def stop(self) -> None:
        self._notifier.stop()


def _inotify(queue: QueueConfig, root: Path, scan_events: ScanEvents) -> _Source:
    return _Watchdog(InotifyObserver(generate_full_events=True), queue, root, scan_events)


def _polling(queue: QueueConfig, root: Path, scan_events: ScanEvents) -> _Source:
    return _Watchdog(PollingObserver(timeout=_POLL), queue, root, scan_events)


_START: dict[str, Callable[[QueueConfig, Path, ScanEvents], _Source]] = {
    "inotify": _inotify,
    "polling": _polling,
    "pyinotify": _Pyinotify,
}
