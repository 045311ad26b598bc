"""Publishes an import: thousands of packages that were read already, as one generation, all or none.

It obeys the rules of uploads (:mod:`.decide`) and keeps the publisher's order: decide, pool, indexes, commit, switch.
What differs is that nothing here grows with the import but lists of names: facts, files and stanzas stay in the
import's own database (:mod:`incomingd.journal.bulk`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, islice
from pathlib import Path

from debian.debian_support import Version

from incomingd import fsio, rules
from incomingd.config import Config, SuiteConfig
from incomingd.errors import Halt, Retry
from incomingd.journal import Journal
from incomingd.journal.bulk import Bulk, Candidate, Rival, StagingError
from incomingd.journal.catalogue import Catalogue
from incomingd.journal.generations import Generation, Generations
from incomingd.journal.staging import FILES, NAME
from incomingd.journal.uploads import Uploads
from incomingd.model import (
    Operation,
    OperationKind,
    Problem,
    Published,
    SuiteResult,
    Upload,
    UploadKind,
    split_section,
)
from incomingd.places import Places
from incomingd.publish import ownership
from incomingd.publish.generation import Built, GenerationBuilder
from incomingd.publish.pool import Pool, environment
from incomingd.rights import Place
from incomingd.states import Stage

#: More problems than anybody reads; they would also fill the status file.
_MAX_PROBLEMS = 200
_DONE = "done-"

#: Runs the commit, then switches what clients see; nobody is told in between.
Commit = Callable[[Callable[[], Upload], list[Built]], Upload]


@dataclass(frozen=True, slots=True)
class _Content:
    """What an import brings: its packages, how many listings change, and what is told though it is allowed."""

    bulk: Bulk
    changes: int
    warnings: Sequence[Problem]


class Importer:
    """The publisher's hand for imports; ``progress`` is called now and then."""

    def __init__(
        self,
        config: Config,
        journal: Journal,
        builder: GenerationBuilder,
        pool: Pool,
        clock: Callable[[], datetime],
        progress: Callable[[], None],
    ) -> None:
        self._config = config
        self._imports = Places(config).imports
        self._journal = journal
        self._uploads = Uploads(journal)
        self._generations = Generations(journal)
        self._catalogue = Catalogue(journal)
        self._builder = builder
        self._pool = pool
        self._clock = clock
        self._progress = progress

    def is_import(self, upload: Upload) -> bool:
        """True where the upload is a request to import."""
        if upload.kind is not UploadKind.OPERATION:
            return False
        return self._uploads.operation(upload.id).kind is OperationKind.IMPORT

    def publish(self, upload: Upload, commit: Commit) -> Upload:
        """Publish an import that is ``queued``; return it as it ended. Raises ``Retry`` and ``Halt``."""
        operation = self._uploads.operation(upload.id)
        suite = self._config.suite(operation.suite)
        if suite is None:
            problem = rules.UNKNOWN_DISTRIBUTION.problem(f"the suite {operation.suite} is no longer configured")
            return self._reject(upload, [problem])
        if suite.retired:
            return self._reject(upload, [rules.SUITE_RETIRED.problem(f"the suite {suite.name} is retired")])
        folder = self._imports / (operation.staged or "")
        try:
            with Bulk(self._journal, folder) as bulk:
                problems, changes = _decide(bulk, suite, newest=operation.newest)
                if problems:
                    return self._reject(upload, problems)
                warnings = _takeovers(bulk, suite, self._catalogue) if changes else []
                ended = self._publish(upload, operation, suite, _Content(bulk, changes, warnings), commit)
        except StagingError as error:
            self._pool.sweep()  # of what was placed before that showed
            return self._reject(self._uploads.get(upload.id), [rules.IMPORT_GONE.problem(str(error))])
        self._set_aside(folder)
        return ended

    def _reject(self, upload: Upload, problems: list[Problem]) -> Upload:
        message = f"rejected: {len(problems)} problem(s); nothing was changed"
        return self._uploads.reject(upload, problems, self._clock(), message)

    def _publish(
        self, upload: Upload, operation: Operation, suite: SuiteConfig, content: "_Content", commit: Commit
    ) -> Upload:
        bulk = content.bulk
        count = bulk.packages()
        upload = self._uploads.move(upload, Stage.PUBLISHING, self._clock(), f"publishing {count} packages")
        try:
            with environment():
                built = [self._build(operation, suite, bulk, upload, count)] if content.changes else []
        except (Retry, Halt) as failure:
            self._uploads.move(upload, Stage.QUEUED, self._clock(), f"not published yet: {failure}")
            raise
        return commit(lambda: self._commit(upload, operation, content, built, count), built)

    def _build(self, operation: Operation, suite: SuiteConfig, bulk: Bulk, upload: Upload, count: int) -> Built:
        bulk.intend()
        folder = self._imports / (operation.staged or "") / FILES
        self._pool.place_many(((path, folder / staged) for path, staged in bulk.placements()))
        reason = f"{upload}, {count} package{'' if count == 1 else 's'}"
        return self._builder.build_sections(suite, bulk.stanzas(self._progress), reason, self._clock())

    def _commit(
        self, upload: Upload, operation: Operation, content: "_Content", built: list[Built], count: int
    ) -> Upload:
        now, bulk = self._clock(), content.bulk
        with bulk.beside(), self._journal.writing() as db:
            for one in built:
                bulk.apply(db, operation.suite, one.generation.number, upload.id, now)
            self._builder.commit(built, now)
            self._catalogue.forget_fulfilled()
            current = self._generations.current(operation.suite)
            where = f"{operation.suite} generation {current.number if current else 0}"
            return self._uploads.publish(
                upload,
                # Thousands of pool paths would make a status file that nobody can read.
                Published(suites=_results(current), files=()),
                now,
                f"published {count} packages in {where}" if built else f"already published, as it is in {where}",
                already_published=not built,
                warnings=content.warnings,
            )

    # -- afterwards ---------------------------------------------------------------------------------------------------

    def _set_aside(self, folder: Path) -> None:
        try:
            fsio.rename(folder, folder.with_name(f"{_DONE}{folder.name}"))
        except OSError:  # the same import again finds it, and that all of it is published
            return

    def tidy(self) -> bool:
        """Remove a part of what an import left; True where something was removed."""
        done = sorted(self._imports.glob(f"{_DONE}*"))[:1]
        for folder in done:
            # The database last: then nothing is left but the folder.
            parts = sorted(folder.iterdir(), key=lambda path: path.name == NAME)[:1]
            for part in parts:
                fsio.remove_tree(part)
            if not parts:
                folder.rmdir()
        return bool(done)


def _results(current: Generation | None) -> dict[str, SuiteResult]:
    if current is None:
        return {}
    return {current.suite: SuiteResult(generation=current.number, inrelease_sha256=current.inrelease_sha256)}


# -- deciding ---------------------------------------------------------------------------------------------------------


def _decide(bulk: Bulk, suite: SuiteConfig, *, newest: bool) -> tuple[list[Problem], int]:
    """All that is wrong with the import, as far as anybody reads it, and how many listings change."""
    problems: list[Problem] = []
    older: list[Candidate] = []
    for group in bulk.contests():
        _contest(group, problems, older, newest=newest)
    bulk.leave_out(older)
    passed: list[Candidate] = []
    gone: list[Rival] = []
    settled: list[Rival] = []
    for rival in bulk.rivals(suite.name):
        if rival.key == rival.candidate.key and rival.section == rival.candidate.section:
            settled.append(rival)
            continue
        if rival.key != rival.candidate.key and _is_newer(rival.key.version, rival.candidate.key.version):
            passed.append(rival.candidate)
            if not newest or rival.key.version == rival.candidate.key.version:
                problems.append(_beaten(suite, rival))
        elif rival.section != rival.candidate.section:
            gone.append(rival)
    bulk.leave_out(passed)
    changes = bulk.choose(gone, settled)
    found = chain(problems, _against_archive(bulk, suite))
    some = list(dict.fromkeys(islice(found, _MAX_PROBLEMS + 1)))
    if len(some) > _MAX_PROBLEMS:
        some[-1] = rules.MORE_PROBLEMS.problem(f"there are more than {_MAX_PROBLEMS} problems")
    return some, changes


def _takeovers(bulk: Bulk, suite: SuiteConfig, catalogue: Catalogue) -> list[Problem]:
    """Names that move to another source by the import: the operator has said so."""
    warnings: dict[Problem, None] = {}
    for one in bulk.contested(suite.name):
        arrival = ownership.Arrival(
            name=one.name,
            place=Place(suite=suite.name, component=one.component, source=one.source),
            indexes=(split_section(one.section)[1],),
            essential="",
            file=one.origin,
        )
        listed = ownership.binaries({one.name: catalogue.listed(suite.name, one.name)}, one.name)
        warnings |= dict.fromkeys(ownership.imported(arrival, listed).warnings)
        if len(warnings) > _MAX_PROBLEMS:
            last = rules.MORE_PROBLEMS.problem(f"there are more than {_MAX_PROBLEMS} warnings")
            return [*list(warnings)[:_MAX_PROBLEMS], last]
    return list(warnings)


def _is_newer(version: str, than: str) -> bool:
    """True for the same version, too."""
    return bool(Version(version) >= Version(than))


def _contest(group: list[Candidate], problems: list[Problem], older: list[Candidate], *, newest: bool) -> None:
    """One name in one family of indexes, several packages of the import."""
    best = max(group, key=lambda one: Version(one.key.version))
    for one in group:
        if one is best:
            continue
        older.append(one)
        if one.key == best.key and one.sha256 == best.sha256:
            continue  # the same file in two places
        if Version(one.key.version) == Version(best.key.version):
            problems.append(
                rules.SAME_VERSION_OTHER_CONTENT.problem(
                    f"it is {one.key}, and {best.origin} is {best.key} with other content", file=one.origin
                )
            )
        elif not newest:
            problems.append(
                rules.VERSION_NOT_NEWER.problem(
                    f"it is {one.key.name} {one.key.version}, and {best.origin} is {best.key.version}; a suite lists "
                    "one version (--newest leaves the others out)",
                    file=one.origin,
                )
            )


def _beaten(suite: SuiteConfig, rival: Rival) -> Problem:
    key, there = rival.candidate.key, rival.key
    if Version(there.version) == Version(key.version):
        return rules.SAME_VERSION_OTHER_CONTENT.problem(
            f"{suite.name} has {there} already, and this is {key}", file=rival.candidate.origin
        )
    return rules.VERSION_NOT_NEWER.problem(
        f"{suite.name} has {there.name} {there.version} already, and this is {key.version} (--newest leaves it out)",
        file=rival.candidate.origin,
    )


def _against_archive(bulk: Bulk, suite: SuiteConfig) -> Iterator[Problem]:
    for one in bulk.other_bytes():
        found = f"{one.path} would get other content: SHA256 {one.here}, where {one.there} is known already"
        yield rules.POOL_CONFLICT.problem(found, file=one.origin)
    for origin, key, source, component in bulk.other_places():
        found = f"{key} is in the archive already as part of {source} in {component}"
        yield rules.SAME_VERSION_OTHER_CONTENT.problem(found, file=origin)
    for lacking in bulk.missing_files():
        found = f"it needs {lacking.what.rpartition('/')[2]}, which is neither beside it nor in the archive"
        yield rules.MISSING_ORIG.problem(found, file=lacking.origin)
    if suite.checks.require_source:
        for lacking in bulk.missing_sources():
            found = f"its source {lacking.what} is neither in the import nor in the archive"
            yield rules.MISSING_SOURCE.problem(found, file=lacking.origin)
