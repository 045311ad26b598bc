"""From the claim to a place in the queue: each upload is sealed and checked in a thread of its own, in any order.

The environment's failures bring an upload back here, with the reason in its log, after a back-off.
"""

import contextlib
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from incomingd import codec, fsio
from incomingd.backoff import Backoff
from incomingd.config import Config
from incomingd.errors import Halt, Retry
from incomingd.intake.seal import seal
from incomingd.intake.withdrawal import copy_changes
from incomingd.journal.uploads import StaleMoveError
from incomingd.model import CheckReport, Seal, Upload, UploadKind
from incomingd.pipeline.commands import obey
from incomingd.pipeline.common import Common
from incomingd.states import Stage
from incomingd.verify.pool import Checkers

log = logging.getLogger(__name__)

#: So many more uploads than there are check workers are in hand at once: they are sealed meanwhile.
_SEAL_AHEAD = 2
#: Seconds until delayed uploads are looked at again where the journal could not be used.
_LATER = 5.0


class Checking:
    """The threads that seal and check. ``on_queued`` is told when one is done, ``on_free`` that one was let go of."""

    def __init__(self, common: Common, on_queued: Callable[[], None], on_free: Callable[[], None]) -> None:
        self._common = common
        self._on_queued = on_queued
        self._on_free = on_free
        config = common.config
        workers = config.service.workers or os.cpu_count() or 1
        self._hands = ThreadPoolExecutor(workers + _SEAL_AHEAD, thread_name_prefix="check")
        self._checkers = Checkers(config, common.places.uploaders_home)
        self._busy: set[int] = set()
        self._backoff = Backoff()

    def start(self) -> None:
        """Have a worker ready for the first upload: to start what they are forked from takes 0.4 s."""
        self._hands.submit(self._warm)

    def _warm(self) -> None:
        try:
            self._checkers.warm()
        except Retry as failure:
            if not self._common.stopping.is_set():
                log.warning("%s", failure)  # the first upload will say so again

    def stop(self) -> None:
        """End every check; what was in hand is taken up by recovery."""
        self._hands.shutdown(wait=False, cancel_futures=True)
        self._checkers.close()
        self._hands.shutdown()

    def reload(self, config: Config) -> None:
        """Take up a new configuration."""
        self._checkers.reload(config)

    def tend(self) -> float:
        """What is due by now: cancelled and delayed uploads, tries after a back-off, workers that rest. Seconds until
        more is."""
        self._attend_cancelled()
        day = self._attend_delayed()
        for upload_id in self._backoff.due(time.monotonic()):
            self.take(self._common.uploads.get(upload_id))
        return min(self._checkers.rest(), self._backoff.next_in(time.monotonic()), day)

    def take(self, upload: Upload) -> None:
        """Have a claimed upload sealed and checked."""
        self._common.tell(upload)
        if not self._common.stopping.is_set():
            self._busy.add(upload.id)
            self._hands.submit(self._step, upload)

    def _attend_cancelled(self) -> None:
        """Tell of what was cancelled; what it brought is put aside once no step is at work on it."""
        common = self._common
        try:
            cancelled = common.uploads.many(common.control.cancelled())
            common.tell(*(upload for upload in cancelled if upload.id in self._busy))
            done = [upload for upload in cancelled if upload.id not in self._busy]
            common.ended(done)
            for upload in done:
                self._settled(upload.id)
            common.control.forget_cancelled(upload.id for upload in done)
        except Retry as failure:
            log.warning("cancelled uploads are attended to later: %s", failure)

    def _attend_delayed(self) -> float:
        """Put those that are due into the line; the seconds until the next one is, by the wall clock of now."""
        common = self._common
        try:
            now, next_at = common.clock(), common.delays.next_at()
            if next_at is None or next_at > now:
                return float("inf") if next_at is None else (next_at - now).total_seconds()
            for upload in common.delays.come_due(now):
                log.info("%s: %s", upload, upload.log[-1].message)
                self.take(upload)
            return 0.0
        except Retry as failure:
            log.warning("delayed uploads are attended to later: %s", failure)
            return _LATER

    def _step(self, upload: Upload) -> None:
        """Seal and check one upload: one place for each of the four kinds of failure."""
        common = self._common
        try:
            self._seal_and_check(upload)
        except Retry as failure:
            if not common.stopping.is_set():  # else its check was ended by the stop, and recovery takes it up
                self._put_back(upload.id, failure)
        except Halt as failure:
            common.board.halt(failure)
            self._put_back(upload.id, failure)
        except BaseException as bug:  # noqa: BLE001  # it is not passed over: it ends the process
            if not (isinstance(bug, StaleMoveError) and common.are_cancelled([upload])):
                common.on_bug(f"a step of {upload}", bug)
            self._busy.discard(upload.id)
            self._on_free()  # what it brought can be put aside now
        finally:
            self._busy.discard(upload.id)

    def _seal_and_check(self, upload: Upload) -> None:
        common = self._common
        queue = common.config.queue(upload.queue, upload.delay)
        if queue is None:
            raise Halt(f"[incoming.{upload.queue}] is gone from the configuration and {upload} waits there; restore it")
        if upload.stage is not Stage.CHECKING:  # else the last try could not even be put back
            upload = common.uploads.move(upload, Stage.CHECKING, common.clock(), "checking")
            common.tell(upload)
        sealed = seal(common.places, upload, queue, common.uploads.members(upload.id))
        if common.stopping.is_set():
            return  # recovery takes it up
        asks = upload.kind is UploadKind.COMMANDS
        report = self._checkers.check(common.places.sealed(upload.id), sealed, queue, common.clock(), commands=asks)
        self._settled(upload.id)
        if report.problems:
            self._reject(upload, report)
        elif asks:
            self._obey(upload, report)
        else:
            due = f"checked; delayed until {codec.timestamp(upload.due_at)}" if upload.delayed and upload.due_at else ""
            message = due or "checked; waits to be published"
            common.tell(common.uploads.queue(upload, report, common.clock(), message))
        self._on_queued()

    def _obey(self, upload: Upload, report: CheckReport) -> None:
        common = self._common
        ended, moved = obey(common.journal, common.places, upload, report, common.clock(), self._signers)
        common.tell(*moved)
        common.ended([ended])
        self._on_free()  # what was cancelled by it can be put aside, and what is due now

    def _signers(self, upload: Upload) -> list[str | None]:
        """Who signed each .changes of an upload that lies in incoming: verified by a worker, like those that are taken.

        Raises ``Retry``.
        """
        common = self._common
        queue, folder = common.config.queue(upload.queue, upload.delay), common.places.asked_for(upload.id)
        if queue is None:
            return []
        try:
            copied = copy_changes(upload, queue, folder, common.config.checks.max_text_file)
            if not copied:
                return []
            # What it lists is not there, so the check finds problems, and names who signed it all the same.
            report = self._checkers.check(folder, Seal(files=copied, problems=()), queue, common.clock())
        except OSError as error:
            raise Retry(f"{folder}: {error.strerror or error}") from error
        finally:
            with contextlib.suppress(OSError):
                fsio.remove_tree(folder)
        return [summary.signed_by for summary in report.summaries]

    def _reject(self, upload: Upload, report: CheckReport) -> None:
        count = len(report.problems)
        message = f"rejected: {count} problem{'' if count == 1 else 's'}"
        uploads, now = self._common.uploads, self._common.clock()
        self._common.ended([uploads.reject(upload, report.problems, now, message, report=report)])

    def _settled(self, upload_id: int) -> None:
        self._backoff.forget(upload_id)
        self._common.board.put_back(upload_id, "")

    def _put_back(self, upload_id: int, failure: Exception) -> None:
        common = self._common
        delay = self._backoff.failed(upload_id, time.monotonic())
        message = f"tried again in {delay:.0f} s: {failure}"
        try:
            upload = common.uploads.get(upload_id)
            if upload.stage.ended:  # cancelled under the step
                self._settled(upload_id)
                return
            log.warning("%s: %s", upload, message)
            common.board.put_back(upload_id, f"{upload} is {message}")
            if upload.stage is Stage.CHECKING:
                upload = common.uploads.move(upload, Stage.CLAIMED, common.clock(), message)
            else:
                common.uploads.log(upload.id, common.clock(), message)
            common.tell(upload)
        except Retry as worse:  # the journal itself: the next try finds the upload as it is
            log.warning("#%d: %s; and that cannot be noted: %s", upload_id, message, worse)
