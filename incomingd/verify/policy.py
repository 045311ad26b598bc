"""Where an upload may go, and who may send it there: pure decisions on a .changes, its signature and the settings."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from incomingd import rules
from incomingd.config import ChecksConfig, Config, QueueConfig, SuiteConfig
from incomingd.model import Problem, plain
from incomingd.rights import Rights, Wish
from incomingd.verify import files
from incomingd.verify.changes import Changes
from incomingd.verify.files import Kind


def suites(changes: Changes, config: Config, file: str) -> tuple[tuple[SuiteConfig, ...], list[Problem]]:
    """The suites that Distribution maps to; each of its words has to."""
    found: dict[str, SuiteConfig] = {}
    problems = []
    for word in changes.distributions:
        suite = config.suite_for(word)
        if suite is not None and suite.retired:
            told = f'Distribution has "{plain(word)}", and the suite {suite.name} is retired'
            problems.append(rules.SUITE_RETIRED.problem(told, file=file))
            continue
        if suite is not None:
            found[suite.name] = suite
            continue
        taking = (suite for suite in config.suites if not suite.retired)
        known = "; ".join(f"{suite.name} takes {', '.join(suite.accepts)}" for suite in taking)
        found_and_known = f'Distribution has "{plain(word)}", which no suite takes ({known})'
        problems.append(rules.UNKNOWN_DISTRIBUTION.problem(found_and_known, file=file))
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
        max_stanza=min(checks.max_stanza for checks in every),
        max_unpacked=min(checks.max_unpacked for checks in every),
        max_signature_age=min(ages, default=0.0),
        require_dsc_signature=any(checks.require_dsc_signature for checks in every),
        require_source=any(checks.require_source for checks in every),
        strict=any(checks.strict for checks in every),
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
    if named and into and named not in into[0].components and not files.is_section(section, _explicit(into[0])):
        named = ""  # it is no section at all, as "Applications/Internet" is none
    if named or not into or "main" in into[0].components:
        return named or "main"
    return into[0].components[0]


def _explicit(suite: SuiteConfig) -> tuple[str, ...]:
    return tuple(section for section in suite.checks.extra_sections if section != "*")


def places(
    changes: Changes,
    into: Sequence[SuiteConfig],
    overridden: Callable[[str, str], str],
    known: Mapping[str, str],
) -> Iterator[Problem]:
    """Each suite has the component and the architecture of each package.

    ``overridden`` gives the section that the archive has for a file's name and the section it comes with; ``known`` as
    for :func:`~incomingd.verify.files.architectures`.
    """
    for row in changes.rows:
        kind = files.kind(row.name)
        if kind not in (Kind.BINARY, Kind.DSC):
            continue
        wanted = component(overridden(row.name, row.section), into, row.name)
        architecture = (known.get(row.name) or files.architecture(row.name)) if kind is Kind.BINARY else "all"
        for suite in into:
            if wanted not in suite.components:
                yield rules.UNKNOWN_COMPONENT.problem(
                    f'its component is "{plain(wanted)}", and {suite.name} has {", ".join(suite.components)}',
                    file=row.name,
                )
            if architecture not in (*suite.binary_architectures, "all"):
                has = ", ".join(suite.binary_architectures)
                yield rules.UNKNOWN_ARCHITECTURE.problem(
                    f'its architecture is "{plain(architecture)}", and {suite.name} has {has}', file=row.name
                )


def landing(changes: Changes, into: Sequence[SuiteConfig], overridden: Callable[[str, str], str]) -> frozenset[str]:
    """The components that the packages land in. ``overridden`` as in :func:`places`."""
    packages = (row for row in changes.rows if files.kind(row.name) in (Kind.BINARY, Kind.DSC))
    return frozenset(component(overridden(row.name, row.section), into, row.name) for row in packages)


def rights(
    changes: Changes, components: frozenset[str], into: Iterable[SuiteConfig], whose: Rights, file: str
) -> Iterator[Problem]:
    """What the uploaders table says against a .changes whose packages land in ``components``.

    Which binary names the key may bring depends on the archive and is decided in sequence.
    """
    sourceful = "source" in changes.architectures or any(files.kind(row.name) is Kind.DSC for row in changes.rows)
    suites = tuple(suite.name for suite in into)
    wish = Wish(source=changes.source, suites=suites, components=components, sourceful=sourceful)
    yield from whose.refusals(wish, file)
