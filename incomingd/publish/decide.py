"""Decides what one upload does to the archive: pure, in order, with nothing written.

What is asked here depends on what the archive holds, so it is asked in sequence only: whose a binary package's name is
(:mod:`.ownership`), the same name with other bytes, the order of versions, an orig tarball that is in the pool already,
a replay. What the uploader may not do is told alone, without anything else of what the archive holds.
:class:`~.overlay.Overlay` shows the archive as the decisions before this one in the same publish leave it.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace

from debian.debian_support import Version

from incomingd import rules
from incomingd.config import Config, SuiteConfig
from incomingd.journal.catalogue import Change, Listed, Package, PackageKey, PoolFile
from incomingd.model import (
    BinaryKind,
    BinaryPackage,
    CheckedChanges,
    Digests,
    FileEntry,
    Problem,
    SourcePackage,
    pool_directory,
    split_section,
)
from incomingd.publish import ownership
from incomingd.publish.overlay import SOURCE, Archive, Decision
from incomingd.publish.stanza import packages_stanza, size_faults, sources_stanza
from incomingd.rights import Place, Rights, Wish, debugged, rights_of

#: More warnings than are read; they would also fill the status file.
_MAX_WARNINGS = 200


@dataclass(slots=True)
class _Draft:
    """A decision while it is being made. ``refusals`` are what the uploader may not do; ``shown`` is what each suite
    lists under a name by now, by section."""

    archive: Archive
    config: Config
    refusals: list[Problem] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    pool: dict[str, PoolFile] = field(default_factory=dict)
    packages: dict[PackageKey, Package] = field(default_factory=dict)
    changes: dict[tuple[str, str, str], Change] = field(default_factory=dict)
    files: dict[str, None] = field(default_factory=dict)
    shown: dict[tuple[str, str], dict[str, Listed]] = field(default_factory=dict)

    def listed(self, suite: str, name: str) -> dict[str, Listed]:
        """What the suite lists under a name by now, by section; to be changed with it."""
        found = self.shown.get((suite, name))
        if found is None:
            found = {one.section: one for one in self.archive.listed(suite, name)}
            self.shown[suite, name] = found
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """One .changes of the upload, whose it is, and the sources that the whole upload brings.

    ``again``: the very same .changes was published before.
    """

    draft: _Draft
    changes: CheckedChanges
    again: bool
    rights: Rights
    with_sources: frozenset[tuple[str, str]]


def decide(upload: Iterable[CheckedChanges], archive: Archive, config: Config) -> Decision:
    """What publishing the .changes of one upload means, all of them or none."""
    draft = _Draft(archive=archive, config=config)
    all_changes = tuple(upload)
    with_sources = frozenset((s.source, s.version) for changes in all_changes for s in changes.sources)
    works = []
    for changes in all_changes:
        rights = rights_of(config.uploaders, changes.signed_by, changes.signing_key)
        draft.refusals += rights.refusals(_wish(changes), changes.file.name)
        again = archive.was_published(changes)
        work = _Work(draft=draft, changes=changes, again=again, rights=rights, with_sources=with_sources)
        works.append(work)
        for source in changes.sources:
            _source(work, source)
        for binary in changes.binaries:
            _binary(work, binary)
    if draft.refusals:
        return Decision(problems=tuple(dict.fromkeys(draft.refusals)))
    if draft.problems or draft.pool or draft.packages or draft.changes:
        _replays(draft, works)
    if draft.problems:
        return Decision(problems=tuple(dict.fromkeys(draft.problems)))
    return Decision(
        problems=(),
        suites=tuple(dict.fromkeys(suite for changes in all_changes for suite in changes.suites)),
        pool=tuple(draft.pool.values()),
        packages=tuple(draft.packages.values()),
        changes=tuple((suite, change) for (suite, _, _), change in draft.changes.items()),
        files=tuple(draft.files),
        published_changes=all_changes,
        warnings=tuple(dict.fromkeys(draft.warnings))[:_MAX_WARNINGS],
    )


def _wish(changes: CheckedChanges) -> Wish:
    """Once more what the check asked the table: it may have changed while the upload waited."""
    return Wish(
        source=changes.source,
        suites=changes.suites,
        components=frozenset(
            (*(one.component for one in changes.binaries), *(one.component for one in changes.sources))
        ),
        sourceful=bool(changes.sources),
    )


def _replays(draft: _Draft, works: Iterable[_Work]) -> None:
    """A .changes that was published once and would still change something was superseded since."""
    for changes in (work.changes for work in works if work.again):
        draft.problems.append(
            rules.REPLAYED.problem(
                f"this very .changes ({changes.source} {changes.version}) was published before and what it brought "
                "has been superseded or removed since",
                file=changes.file.name,
            )
        )


def _component(work: _Work, key: PackageKey, component: str) -> str:
    """Where the very same .changes has put it, whatever the settings say by now: it may be sent again and again."""
    there = work.draft.archive.package(key) if work.again else None
    return there.component if there else component


def _source(work: _Work, source: SourcePackage) -> None:
    draft, changes = work.draft, work.changes
    key = PackageKey(kind=SOURCE, name=source.source, version=source.version, architecture="source")
    source = replace(source, component=_component(work, key, source.component))
    directory = pool_directory(source.component, source.source)
    wanted = [(source.dsc, True), *((f, f.name in source.in_upload) for f in source.files)]
    replaced = _pool_files(draft, directory, wanted, key)
    source = replace(source, files=tuple(_as_known(draft, directory, file) for file in source.files))
    package = Package(
        key=key,
        source=source.source,
        source_version=source.version,
        component=source.component,
        stanza=sources_stanza(source, directory, draft.config.publish),
        paths=tuple(f"{directory}/{f.name}" for f, _ in wanted),
        signed_by=changes.signed_by,
        signing_key=changes.signing_key,
    )
    _package(draft, package, source.dsc, replaced=source.dsc.name in replaced)
    for suite in _suites(draft, changes):
        _may_bring_source(work, suite, source)
        draft.problems += size_faults(package.stanza, source.dsc.name, suite.checks.max_stanza)
        _list(draft, suite, package, [f"{source.component}/source"], source.dsc.name)


def _binary(work: _Work, binary: BinaryPackage) -> None:
    draft, changes = work.draft, work.changes
    key = PackageKey(kind=binary.kind, name=binary.package, version=binary.version, architecture=binary.architecture)
    binary = replace(binary, component=_component(work, key, binary.component))
    directory = pool_directory(binary.component, binary.source)
    path = f"{directory}/{binary.pool_name}"
    in_pool = replace(binary.file, name=binary.pool_name)
    replaced = _pool_files(draft, directory, [(in_pool, True)], key, binary.file.name)
    package = Package(
        key=key,
        source=binary.source,
        source_version=binary.source_version,
        component=binary.component,
        stanza=packages_stanza(binary, path, draft.config.publish),
        paths=(path,),
        signed_by=changes.signed_by,
        signing_key=changes.signing_key,
    )
    _package(draft, package, binary.file, replaced=bool(replaced))
    for suite in _suites(draft, changes):
        _has_source(draft, suite, binary, work.with_sources)
        sections = _sections(suite, binary)
        _may_bring(work, suite, binary, sections)
        draft.problems += size_faults(package.stanza, binary.file.name, suite.checks.max_stanza)
        _list(draft, suite, package, sections, binary.file.name)


def _may_bring(work: _Work, suite: SuiteConfig, binary: BinaryPackage, sections: Iterable[str]) -> None:
    """Whose the name is, and whether the uploader may bring it."""
    names = {name: work.draft.listed(suite.name, name).values() for name in (binary.package, debugged(binary.package))}
    arrival = ownership.Arrival(
        name=binary.package,
        place=Place(suite=suite.name, component=binary.component, source=binary.source),
        indexes=tuple(split_section(section)[1] for section in sections),
        essential=ownership.essential(binary.control, binary.priority),
        file=binary.file.name,
    )
    verdict = ownership.upload(arrival, ownership.binaries(names, binary.package), work.rights)
    work.draft.refusals += verdict.problems
    work.draft.warnings += verdict.warnings


def _may_bring_source(work: _Work, suite: SuiteConfig, source: SourcePackage) -> None:
    """Whether the uploader may bring a source package there, and what it says that it builds."""
    rights, draft = work.rights, work.draft
    if rights.unlimited:
        return
    place = Place(suite=suite.name, component=source.component, source=source.source)
    if rights.key is not None:
        if rights.may(place) and not rights.rules_for(place, source=True):
            found = (
                f"{rights.who} may upload binaries only to {source.component} of {suite.name}, and this is the source"
            )
            draft.refusals.append(rules.KEY_NOT_ALLOWED.problem(found, file=source.dsc.name))
        for there in draft.listed(suite.name, source.source).values():
            left = replace(place, component=there.component)
            if there.index == ownership.SOURCE_INDEX and left != place and not rights.may(left):
                draft.refusals.append(ownership.moved(source.source, left, rights, source.dsc.name))
    names = ownership.claims(source.fields)
    every = names | {debugged(name) for name in names}
    found_there: dict[str, Collection[Listed]] = {**draft.archive.listed_many(suite.name, every)}
    found_there |= {name: listed.values() for (where, name), listed in draft.shown.items() if where == suite.name}
    listed = {name: ownership.binaries(found_there, name) for name in names}
    draft.refusals += ownership.claimed(place, listed, rights, source.dsc.name)


def _suites(draft: _Draft, changes: CheckedChanges) -> Iterator[SuiteConfig]:
    for name in changes.suites:
        suite = draft.config.suite(name)
        if suite is None:  # the configuration changed while the upload waited
            problem = rules.UNKNOWN_DISTRIBUTION.problem(f"the suite {name} is no longer configured")
            draft.problems.append(problem)
        elif suite.retired:
            draft.problems.append(rules.SUITE_RETIRED.problem(f"the suite {name} was retired while it waited"))
        else:
            yield suite


def _sections(suite: SuiteConfig, binary: BinaryPackage) -> list[str]:
    family = "debian-installer/" if binary.kind is BinaryKind.UDEB else ""
    arches = suite.binary_architectures if binary.architecture == "all" else (binary.architecture,)
    return [f"{binary.component}/{family}binary-{arch}" for arch in arches]


def _has_source(
    draft: _Draft, suite: SuiteConfig, binary: BinaryPackage, with_sources: frozenset[tuple[str, str]]
) -> None:
    wanted = (binary.source, binary.source_version)
    if not suite.checks.require_source or wanted in with_sources or draft.archive.has_source(*wanted):
        return
    draft.problems.append(
        rules.MISSING_SOURCE.problem(
            f"its source {wanted[0]} {wanted[1]} is neither in the upload nor in the archive", file=binary.file.name
        )
    )


def _pool_files(
    draft: _Draft,
    directory: str,
    wanted: Iterable[tuple[FileEntry, bool]],
    key: PackageKey,
    sealed_as: str = "",
) -> set[str]:
    """Each wanted file of the package ``key`` is in the pool with the same bytes, or comes with the upload and its name
    is free.

    The files whose names had other bytes until they left the pool.
    """
    replaced = set()
    for number, (file, in_upload) in enumerate(wanted):
        path = f"{directory}/{file.name}"
        draft.files[path] = None
        there = draft.pool.get(path) or draft.archive.pool_file(path)
        if there is not None and not there.gone:
            if not _same(there.file, file):
                # The first file is the package itself: if that version is not known, another one has its name.
                is_other_epoch = number == 0 and (draft.packages.get(key) or draft.archive.package(key)) is None
                draft.problems.append(_conflict(there, file, is_other_epoch=is_other_epoch))
        elif in_upload:
            draft.pool[path] = PoolFile(path=path, file=file, sealed_as=sealed_as)
            if there is not None and not _same(there.file, file):
                replaced.add(file.name)
        else:
            draft.problems.append(
                rules.MISSING_ORIG.problem(
                    f"the .dsc lists it ({_content(file)}), but it is neither in the upload nor in the archive "
                    f"as {path}",
                    file=file.name,
                )
            )
    return replaced


def _conflict(there: PoolFile, file: FileEntry, *, is_other_epoch: bool) -> Problem:
    found = (
        f"{there.path} is in the archive with other content, {there.provenance}: there {_content(there.file)}, in the "
        f"upload {_content(file)}"
    )
    if is_other_epoch:
        found += "; that is of a version with another epoch, which no file name has: raise the version behind it"
    elif file.name.endswith(("_all.deb", "_all.udeb")) or ".orig.tar." in file.name:
        found += (
            "; if several builds of one version have each made it, have one of them make it (dpkg-buildpackage -A for "
            "all, -sa for the orig) and the others send what is theirs alone (-B, -sd)"
        )
    return rules.POOL_CONFLICT.problem(found, file=file.name)


def _same(there: FileEntry, file: FileEntry) -> bool:
    """The same bytes, by every digest that is given; of an orig that was not sent there are those of the .dsc."""
    given = ((getattr(there.digests, name), getattr(file.digests, name)) for name in Digests.__slots__)
    return there.size == file.size and all(known == told for known, told in given if told)


def _as_known(draft: _Draft, directory: str, file: FileEntry) -> FileEntry:
    """The file with every digest, where it is in the pool."""
    there = draft.pool.get(f"{directory}/{file.name}") or draft.archive.pool_file(f"{directory}/{file.name}")
    return there.file if there and _same(there.file, file) else file


def _content(file: FileEntry) -> str:
    return f"{file.size} bytes, SHA256 {file.digests.sha256}"


def _package(draft: _Draft, package: Package, file: FileEntry, *, replaced: bool) -> None:
    """One (kind, name, version, architecture) has one content until that has left the pool.

    ``replaced``: the file's name in the pool was free and had other bytes before.
    """
    there = draft.packages.get(package.key) or draft.archive.package(package.key)
    same_place = there is not None and (there.component, there.source) == (package.component, package.source)
    if there is None or replaced or (not same_place and _is_free(draft, there)):
        draft.packages[package.key] = package
    elif not same_place:
        draft.problems.append(
            rules.SAME_VERSION_OTHER_CONTENT.problem(
                f"{package.key} is in the archive already as part of {there.source} in {there.component}; "
                f"the upload has it as part of {package.source} in {package.component}",
                file=file.name,
            )
        )


def _is_free(draft: _Draft, package: Package) -> bool:
    """True if one of its files has left the pool: then no suite has listed it for the grace time."""
    files = (draft.pool.get(path) or draft.archive.pool_file(path) for path in package.paths)
    return any(file is None or file.gone for file in files)


def _list(draft: _Draft, suite: SuiteConfig, package: Package, sections: list[str], file: str) -> None:
    """Put the package into its sections of a suite, in place of an older version in any component."""
    key, now = package.key, draft.listed(suite.name, package.key.name)
    for section in sections:
        index = split_section(section)[1]
        rivals = {s: one.package for s, one in now.items() if one.index == index and one.package != key}
        newer = [p for p in rivals.values() if Version(p.version) >= Version(key.version)]
        if newer:
            draft.problems.append(_not_newer(suite, key, newer[0], file))
            return
        if section not in now or now[section].package != key:
            draft.changes[suite.name, key.name, section] = Change(section=section, name=key.name, package=key)
        now[section] = Listed(section=section, package=key, source=package.source)
        for other in rivals.keys() - {section}:
            draft.changes[suite.name, key.name, other] = Change(section=other, name=key.name, package=None)
            del now[other]


def _not_newer(suite: SuiteConfig, key: PackageKey, there: PackageKey, file: str) -> Problem:
    if Version(there.version) == Version(key.version):
        return rules.SAME_VERSION_OTHER_CONTENT.problem(
            f"{suite.name} has {there} already, and the upload has {key}", file=file
        )
    return rules.VERSION_NOT_NEWER.problem(
        f"{suite.name} has {there.name} {there.version} already, and the upload has {key.version}", file=file
    )
