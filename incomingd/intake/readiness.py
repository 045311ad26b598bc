"""When is an upload taken? Pure: no clock, no disk.

``Quiet`` follows for how long an upload has not changed, on the monotonic clock; ``decide`` says what is due.

A change shows as another fingerprint. *When* it was is told by the file system's ctime, as far as that can be trusted:
never before the last look that saw the old fingerprint, never in the future, and not at all in a look after which the
wall clock was found to have jumped. Where ctime is of no use, the change counts from the look that found it.
"""

from dataclasses import dataclass
from enum import Enum

from incomingd.config import QueueConfig
from incomingd.intake.scan import Observation

#: dput sends a file with the sender's umask and corrects its mode through a second ssh connection: that long, in
#: seconds, an upload that cannot be read yet is given for it.
_MODE_GRACE = 10.0
_SHORTEST, _LONGEST = 0.2, 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanTime:
    """When a look was made: seconds of the wall clock and of the monotonic one. ``steady`` is False where the wall
    clock has jumped since the look before."""

    wall: float
    monotonic: float
    steady: bool = True


@dataclass(slots=True)
class LastChange:
    """Since when (monotonic seconds) an upload has not changed."""

    since: float = 0.0
    _fingerprint: int | None = None
    _looked: float | None = None

    def note(self, seen: Observation, scan_time: ScanTime) -> None:
        """Take in what a look saw."""
        if seen.fingerprint != self._fingerprint:
            age = scan_time.wall - seen.changed_at
            told = scan_time.monotonic - age if scan_time.steady and age >= 0 else scan_time.monotonic
            self.since = told if self._looked is None else max(told, self._looked)
            self._fingerprint = seen.fingerprint
        self._looked = scan_time.monotonic


class Action(Enum):
    """What to do with a waiting upload."""

    WAIT = "wait"
    TAKE = "take"
    TAKE_IF_UNWRITTEN = "take if no process has it open for writing"
    ABANDON = "abandon"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """``action`` now, or look again at ``due`` (monotonic seconds). ``settling``: it only has to stay as it is."""

    action: Action
    due: float
    settling: bool = False


def decide(seen: Observation, since: float, now: float, queue: QueueConfig, *, doomed: bool) -> Decision:
    """What to do with an upload that was written in place. ``doomed``: it will be refused, complete or not."""
    complete = not seen.lacking or doomed or not queue.abandon_after
    settle = max(queue.settle, _MODE_GRACE) if seen.unreadable else queue.settle
    quiet = now - since
    if complete and quiet < settle:
        return Decision(action=Action.WAIT, due=since + settle, settling=True)
    if complete:
        return Decision(action=Action.TAKE_IF_UNWRITTEN, due=now)
    if quiet >= queue.abandon_after:
        return Decision(action=Action.ABANDON, due=now)
    return Decision(action=Action.WAIT, due=min(now + pause(quiet, settle), since + queue.abandon_after))


def pause(quiet: float, settle: float) -> float:
    """Seconds until an incomplete upload is looked at again: within ``settle``, so that the change that completes it is
    noticed before it has settled; after minutes without any, a hundredth of the time for which we were made to wait."""
    return min(max(settle * 0.9, quiet / 100, _SHORTEST), _LONGEST)
