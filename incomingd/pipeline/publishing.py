"""The publish loop: the run of checked uploads at the head of the queue, again and again, by one thread.

A configuration is taken up here, between two publishes. :class:`~incomingd.errors.Retry` waits and tries again;
:class:`~incomingd.errors.Halt` stops publishing until the operator has acted: asked for something, reloaded, or mended
it, which is looked at once a minute.
"""

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable

from incomingd.backoff import Backoff
from incomingd.config import Config
from incomingd.errors import Halt, Retry
from incomingd.journal.uploads import StaleMoveError
from incomingd.model import Upload
from incomingd.pipeline.common import Common
from incomingd.pipeline.disk import DiskUse
from incomingd.publish.publisher import Publisher
from incomingd.publish.sign import Signer
from incomingd.states import Stage

log = logging.getLogger(__name__)

#: While more is being checked a publish waits for it, at most as long as the last publish took, and this many seconds.
#: A lone upload never waits. 300 at once into 50,000 packages: 41 a second without, since each index is made too often.
_GATHER, _LOOK = 0.5, 0.02
#: Old generations and superseded files are cleared away between two publishes where uploads have left no pause for it
#: during so many.
_UNTIDIED = 10
#: After a halt the publisher looks by itself whether the cause is gone this often, in seconds.
_HALT_RETRY = 60.0
#: Seconds between two looks at the archive's keys.
_KEYS_EVERY = 3600.0


class Publishing:
    """The one thread that changes the archive.

    ``sound`` raises ``Halt`` if the checks cannot be relied on: then nothing is published. ``on_config`` is told of a
    configuration that is in force now, ``on_cancelled`` that an upload was cancelled under a publish.
    """

    def __init__(
        self,
        common: Common,
        sound: Callable[[], None],
        on_config: Callable[[Config], None],
        on_cancelled: Callable[[], None],
    ) -> None:
        self._common = common
        self._sound = sound
        self._on_config = on_config
        self._on_cancelled = on_cancelled
        self._new_config = common.config
        self._work = threading.Event()
        self._asked = threading.Event()  # ends a rest
        self._backoff = Backoff()
        self._disk = DiskUse()
        self.prepared = False
        self._took = 0.0  # seconds that the last publish took
        self._untidied = 0  # publishes since all was tidy
        self._keys_due = float("-inf")  # when the archive's keys are looked at again
        self._warned: tuple[str, ...] = ()
        self._interrupted = False  # a publish failed, perhaps at its commit
        self._signer, self._publisher = self._make()

    def _make(self) -> tuple[Signer, Publisher]:
        common = self._common
        signer = Signer(common.places.signing_home, common.config.archive.signing_keys)
        beat = lambda: common.heartbeat.beat("publish")  # noqa: E731  # a name for it says enough
        return signer, Publisher(common.config, common.journal, signer, common.clock, common.visible, beat)

    @property
    def switched(self) -> bool:
        """True where clients see all that is committed."""
        return self._publisher.switched

    def close(self) -> None:
        """End the signing agent, and what adds up in the background."""
        self._signer.close()
        self._disk.close()

    # -- from other threads -------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """There may be something to publish."""
        self._work.set()

    def reload(self, config: Config) -> None:
        """Have a new configuration taken up, between two publishes."""
        self._new_config = config
        self.wake()

    def requested(self) -> None:
        """An operator has asked for something: do not rest now."""
        self._asked.set()
        self.wake()

    # -- the loop -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Publish until the pipeline stops."""
        pause = 0.0
        while not self._common.stopping.is_set():
            self._common.heartbeat.beat("publish")
            self._work.wait(pause)
            self._work.clear()
            pause = self._some()

    def _some(self) -> float:
        """One publish, or one piece of housekeeping; the seconds until there may be more to do."""
        common = self._common
        if common.stopping.is_set():
            return 0.0
        try:
            return self._next()
        except Retry as failure:
            self._interrupted = True
            delay = self._backoff.failed(0, time.monotonic())
            log.warning("publishing failed, retrying in %.0f s: %s", delay, failure)
            common.health_state.degrade(failure)
            common.heartbeat.ready()
            return self._rest(delay)
        except Halt as failure:
            log.error("publishing is halted: %s", failure)
            common.health_state.halt(failure)
            self.prepared = False
            self._interrupted = True
            common.heartbeat.ready()
            return self._rest(_HALT_RETRY)

    def _next(self) -> float:
        if self._new_config is not self._common.config:
            self._take_up(self._new_config)
        self._asked.clear()
        self._sound()
        if not self.prepared:
            self._prepare()
        if self._interrupted:
            self._publisher.put_back()
            self._interrupted = False
        if self._on_hold():
            return 0.0 if self._common.discard_some() else self._common.heartbeat.idle
        if self._common.uploads.head(1):
            if seconds := self._wait():
                return 0.0 if self._tidy() else seconds
            self._publish_head()
            return 0.0
        if self._common.uploads.more_come():
            return self._common.heartbeat.idle  # whoever checks them wakes this loop
        return 0.0 if self._tidy() or self._publisher.improve() else self._common.heartbeat.idle

    def _wait(self) -> float:
        """Seconds until what has come may be published, if superseded indexes use up their space."""
        seconds = self._publisher.wait()
        if seconds:
            self._common.health_state.doing(
                f"publishing again in {math.ceil(seconds)} s: [publish] index_space is used up"
            )
            self._common.reporter.wake()
        return min(seconds, self._common.heartbeat.idle)

    def _publish_head(self) -> None:
        if self._untidied >= _UNTIDIED:
            while self._common.discard_some():  # all of it, or a line that never ends would fill the disk
                pass
            self._tidy()
        self._gather()
        started = time.monotonic()
        batch = self._common.uploads.head(self._common.config.publish.batch)
        if batch:  # else an operator has cancelled them
            self._publish(batch)
        self._took = time.monotonic() - started
        self._untidied += 1
        self._note_disk()

    def _tidy(self) -> bool:
        """One piece of housekeeping; True where there may be more."""
        if self._common.discard_some() or self._publisher.tidy():
            return True
        if self._untidied:
            self._settle()
        self._untidied = 0
        self._note_disk()
        self._note_keys()
        return False

    def _note_disk(self) -> None:
        """Tell what is used on the disk. Nothing is added up for it here."""
        common = self._common
        with contextlib.suppress(OSError):  # the next one that needs the disk tells of it
            disk = self._disk.look(common.config, common.journal.path, self._publisher.space())
            common.health_state.use(disk, self._publisher.overfull())

    def _note_keys(self) -> None:
        """Tell in time what will be wrong with the archive's keys."""
        if time.monotonic() >= self._keys_due:
            self._keys_due = time.monotonic() + _KEYS_EVERY
            warnings = self._signer.warnings(self._common.clock())
            for warning in warnings:
                if warning not in self._warned:
                    log.warning("%s", warning)
            self._warned = warnings
            self._common.health_state.warn_of_keys(warnings)
            self._common.reporter.wake()

    def _settle(self) -> None:
        """On a full disk the journal's log stays as it is until after the next publish; nothing waits for it."""
        try:
            self._common.journal.settle()
        except Retry as failure:
            log.warning("%s", failure)

    def _gather(self) -> None:
        """Wait a moment for those that are being checked: one publish of many costs little more than one of few."""
        until = time.monotonic() + min(self._took, _GATHER)
        while time.monotonic() < until and not self._common.stopping.is_set() and self._common.uploads.more_come():
            self._common.stopping.wait(_LOOK)

    def _rest(self, seconds: float) -> float:
        """Wait, whatever uploads arrive meanwhile; a stop, a reload and an operator's request end it."""
        common = self._common
        common.reporter.wake()
        until = time.monotonic() + seconds
        ends = (common.stopping, self._asked)
        while time.monotonic() < until and self._new_config is common.config and not any(e.is_set() for e in ends):
            common.heartbeat.beat("publish")
            common.stopping.wait(min(0.2, common.heartbeat.idle))
        return 0.0

    def _take_up(self, config: Config) -> None:
        old = self._signer
        with self._common.visible:
            self._common.take_up(config)
            self._signer, self._publisher = self._make()
            self.prepared = False
        old.close()
        self._on_config(config)
        self._common.health_state.reloaded()
        self._common.reporter.wake(now=True)
        log.info("the new configuration is in force")

    def _prepare(self) -> None:
        common = self._common
        self._publisher.prepare()
        self.prepared = True
        common.health_state.clear_halt()
        common.health_state.clear_degraded()
        common.health_state.doing("waiting for uploads")
        self._note_disk()
        self._keys_due = float("-inf")
        common.reporter.wake(now=True)
        common.heartbeat.ready()

    def _on_hold(self) -> bool:
        held = self._common.control.held()
        if self._common.health_state.hold(str(held) if held else ""):
            log.info("%s", held or "publishing is no longer on hold")
            self._common.reporter.wake(now=True)
        return held is not None

    def _publish(self, batch: list[Upload]) -> None:
        common = self._common
        common.health_state.doing(f"publishing {len(batch)} upload{'' if len(batch) == 1 else 's'}")
        try:
            ended = self._publisher.publish(batch)
        except StaleMoveError:
            if not common.are_cancelled(batch):
                raise
            self._on_cancelled()
            # Nothing was published; what was rejected before it came to that has ended all the same.
            ended = [one for one in common.uploads.many(u.id for u in batch) if one.stage is Stage.REJECTED]
        except (Retry, Halt):
            self._put_off(batch)
            raise
        finally:
            common.health_state.doing("waiting for uploads")
        self._backoff.forget(0)
        common.health_state.clear_degraded()
        common.ended(ended)

    def _put_off(self, batch: list[Upload]) -> None:
        """Tell those that wait on why they do; what was rejected before it came to that has ended all the same."""
        now = self._common.uploads.many(upload.id for upload in batch)
        self._common.tell(*(one for one in now if one.stage is not Stage.REJECTED))
        self._common.ended(one for one in now if one.stage is Stage.REJECTED)
