"""Checks one sealed upload: every rule that does not depend on what the archive holds, all problems together.

The order, for each .changes: its signature; the signed text; who may send it where; each file it lists, from the
outside and then from the inside. A text whose signature is not good is not read at all. Otherwise what is wrong ends
nothing: the uploader is told everything at once.

Reads sealed files and runs gpgv, nothing else. The environment's failures come out as ``Retry`` and ``OSError``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from incomingd import fsio, rules
from incomingd.config import ChecksConfig, Config, QueueConfig, SuiteConfig
from incomingd.model import (
    BinaryPackage,
    ChangesSummary,
    CheckedChanges,
    CheckReport,
    FileEntry,
    Problem,
    Seal,
    SourcePackage,
    plain,
)
from incomingd.verify import deb822, files, overrides, policy
from incomingd.verify.bare import BareContext, check_bare
from incomingd.verify.binary import BinaryContext, check_binary
from incomingd.verify.changes import Changes, Row, read
from incomingd.verify.files import Kind
from incomingd.verify.keyring import KeyTable
from incomingd.verify.signature import Signed, Verifier, is_signed, too_old
from incomingd.verify.source import SourceContext, check_source
from incomingd.verify.streams import Spare

#: More problems than anybody reads; they would also fill the status file.
_MAX_PROBLEMS = 200
#: With one of these a row of a .changes is not read.
_ROW_CODES = (rules.BAD_FILE_LIST.code, rules.BAD_FILE_NAME.code)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One upload to be checked: the sealed files in ``folder``, and what they are judged by.

    ``reading`` is told the name of each file before it is looked into: where the check dies, it is known of which.
    """

    folder: Path
    seal: Seal
    queue: QueueConfig
    config: Config
    keyring: Path
    keys: KeyTable
    now: datetime
    reading: Callable[[str], None]


def check(job: Job) -> CheckReport:
    """Check a whole upload."""
    return _Check(job).run()


def _changes_names(seal: Seal) -> list[str]:
    return sorted(entry.name for entry in seal.files if entry.name.endswith(".changes"))


class _Check:
    """The state of one check."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.sealed = {entry.name: entry for entry in job.seal.files}
        self.problems: list[Problem] = list(job.seal.problems)
        self.warnings: list[Problem] = []
        self.spare = Spare()
        self.verifier = Verifier(keyring=job.keyring, keys=job.keys, now=job.now)

    def run(self) -> CheckReport:
        debs = self._bare_debs()
        if debs:
            return self._check_bare(debs)
        names = self._names()
        results = [_OneChanges(self, name).run() for name in names]
        # What a .changes lists that could not be read is not known.
        if all(result.read for result in results):
            listed = set(names).union(*(result.listed for result in results))
            self.warnings += [
                rules.UNLISTED_FILE.problem("no .changes lists it", file=name)
                for name in sorted({*self.sealed, *self.job.seal.left_out} - listed)
            ]
        checked = tuple(result.checked for result in results if result.checked)
        return CheckReport(
            summaries=tuple(result.summary for result in results),
            changes=() if self.problems else checked,
            problems=_bounded(self.problems),
            warnings=_bounded(self.warnings),
        )

    def _bare_debs(self) -> list[FileEntry]:
        """What is to be read where there is no .changes, and the queue allows that."""
        if not self.job.queue.allow_bare_debs or self._refused_changes() or _changes_names(self.job.seal):
            return []
        return [self.sealed[name] for name in sorted(self.sealed) if files.kind(name) is files.Kind.BINARY]

    def _check_bare(self, debs: list[FileEntry]) -> CheckReport:
        suite = self.job.config.suite(self.job.queue.default_suite)
        if suite is None:
            raise ValueError("the configuration has no such suite; reading it must have told")
        context = BareContext(folder=self.job.folder, suite=suite, now=self.job.now, reading=self.job.reading)
        found = check_bare(debs, context)
        self.problems += found.problems
        most = self.job.queue.max_changes
        if len(found.changes) > most:
            self.problems.append(
                rules.TOO_MANY_CHANGES.problem(f"they are of {len(found.changes)} source versions, and {most} count")
            )
        others = sorted({*self.sealed, *self.job.seal.left_out} - {entry.name for entry in debs})
        self.warnings += [
            rules.UNLISTED_FILE.problem("it is no package, and no .changes lists it", file=n) for n in others
        ]
        return CheckReport(
            summaries=found.summaries[:most],
            changes=() if self.problems else found.changes,
            problems=_bounded(self.problems),
            warnings=_bounded(self.warnings),
        )

    def _refused_changes(self) -> bool:
        return any(problem.file and problem.file.endswith(".changes") for problem in self.job.seal.problems)

    def _names(self) -> list[str]:
        """The .changes that are to be read."""
        names, most = _changes_names(self.job.seal), self.job.queue.max_changes
        if not names and not self._refused_changes() and files.sealed_whole(self.job.seal.problems):
            self.problems.append(rules.NO_CHANGES.problem("there is no .changes in the upload"))
        if len(names) > most:
            self.problems.append(rules.TOO_MANY_CHANGES.problem(f"there are {len(names)}, and {most} are allowed"))
            return []
        return names

    def text(self, name: str, limit: int) -> bytes | None:
        """The bytes of a sealed text file, or None where it is too large."""
        size = self.sealed[name].size
        if size > limit:
            found = f"it has {size} bytes, and {limit} are allowed"
            self.problems.append(rules.TEXT_TOO_LARGE.problem(found, file=name))
            return None
        self.job.reading(name)
        with fsio.directory(self.job.folder) as fd:
            return fsio.read_regular(name, fd, limit)

    def vouched(self, data: bytes, name: str, *, required: bool) -> bytes | None:
        """The text of a .dsc or .buildinfo, which may carry another key's signature than the .changes, or none.

        The signed .changes vouches for its digest, so doubts about the key are told and no more, unless a trusted
        key's signature is ``required``.
        """
        if not is_signed(data):
            if required:
                self.problems.append(rules.UNSIGNED_DSC.problem("it carries no signature", file=name))
            return data
        signed = self.verifier.verify(data, name)
        self.problems += signed.faults
        (self.problems if required else self.warnings).extend(signed.doubts)
        return signed.text


def _bounded(problems: list[Problem]) -> tuple[Problem, ...]:
    every = tuple(dict.fromkeys(problems))
    if len(every) <= _MAX_PROBLEMS:
        return every
    rest = len(every) - _MAX_PROBLEMS
    return (*every[:_MAX_PROBLEMS], rules.MORE_PROBLEMS.problem(f"there are {rest} more problems"))


class _OneChanges:
    """The check of one .changes. ``read`` is False where not all that it lists could be read."""

    def __init__(self, upload: _Check, name: str) -> None:
        self.upload = upload
        self.job = upload.job
        self.name = name
        self.read = False
        self.summary = ChangesSummary(file=name)
        self.listed: frozenset[str] = frozenset()
        self.checked: CheckedChanges | None = None
        self.suites: tuple[SuiteConfig, ...] = ()
        self.checks: ChecksConfig = self.job.config.checks
        self.overrides = overrides.Overrides()

    def run(self) -> "_OneChanges":
        signed = self._signed()
        self.summary = ChangesSummary(file=self.name, signed_by=signed.signed_by)
        if signed.text is None or signed.doubts:
            return self
        stanza, problems = deb822.parse(signed.text, self.name)
        self.upload.problems += problems
        if stanza is None:
            return self
        changes, problems = read(stanza, self.name)
        self.upload.problems += problems
        self.listed = frozenset(row.name for row in changes.rows)
        self.read = bool(self.listed) and not any(problem.code in _ROW_CODES for problem in problems)
        self.summary = ChangesSummary(
            file=self.name,
            source=plain(changes.source),
            version=plain(changes.version),
            distribution=plain(" ".join(changes.distributions)),
            architectures=tuple(plain(word) for word in changes.architectures[:100]),
            signed_by=signed.signed_by,
        )
        self._policy(changes, signed)
        most = self.job.queue.max_files
        if len(changes.rows) > most:
            found = f"the .changes lists {len(changes.rows)} files, and {most} are allowed"
            self._wrong(rules.TOO_MANY_FILES.problem(found, file=self.name))
            return self
        self._files(changes, signed)
        return self

    def _wrong(self, *problems: Problem) -> None:
        self.upload.problems.extend(problems)

    # -- who, what and where ------------------------------------------------------------------------------------------

    def _signed(self) -> Signed:
        # The suites are not known yet: the most generous limit holds until they are.
        every = (self.job.config.checks, *(suite.checks for suite in self.job.config.suites))
        data = self.upload.text(self.name, max(checks.max_text_file for checks in every))
        if data is None:
            return Signed(text=None)
        if not is_signed(data):
            if self.job.queue.signatures == "optional":
                return Signed(text=data)
            self._wrong(rules.UNSIGNED.problem("it carries no signature", file=self.name))
            return Signed(text=None)
        signed = self.upload.verifier.verify(data, self.name)
        self._wrong(*signed.faults, *signed.doubts)
        return signed

    def _policy(self, changes: Changes, signed: Signed) -> None:
        self.suites, problems = policy.suites(changes, self.job.config, self.name)
        self.checks = policy.strictest(self.suites, self.job.config.checks)
        self.overrides = overrides.load(self.suites)
        self._wrong(*problems)
        self._wrong(*policy.rights(changes, self.suites, signed, self.job.config.uploaders, self.name))
        self._wrong(*policy.elsewhere(self.suites, self.job.queue, self.name))
        size = self.upload.sealed[self.name].size
        if size > self.checks.max_text_file:
            found = f"it has {size} bytes, and {self.checks.max_text_file} are allowed"
            self._wrong(rules.TEXT_TOO_LARGE.problem(found, file=self.name))
        old = signed.made_at and too_old(signed.made_at, self.job.now, self.checks.max_signature_age, self.name)
        if old:
            self._wrong(old)

    # -- its files ----------------------------------------------------------------------------------------------------

    def _files(self, changes: Changes, signed: Signed) -> None:
        self._wrong(*policy.places(changes, self.suites, self.overrides.section))
        self._wrong(*files.kinds(changes, self.checks.extra_sections))
        self._wrong(*files.architectures(changes, self.name))
        binaries: list[BinaryPackage] = []
        sources: list[SourcePackage] = []
        others: list[FileEntry] = []
        unread = False
        for row in changes.rows:
            sealed = self.upload.sealed.get(row.name)
            if sealed is None:
                continue
            problems = files.content(row, sealed)
            self._wrong(*problems)
            kind = files.kind(row.name)
            if problems:  # what is not what was signed is not looked into
                unread |= kind is Kind.DSC
            elif kind is Kind.BINARY:
                binaries += self._binary(changes, row, sealed)
            elif kind is Kind.DSC:
                found = self._source(changes, row, sealed)
                sources += found
                unread |= not any(source.files for source in found)
            elif kind is Kind.BUILDINFO:
                self._buildinfo(row)
                others.append(sealed)
        self._wrong(*files.absent(changes, self.upload.sealed, self.job.seal.problems, sources))
        if sources and not unread:
            self._wrong(*files.strays(changes, sources))
        self.checked = CheckedChanges(
            file=self.upload.sealed[self.name],
            source=changes.source,
            version=changes.version,
            distribution=" ".join(changes.distributions),
            suites=tuple(suite.name for suite in self.suites),
            architectures=changes.architectures,
            signed_by=signed.signed_by,
            binaries=tuple(binaries),
            sources=tuple(sources),
            others=tuple(others),
        )

    def _component(self, section: str, file: str) -> str:
        return policy.component(section, self.suites, file)

    def _binary(self, changes: Changes, row: Row, sealed: FileEntry) -> list[BinaryPackage]:
        self.job.reading(row.name)
        context = BinaryContext(
            source=changes.source,
            source_version=changes.source_version,
            version=changes.version,
            names=changes.binaries,
            section=row.section,
            priority=row.priority,
            component=self._component(row.section, row.name),
            sourceful="source" in changes.architectures,
            now=self.job.now,
            spare=self.upload.spare,
        )
        outcome = check_binary(self.job.folder / row.name, sealed, context)
        self._wrong(*outcome.problems)
        return [self.overrides.placed(outcome.package, self._component)] if outcome.package else []

    def _source(self, changes: Changes, row: Row, sealed: FileEntry) -> list[SourcePackage]:
        data = self.upload.text(row.name, self.checks.max_text_file)
        if data is None:
            return []
        text = self.upload.vouched(data, row.name, required=self.checks.require_dsc_signature)
        if text is None:
            return []
        # What no .changes lists is left out, even where it lies beside and a .dsc names it.
        listed = {one.name for one in changes.rows}
        context = SourceContext(
            source=changes.source,
            version=changes.version,
            section=row.section,
            priority=row.priority,
            component=self._component(row.section, row.name),
            folder=self.job.folder,
            files={name: self.upload.sealed[name] for name in listed & self.upload.sealed.keys()},
            checks=self.checks,
            spare=self.upload.spare,
        )
        outcome = check_source(text, sealed, context)
        self._wrong(*outcome.problems)
        return [self.overrides.placed(outcome.package, self._component)] if outcome.package else []

    def _buildinfo(self, row: Row) -> None:
        data = self.upload.text(row.name, self.checks.max_text_file)
        text = None if data is None else self.upload.vouched(data, row.name, required=False)
        if text is not None:
            self._wrong(*deb822.parse(text, row.name)[1])
