"""Decides what one upload does to the archive: pure, in order, with nothing written.

What is asked here depends on what the archive holds, so it is asked in sequence only: the same name with other bytes,
the order of versions, an orig tarball that is in the pool already, a replay. :class:`Overlay` shows the archive as the
decisions before this one in the same publish leave it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

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
from incomingd.publish.stanza import packages_stanza, sources_stanza

SOURCE = "dsc"


class Archive(Protocol):
    """What a decision asks of the archive: :class:`incomingd.journal.catalogue.Catalogue` answers, or an overlay."""

    def pool_file(self, path: str) -> PoolFile | None: ...  # noqa: D102
    def package(self, key: PackageKey) -> Package | None: ...  # noqa: D102
    def listed(self, suite: str, name: str) -> list[Listed]: ...  # noqa: D102
    def published_changes(self, sha256: str) -> str | None: ...  # noqa: D102
    def has_source(self, source: str, version: str) -> bool: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What publishing one upload means. Where there are problems, nothing else of it counts."""

    problems: tuple[Problem, ...]
    suites: tuple[str, ...] = ()
    pool: tuple[PoolFile, ...] = ()  # to be placed, from the sealed files of the same name
    packages: tuple[Package, ...] = ()  # new to the archive
    changes: tuple[tuple[str, Change], ...] = ()  # suite and change
    files: tuple[str, ...] = ()  # every pool path that the upload stands for
    published_changes: tuple[FileEntry, ...] = ()

    @property
    def already_published(self) -> bool:
        """True where the archive is just as the upload wants it."""
        return not self.problems and not self.pool and not self.packages and not self.changes


class Overlay:
    """The archive as it is, with decisions on top."""

    def __init__(self, below: Archive) -> None:
        self._below = below
        self._pool: dict[str, PoolFile] = {}
        self._packages: dict[PackageKey, Package] = {}
        self._changes: dict[tuple[str, str], dict[str, PackageKey | None]] = {}
        self._published: dict[str, str] = {}

    def add(self, decision: Decision) -> None:
        """Put one decision on top."""
        self._pool.update((f.path, f) for f in decision.pool)
        self._packages.update((p.key, p) for p in decision.packages)
        for suite, change in decision.changes:
            self._changes.setdefault((suite, change.name), {})[change.section] = change.package
        self._published.update((f.digests.sha256, f.name) for f in decision.published_changes)

    def pool_file(self, path: str) -> PoolFile | None:
        """As the catalogue's."""
        return self._pool.get(path) or self._below.pool_file(path)

    def package(self, key: PackageKey) -> Package | None:
        """As the catalogue's."""
        return self._packages.get(key) or self._below.package(key)

    def listed(self, suite: str, name: str) -> list[Listed]:
        """As the catalogue's."""
        sections: dict[str, PackageKey | None] = {one.section: one.package for one in self._below.listed(suite, name)}
        sections |= self._changes.get((suite, name), {})
        return [Listed(section=section, package=package) for section, package in sections.items() if package]

    def published_changes(self, sha256: str) -> str | None:
        """As the catalogue's."""
        return self._published.get(sha256) or self._below.published_changes(sha256)

    def has_source(self, source: str, version: str) -> bool:
        """As the catalogue's."""
        key = PackageKey(kind=SOURCE, name=source, version=version, architecture="source")
        return key in self._packages or self._below.has_source(source, version)


@dataclass(slots=True)
class _Draft:
    """A decision while it is being made."""

    archive: Archive
    config: Config
    problems: list[Problem] = field(default_factory=list)
    pool: dict[str, PoolFile] = field(default_factory=dict)
    packages: dict[PackageKey, Package] = field(default_factory=dict)
    changes: dict[tuple[str, str, str], Change] = field(default_factory=dict)
    files: dict[str, None] = field(default_factory=dict)


def decide(upload: Iterable[CheckedChanges], archive: Archive, config: Config) -> Decision:
    """What publishing the .changes of one upload means, all of them or none."""
    draft = _Draft(archive=archive, config=config)
    all_changes = tuple(upload)
    with_sources = {(s.source, s.version) for changes in all_changes for s in changes.sources}
    for changes in all_changes:
        for source in changes.sources:
            _source(draft, changes, source)
        for binary in changes.binaries:
            _binary(draft, changes, binary, with_sources)
    if draft.problems or draft.pool or draft.packages or draft.changes:
        _replays(draft, all_changes)
    if draft.problems:
        return Decision(problems=tuple(dict.fromkeys(draft.problems)))
    return Decision(
        problems=(),
        suites=tuple(dict.fromkeys(suite for changes in all_changes for suite in changes.suites)),
        pool=tuple(draft.pool.values()),
        packages=tuple(draft.packages.values()),
        changes=tuple((suite, change) for (suite, _, _), change in draft.changes.items()),
        files=tuple(draft.files),
        published_changes=tuple(changes.file for changes in all_changes),
    )


def _replays(draft: _Draft, all_changes: tuple[CheckedChanges, ...]) -> None:
    """A .changes that was published once and would still change something was superseded since."""
    for changes in all_changes:
        if draft.archive.published_changes(changes.file.digests.sha256):
            draft.problems.append(
                rules.REPLAYED.problem(
                    f"this very .changes ({changes.source} {changes.version}) was published before and what it brought "
                    "has been superseded or removed since",
                    file=changes.file.name,
                )
            )


def _component(draft: _Draft, changes: CheckedChanges, key: PackageKey, component: str) -> str:
    """Where the very same .changes has put it, whatever the settings say by now: it may be sent again and again."""
    before = draft.archive.published_changes(changes.file.digests.sha256)
    there = draft.archive.package(key) if before else None
    return there.component if there else component


def _source(draft: _Draft, changes: CheckedChanges, source: SourcePackage) -> None:
    key = PackageKey(kind=SOURCE, name=source.source, version=source.version, architecture="source")
    source = replace(source, component=_component(draft, changes, key, source.component))
    directory = pool_directory(source.component, source.source)
    wanted = [(source.dsc, True), *((f, f.name in source.in_upload) for f in source.files)]
    _pool_files(draft, directory, wanted)
    source = replace(source, files=tuple(_as_known(draft, directory, file) for file in source.files))
    package = Package(
        key=key,
        source=source.source,
        source_version=source.version,
        component=source.component,
        stanza=sources_stanza(source, directory, draft.config.publish),
        paths=tuple(f"{directory}/{f.name}" for f, _ in wanted),
    )
    _package(draft, package, source.dsc)
    for suite in _suites(draft, changes):
        _list(draft, suite, key, [f"{source.component}/source"], source.dsc.name)


def _binary(draft: _Draft, changes: CheckedChanges, binary: BinaryPackage, with_sources: set[tuple[str, str]]) -> None:
    key = PackageKey(kind=binary.kind, name=binary.package, version=binary.version, architecture=binary.architecture)
    binary = replace(binary, component=_component(draft, changes, key, binary.component))
    directory = pool_directory(binary.component, binary.source)
    path = f"{directory}/{binary.file.name}"
    _pool_files(draft, directory, [(binary.file, True)])
    package = Package(
        key=key,
        source=binary.source,
        source_version=binary.source_version,
        component=binary.component,
        stanza=packages_stanza(binary, path, draft.config.publish),
        paths=(path,),
    )
    _package(draft, package, binary.file)
    for suite in _suites(draft, changes):
        _has_source(draft, suite, binary, with_sources)
        _list(draft, suite, key, _sections(suite, binary), binary.file.name)


def _suites(draft: _Draft, changes: CheckedChanges) -> Iterator[SuiteConfig]:
    for name in changes.suites:
        suite = draft.config.suite(name)
        if suite is None:  # the configuration changed while the upload waited
            problem = rules.UNKNOWN_DISTRIBUTION.problem(f"the suite {name} is no longer configured")
            draft.problems.append(problem)
        else:
            yield suite


def _sections(suite: SuiteConfig, binary: BinaryPackage) -> list[str]:
    family = "debian-installer/" if binary.kind is BinaryKind.UDEB else ""
    arches = suite.binary_architectures if binary.architecture == "all" else (binary.architecture,)
    return [f"{binary.component}/{family}binary-{arch}" for arch in arches]


def _has_source(draft: _Draft, suite: SuiteConfig, binary: BinaryPackage, with_sources: set[tuple[str, str]]) -> None:
    wanted = (binary.source, binary.source_version)
    if not suite.checks.require_source or wanted in with_sources or draft.archive.has_source(*wanted):
        return
    draft.problems.append(
        rules.MISSING_SOURCE.problem(
            f"its source {wanted[0]} {wanted[1]} is neither in the upload nor in the archive", file=binary.file.name
        )
    )


def _pool_files(draft: _Draft, directory: str, wanted: Iterable[tuple[FileEntry, bool]]) -> None:
    """Each wanted file is in the pool with the same bytes, or comes with the upload and its name is free."""
    for file, in_upload in wanted:
        path = f"{directory}/{file.name}"
        draft.files[path] = None
        there = draft.pool.get(path) or draft.archive.pool_file(path)
        if there is not None and not _same(there.file, file):
            draft.problems.append(
                rules.POOL_CONFLICT.problem(
                    f"{path} is in the archive with other content: there {_content(there.file)}, "
                    f"in the upload {_content(file)}",
                    file=file.name,
                )
            )
        elif there is not None and not there.gone:
            continue
        elif in_upload:
            draft.pool[path] = PoolFile(path=path, file=file)
        else:
            draft.problems.append(
                rules.MISSING_ORIG.problem(
                    f"the .dsc lists it ({_content(file)}), but it is neither in the upload nor in the archive "
                    f"as {path}",
                    file=file.name,
                )
            )


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


def _package(draft: _Draft, package: Package, file: FileEntry) -> None:
    """One (kind, name, version, architecture) has one content, ever."""
    there = draft.packages.get(package.key) or draft.archive.package(package.key)
    if there is None:
        draft.packages[package.key] = package
    elif there.component != package.component or there.source != package.source:
        draft.problems.append(
            rules.SAME_VERSION_OTHER_CONTENT.problem(
                f"{package.key} is in the archive already as part of {there.source} in {there.component}; "
                f"the upload has it as part of {package.source} in {package.component}",
                file=file.name,
            )
        )


def _list(draft: _Draft, suite: SuiteConfig, key: PackageKey, sections: list[str], file: str) -> None:
    """Put the package into its sections of a suite, in place of an older version in any component."""
    now = {one.section: one.package for one in draft.archive.listed(suite.name, key.name)}
    for (in_suite, name, section), change in draft.changes.items():
        if (in_suite, name) == (suite.name, key.name) and change.package is not None:
            now[section] = change.package
    for section in sections:
        index = split_section(section)[1]
        rivals = {s: p for s, p in now.items() if split_section(s)[1] == index and p != key}
        newer = [p for p in rivals.values() if Version(p.version) >= Version(key.version)]
        if newer:
            draft.problems.append(_not_newer(suite, key, newer[0], file))
            return
        if now.get(section) != key:
            draft.changes[suite.name, key.name, section] = Change(section=section, name=key.name, package=key)
        for other in rivals.keys() - {section}:
            draft.changes[suite.name, key.name, other] = Change(section=other, name=key.name, package=None)


def _not_newer(suite: SuiteConfig, key: PackageKey, there: PackageKey, file: str) -> Problem:
    if Version(there.version) == Version(key.version):
        return rules.SAME_VERSION_OTHER_CONTENT.problem(
            f"{suite.name} has {there} already, and the upload has {key}", file=file
        )
    return rules.VERSION_NOT_NEWER.problem(
        f"{suite.name} has {there.name} {there.version} already, and the upload has {key.version}", file=file
    )
