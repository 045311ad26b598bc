"""Decides what an operator's request does to the archive: copy, remove, rollback. Pure, in sequence, as an upload is.

A copy obeys the rules of an upload: nothing older than what the suite has, and a binary package's name stays with its
source (:mod:`.ownership`), unless the operator says otherwise. Removal and rollback are the two ways to bring an older
version back, and both stand in the history.
"""

from collections.abc import Iterable, Sequence

from debian.debian_support import Version

from incomingd import rules
from incomingd.config import Config, SuiteConfig
from incomingd.journal.catalogue import Catalogue, Change, Listed, Package, PackageKey
from incomingd.journal.generations import Generations
from incomingd.model import Operation, OperationKind, Problem, split_section
from incomingd.publish import ownership
from incomingd.publish.overlay import SOURCE, Decision
from incomingd.publish.ownership import SOURCE_INDEX
from incomingd.publish.stanza import fields_of
from incomingd.rights import Place, debugged, rights_of


def decide_operation(operation: Operation, catalogue: Catalogue, generations: Generations, config: Config) -> Decision:
    """What the request means for its suite."""
    suite = config.suite(operation.suite)
    if suite is None:
        known = ", ".join(s.name for s in config.suites)
        return _refused(rules.UNKNOWN_DISTRIBUTION.problem(f"there is no suite {operation.suite}; there are {known}"))
    if suite.retired:
        return _refused(rules.SUITE_RETIRED.problem(f"the suite {suite.name} is retired"))
    if operation.kind is OperationKind.COPY:
        return _Copy(operation, suite, catalogue, config).decide()
    if operation.kind is OperationKind.REMOVE:
        return _remove(operation, catalogue)
    return _rollback(operation, catalogue, generations)


def _refused(*problems: Problem) -> Decision:
    return Decision(problems=problems)


def _wanted(operation: Operation) -> str:
    return f"{operation.source} {operation.version}" if operation.version else f"{operation.source}"


def _decided(
    operation: Operation,
    changes: Iterable[Change],
    packages: Iterable[Package],
    *,
    warnings: Iterable[Problem] = (),
    forgotten: Iterable[str] = (),
) -> Decision:
    return Decision(
        problems=(),
        suites=(operation.suite,),
        changes=tuple((operation.suite, change) for change in changes),
        files=tuple(dict.fromkeys(path for package in packages for path in package.paths)),
        warnings=tuple(dict.fromkeys(warnings)),
        forgotten=tuple(forgotten),
    )


class _Copy:
    """One copy while it is decided. It counts as an upload by the key that brought the package."""

    def __init__(self, operation: Operation, suite: SuiteConfig, catalogue: Catalogue, config: Config) -> None:
        self._operation, self._suite, self._catalogue, self._config = operation, suite, catalogue, config
        self._changes: list[Change] = []
        self._problems: list[Problem] = []
        self._warnings: list[Problem] = []

    def decide(self) -> Decision:
        wanted, suite = self._operation, self._suite
        found = self._catalogue.listed_source(wanted.from_suite or "", wanted.source or "", wanted.version)
        if not found:
            there = f"{wanted.from_suite} has no source package {_wanted(wanted)}"
            return _refused(rules.NOT_IN_SUITE.problem(there))
        arriving: dict[PackageKey, tuple[Package, list[str]]] = {}
        for section, package in found:
            component, index = split_section(section)
            if component not in suite.components:
                lacks = f"{suite.name} has no component {component} for {package.key}"
                self._problems.append(rules.UNKNOWN_COMPONENT.problem(lacks))
            elif index == SOURCE_INDEX or index.rpartition("binary-")[2] in suite.binary_architectures:
                arriving.setdefault(package.key, (package, []))[1].append(section)
        for package, sections in arriving.values():
            self._arrive(package, sections)
        if self._problems:
            return _refused(*dict.fromkeys(self._problems))
        return _decided(wanted, self._changes, (package for _, package in found), warnings=self._warnings)

    def _arrive(self, package: Package, sections: Sequence[str]) -> None:
        """One package into its sections."""
        listed = self._catalogue.listed(self._suite.name, package.key.name)
        changes = [change for section in sections for change in self._into(section, package.key, listed)]
        if changes:
            self._judge(package, sections, listed)
        self._changes += changes

    def _into(self, section: str, key: PackageKey, listed: Sequence[Listed]) -> list[Change]:
        rivals = [one for one in listed if one.index == split_section(section)[1]]
        newer = [one.package for one in rivals if Version(one.package.version) > Version(key.version)]
        if newer:
            found = f"{self._suite.name} has {newer[0]} already, and {key} is older"
            self._problems.append(rules.VERSION_NOT_NEWER.problem(found))
        gone = [Change(section=one.section, name=key.name, package=None) for one in rivals if one.section != section]
        if any(one.section == section and one.package == key for one in rivals):
            return gone
        return [*gone, Change(section=section, name=key.name, package=key)]

    def _judge(self, package: Package, sections: Sequence[str], listed: Sequence[Listed]) -> None:
        suite, take_over = self._suite.name, self._operation.take_over
        rights = rights_of(self._config.uploaders, package.signed_by, package.signing_key)
        place = Place(suite=suite, component=package.component, source=package.source)
        fields = fields_of(package.stanza)
        if package.key.kind == SOURCE:
            if not take_over and not rights.unlimited:
                names = ownership.claims(fields)
                found = self._catalogue.listed_many(suite, names | {debugged(name) for name in names})
                there = {name: ownership.binaries(found, name) for name in names}
                self._problems += ownership.claimed(place, there, rights, str(package.key), named=False)
            return
        name, base = package.key.name, debugged(package.key.name)
        arrival = ownership.Arrival(
            name=name,
            place=place,
            indexes=tuple(split_section(section)[1] for section in sections),
            essential=ownership.essential(fields),
            file=None,
        )
        known = {base: self._catalogue.listed(suite, base) if base != name else [], name: listed}
        verdict = ownership.copied(arrival, ownership.binaries(known, name), rights, take_over=take_over)
        self._problems += verdict.problems
        self._warnings += verdict.warnings


def _remove(operation: Operation, catalogue: Catalogue) -> Decision:
    found = catalogue.listed_source(operation.suite, operation.source or "", operation.version)
    packages = [package for _, package in found]
    if operation.forget:
        packages += catalogue.unlisted_source(operation.source or "", operation.version)
    if not packages:
        return _refused(rules.NOT_IN_SUITE.problem(f"{operation.suite} has no source package {_wanted(operation)}"))
    changes = (Change(section=section, name=package.key.name, package=None) for section, package in found)
    forgotten = dict.fromkeys(path for package in packages for path in package.paths) if operation.forget else ()
    return _decided(operation, changes, packages, forgotten=forgotten)


def _rollback(operation: Operation, catalogue: Catalogue, generations: Generations) -> Decision:
    current = generations.current(operation.suite)
    wanted = operation.generation or 0
    if current is None or not 0 < wanted < current.number:
        now = f"it is at generation {current.number}" if current else "it has none yet"
        return _refused(
            rules.UNKNOWN_GENERATION.problem(f"{operation.suite} cannot go back to generation {wanted}: {now}")
        )
    former = catalogue.before(operation.suite, wanted)
    lost = dict.fromkeys(one.change.package for one in former if one.is_lost)
    if lost:
        return _refused(
            *(
                rules.POOL_FILE_GONE.problem(
                    f"{key} of generation {wanted} was removed, and its name or that of one of its files has other "
                    "content since; upload it again with a higher version"
                )
                for key in lost
            )
        )
    changes = [one.change for one in former]
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
