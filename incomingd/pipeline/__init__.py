"""The one place that knows the whole way of an upload.

::

    intake loop     look, claim ──────────────.
    check threads   copy and hash, then ask   │  each step ends in a journal move, news for
                    a worker process          │  the report loop, and a word to the next
    publish loop    the head of the queue  <──'
    report loop     status files: what the journal says of all that has news

Intake's loop is here; :mod:`.checking` and :mod:`.publishing` are the two that follow, and :mod:`.common` is what they
share. What a .commands file asks for is done by :mod:`.commands`.

Rules:

* Checks run ahead, in any order; the publisher takes the run of checked uploads at the head of the sequence.
* Each of the four kinds of failure has one place in each of the two. Problems end the upload. :class:`Retry` puts it
  back, with the reason in its log, and tries again with back-off. :class:`Halt` stops publishing until the operator has
  acted. Any other exception is unexpected and stops the daemon; the service manager restarts it, from the journal.
* Every loop reports progress to the heartbeat; if one hangs, the service manager's watchdog is not fed.
"""

import contextlib
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from incomingd import recovery
from incomingd.config import Config
from incomingd.errors import Retry
from incomingd.intake import Intake
from incomingd.journal.suites import Suites
from incomingd.model import Cause, Upload, UploadKind
from incomingd.pipeline.checking import Checking
from incomingd.pipeline.common import Common
from incomingd.pipeline.publishing import Publishing
from incomingd.publish import identity
from incomingd.report.health import HealthState
from incomingd.report.heartbeat import Heartbeat
from incomingd.sandbox import profiles
from incomingd.states import Stage

log = logging.getLogger(__name__)

#: With ``--once``, so many tries of an upload that stands aside are waited for.
_ONCE_TRIES = 4


def now() -> datetime:
    """The clock that everything is handed."""
    return datetime.now(UTC)


class Pipeline:
    """All rooms of one instance, put together, and the threads that run them."""

    def __init__(
        self, config: Config, *, clock: Callable[[], datetime] = now, heartbeat: Heartbeat | None = None
    ) -> None:
        self._common = common = Common(
            config, clock, heartbeat or Heartbeat(), lambda: self._publishing.switched, self._bug
        )
        self._publishing = Publishing(common, self._sound, self._in_force, self._look)
        self._checking = Checking(common, self._publishing.wake, self._look)
        self._intake = Intake(
            config,
            common.places,
            common.uploads,
            clock,
            common.tell,
            common.reporter.announce,
            self._checking.take,
            lambda upload: common.ended([upload]),
            common.failures,
        )
        self._lacking = profiles.missing()
        self._threads: list[threading.Thread] = []
        self._failed: list[BaseException] = []
        self._on_failure: Callable[[], None] = lambda: None
        self._looks = 0

    @property
    def config(self) -> Config:
        """The one that is in force."""
        return self._common.config

    @property
    def health_state(self) -> HealthState:
        """The service's health."""
        return self._common.health_state

    @property
    def failure(self) -> BaseException | None:
        """The bug that ended a loop, if one did."""
        return self._failed[0] if self._failed else None

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self, on_failure: Callable[[], None] = lambda: None) -> None:
        """Recover, then run until :meth:`stop`. Returns when every loop is up; ``on_failure`` is told of a bug."""
        self._on_failure = on_failure
        self._checking.start()
        self._recover()
        self._intake.start_watching()
        for name, loop in (
            ("intake", self._intake_loop),
            ("publish", self._publishing.run),
            ("report", self._report_loop),
        ):
            self._common.heartbeat.register(name)
            thread = threading.Thread(target=self._guarded, args=(loop,), name=name)
            self._threads.append(thread)
            thread.start()

    def _recover(self) -> None:
        common = self._common
        recovery.recover(common.config, common.places, common.uploads, common.clock)
        common.delays.come_due(common.clock())  # nothing is checked yet, so nothing is checked twice
        common.reporter.prepare(common.clock())
        common.keeping.start()
        for upload in common.uploads.open():
            if upload.stage is Stage.CLAIMED:
                self._checking.take(upload)

    def stop(self) -> None:
        """Let the current step end, start no other, and wait for the loops."""
        common = self._common
        common.stopping.set()
        self._wake()
        self._intake.wake()
        for thread in self._threads:
            thread.join()
        self._checking.stop()
        common.close()
        self._intake.stop_watching()
        common.health_state.stopped()
        common.reporter.report(whole=True)
        self._publishing.close()
        common.journal.close()

    def _guarded(self, loop: Callable[[], None]) -> None:
        """An unexpected exception in any loop stops the daemon: a restart is safer than running without that loop."""
        try:
            loop()
        except BaseException as bug:  # noqa: BLE001  # it is not passed over: it ends the process
            self._bug(f"the {threading.current_thread().name} loop", bug)
        finally:
            self._common.heartbeat.unregister(threading.current_thread().name)

    def _bug(self, where: str, bug: BaseException) -> None:
        log.critical("a bug ended %s", where, exc_info=bug)
        self._failed.append(bug)
        self._common.stopping.set()
        self._wake()
        self._intake.wake()
        self._on_failure()

    def _wake(self) -> None:
        self._publishing.wake()
        self._common.reporter.wake(now=self._common.stopping.is_set())

    def _sound(self) -> None:
        """The publisher asks, and is made before what it asks."""
        self._checking.sound()

    def _look(self) -> None:
        """What an operator cancelled under a step is attended to by the intake loop."""
        self._intake.wake()

    # -- what the operator asks for -----------------------------------------------------------------------------------

    def reload(self, config: Config) -> None:
        """Have a new configuration taken up, between two publishes."""
        fixed = ("state", "status")
        if any(getattr(config.service, key) != getattr(self.config.service, key) for key in fixed):
            log.warning("[service] state and status are taken up at the next restart only")
            config = replace(config, service=self.config.service)
        self._common.health_state.refuse_config(())
        self._publishing.reload(config)
        self._wake()

    def check(self, config: Config) -> None:
        """Raises :class:`ConfigError` if a suite that clients read has no table in it."""
        suites = Suites(self._common.journal)
        identity.check_tables(config, suites.published() - suites.dropping())

    def refuse(self, errors: tuple[str, ...]) -> None:
        """Tell that a new configuration was refused."""
        self._common.health_state.refuse_config(errors)
        self._common.health_state.reloaded()
        self._common.reporter.wake(now=True)

    def _in_force(self, config: Config) -> None:
        self._checking.reload(config)
        self._intake.reload(config)
        self._intake.wake()

    def requested(self) -> None:
        """An operator has put a request into the journal: look there now."""
        self._publishing.requested()
        self._intake.wake()
        with contextlib.suppress(Retry):  # the next round tells of it
            self._common.tell(*(one for one in self._common.uploads.open() if one.kind is UploadKind.OPERATION))
        self._wake()

    # -- the loops that are not a room's own --------------------------------------------------------------------------

    def _intake_loop(self) -> None:
        common = self._common
        while not common.stopping.is_set():
            common.heartbeat.beat("intake")
            again = self._intake.look()
            self._looks += 1
            common.health_state.set_faults((*self._intake.faults(), *self._checking.faults(), *self._lacking))
            due = self._checking.tend()
            common.reporter.wake()
            self._intake.wait(max(min(again, due, self.config.service.scan_interval, common.heartbeat.idle), 0.0))

    def _report_loop(self) -> None:
        common = self._common
        while not common.stopping.is_set():
            common.heartbeat.beat("report")
            common.reporter.wait(common.heartbeat.idle)
            if common.reporter.report():
                common.heartbeat.status(common.line())
                common.reporter.tidy(common.config.limits.status_for, common.clock())

    # -- once ---------------------------------------------------------------------------------------------------------

    def run_once(self) -> bool:
        """Take in and publish all that is ready now, then stop; True where an upload failed.

        What is complete and only has to settle is waited for; what is incomplete is left, and so is what is delayed,
        once it was checked. Raises :class:`Halt` and :class:`Retry` where publishing cannot go on, instead of waiting
        for better times.
        """
        self.start()
        try:
            while not self._common.stopping.wait(0.02):
                trouble = self._common.health_state.trouble
                if trouble is not None:
                    raise trouble
                if self._publishing.prepared and self._looks and not self._intake.settling() and not self._in_flight():
                    self._tell_left()
                    break
        finally:
            self.stop()
        return self._common.rejections > 0

    def _tell_left(self) -> None:
        """Those that stand aside are left for the next time. Raises ``Retry`` if the machine is at fault."""
        aside = [upload for upload in self._common.uploads.open() if upload.aside]
        for upload in aside:
            log.warning("%s: stands aside and is left for the next time", upload)
        if any(upload.aside is not Cause.UPLOAD for upload in aside):
            raise Retry(f"{len(aside)} uploads stand aside; see their status")

    def _in_flight(self) -> bool:
        common = self._common
        if common.control.cancelled():
            return True
        # Those at work first: one that gets into the line between the two looks is found by the second.
        if any(_is_at_work(upload) for upload in common.uploads.open()):
            return True
        # What waits behind an upload that stands aside is in the line, and not at its head.
        return bool(common.uploads.head(1)) and common.control.held() is None


def _is_at_work(upload: Upload) -> bool:
    """True if an upload that was taken is not queued yet, and ``--once`` waits for it. One that stands aside is tried a
    few times; commands are waited for, since they wait for others themselves."""
    if upload.sequence is None or upload.stage is Stage.QUEUED:
        return False
    if upload.aside is None or upload.stage is not Stage.CLAIMED or upload.kind is UploadKind.COMMANDS:
        return True
    return upload.tries < _ONCE_TRIES
