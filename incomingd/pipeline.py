"""The one place that knows the whole way of an upload.

::

    intake loop     look, claim ──────────────.
    check threads   copy and hash, then ask   │  each step ends in a journal move, news for
                    a worker process          │  the report loop, and a word to the next
    publish loop    the head of the queue  <──'
    report loop     status files: what the journal says of all that has news

Rules:

* Checks run ahead, in any order; the publisher takes the run of checked uploads at the head of the sequence.
* Each of the four kinds of failure has one place here. Problems end the upload. :class:`Retry` puts it back, with the
  reason in its log, and tries again with back-off. :class:`Halt` stops publishing until the operator has acted.
  Anything else is a bug and ends the process: the service manager starts it anew, from the journal.
* Every loop beats the pulse with what it really does; where one hangs, the service manager's watchdog is not fed.
"""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

from incomingd import recovery
from incomingd.backoff import Backoff
from incomingd.config import Config
from incomingd.errors import Halt, Retry
from incomingd.intake import Intake
from incomingd.intake.remains import discard_remains, reject_remains
from incomingd.intake.seal import seal
from incomingd.journal import Journal
from incomingd.journal.control import Control
from incomingd.journal.uploads import StaleMoveError, Uploads
from incomingd.model import CheckReport, Upload, UploadKind
from incomingd.places import Places
from incomingd.publish.publisher import Publisher
from incomingd.publish.sign import Signer
from incomingd.report.health import Board
from incomingd.report.pulse import Pulse
from incomingd.report.reporter import Reporter
from incomingd.states import Stage
from incomingd.verify.pool import Checkers

log = logging.getLogger(__name__)

#: So many more uploads than there are check workers are in hand at once: they are sealed meanwhile.
_SEAL_AHEAD = 2
#: After a halt the publisher looks by itself whether the cause is gone this often, in seconds.
_HALT_RETRY = 60.0


def now() -> datetime:
    """The clock that everything is handed."""
    return datetime.now(UTC)


class Pipeline:
    """All rooms of one instance, put together, and the threads that run them."""

    def __init__(self, config: Config, *, clock: Callable[[], datetime] = now, pulse: Pulse | None = None) -> None:
        self._clock = clock
        self._pulse = pulse or Pulse()
        self.places = Places(config)
        self.journal = Journal(self.places.journal)
        self.uploads = Uploads(self.journal)
        self._control = Control(self.journal)
        self.board = Board(started_at=clock())
        # Held from a commit to its switch, and while anybody tells what the journal says: nobody may see SUCCEEDED
        # before an apt client sees the package.
        self._visible = threading.Lock()
        self._reporter = Reporter(
            self.places, self.uploads, self.board, self._visible, lambda: self._publisher.switched
        )
        self._stopping = threading.Event()
        self._work = threading.Event()  # for the publish loop
        self._asked = threading.Event()  # ends its rests
        self._busy: set[int] = set()  # uploads that are being sealed and checked
        self._failed: list[BaseException] = []
        self._on_failure: Callable[[], None] = lambda: None
        self._backoff = Backoff()  # of uploads, by id
        self._publish_backoff = Backoff()
        self._looks = 0
        self._interrupted = False  # a publish failed, perhaps at its commit
        self._rejections = 0
        self._threads: list[threading.Thread] = []
        self._hands = ThreadPoolExecutor(_workers(config) + _SEAL_AHEAD, thread_name_prefix="check")
        self._clearing = ThreadPoolExecutor(1, thread_name_prefix="clear")
        self._checkers = Checkers(config, self.places.uploaders_home)
        self._intake = Intake(
            config, self.places, self.uploads, clock, self._tell, self._reporter.announce, self._claimed
        )
        self._new_config = config
        self._set_config(config)

    def _set_config(self, config: Config) -> None:
        self.config = config
        self.places = Places(config)
        self._signer = Signer(self.places.signing_home, config.archive.signing_keys)
        self._publisher = Publisher(
            config, self.journal, self._signer, self._clock, self._visible, lambda: self._pulse.beat("publish")
        )
        self._prepared = False

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self, on_failure: Callable[[], None] = lambda: None) -> None:
        """Recover, then run until :meth:`stop`. Returns when every loop is up; ``on_failure`` is told of a bug."""
        self._on_failure = on_failure
        self._hands.submit(self._warm)
        self._recover()
        self._intake.start_watching()
        for name, loop in (
            ("intake", self._intake_loop),
            ("publish", self._publish_loop),
            ("report", self._report_loop),
        ):
            self._pulse.register(name)
            thread = threading.Thread(target=self._guarded, args=(loop,), name=name)
            self._threads.append(thread)
            thread.start()

    def _warm(self) -> None:
        try:
            self._checkers.warm()
        except Retry as failure:
            if not self._stopping.is_set():
                log.warning("%s", failure)  # the first upload will say so again

    def _recover(self) -> None:
        recovery.recover(self.config, self.places, self.uploads, self._clock)
        self._reporter.prepare()
        for upload in self.uploads.open():
            if upload.stage is Stage.CLAIMED:
                self._claimed(upload)

    def stop(self) -> None:
        """Let the step in hand end, start no other, and wait for the loops."""
        self._stopping.set()
        self._wake()
        self._intake.wake()
        for thread in self._threads:
            thread.join()
        self._hands.shutdown(wait=False, cancel_futures=True)
        self._checkers.close()
        self._hands.shutdown()
        self._clearing.shutdown()
        self._intake.stop_watching()
        self.board.stopped()
        self._reporter.report(whole=True)
        self._signer.close()
        self.journal.close()

    @property
    def failure(self) -> BaseException | None:
        """The bug that ended a loop, if one did."""
        return self._failed[0] if self._failed else None

    def _guarded(self, loop: Callable[[], None]) -> None:
        """A bug in a loop ends the process, with its trace in the log: half a daemon is worse than none."""
        try:
            loop()
        except BaseException as bug:  # noqa: BLE001  # it is not passed over: it ends the process
            self._bug(f"the {threading.current_thread().name} loop", bug)
        finally:
            self._pulse.unregister(threading.current_thread().name)

    def _bug(self, where: str, bug: BaseException) -> None:
        log.critical("a bug ended %s", where, exc_info=bug)
        self._failed.append(bug)
        self._stopping.set()
        self._wake()
        self._intake.wake()
        self._on_failure()

    def _wake(self) -> None:
        self._work.set()
        self._reporter.wake(now=self._stopping.is_set())

    def reload(self, config: Config) -> None:
        """Have a new configuration taken up, between two publishes."""
        fixed = ("state", "status")
        if any(getattr(config.service, key) != getattr(self.config.service, key) for key in fixed):
            log.warning("[service] state and status are taken up at the next restart only")
            config = replace(config, service=self.config.service)
        self._new_config = config
        self.board.refuse_config(())
        self._wake()

    def refuse(self, errors: tuple[str, ...]) -> None:
        """Tell that a new configuration was refused."""
        self.board.refuse_config(errors)
        self._reporter.wake()

    def _take_up(self, config: Config) -> None:
        old = self._signer
        with self._visible:
            self._set_config(config)
        old.close()
        self._checkers.reload(config)
        self._intake.reload(config)
        self._intake.wake()
        log.info("the new configuration is in force")

    def requested(self) -> None:
        """An operator has put a request into the journal: look there now."""
        self._asked.set()
        self._intake.wake()
        with contextlib.suppress(Retry):  # the next round tells of it
            self._tell(*(upload for upload in self.uploads.open() if upload.kind is UploadKind.OPERATION))
        self._wake()

    # -- intake -------------------------------------------------------------------------------------------------------

    def _intake_loop(self) -> None:
        while not self._stopping.is_set():
            self._pulse.beat("intake")
            again = self._intake.look()
            self._looks += 1
            self.board.set_faults(self._intake.faults())
            self._attend_cancelled()
            rest = self._checkers.rest()
            for upload_id in self._backoff.due(time.monotonic()):
                self._claimed(self.uploads.get(upload_id))
            self._reporter.wake()
            pause = min(again, rest, self.config.service.scan_interval, self._pulse.idle)
            pause = min(pause, self._backoff.next_in(time.monotonic()))
            self._intake.wait(max(pause, 0.0))

    def _attend_cancelled(self) -> None:
        """Tell of what was cancelled; what it brought is put aside once no step is at work on it."""
        try:
            cancelled = self.uploads.many(self._control.cancelled())
            self._tell(*(upload for upload in cancelled if upload.id in self._busy))
            done = [upload for upload in cancelled if upload.id not in self._busy]
            self._ended(done)
            for upload in done:
                self._backoff.forget(upload.id)
                self.board.put_back(upload.id, "")
            self._control.forget_cancelled(upload.id for upload in done)
        except Retry as failure:
            log.warning("cancelled uploads are attended to later: %s", failure)

    def _claimed(self, upload: Upload) -> None:
        self._tell(upload)
        if not self._stopping.is_set():
            self._busy.add(upload.id)
            self._hands.submit(self._step, upload)

    def _step(self, upload: Upload) -> None:
        """Seal and check one upload in a thread of its own; its environment's failures bring it back here later."""
        try:
            self._seal_and_check(upload)
        except Retry as failure:
            if not self._stopping.is_set():  # else its check was ended by the stop, and recovery takes it up
                self._put_back(upload.id, failure)
        except Halt as failure:
            self.board.halt(failure)
            self._put_back(upload.id, failure)
        except BaseException as bug:  # noqa: BLE001  # as in _guarded
            if not (isinstance(bug, StaleMoveError) and self._cancelled([upload])):
                self._bug(f"a step of {upload}", bug)
            self._busy.discard(upload.id)
            self._intake.wake()  # what it brought can be put aside now
        finally:
            self._busy.discard(upload.id)

    def _cancelled(self, uploads: Iterable[Upload]) -> bool:
        """True where an operator has cancelled one of them under the mover."""
        return any(upload.stage is Stage.CANCELLED for upload in self.uploads.many(one.id for one in uploads))

    def _put_back(self, upload_id: int, failure: Exception) -> None:
        delay = self._backoff.failed(upload_id, time.monotonic())
        upload = self.uploads.get(upload_id)
        if upload.stage.ended:  # cancelled under the step
            return
        message = f"tried again in {delay:.0f} s: {failure}"
        log.warning("%s: %s", upload, message)
        self.board.put_back(upload_id, f"{upload} is {message}")
        if upload.stage is Stage.CHECKING:
            upload = self.uploads.move(upload, Stage.CLAIMED, self._clock(), message)
        else:
            self.uploads.log(upload.id, self._clock(), message)
        self._tell(self.uploads.get(upload.id))

    def _seal_and_check(self, upload: Upload) -> None:
        queue = self.config.queue(upload.queue)
        if queue is None:
            raise Halt(f"[incoming.{upload.queue}] is gone from the configuration and {upload} waits there; restore it")
        upload = self.uploads.move(upload, Stage.CHECKING, self._clock(), "checking")
        self._tell(upload)
        sealed = seal(self.places, upload, queue, self.uploads.members(upload.id))
        if self._stopping.is_set():
            return  # recovery takes it up
        report = self._checkers.check(self.places.sealed(upload.id), sealed, queue, self._clock())
        self._backoff.forget(upload.id)
        self.board.put_back(upload.id, "")
        if report.problems:
            self._reject(upload, report)
        else:
            upload = self.uploads.queue(upload, report, self._clock(), "checked; waits to be published")
            self._tell(upload)
        self._wake()

    def _reject(self, upload: Upload, report: CheckReport) -> None:
        count = len(report.problems)
        message = f"rejected: {count} problem{'' if count == 1 else 's'}"
        upload = self.uploads.reject(upload, report.problems, self._clock(), message, report=report)
        self._ended([upload])

    # -- publishing ---------------------------------------------------------------------------------------------------

    def _publish_loop(self) -> None:
        pause = 0.0
        while not self._stopping.is_set():
            self._pulse.beat("publish")
            self._work.wait(pause)
            self._work.clear()
            pause = self._publish_some()

    def _publish_some(self) -> float:
        """One publish, or one piece of housekeeping; the seconds until there may be more to do."""
        if self._stopping.is_set():
            return 0.0
        try:
            if self._new_config is not self.config:
                self._take_up(self._new_config)
            self._asked.clear()
            if not self._prepared:
                self._prepare()
            if self._interrupted:
                self._publisher.put_back()
                self._interrupted = False
            if self._on_hold():
                return self._pulse.idle
            batch = self.uploads.head(self.config.publish.batch)
            if batch:
                self._publish(batch)
                return 0.0
            return 0.0 if self._publisher.tidy() else self._pulse.idle
        except Retry as failure:
            self._interrupted = True
            delay = self._publish_backoff.failed(0, time.monotonic())
            log.warning("publishing waits %.0f s: %s", delay, failure)
            self.board.degrade(failure)
            self._pulse.ready()
            return self._rest(delay)
        except Halt as failure:
            log.error("publishing is halted: %s", failure)
            self.board.halt(failure)
            self._prepared = False
            self._interrupted = True
            self._pulse.ready()
            return self._rest(_HALT_RETRY)

    def _rest(self, seconds: float) -> float:
        """Wait, whatever uploads arrive meanwhile; a stop, a reload and an operator's request end it."""
        self._reporter.wake()
        until = time.monotonic() + seconds
        ends = (self._stopping, self._asked)
        while time.monotonic() < until and self._new_config is self.config and not any(e.is_set() for e in ends):
            self._pulse.beat("publish")
            self._stopping.wait(min(0.2, self._pulse.idle))
        return 0.0

    def _prepare(self) -> None:
        self._publisher.prepare()
        self._prepared = True
        self.board.clear_halt()
        self.board.clear_degraded()
        self.board.doing("waiting for uploads")
        self._reporter.wake(now=True)
        self._pulse.ready()

    def _on_hold(self) -> bool:
        held = self._control.held()
        if self.board.hold(str(held) if held else ""):
            log.info("%s", held or "publishing is no longer on hold")
            self._reporter.wake(now=True)
        return held is not None

    def _publish(self, batch: list[Upload]) -> None:
        self.board.doing(f"publishing {len(batch)} upload{'' if len(batch) == 1 else 's'}")
        try:
            ended = self._publisher.publish(batch)
        except StaleMoveError:
            if not self._cancelled(batch):
                raise
            self._intake.wake()
            # Nothing was published; what was rejected before it came to that has ended all the same.
            ended = [one for one in self.uploads.many(u.id for u in batch) if one.stage is Stage.REJECTED]
        except (Retry, Halt):
            self._put_off(batch)
            raise
        finally:
            self.board.doing("waiting for uploads")
        self._publish_backoff.forget(0)
        self.board.clear_degraded()
        self._ended(ended)

    def _put_off(self, batch: list[Upload]) -> None:
        """Tell those that wait on why they do; what was rejected before it came to that has ended all the same."""
        now = self.uploads.many(upload.id for upload in batch)
        self._tell(*(one for one in now if one.stage is not Stage.REJECTED))
        self._ended(one for one in now if one.stage is Stage.REJECTED)

    def _ended(self, uploads: Iterable[Upload]) -> None:
        """Tell first; what an upload brought is cleared away after that, and by recovery where that fails."""
        ended = list(uploads)
        for upload in ended:
            log.info("%s: %s", upload, upload.log[-1].message)
            self._rejections += upload.stage is not Stage.PUBLISHED
        self._tell(*ended)
        for upload in ended:
            self._clearing.submit(self.clear_away, upload)

    def clear_away(self, upload: Upload) -> None:
        """Keep what a failed upload brought, or remove what a published one no longer needs."""
        queue = self.config.queue(upload.queue)
        try:
            if upload.stage is Stage.PUBLISHED:
                discard_remains(self.places, upload, queue)
            else:
                reject_remains(self.places, upload, queue)
        except OSError as error:
            log.warning("%s: cannot be cleared away yet: %s", upload, error)

    # -- telling ------------------------------------------------------------------------------------------------------

    def _tell(self, *uploads: Upload) -> None:
        self._reporter.tell(uploads)

    def _report_loop(self) -> None:
        while not self._stopping.is_set():
            self._pulse.beat("report")
            self._reporter.wait(self._pulse.idle)
            self._reporter.report()
            self._pulse.status(self._line())

    def _line(self) -> str:
        """What the service manager shows: how it is, and how many uploads are taken in and not published yet."""
        try:
            waiting = len(self.uploads.line())
        except Retry:  # the reporter has told why
            return self.board.health().line()
        return f"{self.board.health().line()}; {waiting} in the queue"

    # -- once ---------------------------------------------------------------------------------------------------------

    def run_once(self) -> bool:
        """Take in and publish all that is ready now, then stop; True where an upload failed.

        What is complete and only has to settle is waited for; what is incomplete is left. Raises :class:`Halt` and
        :class:`Retry` where publishing cannot go on, instead of waiting for better times.
        """
        self.start()
        try:
            while not self._stopping.wait(0.02):
                trouble = self.board.trouble
                if trouble is not None:
                    raise trouble
                if self._prepared and self._looks and not self._intake.settling() and not self._in_flight():
                    break
        finally:
            self.stop()
        return self._rejections > 0

    def _in_flight(self) -> bool:
        held = self._control.held() is not None
        return bool(self._control.cancelled()) or any(
            upload.sequence is not None and not (held and upload.stage is Stage.QUEUED)
            for upload in self.uploads.open()
        )


def _workers(config: Config) -> int:
    return config.service.workers or os.cpu_count() or 1
