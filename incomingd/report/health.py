"""How the service is: one value that index.json, the service manager and ``incomingctl status`` tell.

``ok``: all is as it should be. ``degraded``: it works, and something is missing or is being tried again. ``held``: the
operator has put publishing on hold. ``halted``: nothing is published until the operator has acted. Held or halted,
uploads still come in. ``stopped``: the daemon does not run.
"""

import os
import threading
from dataclasses import dataclass
from datetime import datetime

from incomingd import __version__
from incomingd.errors import Halt, Retry


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """Bytes that are used. ``superseded_indexes`` are those that no generation of the newest ``keep_generations`` lists
    and that ``index_grace`` keeps; ``indexes`` are all of them. ``rejected`` is None until it was added up. ``free`` is
    what the archive's file system has left."""

    pool: int
    indexes: int
    superseded_indexes: int
    index_space: int
    rejected: int | None
    journal: int
    free: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The service at one moment; ``reasons`` are sentences for people, and say what to do.

    ``reloads`` counts the reloads since the start that are over: the new configuration is in force, or was refused.
    """

    state: str
    reasons: tuple[str, ...]
    doing: str
    pid: int
    version: str
    started_at: datetime
    reloads: int = 0
    disk: Disk | None = None

    def line(self) -> str:
        """One line, as for systemctl status."""
        if self.state == "ok":
            return self.doing
        return f"{self.state}: {self.reasons[0]}" if self.reasons else self.state


#: Of the uploads that are tried again only the last so many are told.
_SHOWN = 3


class HealthState:
    """Where every loop writes what it knows of the service's health. May be used by several threads."""

    def __init__(self, started_at: datetime) -> None:
        self._lock = threading.Lock()
        self._started_at = started_at
        self._halted: Halt | None = None
        self._degraded: Retry | None = None
        self._held = ""
        self._refused: tuple[str, ...] = ()
        self._faults: tuple[str, ...] = ()
        self._waiting: dict[int, str] = {}
        self._reloads = 0
        self._overfull = ""
        self._keys: tuple[str, ...] = ()
        self._disk: Disk | None = None
        self._doing = "starting"
        self._stopped = False

    def halt(self, reason: Halt) -> None:
        """Publishing has stopped until the operator acts."""
        with self._lock:
            self._halted = reason

    def clear_halt(self) -> None:
        """Publishing goes on."""
        with self._lock:
            self._halted = None

    def degrade(self, reason: Retry) -> None:
        """Something is being tried again."""
        with self._lock:
            self._degraded = reason

    def clear_degraded(self) -> None:
        """It went well."""
        with self._lock:
            self._degraded = None

    def hold(self, reason: str) -> bool:
        """Publishing is on hold; with no reason: it is not. True where that is new."""
        with self._lock:
            changed = reason != self._held
            self._held = reason
            return changed

    def refuse_config(self, errors: tuple[str, ...]) -> None:
        """A new configuration was refused; with no errors: one was taken up."""
        with self._lock:
            self._refused = tuple(f"the new configuration is refused, the old one kept: {line}" for line in errors)

    def reloaded(self) -> None:
        """A reload is over, however it ended."""
        with self._lock:
            self._reloads += 1

    def set_faults(self, faults: tuple[str, ...]) -> None:
        """What intake misses now."""
        with self._lock:
            self._faults = faults

    def warn_of_keys(self, sentences: tuple[str, ...]) -> None:
        """What is to be said of the archive's own keys."""
        with self._lock:
            self._keys = sentences

    def use(self, disk: Disk, overfull: str) -> None:
        """What is used on the disk, and a sentence if that is more than is allowed."""
        with self._lock:
            self._disk, self._overfull = disk, overfull

    def put_back(self, upload_id: int, reason: str) -> None:
        """An upload waits for the environment; with no reason: no longer."""
        with self._lock:
            self._waiting.pop(upload_id, None)
            if reason:
                self._waiting[upload_id] = reason

    def doing(self, what: str) -> None:
        """What the publisher is doing."""
        with self._lock:
            self._doing = what

    def stopped(self) -> None:
        """The daemon ends."""
        with self._lock:
            self._stopped = True

    @property
    def trouble(self) -> Halt | Retry | None:
        """Why publishing does not go on now."""
        with self._lock:
            return self._halted or self._degraded

    def health(self) -> Health:
        """All of it at this moment."""
        with self._lock:
            stops = tuple(str(failure) for failure in (self._halted, self._degraded) if failure is not None)
            held = (self._held,) if self._held else ()
            waiting = tuple(list(self._waiting.values())[-_SHOWN:])
            others = (
                *self._refused,
                *([self._overfull] if self._overfull else []),
                *self._keys,
                *self._faults,
                *waiting,
            )
            reasons = (*stops, *held, *others)
            # A hold comes first in the one line: what else is wrong does not show in what is published.
            if held and not self._halted:
                reasons = (*held, *stops, *others)
            state = "halted" if self._halted else "held" if held else "degraded" if reasons else "ok"
            return Health(
                state="stopped" if self._stopped else state,
                reasons=reasons,
                doing=self._doing,
                pid=os.getpid(),
                version=__version__,
                started_at=self._started_at,
                reloads=self._reloads,
                disk=self._disk,
            )
