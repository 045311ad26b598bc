"""Publishes the run of checked uploads at the head of the queue: the one hand that changes the archive.

The order of one publish, 2 and 3 side by side, and what a power cut after each step leaves:

1. Decide each upload in sequence (:mod:`.decide`). *Nothing has happened.*
2. Place the pool files (:mod:`.pool`). *Files that no index lists; start-up sweeps them.*
3. Make a whole new generation of each suite touched (:mod:`.generation`). *A folder that nothing points to; swept.*
4. One transaction: uploads published, catalogue changed, generations current. **The commit.** *Start-up does step 5.*
5. Switch each suite's link. Only now may anybody be told.

Whatever fails before the commit puts the uploads back into the queue: :class:`~incomingd.errors.Retry` for the
environment, :class:`~incomingd.errors.Halt` for the operator.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime, timedelta

from incomingd import fsio
from incomingd.config import Config
from incomingd.errors import Halt, Retry
from incomingd.journal import Journal
from incomingd.journal.blocks import Blocks
from incomingd.journal.catalogue import Catalogue, Change
from incomingd.journal.generations import Generation, Generations
from incomingd.journal.uploads import Uploads
from incomingd.model import Published, SuiteResult, Upload, UploadKind
from incomingd.places import Places
from incomingd.publish.bulk import Importer
from incomingd.publish.decide import Decision, Overlay, decide
from incomingd.publish.generation import Built, GenerationBuilder
from incomingd.publish.operations import decide_operation
from incomingd.publish.pool import Pool, environment
from incomingd.publish.sign import Signer
from incomingd.states import Stage

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Accepted:
    upload: Upload
    decision: Decision


class Publisher:
    """The archive's writer. Only one thread of one process may use it.

    ``visible`` guards what others may tell; ``progress`` is called now and then in the long steps.
    """

    def __init__(
        self,
        config: Config,
        journal: Journal,
        signer: Signer,
        clock: Callable[[], datetime],
        visible: threading.Lock,
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        self._config = config
        self._places = Places(config)
        self._journal = journal
        self._uploads = Uploads(journal)
        self._catalogue = Catalogue(journal)
        self._generations = Generations(journal)
        self._blocks = Blocks(journal)
        self._pool = Pool(config.archive.root, self._catalogue, progress)
        self._builder = GenerationBuilder(config, self._catalogue, self._generations, self._blocks, signer, progress)
        self._signer = signer
        self._clock = clock
        self._visible = visible
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="pool")
        self._importer = Importer(config, journal, self._builder, self._pool, clock, progress)
        #: True where clients see all that the journal has as published: only then may anybody be told.
        self.switched = all(self._is_switched(suite.name) for suite in config.suites)

    def prepare(self) -> None:
        """Bring the archive to what the journal says: at start-up, after a reload, after a halt.

        Raises :class:`Halt` where nothing can be published, and :class:`Retry`.
        """
        self._signer.usable()
        with environment():
            for folder in ("dists", "pool"):
                fsio.make_directories(self._places.archive / folder)
            self._blocks.sweep()
            for path in self._pool.sweep():
                log.info("removed %s, which an interrupted publish left", path)
            for suite in self._config.suites:
                current = self._generations.current(suite.name)
                self._ours(suite.name, current)
                self._builder.sweep(suite.name, current)
                if current:
                    self._switch(suite.name, current.number)
            self.switched = True
            self._publish_keys()
            self._settings_changed()

    def _ours(self, suite_name: str, current: Generation | None) -> None:
        """A suite that clients see and the journal does not know: an empty one must not take its place."""
        link = self._places.suite_link(suite_name)
        if current is None and link.is_symlink() and str(link.readlink()).startswith(f".generations/{suite_name}/"):
            raise Halt(
                f"{link} is published, and {self._journal.path} knows nothing of it; restore the journal that belongs "
                f"to this archive (docs/operators.md), or move {link} away to begin with an empty suite; then reload"
            )

    def put_back(self) -> None:
        """Put what a publish left behind when it failed into the queue again. Raises ``Retry``.

        A publish does so itself where it can; where its commit failed, the journal itself cannot be written.
        """
        with self._journal.writing():
            for upload in self._uploads.open():
                if upload.stage is Stage.PUBLISHING:
                    self._uploads.move(upload, Stage.QUEUED, self._clock(), "not published yet: the journal failed")

    def publish(self, batch: Sequence[Upload]) -> list[Upload]:
        """Publish uploads that are ``queued``, in the given order; return them as they ended."""
        if batch and self._importer.is_import(batch[0]):
            return [self._importer.publish(batch[0], self._commit_import)]
        ended: list[Upload] = []
        accepted: list[_Accepted] = []
        archive = Overlay(self._catalogue)
        for upload in batch:
            decision = self._decide(upload, archive)
            if decision.problems:
                message = f"rejected: {len(decision.problems)} problem(s) with what the archive holds"
                ended.append(self._uploads.reject(upload, decision.problems, self._clock(), message))
            else:
                archive.add(decision)
                accepted.append(_Accepted(upload, decision))
        if accepted:
            ended += self._publish_accepted(accepted)
        return ended

    def _decide(self, upload: Upload, archive: Overlay) -> Decision:
        if upload.kind is UploadKind.OPERATION:
            operation = self._uploads.operation(upload.id)
            return decide_operation(operation, self._catalogue, self._generations, self._config)
        return decide(self._uploads.facts(upload.id), archive, self._config)

    def _publish_accepted(self, accepted: list[_Accepted]) -> list[Upload]:
        with self._journal.writing(durable=False):  # recovery puts them into the queue again
            accepted = [
                _Accepted(self._uploads.move(one.upload, Stage.PUBLISHING, self._clock()), one.decision)
                for one in accepted
            ]
        try:
            with environment():
                placing = self._beside.submit(self._place, accepted)
                try:
                    built = self._build(accepted)
                finally:
                    wait([placing])
                placing.result()
        except (Retry, Halt) as failure:
            with self._journal.writing():
                for one in accepted:
                    self._uploads.move(one.upload, Stage.QUEUED, self._clock(), f"not published yet: {failure}")
            raise
        with self._visible:
            ended = self._commit(accepted, built)
            self._committed(built)
        return ended

    def _place(self, accepted: Iterable[_Accepted]) -> None:
        self._pool.place(
            (file, self._places.sealed(one.upload.id) / file.file.name)
            for one in accepted
            for file in one.decision.pool
        )

    def _commit_import(self, commit: Callable[[], Upload], built: list[Built]) -> Upload:
        with self._visible:
            ended = commit()
            self._committed(built)
        return ended

    def _build(self, accepted: list[_Accepted]) -> list[Built]:
        """A new generation of each suite that changes."""
        stanzas = {p.key: p.stanza for one in accepted for p in one.decision.packages}
        by_suite: dict[str, dict[tuple[str, str], Change]] = {}
        for one in accepted:
            for suite_name, change in one.decision.changes:
                by_suite.setdefault(suite_name, {})[change.section, change.name] = change
        built = []
        for suite_name, changes in by_suite.items():
            suite = self._config.suite(suite_name)
            if suite is None:
                raise Halt(f"[suites.{suite_name}] is no longer configured")
            uploads = [str(one.upload) for one in accepted if suite_name in one.decision.suites]
            reason = f"{len(uploads)} uploads" if len(uploads) > 3 else ", ".join(uploads)
            built.append(self._builder.build(suite, changes.values(), stanzas, reason, self._clock()))
        return built

    def _commit(self, accepted: list[_Accepted], built: list[Built]) -> list[Upload]:
        now = self._clock()
        numbers = {one.generation.suite: one.generation.number for one in built}
        with self._journal.writing():
            for one in accepted:
                self._catalogue.add_pool_files(one.decision.pool, one.upload.id, now)
                self._catalogue.add_packages(one.decision.packages, one.upload.id, now)
                for file in one.decision.published_changes:
                    self._catalogue.add_published_changes(file.digests.sha256, one.upload.id, file.name)
                for suite, change in one.decision.changes:
                    self._catalogue.apply(suite, numbers[suite], [(change, one.upload.id)], now)
            self._add_generations(built)
            self._catalogue.forget_intents()
            current = current_generations(self._generations, self._config)
            return [self._published(one, current, now) for one in accepted]

    def _add_generations(self, built: Iterable[Built]) -> None:
        for one in built:
            self._generations.add(one.generation)
            self._blocks.apply(one.generation.suite, one.blocks)

    def _published(self, one: _Accepted, current: Mapping[str, Generation], now: datetime) -> Upload:
        suites = {
            suite: SuiteResult(generation=current[suite].number, inrelease_sha256=current[suite].inrelease_sha256)
            for suite in one.decision.suites
            if suite in current
        }
        already = one.decision.already_published
        where = ", ".join(f"{suite} generation {result.generation}" for suite, result in suites.items())
        return self._uploads.publish(
            one.upload,
            Published(suites=suites, files=one.decision.files),
            now,
            f"already published, as it is in {where}" if already else f"published in {where}",
            already_published=already,
        )

    def _committed(self, built: Sequence[Built]) -> None:
        self._builder.committed(built)
        # After the commit there is no way back: a switch that fails is tried again until it succeeds, by prepare().
        for one in built:
            try:
                self._switch(one.generation.suite, one.generation.number)
            except OSError as error:
                self.switched = False
                raise Halt(
                    f"{self._places.suite_link(one.generation.suite)} cannot be switched to generation "
                    f"{one.generation.number}: {error.strerror}; mend it and reload"
                ) from error

    def _is_switched(self, suite_name: str) -> bool:
        current = self._generations.current(suite_name)
        return current is None or fsio.points_to(
            self._places.suite_link(suite_name), _link_text(suite_name, current.number)
        )

    def _switch(self, suite_name: str, number: int) -> None:
        link = self._places.suite_link(suite_name)
        target = _link_text(suite_name, number)
        if not fsio.points_to(link, target):
            fsio.switch(link, target)
        suite = self._config.suite(suite_name)
        if suite and suite.codename != suite_name:
            codename = self._places.suite_link(suite.codename)
            if not fsio.points_to(codename, suite_name):
                fsio.switch(codename, suite_name)

    def _publish_keys(self) -> None:
        """The archive's public keys, for the clients' Signed-By."""
        for name, armor in (("archive-keyring.asc", True), ("archive-keyring.gpg", False)):
            path = self._places.archive / name
            keys = self._signer.export(armor)
            if not fsio.holds(path, keys):
                fsio.write_durable(path, keys)

    def _settings_changed(self) -> None:
        """A new generation of each suite that has none yet, whose settings are not those it was made with, or whose
        files are gone: a backup may leave them out."""
        for suite in self._config.suites:
            current = self._generations.current(suite.name)
            same = current is not None and current.settings == self._builder.settings(suite)
            if current and same and self._is_there(current):
                continue
            changes = self._builder.spread_all(suite)
            reason = "lost indexes" if same else "new settings" if current else "new suite"
            built = self._builder.build(suite, changes, {}, reason, self._clock(), anew=True)
            with self._visible:
                with self._journal.writing():
                    self._catalogue.apply(
                        suite.name, built.generation.number, [(change, None) for change in changes], self._clock()
                    )
                    self._add_generations([built])
                self._committed([built])
            log.info("%s: generation %d (%s)", suite.name, built.generation.number, reason)

    def _is_there(self, generation: Generation) -> bool:
        """True where no file of it is missing; whether each is right is for fsck."""
        folder = self._places.generation(generation.suite, generation.number)
        indexes = (file.path for file in generation.files if file.stored)
        return all((folder / name).is_file() for name in ("Release", "InRelease", "Release.gpg", *indexes))

    def improve(self) -> bool:
        """A small piece of work that the next publish gains by; True where there may be more."""
        with environment():
            return self._builder.improve()

    def tidy(self) -> bool:
        """One small piece of housekeeping; True where there may be more."""
        with environment():
            now = self._clock()
            grace = timedelta(seconds=self._config.publish.grace)
            if self._pool.clean(now - grace, now) or self._importer.tidy():
                return True
            return any(self._builder.prune(suite.name) for suite in self._config.suites)


def _link_text(suite_name: str, number: int) -> str:
    return f".generations/{suite_name}/{number}"


def current_generations(generations: Generations, config: Config) -> dict[str, Generation]:
    """The current generation of each suite that has one."""
    found = ((suite.name, generations.current(suite.name)) for suite in config.suites)
    return {name: generation for name, generation in found if generation is not None}
