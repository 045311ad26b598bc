"""From the claim to a place in the queue: each upload is sealed and checked in a thread of its own, in any order.

One that fails for the machine's sake, or cannot be read now, stands aside (:mod:`.aside`) and is tried again here.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime

from incomingd import codec, fsio, rules
from incomingd.config import Config, QueueConfig
from incomingd.errors import Halt, Obstructed, Retry
from incomingd.intake.claimed import Claimed, Sealing
from incomingd.intake.seal import is_bare, seal_bare, seal_listed, seal_texts
from incomingd.intake.withdrawal import copy_changes
from incomingd.journal.uploads import StaleMoveError
from incomingd.model import CheckReport, Seal, Upload, UploadKind, ending, plain
from incomingd.pipeline.aside import Asides, Attempt
from incomingd.pipeline.commands import obey
from incomingd.pipeline.common import Common
from incomingd.states import Stage
from incomingd.verify.keyring import Keyring
from incomingd.verify.keys import KeyTable
from incomingd.verify.pool import Checkers, Task

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
        self._checkers = Checkers(config, common.places.uploaders_home, common.places.checked)
        self._keyring = Keyring(common.places.uploaders_home)
        self._busy: set[int] = set()
        self._aside = Asides(common)

    def start(self) -> None:
        """Take up what an operator did to the keyring with gpg itself, and have a worker ready for the first upload:
        to start what they are forked from takes 0.4 s."""
        for folder in self._common.places.checked:
            fsio.make_directories(folder, 0o700)
        self._hands.submit(self._warm)

    def _warm(self) -> None:
        try:
            self._keyring.prepare()
            self._checkers.warm()
        except Halt:
            self._on_queued()  # the publisher asks whether the checks are sound
        except Retry as failure:
            if not self._common.stopping.is_set():
                log.warning("%s", failure)  # the first upload will say so again

    def sound(self) -> None:
        """Raise ``Halt`` while the checks fail their self-test. If they did, it is made again now."""
        if self._checkers.unsound is not None:
            self._warm()
        if self._checkers.unsound is not None:
            raise self._checkers.unsound

    def stop(self) -> None:
        """End every check; what was in hand is taken up by recovery."""
        self._hands.shutdown(wait=False, cancel_futures=True)
        self._checkers.close()
        self._hands.shutdown()

    def reload(self, config: Config) -> None:
        """Take up a new configuration."""
        self._checkers.reload(config)

    def faults(self) -> tuple[str, ...]:
        """What is wrong with the uploaders' keyring, and which of its keys end soon.

        It is read only if it is another one than the last time.
        """
        try:
            table = self._keyring.load()
        except Retry as failure:
            return (str(failure),)
        shared = (
            f"{shared}: uploads that it signs may be refused; run incomingctl untrust for the one that it does not "
            "belong to"
            for shared in table.shared
        )
        return *shared, *_ending(table, self._common.clock())

    def tend(self) -> float:
        """What is due by now: cancelled and delayed uploads, tries after a back-off, workers that rest. Seconds until
        more is."""
        self._attend_cancelled()
        day = self._attend_delayed()
        for upload in self._aside.due():
            self.take(upload)
        return min(self._checkers.rest(), self._aside.next_in(), self._common.keeping.tend(), day)

    def take(self, upload: Upload) -> None:
        """Have a claimed upload sealed and checked."""
        self._common.tell(upload)
        if not self._common.stopping.is_set() and self._aside.may_start(upload):
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
                self._aside.settled(upload.id)
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
        """Seal and check one upload: one place for each kind of failure."""
        common, attempt = self._common, Attempt(upload.id)
        try:
            self._seal_and_check(upload, attempt)
        except (Retry, Obstructed) as failure:
            if not common.stopping.is_set():  # else its check was ended by the stop, and recovery takes it up
                self._aside.stand(attempt, failure)
        except Halt as failure:
            common.health_state.halt(failure)
            self._aside.stand(attempt, Retry(str(failure)))
        except BaseException as bug:  # noqa: BLE001  # it is not passed over: it ends the process
            if not (isinstance(bug, StaleMoveError) and common.are_cancelled([upload])):
                common.on_bug(f"a step of {upload}", bug)
            self._busy.discard(upload.id)
            self._on_free()  # what it brought can be put aside now
        finally:
            self._busy.discard(upload.id)
            self._aside.ended(upload.id)
        self._on_queued()

    def _seal_and_check(self, upload: Upload, attempt: Attempt) -> None:
        common = self._common
        if upload.nameless:
            self._refuse_name(upload)
            return
        queue = common.config.queue(upload.queue, upload.delay)
        if queue is None:
            raise Halt(f"[incoming.{upload.queue}] is gone from the configuration and {upload} waits there; restore it")
        if upload.stage is not Stage.CHECKING:  # else the last try could not even be put back
            message = None if upload.aside else "checking"
            upload = common.uploads.move(upload, Stage.CHECKING, common.clock(), message)
            common.tell(upload)
        report = self._report(upload, queue, attempt)
        if report is None:
            return  # recovery takes it up
        self._aside.settled(upload.id)
        if report.problems:
            self._reject(upload, report)
        elif upload.kind is UploadKind.COMMANDS:
            self._obey(upload, report)
        else:
            due = f"checked; delayed until {codec.timestamp(upload.due_at)}" if upload.delayed and upload.due_at else ""
            message = due or "checked; waits to be published"
            common.tell(common.uploads.queue(upload, report, common.clock(), message))

    def _report(self, upload: Upload, queue: QueueConfig, attempt: Attempt) -> CheckReport | None:
        """What the checks find; None if the daemon ends. What is not authorised is not copied, nor told of."""
        common, checkers = self._common, self._checkers
        claimed = Claimed(
            places=common.places,
            upload=upload,
            queue=queue,
            members=None if upload.kind is UploadKind.DIRECTORY else common.uploads.members(upload.id),
            room=common.room,
        )
        authorisation = None
        with Sealing(claimed) as sealing:
            texts = seal_texts(sealing, common.config.max_text)
            if common.stopping.is_set():
                return None
            task = Task(folder=claimed.sealed, seal=texts, queue=queue, now=common.clock())
            if upload.kind is UploadKind.COMMANDS:
                return checkers.commands(task)
            if is_bare(claimed, texts):
                sealed = seal_bare(sealing)
            else:
                authorisation = checkers.authorise(task)
                if authorisation.refused:
                    return authorisation.refusal()
                attempt.sources = authorisation.sources()
                sealed = seal_listed(sealing, authorisation.listed())
        if common.stopping.is_set():
            return None
        return checkers.check(replace(task, seal=sealed), authorisation)

    def _refuse_name(self, upload: Upload) -> None:
        """Fail an upload whose name is another account's. Nothing of it is looked at."""
        common = self._common
        holder = common.uploads.newest(upload.name)
        whose = f"that of {_whose(holder)}" if holder else "another account's"
        problem = rules.NAME_TAKEN.problem(f"the name {plain(upload.name)} is {whose}")
        ended = common.uploads.reject(upload, [problem], common.clock(), "rejected: its name is taken")
        self._aside.settled(upload.id)
        common.ended([ended])
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
            task = Task(folder=folder, seal=Seal(files=copied, problems=()), queue=queue, now=common.clock())
            found = self._checkers.authorise(task)
        except OSError as error:
            raise Retry(f"{folder}: {error.strerror or error}") from error
        finally:
            with contextlib.suppress(OSError):
                fsio.remove_tree(folder)
        return [summary.signed_by for summary in found.summaries]

    def _reject(self, upload: Upload, report: CheckReport) -> None:
        count = len(report.problems)
        message = f"rejected: {count} problem{'' if count == 1 else 's'}"
        uploads, now = self._common.uploads, self._common.clock()
        self._common.ended([uploads.reject(upload, report.problems, now, message, report=report)])


def _ending(table: KeyTable, now: datetime) -> Iterator[str]:
    """A sentence for each key that ends soon."""
    for uploader in table.uploaders:
        if within := ending(uploader.ends(now), now):
            yield (
                f"the key {uploader} ends {within}, on {uploader.expiry(now)}: what it signs is refused from then on; "
                "have it extended, and trust it again"
            )


def _whose(upload: Upload) -> str:
    account = f"{upload.account} (uid {upload.uid})" if upload.account else f"uid {upload.uid}"
    return f"upload #{upload.id} of {'the operator' if upload.uid is None else account}"
