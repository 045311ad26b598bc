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
from incomingd.journal.kept import KeptIndexes, Space
from incomingd.journal.suites import Suites
from incomingd.journal.uploads import Uploads
from incomingd.model import Published, SuiteResult, Upload, UploadKind
from incomingd.places import Places
from incomingd.publish import identity
from incomingd.publish.bulk import Importer
from incomingd.publish.by_hash import ByHash
from incomingd.publish.decide import decide
from incomingd.publish.generation import Built, GenerationBuilder
from incomingd.publish.links import SuiteLinks
from incomingd.publish.operations import decide_operation
from incomingd.publish.overlay import Decision, Overlay
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
        self._kept = KeptIndexes(journal)
        self._by_hash = ByHash(config, self._kept, self._generations)
        self._builder = GenerationBuilder(
            config, self._catalogue, self._generations, self._blocks, self._by_hash, signer, progress
        )
        self._links = SuiteLinks(config, self._generations)
        self._suites = Suites(journal)
        self._signer = signer
        self._clock = clock
        self._visible = visible
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="pool")
        self._importer = Importer(config, journal, self._builder, self._pool, clock, progress)
        #: True where clients see all that the journal has as published: only then may anybody be told.
        self.switched = self._links.all_switched()
        newest = current_generations(self._generations, config).values()
        self._last = max((one.at for one in newest), default=None)

    def prepare(self) -> None:
        """Bring the archive to what the journal says: at start-up, after a reload, after a halt.

        Raises :class:`Halt` where nothing can be published, and :class:`Retry`.
        """
        self._signer.usable()
        with environment():
            for folder in ("dists", "pool"):
                fsio.make_directories(self._places.archive / folder)
            self._end_dropped()
            self._blocks.sweep()
            for path in self._pool.sweep():
                log.info("removed %s, which an interrupted publish left", path)
            for suite in self._config.suites:
                current = self._generations.current(suite.name)
                self._links.must_be_ours(suite.name, current)
                if current and self._is_there(current):
                    self._show(current)
            self._publish_keys()
            self._settings_changed()
            self.switched = True
            for suite in self._config.suites:
                current = self._generations.current(suite.name)
                self._builder.sweep(suite.name, current)
                self._by_hash.reconcile(suite.name, current, self._clock())

    def _end_dropped(self) -> None:
        """End the suites that an operator has dropped. Raises :class:`Halt` if another one has lost its table."""
        for name in sorted(self._suites.dropping()):
            if self._config.suite(name) is None:
                self._suites.drop(name, self._clock())
                self._links.remove(name)
                fsio.remove_tree(self._places.generation(name, 0).parent)
                log.info("%s: dropped", name)
            self._suites.dropped(name)  # with a table again it goes on
        if missing := identity.missing_tables(self._config, self._suites.published()):
            raise Halt("; ".join(missing))

    def _show(self, current: Generation) -> None:
        """Have clients see a generation that is committed, also if the end of the process came between."""
        now = self._clock()
        self._by_hash.prepare(current, now)
        if not self._links.is_switched(current):
            self._by_hash.switched_late(current.suite, current.number, now)
        self._links.switch(current)

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
        with environment():
            self._by_hash.forget_failed()
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
            (file, self._places.sealed(one.upload.id) / (file.sealed_as or file.file.name))
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
                self._catalogue.add_published_changes(one.decision.published_changes, one.upload.id)
                for suite, change in one.decision.changes:
                    self._catalogue.apply(suite, numbers[suite], [(change, one.upload.id)], now)
            for one in accepted:
                self._catalogue.forget(one.decision.forgotten)
            self._builder.commit(built, now)
            self._catalogue.forget_fulfilled()
            current = current_generations(self._generations, self._config)
            newer = _superseded(accepted)
            return [self._published(one, current, now, newer.get(one.upload.id)) for one in accepted]

    def _published(
        self, one: _Accepted, current: Mapping[str, Generation], now: datetime, superseded_by: str | None
    ) -> Upload:
        suites = {
            suite: SuiteResult(generation=current[suite].number, inrelease_sha256=current[suite].inrelease_sha256)
            for suite in one.decision.suites
            if suite in current
        }
        already = one.decision.already_published
        where = ", ".join(f"{suite} generation {result.generation}" for suite, result in suites.items())
        message = f"already published, as it is in {where}" if already else f"published in {where}"
        if superseded_by is not None:
            message += f"; superseded by {superseded_by} in the same generation"
        return self._uploads.publish(
            one.upload,
            Published(suites=suites, files=one.decision.files),
            now,
            message,
            already_published=already,
            superseded_by=superseded_by,
            warnings=one.decision.warnings,
        )

    def _committed(self, built: Sequence[Built]) -> None:
        self._builder.committed(built)
        self._last = self._clock() if built else self._last
        # After the commit there is no way back: a switch that fails is tried again until it succeeds, by prepare().
        for one in built:
            try:
                self._links.switch(one.generation)
            except OSError as error:
                self.switched = False
                raise Halt(
                    f"{self._places.suite_link(one.generation.suite)} cannot be switched to generation "
                    f"{one.generation.number}: {error.strerror}; mend it and reload"
                ) from error

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
            same = current is not None and (suite.retired or current.settings == self._builder.settings(suite))
            if (current and same and self._is_there(current)) or (suite.retired and not current):
                continue
            changes = self._builder.spread_all(suite)
            reason = "lost indexes" if same else "new settings" if current else "new suite"
            built = self._builder.build(suite, changes, {}, reason, self._clock(), anew=True)
            with self._visible:
                now = self._clock()
                with self._journal.writing():
                    self._catalogue.apply(
                        suite.name, built.generation.number, [(change, None) for change in changes], now
                    )
                    self._builder.commit([built], now)
                self._committed([built])
            log.info("%s: generation %d (%s)", suite.name, built.generation.number, reason)

    def _is_there(self, generation: Generation) -> bool:
        """True where no file of it is missing; whether each is right is for fsck."""
        folder = self._places.generation(generation.suite, generation.number)
        indexes = (file.path for file in generation.files if file.stored)
        return all((folder / name).is_file() for name in ("Release", "InRelease", "Release.gpg", *indexes))

    def wait(self) -> float:
        """Seconds until the next publish may be made; most often none. Raises ``Retry``."""
        now = self._clock()
        if self._last is None:
            return 0.0
        with environment():
            return self._by_hash.wait(now, now - self._last)

    def overfull(self) -> str:
        """Why more space is used than the configuration allows; empty if it is not."""
        return self._by_hash.overfull()

    def space(self) -> Space:
        """What the archive uses on the disk."""
        return self._kept.space()

    def improve(self) -> bool:
        """A small piece of work that the next publish gains by; True where there may be more."""
        with environment():
            return self._builder.improve()

    def tidy(self) -> bool:
        """One small piece of housekeeping; True where there may be more."""
        with environment():
            now = self._clock()
            grace = timedelta(seconds=self._config.publish.grace)
            index_grace = timedelta(seconds=self._config.publish.index_grace)
            if self._pool.clean(now - grace, now - index_grace, now) or self._importer.tidy():
                return True
            # Both in one piece: so much one publish leaves.
            pruned = self._by_hash.prune(now)
            return any(self._builder.prune(suite.name) for suite in self._config.suites) or pruned


def current_generations(generations: Generations, config: Config) -> dict[str, Generation]:
    """The current generation of each suite that has one."""
    found = ((suite.name, generations.current(suite.name)) for suite in config.suites)
    return {name: generation for name, generation in found if generation is not None}


def _superseded(accepted: Sequence[_Accepted]) -> dict[int, str]:
    """The uploads of which nothing is listed, since later ones of the same publish brought newer versions of all of it.

    By their ids, with the version that is listed.
    """
    last: dict[tuple[str, str, str], Change] = {}
    for one in accepted:
        last |= {(suite, change.section, change.name): change for suite, change in one.decision.changes}
    found: dict[int, str] = {}
    for one in accepted:
        brought = [(suite, change) for suite, change in one.decision.changes if change.package is not None]
        listed = [last[suite, change.section, change.name].package for suite, change in brought]
        newer = [now for now, (_, change) in zip(listed, brought, strict=True) if now and now != change.package]
        if brought and len(newer) == len(brought):
            found[one.upload.id] = newer[0].version
    return found
