"""Checks one sealed upload that is authorised (:mod:`.authorise`): every rule that does not depend on what the archive
holds, all problems together.

The order, for each .changes: each file it lists, from the outside and then from the inside. What is wrong ends nothing:
the uploader is told everything at once.

Reads sealed files and runs gpgv, nothing else. The environment's failures come out as ``Retry`` and ``OSError``.
"""

from incomingd import rules
from incomingd.config import ChecksConfig
from incomingd.model import (
    POLICY_NAME,
    BinaryPackage,
    CheckedChanges,
    CheckReport,
    FileEntry,
    Problem,
    SourcePackage,
)
from incomingd.verify import deb822, files, overrides, policy
from incomingd.verify.authorise import Authorisation, Authorised
from incomingd.verify.bare import BareContext, check_bare
from incomingd.verify.binary import BinaryContext, check_binary, is_architecture
from incomingd.verify.changes import Changes, Row
from incomingd.verify.files import Kind
from incomingd.verify.job import Job, bounded
from incomingd.verify.signature import is_signed
from incomingd.verify.source import SourceContext, check_source
from incomingd.verify.streams import Spare


def check(job: Job, authorisation: Authorisation | None) -> CheckReport:
    """Check a whole upload: what its .changes list, or, without an authorisation, packages that came alone."""
    return _Check(job).run(authorisation) if authorisation else _Check(job).run_bare()


class _Check:
    """The state of one check."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.sealed = {entry.name: entry for entry in job.seal.files}
        self.problems: list[Problem] = list(job.seal.problems)
        self.warnings: list[Problem] = []
        self.spare = Spare()
        self.verifier = job.verifier()

    def run(self, authorisation: Authorisation) -> CheckReport:
        self.problems += authorisation.problems
        config = self.job.config
        every = [policy.suites(one.changes, config, one.file.name)[0] for one in authorisation.changes]
        if every:
            self.spare = Spare(min(policy.strictest(suites, config.checks).max_unpacked for suites in every))
        checked = [_OneChanges(self, one).run() for one in authorisation.changes]
        self.warnings += [
            rules.UNLISTED_FILE.problem("no .changes lists it", file=name) for name in self.job.seal.left_out
        ]
        return CheckReport(
            summaries=authorisation.summaries,
            changes=() if self.problems else tuple(checked),
            problems=bounded(self.problems),
            warnings=bounded(self.warnings),
        )

    def run_bare(self) -> CheckReport:
        suite = self.job.config.suite(self.job.queue.default_suite)
        if suite is None:
            raise ValueError("the configuration has no such suite; reading it must have told")
        context = BareContext(folder=self.job.folder, suite=suite, now=self.job.now, reading=self.job.reading)
        found = check_bare(sorted(self.sealed.values(), key=lambda entry: entry.name), context)
        self.problems += found.problems
        self.warnings += found.warnings
        most = self.job.queue.max_changes
        if len(found.changes) > most:
            self.problems.append(
                rules.TOO_MANY_CHANGES.problem(f"they are of {len(found.changes)} source versions, and {most} count")
            )
        self.warnings += [
            rules.UNLISTED_FILE.problem("it is no package, and no .changes lists it", file=name)
            for name in self.job.seal.left_out
        ]
        return CheckReport(
            summaries=found.summaries[:most],
            changes=() if self.problems else found.changes,
            problems=bounded(self.problems),
            warnings=bounded(self.warnings),
        )

    def text(self, name: str, limit: int) -> bytes | None:
        """The bytes of a sealed text file, or None if it is too large."""
        data, problems = self.job.text(self.sealed[name], limit)
        self.problems += problems
        return data

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


class _OneChanges:
    """The check of what one .changes lists."""

    def __init__(self, upload: _Check, authorised: Authorised) -> None:
        self.upload = upload
        self.job = upload.job
        self.name = authorised.file.name
        self.authorised = authorised
        # As the configuration is now: it may have changed since the upload was authorised.
        self.suites, problems = policy.suites(authorised.changes, self.job.config, self.name)
        self.upload.problems += problems
        self.checks: ChecksConfig = policy.strictest(self.suites, self.job.config.checks)
        self.overrides = overrides.load(self.suites)

    def run(self) -> CheckedChanges:
        """Check all of it; what is returned counts only if there are no problems."""
        changes = self.authorised.changes
        self._wrong(*files.kinds(changes))
        if not POLICY_NAME.fullmatch(changes.source):
            self._style(rules.BAD_PACKAGE_NAME.problem(f"Source is {changes.source}", file=self.name))
        self._style(*files.sections(changes, self.checks.extra_sections, self.overrides.of_file))
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
        known = {one.file.name: one.architecture for one in binaries if is_architecture(one.architecture)}
        self._wrong(*policy.places(changes, self.suites, self.overrides.section, known))
        self._wrong(*files.architectures(changes, self.name, known))
        listed = {row.name for row in changes.rows}
        absent = list(files.absent(changes, self.upload.sealed, self.job.seal, sources))
        self._wrong(*absent)
        self.upload.warnings += [one for one in self.job.seal.absent if one not in absent and one.file in listed]
        if sources and not unread:
            self._wrong(*files.strays(changes, sources))
        return CheckedChanges(
            file=self.authorised.file,
            source=changes.source,
            version=changes.version,
            distribution=" ".join(changes.distributions),
            suites=tuple(suite.name for suite in self.suites),
            architectures=changes.architectures,
            signed_by=self.authorised.signed_by,
            signing_key=self.authorised.signing_key,
            binaries=tuple(binaries),
            sources=tuple(sources),
            others=tuple(others),
            identity=self.authorised.identity,
            made_at=self.authorised.made_at,
        )

    def _wrong(self, *problems: Problem) -> None:
        self.upload.problems.extend(problems)

    def _style(self, *problems: Problem) -> None:
        """What Debian would not take, and apt and dpkg do."""
        (self.upload.problems if self.checks.strict else self.upload.warnings).extend(problems)

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
            checks=self.checks,
        )
        outcome = check_binary(self.job.folder / row.name, sealed, context)
        self._wrong(*outcome.problems)
        self.upload.warnings += outcome.warnings
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
        self.upload.warnings += outcome.warnings
        return [self.overrides.placed(outcome.package, self._component)] if outcome.package else []

    def _buildinfo(self, row: Row) -> None:
        data = self.upload.text(row.name, self.checks.max_text_file)
        text = None if data is None else self.upload.vouched(data, row.name, required=False)
        if text is not None:
            self._wrong(*deb822.parse(text, row.name)[1])
