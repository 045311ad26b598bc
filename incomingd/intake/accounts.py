"""What one account may use of intake, so that a flood by one delays another by no more than a moment.

Rules:

* Accounts take turns (:func:`in_turn`): in what is registered, in what is looked at, and in the sequence numbers.
* Looking at what waits takes an account at most a tenth of the time (:class:`TimeBudget`). One that has used up its
  time is looked at again when it has some.
* An account may have so many uploads, and so many bytes, that are taken and have not ended (:class:`Room`,
  ``[limits]``). What is beyond waits in incoming. One with none on its way may always have one.
* Each upload that fails, or that brings nothing new, leaves a row, a status file and a log line, and costs its sender
  nothing. An account that has had very many of them is slowed down (:class:`Failures`), so that it cannot fill a disk
  by these.
* Root and the daemon's own account have no limit.
"""

import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from typing import TypeVar

from incomingd.config import LimitsConfig
from incomingd.intake.ownership import shown
from incomingd.journal.uploads import InFlight
from incomingd.model import Upload
from incomingd.states import Stage

_T = TypeVar("_T")
#: Seconds of looking that an account gets in each second, and what it can save up.
_RATE, _SAVED = 0.1, 0.2
#: Uploads of an account that may fail at once, and how many each second after that. What each leaves is some 10 kB for
#: months: an account that fails uses 90 MB a day at most, and not 100 GB.
_FAILURES, _FAILURE_RATE = 500.0, 0.1
#: What an upload counts that changes nothing (a CI job may send again all that it has built), and one that publishes
#: something: for each of these one may fail.
_UNCHANGED, _PUBLISHED = 0.1, -1.0


def is_limited(uid: int | None) -> bool:
    """True for every account but root and the daemon's own, and for uploads whose owner is not known."""
    return uid not in (0, os.geteuid())


def in_turn(items: Iterable[_T], account: Callable[[_T], Hashable]) -> list[_T]:
    """The first of each account, then the second of each …, each account's own in their order."""
    by_account: dict[Hashable, list[_T]] = defaultdict(list)
    for item in items:
        by_account[account(item)].append(item)
    if len(by_account) == 1:
        return next(iter(by_account.values()))
    missing = object()
    rounds = zip_longest(*by_account.values(), fillvalue=missing)
    return [item for one_round in rounds for item in one_round if item is not missing]  # type: ignore[misc]  # mypy cannot follow the fill value


class TimeBudget:
    """How much time has been spent on each account. ``timer`` gives seconds; ``now`` is the time of a look."""

    def __init__(self, timer: Callable[[], float] = time.monotonic) -> None:
        self._timer = timer
        self._left: dict[int | None, tuple[float, float]] = {}  # seconds left, and when that was

    def wait(self, uid: int | None, now: float) -> float:
        """Seconds until the account has time left; 0 if it has some."""
        left = self._at(uid, now)
        return 0.0 if left > 0 or not is_limited(uid) else max(-left / _RATE, _SAVED)

    @contextmanager
    def spent(self, uid: int | None, now: float) -> Iterator[None]:
        """What is done inside is done for that account."""
        began = self._timer()
        try:
            yield
        finally:
            self._left[uid] = (self._at(uid, now) - (self._timer() - began), now)

    def _at(self, uid: int | None, now: float) -> float:
        left, since = self._left.get(uid, (_SAVED, now))
        return min(left + max(now - since, 0.0) * _RATE, _SAVED)


class Failures:
    """How many uploads of each account may still fail before it is slowed down. Any thread may note an end.

    ``timer`` gives seconds.
    """

    def __init__(self, timer: Callable[[], float] = time.monotonic) -> None:
        self._timer = timer
        self._lock = threading.Lock()
        self._left: dict[int, tuple[float, float]] = {}  # failures left, and when that was

    def note(self, ended: Upload) -> None:
        """An upload has ended: it failed, changed nothing, or was published."""
        uid = ended.uid
        if uid is None or not is_limited(uid):
            return
        with self._lock:
            now = self._timer()
            left = self._at(uid, now) - _cost(ended)
            if left >= _FAILURES:
                self._left.pop(uid, None)
            else:
                self._left[uid] = (left, now)

    def wait(self, uid: int | None, now: float) -> float:
        """Seconds until an upload of that account is looked at; 0 if it is not slowed down."""
        if uid is None:
            return 0.0
        with self._lock:
            left = self._at(uid, now)
        return 0.0 if left >= 1 else (1 - left) / _FAILURE_RATE

    def sentences(self, now: float) -> list[str]:
        """Which accounts are slowed down."""
        with self._lock:
            slowed = [uid for uid in self._left if self._at(uid, now) < 1]
        return [
            f"uploads of {shown(uid)} fail again and again, or change nothing: one that fails is taken every "
            f"{1 / _FAILURE_RATE:.0f} s, until some are published; incomingctl status shows why they fail"
            for uid in sorted(slowed)
        ]

    def _at(self, uid: int, now: float) -> float:
        left, since = self._left.get(uid, (_FAILURES, now))
        return min(left + max(now - since, 0.0) * _FAILURE_RATE, _FAILURES)


def _cost(ended: Upload) -> float:
    if ended.stage is not Stage.PUBLISHED:
        return 1.0
    has_changed = ended.published is not None and ended.published.suites and not ended.already_published
    return _PUBLISHED if has_changed else _UNCHANGED


@dataclass(slots=True)
class _Used:
    uploads: int = 0
    bytes: int = 0
    full: bool = False


class Room:
    """How many more uploads each account may have on its way, during one look."""

    def __init__(self, limits: LimitsConfig, in_flight: Mapping[int, InFlight]) -> None:
        self._limits = limits
        self._used = {uid: _Used(used.uploads, used.bytes) for uid, used in in_flight.items()}

    def close_if_full(self, uid: int | None, size: int) -> bool:
        """True if an upload of that size must wait. Then the account's next ones wait too: a large one is not
        overtaken by the account's small ones for ever."""
        if uid is None or not is_limited(uid):
            return False
        used = self._used.setdefault(uid, _Used())
        used.full = used.full or self._is_beyond(used, size)
        return used.full

    def take(self, uid: int | None, size: int) -> None:
        """An upload of that size is taken."""
        if uid is not None:
            used = self._used.setdefault(uid, _Used())
            used.uploads += 1
            used.bytes += size

    def reason(self, uid: int | None) -> str:
        """Why an upload of that account waits. It is the same from look to look."""
        limits = self._limits
        return (
            f"waits until other uploads of {shown(uid or 0)} have ended: [limits] allows an account "
            f"{limits.per_account} uploads and {limits.bytes_per_account} bytes on their way"
        )

    def _is_beyond(self, used: _Used, size: int) -> bool:
        limits = self._limits
        beyond = used.uploads >= limits.per_account or used.bytes + size > limits.bytes_per_account
        return beyond and used.uploads > 0
