"""What lies in an incoming directory, read some entries at a time: a million of them makes no look long.

Rules:

* A directory of at most :data:`STEP` entries is read whole in each look. A larger one takes several; each goes on from
  the one before. Names that were announced meanwhile are looked at directly, whatever has been read so far.
* Of each account at most so many uploads are followed while they wait in incoming (:func:`followed`). Those beyond are
  counted, and found again when others have gone; root and the daemon's own account have no limit.
* Of files that belong to no upload, and of hidden names, so many are followed.
"""

import itertools
import os
import stat
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from incomingd.config import DELAYED, LimitsConfig
from incomingd.intake import scan
from incomingd.intake.accounts import is_limited
from incomingd.intake.scan import Key, Survey

#: Entries that are read in one look: some 30 ms.
STEP = 10_000
#: Others and hidden names that are remembered.
_MOST = 50_000
_FOLLOWED = 1000


def followed(limits: LimitsConfig) -> int:
    """How many uploads of one account are followed while they wait in incoming."""
    return max(limits.per_account, _FOLLOWED)


@dataclass(slots=True)
class _Found:
    """What one pass over the directory has found so far."""

    uploads: dict[Key, str] = field(default_factory=dict)
    accounts: dict[Key, int] = field(default_factory=dict)  # of those that are new
    others: set[str] = field(default_factory=set)
    hidden: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    beyond: Counter[int] = field(default_factory=Counter)
    beyond_renamed: set[str] = field(default_factory=set)
    steps: int = 0


class Sweep:
    """Passes over one incoming directory, one after the other."""

    def __init__(self) -> None:
        self._entries: Iterator[os.DirEntry[str]] | None = None
        self._found = _Found()
        self._of: object = None

    def step(
        self, fd: int, waiting: Mapping[Key, int | None], announced: Collection[str], most: int, *, delayed: bool
    ) -> Survey:
        """Read on. ``waiting`` are the uploads that are followed, with their accounts; ``announced`` names that came
        since the last step; ``delayed`` as for :func:`~incomingd.intake.scan.survey`."""
        status = os.fstat(fd)
        of = (status.st_dev, status.st_ino, delayed)
        if self._entries is None or of != self._of:
            self._entries, self._found, self._of = os.scandir(fd), _Found(), of
        step = _Step(fd, self._found, waiting, announced, most, delayed=delayed)
        complete = step.read(self._entries)
        if not complete:
            step.read_announced()
        found = self._found
        found.steps += 1
        if complete:
            self._entries = None
        return Survey(
            uploads=found.uploads,
            accounts=found.accounts,
            others=frozenset(found.others),
            hidden=frozenset(found.hidden),
            complete=complete,
            steps=found.steps,
            beyond=dict(found.beyond),
            beyond_renamed=frozenset(found.beyond_renamed),
        )


class _Step:
    """One look's part of a pass."""

    def __init__(
        self,
        fd: int,
        found: _Found,
        waiting: Mapping[Key, int | None],
        announced: Collection[str],
        most: int,
        *,
        delayed: bool,
    ) -> None:
        self._fd = fd
        self._found = found
        self._waiting = waiting
        self._announced = announced
        self._most = most
        self._delayed = delayed
        self._followed = Counter(waiting.values())
        self._followed.update(uid for key, uid in found.accounts.items() if key not in waiting)

    def read(self, entries: Iterator[os.DirEntry[str]]) -> bool:
        """The next entries; True if there are no more."""
        for _ in range(STEP):
            entry = next(entries, None)
            if entry is None:
                return True
            self._note(entry.name, is_directory=entry.is_dir(follow_symlinks=False))
        return False

    def read_announced(self) -> None:
        """Those that were announced and have not been read yet, as many as entries."""
        for name in itertools.islice(self._announced, STEP):
            if name not in self._found.names:
                try:
                    status = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
                except OSError:  # gone again
                    continue
                self._note(name, is_directory=stat.S_ISDIR(status.st_mode))

    def _note(self, name: str, *, is_directory: bool) -> None:
        found = self._found
        if name in scan.NOT_UPLOADS:
            return
        if name.startswith("."):
            _add(found.hidden, name)
            return
        key = scan.key_of(name, is_directory=is_directory)
        if key is None:
            _add(found.others, name)
        elif key in found.uploads or (self._delayed and name == DELAYED):
            return
        elif key in self._waiting or self._is_followed(key, name):
            found.uploads[key] = name
            found.names.add(name)

    def _is_followed(self, key: Key, name: str) -> bool:
        """True for a new upload whose account has room; else it is counted."""
        uid = _uid(self._fd, name)
        if uid is None:
            return False
        if is_limited(uid) and self._followed[uid] >= self._most:
            self._found.beyond[uid] += 1
            if name in self._announced:
                self._found.beyond_renamed.add(name)
            return False
        self._followed[uid] += 1
        self._found.accounts[key] = uid
        return True


def _uid(fd: int, name: str) -> int | None:
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False).st_uid
    except OSError:
        return None


def _add(names: set[str], name: str) -> None:
    if len(names) < _MOST:
        names.add(name)
