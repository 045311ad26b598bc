"""Uploads that stand aside: something is in their way now, others pass, and they are tried again after a back-off.

Three causes, one for each kind of failure:

* One of the upload's own files cannot be read (a lease that is taken again and again). After some minutes it is
  rejected, with what was in the way.
* The machine is at fault (a full disk, gpgv is gone). It is tried for as long as that lasts. If the upload was
  authorised, later uploads of its sources wait behind it.
* Something has ended the worker that checked it. It is tried three times in all; one such upload at a time, since it
  may be what brings the machine into need. Then it is rejected.

How often it was tried, and since when, is in the journal: a restart takes nothing from it. The back-off is in memory.
"""

import logging
import time
from dataclasses import dataclass
from datetime import timedelta

from incomingd import rules
from incomingd.backoff import Backoff
from incomingd.errors import Obstructed, Retry, WorkerKilled
from incomingd.model import Cause, Problem, Upload
from incomingd.pipeline.common import Common
from incomingd.states import Stage

log = logging.getLogger(__name__)

#: So long, and so many times at the least, an upload is tried that is in its own way.
_PATIENCE, _LEAST_TRIES = timedelta(minutes=5), 5
#: So many times an upload is tried whose worker was ended from outside.
_MOST_KILLED = 3
#: Seconds until such an upload is looked at again while another one is tried.
_ONE_AT_A_TIME = 1.0
#: After so many tries only each of so many is noted in the upload's own log.
_NOTED, _THEN_EACH = 10, 60


@dataclass(slots=True)
class Attempt:
    """One try of one upload; ``sources`` are there once it is authorised."""

    upload_id: int
    sources: tuple[str, ...] = ()


class Asides:
    """The uploads that stand aside. The threads that check tell; the intake loop asks who is due."""

    def __init__(self, common: Common) -> None:
        self._common = common
        self._backoff = Backoff()
        self._suspect: int | None = None  # whose worker was ended before, and which is tried now

    def due(self) -> list[Upload]:
        """Those that are to be tried now."""
        return self._common.uploads.many(self._backoff.due(time.monotonic()))

    def next_in(self) -> float:
        """Seconds until the next one is due."""
        return self._backoff.next_in(time.monotonic())

    def may_start(self, upload: Upload) -> bool:
        """False if it has to wait for another one; then it is due again in a moment."""
        if upload.aside is not Cause.WORKER:
            return True
        if self._suspect not in (None, upload.id):
            self._backoff.postpone(upload.id, time.monotonic(), _ONE_AT_A_TIME)
            return False
        self._suspect = upload.id
        return True

    def ended(self, upload_id: int) -> None:
        """The try has ended, in whatever way."""
        if self._suspect == upload_id:
            self._suspect = None

    def settled(self, upload_id: int) -> None:
        """It no longer stands aside."""
        self._backoff.forget(upload_id)
        self._common.health_state.put_back(upload_id, "")

    def stand(self, attempt: Attempt, failure: Retry | Obstructed) -> None:
        """It has failed: it stands aside from now on, or is rejected."""
        try:
            upload = self._common.uploads.get(attempt.upload_id)
            if upload.stage.ended:  # cancelled under the step
                self.settled(upload.id)
            elif isinstance(failure, Obstructed) and self._has_lasted(upload, failure):
                self._reject(upload, _lasting(failure, upload.tries))
            else:
                self._put_back(upload, attempt, failure)
        except Retry as worse:  # the journal itself: the next try finds the upload as it is
            self._backoff.failed(attempt.upload_id, time.monotonic())
            log.warning("#%d: %s; and that cannot be noted: %s", attempt.upload_id, failure, worse)

    def _has_lasted(self, upload: Upload, failure: Obstructed) -> bool:
        cause = _cause(failure)
        if upload.aside is not cause or upload.aside_since is None:
            return False
        if cause is Cause.WORKER:
            return upload.tries + 1 >= _MOST_KILLED
        lasted = self._common.clock() - upload.aside_since
        return upload.tries + 1 >= _LEAST_TRIES and lasted >= _PATIENCE

    def _reject(self, upload: Upload, problem: Problem) -> None:
        common = self._common
        message = f"rejected: tried {upload.tries + 1} times, and it was not better"
        ended = common.uploads.reject(upload, [problem], common.clock(), message)
        self.settled(upload.id)
        common.ended([ended])

    def _put_back(self, upload: Upload, attempt: Attempt, failure: Retry | Obstructed) -> None:
        common, cause = self._common, _cause(failure)
        delay = self._backoff.failed(upload.id, time.monotonic())
        message = f"stands aside, tried again in {delay:.0f} s: {failure}"
        log.warning("%s: %s", upload, message)
        if cause is not Cause.UPLOAD:  # else a sender could have the service called degraded
            common.health_state.put_back(upload.id, f"{upload} {message}")
        noted = message if upload.tries < _NOTED or upload.tries % _THEN_EACH == 0 else None
        if upload.stage is Stage.CHECKING:
            holds = attempt.sources if cause is Cause.MACHINE else ()
            upload = common.uploads.stand_aside(upload, cause, common.clock(), noted, holds=holds)
        elif noted:
            common.uploads.log(upload.id, common.clock(), noted)
        common.tell(upload)


def _lasting(failure: Obstructed, before: int) -> Problem:
    """What is told if it has lasted for so many tries before this one."""
    if isinstance(failure, WorkerKilled):
        found = f"{failure.found}, as {before} others before it"
        return rules.CHECK_CRASHED.problem(found, file=failure.problem.file)
    return failure.problem


def _cause(failure: Retry | Obstructed) -> Cause:
    if isinstance(failure, WorkerKilled):
        return Cause.WORKER
    return Cause.UPLOAD if isinstance(failure, Obstructed) else Cause.MACHINE
