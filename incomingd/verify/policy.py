"""Where an upload may go, and who may send it there: pure decisions on a .changes, its signature and the settings."""

import fnmatch
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from incomingd import rules
from incomingd.config import ChecksConfig, Config, QueueConfig, SuiteConfig, UploaderRule
from incomingd.model import Problem, plain
from incomingd.verify import files
from incomingd.verify.changes import Changes
from incomingd.verify.files import Kind
from incomingd.verify.signature import Signed


def suites(changes: Changes, config: Config, file: str) -> tuple[tuple[SuiteConfig, ...], list[Problem]]:
    """The suites that Distribution maps to; each of its words has to."""
    found: dict[str, SuiteConfig] = {}
    problems = []
    for word in changes.distributions:
        suite = config.suite_for(word)
        if suite is not None:
            found[suite.name] = suite
            continue
        known = ", ".join(dict.fromkeys(word for suite in config.suites for word in suite.accepts))
        problems.append(
            rules.UNKNOWN_DISTRIBUTION.problem(f'Distribution has "{plain(word)}", and known are {known}', file=file)
        )
    return tuple(found.values()), problems


def elsewhere(into: Iterable[SuiteConfig], queue: QueueConfig, file: str) -> Iterator[Problem]:
    """Suites that this queue does not take uploads for."""
    for suite in into:
        if queue.suites and suite.name not in queue.suites:
            found = f"it is for {suite.name}, and [incoming.{queue.name}] takes uploads for {', '.join(queue.suites)}"
            yield rules.SUITE_NOT_HERE.problem(found, file=file)


def strictest(into: Sequence[SuiteConfig], default: ChecksConfig) -> ChecksConfig:
    """The settings of all the suites together: what one of them forbids is forbidden."""
    if not into:
        return default
    every = [suite.checks for suite in into]
    ages = [checks.max_signature_age for checks in every if checks.max_signature_age]
    return replace(
        every[0],
        max_text_file=min(checks.max_text_file for checks in every),
        max_signature_age=min(ages, default=0.0),
        require_dsc_signature=any(checks.require_dsc_signature for checks in every),
        require_source=any(checks.require_source for checks in every),
        source_formats=tuple(f for f in every[0].source_formats if all(f in checks.source_formats for checks in every)),
        extra_sections=tuple(s for s in every[0].extra_sections if all(s in checks.extra_sections for checks in every)),
    )


def component(section: str, into: Sequence[SuiteConfig], file: str = "") -> str:
    """Where a package of that section lands: in the component that it names (``contrib/net``), else in main.

    An archive without main has its own names: there it is the first component of the suite. Debug symbols, by the name
    of their ``file``, land in the suite's debug component, where it has one.
    """
    if into and into[0].debug_component and files.is_debug(file):
        return into[0].debug_component
    named = files.component(section)
    if named or not into or "main" in into[0].components:
        return named or "main"
    return into[0].components[0]


def places(changes: Changes, into: Sequence[SuiteConfig], overridden: Callable[[str, str], str]) -> Iterator[Problem]:
    """Each suite has the component and the architecture of each package.

    ``overridden`` gives the section that the archive has for a file's name and the section it comes with.
    """
    for row in changes.rows:
        kind = files.kind(row.name)
        if kind not in (Kind.BINARY, Kind.DSC):
            continue
        wanted = component(overridden(row.name, row.section), into, row.name)
        architecture = files.architecture(row.name) if kind is Kind.BINARY else "all"
        for suite in into:
            if wanted not in suite.components:
                yield rules.UNKNOWN_COMPONENT.problem(
                    f'its component is "{plain(wanted)}", and {suite.name} has {", ".join(suite.components)}',
                    file=row.name,
                )
            if architecture not in (*suite.binary_architectures, "all"):
                known = ", ".join(suite.binary_architectures)
                yield rules.UNKNOWN_ARCHITECTURE.problem(
                    f'its architecture is "{plain(architecture)}", and {suite.name} has {known}', file=row.name
                )


def rights(
    changes: Changes, into: Iterable[SuiteConfig], signed: Signed, table: Sequence[UploaderRule], file: str
) -> Iterator[Problem]:
    """The uploaders table. Without one, every trusted key may upload everything.

    A row counts for a key that it names and for the primary key of a subkey that it names. What one row does not allow
    another may. An unsigned upload has come where unsigned ones are allowed: the table says nothing of it.
    """
    if not table or signed.signed_by is None:
        return
    who = f"the key {signed.signed_by}"
    own = [row for row in table if row.key in (signed.signed_by, signed.signing_key)]
    if not own:
        yield rules.KEY_NOT_ALLOWED.problem(f"{who} is trusted, and no [[uploaders]] names it", file=file)
        return
    ours = [row for row in own if _matches(row.sources, changes.source)]
    if not ours:
        allowed = ", ".join(dict.fromkeys(glob for row in own for glob in row.sources))
        yield rules.KEY_NOT_ALLOWED.problem(
            f"{who} may upload the sources {allowed}, and this is {plain(changes.source)}", file=file
        )
        return
    sourceful = "source" in changes.architectures or any(files.kind(row.name) is Kind.DSC for row in changes.rows)
    for suite in into:
        here = [row for row in ours if _matches(row.suites, suite.name)]
        if not here:
            allowed = ", ".join(dict.fromkeys(glob for row in ours for glob in row.suites))
            found = f"{who} may upload {plain(changes.source)} to {allowed}, and this is for {suite.name}"
            yield rules.KEY_NOT_ALLOWED.problem(found, file=file)
        elif sourceful and all(row.binaries_only for row in here):
            yield rules.KEY_NOT_ALLOWED.problem(
                f"{who} may upload binaries only to {suite.name}, and this has the source", file=file
            )


def _matches(globs: Iterable[str], name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, glob) for glob in globs)
