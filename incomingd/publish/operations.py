"""Decides what an operator's request does to the archive: copy, remove, rollback. Pure, in sequence, as an upload is.

A copy obeys the rules of an upload: nothing older than what the suite has. Removal and rollback are the two ways to
bring an older version back, and both stand in the history.
"""

from collections.abc import Iterable

from debian.debian_support import Version

from incomingd import rules
from incomingd.config import Config, SuiteConfig
from incomingd.journal.catalogue import Catalogue, Change, Package, PackageKey
from incomingd.journal.generations import Generations
from incomingd.model import Operation, OperationKind, Problem, split_section
from incomingd.publish.decide import Decision


def decide_operation(operation: Operation, catalogue: Catalogue, generations: Generations, config: Config) -> Decision:
    """What the request means for its suite."""
    suite = config.suite(operation.suite)
    if suite is None:
        known = ", ".join(s.name for s in config.suites)
        return _refused(rules.UNKNOWN_DISTRIBUTION.problem(f"there is no suite {operation.suite}; there are {known}"))
    if operation.kind is OperationKind.COPY:
        return _copy(operation, suite, catalogue)
    if operation.kind is OperationKind.REMOVE:
        return _remove(operation, catalogue)
    return _rollback(operation, catalogue, generations)


def _refused(*problems: Problem) -> Decision:
    return Decision(problems=problems)


def _wanted(operation: Operation) -> str:
    return f"{operation.source} {operation.version}" if operation.version else f"{operation.source}"


def _decided(operation: Operation, changes: Iterable[Change], packages: Iterable[Package]) -> Decision:
    return Decision(
        problems=(),
        suites=(operation.suite,),
        changes=tuple((operation.suite, change) for change in changes),
        files=tuple(dict.fromkeys(path for package in packages for path in package.paths)),
    )


def _copy(operation: Operation, suite: SuiteConfig, catalogue: Catalogue) -> Decision:
    found = catalogue.listed_source(operation.from_suite or "", operation.source or "", operation.version)
    if not found:
        return _refused(
            rules.NOT_IN_SUITE.problem(f"{operation.from_suite} has no source package {_wanted(operation)}")
        )
    problems: list[Problem] = []
    changes: list[Change] = []
    for section, package in found:
        component, index = split_section(section)
        architecture = index.rpartition("binary-")[2]
        if component not in suite.components:
            problems.append(
                rules.UNKNOWN_COMPONENT.problem(f"{suite.name} has no component {component} for {package.key}")
            )
        elif index == "source" or architecture in suite.binary_architectures:
            changes += _into(suite, section, package.key, catalogue, problems)
    if problems:
        return _refused(*dict.fromkeys(problems))
    return _decided(operation, changes, (package for _, package in found))


def _into(
    suite: SuiteConfig, section: str, key: PackageKey, catalogue: Catalogue, problems: list[Problem]
) -> list[Change]:
    index = split_section(section)[1]
    rivals = [one for one in catalogue.listed(suite.name, key.name) if split_section(one.section)[1] == index]
    newer = [one.package for one in rivals if Version(one.package.version) > Version(key.version)]
    if newer:
        problems.append(rules.VERSION_NOT_NEWER.problem(f"{suite.name} has {newer[0]} already, and {key} is older"))
    elsewhere = [Change(section=one.section, name=key.name, package=None) for one in rivals if one.section != section]
    if any(one.section == section and one.package == key for one in rivals):
        return elsewhere
    return [*elsewhere, Change(section=section, name=key.name, package=key)]


def _remove(operation: Operation, catalogue: Catalogue) -> Decision:
    found = catalogue.listed_source(operation.suite, operation.source or "", operation.version)
    if not found:
        return _refused(rules.NOT_IN_SUITE.problem(f"{operation.suite} has no source package {_wanted(operation)}"))
    changes = (Change(section=section, name=package.key.name, package=None) for section, package in found)
    return _decided(operation, changes, (package for _, package in found))


def _rollback(operation: Operation, catalogue: Catalogue, generations: Generations) -> Decision:
    current = generations.current(operation.suite)
    wanted = operation.generation or 0
    if current is None or not 0 < wanted < current.number:
        now = f"it is at generation {current.number}" if current else "it has none yet"
        return _refused(
            rules.UNKNOWN_GENERATION.problem(f"{operation.suite} cannot go back to generation {wanted}: {now}")
        )
    changes = catalogue.before(operation.suite, wanted)
    packages = [package for package in (catalogue.package(c.package) for c in changes if c.package) if package]
    gone = [path for package in packages for path in package.paths if _is_gone(catalogue, path)]
    if gone:
        return _refused(
            *(
                rules.POOL_FILE_GONE.problem(f"{path} was removed after the grace time; upload it again")
                for path in gone
            )
        )
    return _decided(operation, changes, packages)


def _is_gone(catalogue: Catalogue, path: str) -> bool:
    file = catalogue.pool_file(path)
    return file is None or file.gone
