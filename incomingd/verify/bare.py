"""An upload of .debs without a .changes, where its queue allows that.

Each source version among the files becomes what an unsigned .changes for the queue's default suite would have come to.
Nobody vouches for such files: what holds for them is what holds for any binary, and no rule on uploaders.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from incomingd.config import SuiteConfig
from incomingd.model import (
    BinaryPackage,
    ChangesSummary,
    CheckedChanges,
    Digests,
    FileEntry,
    Problem,
    plain,
    without_epoch,
)
from incomingd.verify import files, overrides, policy
from incomingd.verify.binary import check_alone
from incomingd.verify.changes import Changes, Row
from incomingd.verify.streams import Spare


@dataclass(frozen=True, slots=True, kw_only=True)
class BareContext:
    """The sealed files' ``folder``, the suite that they are for, and who is told of each before it is looked into."""

    folder: Path
    suite: SuiteConfig
    now: datetime
    reading: Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class BareOutcome:
    """What the .debs came to; ``changes`` counts only where there are no problems."""

    changes: tuple[CheckedChanges, ...]
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...] = ()

    @property
    def summaries(self) -> tuple[ChangesSummary, ...]:
        """For the status file, as of any .changes."""
        return tuple(
            ChangesSummary(
                file=one.file.name,
                source=plain(one.source),
                version=plain(one.version),
                distribution=one.distribution,
                architectures=one.architectures,
            )
            for one in self.changes
        )


def check_bare(debs: Iterable[FileEntry], context: BareContext) -> BareOutcome:
    """Check .debs that came alone."""
    problems: list[Problem] = []
    warnings: list[Problem] = []
    checks = context.suite.checks
    found: dict[tuple[str, str], list[BinaryPackage]] = {}
    into = (context.suite,)
    said = overrides.load(into)
    spare = Spare(checks.max_unpacked)

    def component(section: str, name: str) -> str:
        return policy.component(section, into, name)

    for entry in debs:
        context.reading(entry.name)
        outcome = check_alone(
            context.folder / entry.name, entry, component, context.now, spare, checks=checks, overridden=said
        )
        problems += outcome.problems
        warnings += outcome.warnings
        if outcome.package:
            found.setdefault((outcome.package.source, outcome.package.source_version), []).append(
                said.placed(outcome.package, component)
            )
    for packages in found.values():
        problems += _misplaced(packages, context.suite)
    checked = (_checked(source, version, packages, context.suite) for (source, version), packages in found.items())
    return BareOutcome(changes=tuple(checked), problems=tuple(problems), warnings=tuple(warnings))


def _misplaced(packages: Sequence[BinaryPackage], suite: SuiteConfig) -> Iterator[Problem]:
    """Sections, priorities, components and architectures, as of any upload."""
    rows = tuple(
        Row(
            name=package.file.name,
            size=package.file.size,
            digests=package.file.digests,
            section=package.section,
            priority=package.priority,
        )
        for package in packages
    )
    promise = Changes(
        source=packages[0].source,
        source_version=packages[0].source_version,
        version=packages[0].source_version,
        distributions=(suite.name,),
        architectures=_architectures(packages),
        binaries=frozenset(package.package for package in packages),
        rows=rows,
    )
    known = {package.file.name: package.architecture for package in packages}
    yield from files.kinds(promise)
    yield from policy.places(promise, (suite,), lambda _, section: section, known)


def _checked(source: str, version: str, packages: Sequence[BinaryPackage], suite: SuiteConfig) -> CheckedChanges:
    architectures = _architectures(packages)
    stand_in = _stand_in(plain(f"{source}_{without_epoch(version)}_{architectures[0]}.changes"), packages, suite)
    return CheckedChanges(
        file=stand_in,
        source=source,
        version=version,
        distribution=suite.accepts[0],
        suites=(suite.name,),
        architectures=architectures,
        signed_by=None,
        binaries=tuple(packages),
        sources=(),
        others=(),
        identity=stand_in.digests.sha256,
    )


def _architectures(packages: Iterable[BinaryPackage]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(plain(package.architecture) for package in packages))


def _stand_in(name: str, packages: Iterable[BinaryPackage], suite: SuiteConfig) -> FileEntry:
    """In place of the .changes: the same files for the same suite are known again by its digest, as a replay is."""
    lines = sorted(f"{package.file.digests.sha256} {package.file.name}\n" for package in packages)
    text = f"bare packages for {suite.name}\n{''.join(lines)}".encode()
    digests = Digests(
        md5=hashlib.md5(text, usedforsecurity=False).hexdigest(),
        sha1=hashlib.sha1(text, usedforsecurity=False).hexdigest(),
        sha256=hashlib.sha256(text).hexdigest(),
    )
    return FileEntry(name=name, size=len(text), digests=digests)
