"""Checks one sealed upload: every rule that does not depend on what the archive holds, all problems together."""

import fnmatch
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from incomingd import rules
from incomingd.config import Config, QueueConfig, SuiteConfig
from incomingd.model import (
    BinaryPackage,
    ChangesSummary,
    CheckedChanges,
    CheckReport,
    Digests,
    FileEntry,
    Problem,
    Seal,
    SourcePackage,
    plain,
)
from incomingd.verify import deb822
from incomingd.verify.binary import BinaryContext, check_binary
from incomingd.verify.changes import Changes, Row, read
from incomingd.verify.keyring import KeyTable
from incomingd.verify.signature import Signed, Verifier, is_signed
from incomingd.verify.source import SourceContext, check_source

_BINARY = re.compile(r".+_.+_(?P<architecture>[a-z0-9-]+)\.(?:deb|udeb|ddeb)", re.ASCII)
_TAR = r"\.tar\.(?:gz|bz2|xz|lzma)"
_SOURCE_FILE = re.compile(rf".+(?:{_TAR}(?:\.asc)?|\.diff\.gz)", re.ASCII)
_PRIORITIES = ("required", "important", "standard", "optional", "extra")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One upload to be checked: the sealed files in ``folder``, and what they are judged by."""

    folder: Path
    seal: Seal
    queue: QueueConfig
    config: Config
    keyring: Path
    keys: KeyTable
    now: datetime


def check(job: Job) -> CheckReport:
    """Check a whole upload. Reads sealed files; raises ``Retry`` for the environment's faults only."""
    return _Check(job).run()


class _Check:
    """The state of one check."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.files = {entry.name: entry for entry in job.seal.files}
        self.problems: list[Problem] = list(job.seal.problems)
        self.warnings: list[Problem] = []
        self.verifier = Verifier(
            keyring=job.keyring, keys=job.keys, now=job.now, max_age=job.config.checks.max_signature_age
        )
        # What could not be sealed has its problem already.
        self.unsealed = {problem.file for problem in job.seal.problems}

    def run(self) -> CheckReport:
        names = sorted(name for name in self.files if name.endswith(".changes"))
        if not names and not self.problems:
            self.problems.append(rules.NO_CHANGES.problem("there is no .changes in the upload"))
        if len(names) > self.job.queue.max_changes:
            allowed = self.job.queue.max_changes
            self.problems.append(rules.TOO_MANY_CHANGES.problem(f"there are {len(names)}, allowed are {allowed}"))
            names = []
        summaries: list[ChangesSummary] = []
        checked: list[CheckedChanges] = []
        listed = set(names)
        for name in names:
            summary, changes, rows = self._changes(name)
            summaries.append(summary)
            listed |= rows
            if changes is not None:
                checked.append(changes)
        for name in sorted(self.files.keys() - listed):
            self.warnings.append(rules.UNLISTED_FILE.problem("no .changes lists it", file=name))
        return CheckReport(
            summaries=tuple(summaries),
            changes=() if self.problems else tuple(checked),
            problems=tuple(dict.fromkeys(self.problems)),
            warnings=tuple(self.warnings),
        )

    # -- one .changes -------------------------------------------------------------------------------------------------

    def _changes(self, name: str) -> tuple[ChangesSummary, CheckedChanges | None, set[str]]:
        signed = self._signed_text(name)
        if signed.text is None:
            return ChangesSummary(file=name, signed_by=signed.signed_by), None, set()
        stanza, problems = deb822.parse(signed.text, name)
        self.problems += problems
        if stanza is None:
            return ChangesSummary(file=name, signed_by=signed.signed_by), None, set()
        changes, problems = read(stanza, name)
        self.problems += problems
        summary = ChangesSummary(
            file=name,
            source=plain(changes.source),
            version=plain(changes.version),
            distribution=plain(" ".join(changes.distributions)),
            architectures=tuple(plain(a) for a in changes.architectures),
            signed_by=signed.signed_by,
        )
        suites = self._suites(changes, name)
        self.problems += self._rights(changes, suites, signed, name)
        self.problems += self._architectures(changes, name)
        binaries, sources, others = self._files(changes, suites)
        checked = CheckedChanges(
            file=self.files[name],
            source=changes.source,
            version=changes.version,
            distribution=summary.distribution,
            suites=tuple(suite.name for suite in suites),
            architectures=changes.architectures,
            signed_by=signed.signed_by,
            binaries=tuple(binaries),
            sources=tuple(sources),
            others=tuple(others),
        )
        return summary, checked, {row.name for row in changes.rows}

    def _signed_text(self, name: str) -> Signed:
        data = self._text(name)
        if data is None:
            return Signed(text=None)
        if self.job.queue.signatures == "optional" and not is_signed(data):
            return Signed(text=data)
        signed = self.verifier.verify(data, name)
        self.problems += signed.problems
        return signed

    def _text(self, name: str) -> bytes | None:
        """A text file's bytes, or None where it is too large."""
        limit = self.job.config.checks.max_text_file
        size = self.files[name].size
        if size > limit:
            self.problems.append(rules.TEXT_TOO_LARGE.problem(f"it has {size} bytes, allowed are {limit}", file=name))
            return None
        return (self.job.folder / name).read_bytes()

    def _suites(self, changes: Changes, file: str) -> list[SuiteConfig]:
        suites: dict[str, SuiteConfig] = {}
        for word in changes.distributions:
            suite = self.job.config.suite_for(word)
            if suite is None:
                known = ", ".join(d for s in self.job.config.suites for d in s.accepts)
                self.problems.append(
                    rules.UNKNOWN_DISTRIBUTION.problem(
                        f'Distribution has "{plain(word)}", known are {known}', file=file
                    )
                )
            else:
                suites[suite.name] = suite
        return list(suites.values())

    def _rights(self, changes: Changes, suites: list[SuiteConfig], signed: Signed, file: str) -> Iterator[Problem]:
        """The uploaders table. Without any, every trusted key may upload everything."""
        rows = self.job.config.uploaders
        if not rows or signed.signed_by is None:
            return
        own = [row for row in rows if row.key in (signed.signed_by, signed.signing_key)]
        for suite in suites:
            fitting = [r for r in own if _matches(r.suites, suite.name) and _matches(r.sources, changes.source)]
            if not fitting:
                yield rules.KEY_NOT_ALLOWED.problem(
                    f"the key {signed.signed_by} may not upload {plain(changes.source)} to {suite.name}", file=file
                )
            elif "source" in changes.architectures and all(row.binaries_only for row in fitting):
                yield rules.KEY_NOT_ALLOWED.problem(
                    f"the key {signed.signed_by} may upload binaries only, and this has the source", file=file
                )

    def _architectures(self, changes: Changes, file: str) -> Iterator[Problem]:
        """sourceful means exactly one .dsc; each listed architecture has a binary, and each binary's is listed."""
        dscs = [row.name for row in changes.rows if row.name.endswith(".dsc")]
        if ("source" in changes.architectures) != (len(dscs) == 1) or len(dscs) > 1:
            yield rules.ARCHITECTURE_MISMATCH.problem(
                f'Architecture is "{plain(" ".join(changes.architectures))}", and there are {len(dscs)} .dsc', file=file
            )
        found = {match["architecture"] for row in changes.rows if (match := _BINARY.fullmatch(row.name))}
        listed = set(changes.architectures) - {"source"}
        for odd in sorted(found ^ listed):
            what = "has a binary and is not listed" if odd in found else "is listed and has no binary"
            yield rules.ARCHITECTURE_MISMATCH.problem(f"the architecture {plain(odd)} {what}", file=file)

    # -- its files ----------------------------------------------------------------------------------------------------

    def _files(
        self, changes: Changes, suites: list[SuiteConfig]
    ) -> tuple[list[BinaryPackage], list[SourcePackage], list[FileEntry]]:
        binaries: list[BinaryPackage] = []
        sources: list[SourcePackage] = []
        others: list[FileEntry] = []
        for row in changes.rows:
            entry = self._entry(row)
            self.problems += self._row(row, suites)
            if entry is None:
                continue
            if row.name.endswith(".dsc"):
                sources += self._source(changes, row, entry, suites)
            elif _BINARY.fullmatch(row.name):
                binaries += self._binary(changes, row, entry)
            elif row.name.endswith(".buildinfo"):
                self._buildinfo(row)
                others.append(entry)
            elif not _SOURCE_FILE.fullmatch(row.name):
                self.problems.append(rules.BYHAND.problem("nobody knows such a file here", file=row.name))
        self._stray_source_files(changes, sources)
        return binaries, sources, others

    def _entry(self, row: Row) -> FileEntry | None:
        """The sealed file, where it is as listed. An orig that is not in the upload may be in the archive."""
        entry = self.files.get(row.name)
        if entry is None:
            in_archive = ".orig" in row.name and _SOURCE_FILE.fullmatch(row.name)
            if not in_archive and row.name not in self.unsealed:
                self.problems.append(rules.MISSING_FILE.problem("it is listed and not in the upload", file=row.name))
            return None
        if entry.size != row.size:
            self.problems.append(
                rules.SIZE_MISMATCH.problem(f"it has {entry.size} bytes, listed are {row.size}", file=row.name)
            )
            return None
        for algorithm in Digests.__slots__:
            listed, found = getattr(row.digests, algorithm), getattr(entry.digests, algorithm)
            if listed and listed != found:
                self.problems.append(
                    rules.CHECKSUM_MISMATCH.problem(f"its {algorithm} is {found}, listed is {listed}", file=row.name)
                )
                return None
        return entry

    def _row(self, row: Row, suites: list[SuiteConfig]) -> Iterator[Problem]:
        """Section, component and priority, as the .changes has them."""
        if row.name.endswith(".buildinfo") or not row.section:
            return
        if row.priority not in (*_PRIORITIES, "-") and row.priority:
            yield rules.UNKNOWN_PRIORITY.problem(f'its priority is "{plain(row.priority)}"', file=row.name)
        component = _component(row.section)
        for suite in suites:
            if component not in suite.components:
                yield rules.UNKNOWN_COMPONENT.problem(
                    f"its component is {plain(component)}, {suite.name} has {', '.join(suite.components)}",
                    file=row.name,
                )
            match = _BINARY.fullmatch(row.name)
            if match and match["architecture"] not in (*suite.binary_architectures, "all"):
                yield rules.UNKNOWN_ARCHITECTURE.problem(
                    f"its architecture is {match['architecture']}, {suite.name} has "
                    f"{', '.join(suite.binary_architectures)}",
                    file=row.name,
                )

    def _binary(self, changes: Changes, row: Row, entry: FileEntry) -> list[BinaryPackage]:
        context = BinaryContext(
            source=changes.source,
            version=changes.version,
            names=changes.binaries,
            section=row.section,
            priority=row.priority,
            component=_component(row.section),
            now=self.job.now,
        )
        outcome = check_binary(self.job.folder / row.name, entry, context)
        self.problems += outcome.problems
        return [outcome.package] if outcome.package else []

    def _source(self, changes: Changes, row: Row, entry: FileEntry, suites: list[SuiteConfig]) -> list[SourcePackage]:
        text = self._text(row.name)
        if text is None:
            return []
        checks = suites[0].checks if suites else self.job.config.checks
        if is_signed(text) or checks.require_dsc_signature:
            inner = self._inner_text(text, row.name, required=checks.require_dsc_signature)
            if inner is None:
                return []
            text = inner
        context = SourceContext(
            source=changes.source,
            version=changes.version,
            section=row.section,
            priority=row.priority,
            component=_component(row.section),
            folder=self.job.folder,
            files=self.files,
            checks=checks,
        )
        outcome = check_source(text, entry, context)
        self.problems += outcome.problems
        return [outcome.package] if outcome.package else []

    def _inner_text(self, text: bytes, name: str, *, required: bool) -> bytes | None:
        """The signed bytes of a .dsc or .buildinfo, which may carry another key than the .changes."""
        signed = self.verifier.verify(text, name)
        codes = {problem.code for problem in signed.problems}
        if signed.text is not None:
            return signed.text
        if codes == {rules.UNKNOWN_KEY.code} and not required:
            # The signed .changes vouches for the file's digest.
            self.warnings += signed.problems
            return unwrapped(text)
        if required and codes & {rules.UNSIGNED.code, rules.UNKNOWN_KEY.code}:
            self.problems.append(rules.UNSIGNED_DSC.problem("it is not signed by a trusted key", file=name))
        else:
            self.problems += signed.problems
        return None

    def _buildinfo(self, row: Row) -> None:
        text = self._text(row.name)
        if text is not None and is_signed(text):
            self._inner_text(text, row.name, required=False)

    def _stray_source_files(self, changes: Changes, sources: list[SourcePackage]) -> None:
        """A tarball that no .dsc lists would be in the pool and in no index."""
        known = {file.name for source in sources for file in source.files}
        for row in changes.rows:
            if sources and _SOURCE_FILE.fullmatch(row.name) and row.name not in known:
                self.problems.append(rules.BYHAND.problem("the .dsc does not list it", file=row.name))


def _component(section: str) -> str:
    """``contrib/devel`` is of contrib, ``devel`` of main (Debian Policy 2.4)."""
    return section.rpartition("/")[0] or "main"


def _matches(patterns: tuple[str, ...], name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def unwrapped(text: bytes) -> bytes:
    """The text in a clear-signed block whose key is unknown (RFC 4880 §7): dash escapes undone, nothing believed."""
    lines = text.split(b"\n")
    start = lines.index(b"") + 1 if b"" in lines else len(lines)
    end = next((n for n, line in enumerate(lines) if line.startswith(b"-----BEGIN PGP SIGNATURE")), len(lines))
    return b"\n".join(line.removeprefix(b"- ") for line in lines[start:end]) + b"\n"
