"""What a decision asks of the archive, what it comes to, and the archive as the decisions before it leave it. Pure."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Protocol

from incomingd.journal.catalogue import Change, Listed, Package, PackageKey, PoolFile
from incomingd.model import CheckedChanges, Problem

#: The kind of a source package, beside those of binaries.
SOURCE = "dsc"


class Archive(Protocol):
    """What a decision asks of the archive: :class:`incomingd.journal.catalogue.Catalogue` answers, or an overlay."""

    def pool_file(self, path: str) -> PoolFile | None: ...  # noqa: D102
    def package(self, key: PackageKey) -> Package | None: ...  # noqa: D102
    def listed(self, suite: str, name: str) -> list[Listed]: ...  # noqa: D102
    def listed_many(self, suite: str, names: Collection[str]) -> dict[str, list[Listed]]: ...  # noqa: D102
    def was_published(self, changes: CheckedChanges) -> bool: ...  # noqa: D102
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
    published_changes: tuple[CheckedChanges, ...] = ()
    warnings: tuple[Problem, ...] = ()
    forgotten: tuple[str, ...] = ()  # pool paths whose names an operator wants back

    @property
    def already_published(self) -> bool:
        """True where the archive is just as the upload wants it."""
        return not (self.problems or self.pool or self.packages or self.changes or self.forgotten)


class Overlay:
    """The archive as it is, with decisions on top."""

    def __init__(self, below: Archive) -> None:
        self._below = below
        self._pool: dict[str, PoolFile] = {}
        self._packages: dict[PackageKey, Package] = {}
        self._changes: dict[tuple[str, str], dict[str, PackageKey | None]] = {}
        self._published: set[str] = set()

    def add(self, decision: Decision) -> None:
        """Put one decision on top."""
        self._pool.update((f.path, f) for f in decision.pool)
        self._packages.update((p.key, p) for p in decision.packages)
        for suite, change in decision.changes:
            self._changes.setdefault((suite, change.name), {})[change.section] = change.package
        self._published.update(changes.identity for changes in decision.published_changes)

    def pool_file(self, path: str) -> PoolFile | None:
        """As the catalogue's."""
        return self._pool.get(path) or self._below.pool_file(path)

    def package(self, key: PackageKey) -> Package | None:
        """As the catalogue's."""
        return self._packages.get(key) or self._below.package(key)

    def listed(self, suite: str, name: str) -> list[Listed]:
        """As the catalogue's."""
        return self._merged(suite, name, self._below.listed(suite, name))

    def listed_many(self, suite: str, names: Collection[str]) -> dict[str, list[Listed]]:
        """As the catalogue's."""
        found = self._below.listed_many(suite, names)
        merged = {name: self._merged(suite, name, found.get(name, [])) for name in names}
        return {name: listed for name, listed in merged.items() if listed}

    def _merged(self, suite: str, name: str, below: Iterable[Listed]) -> list[Listed]:
        sections: dict[str, Listed | None] = {one.section: one for one in below}
        for section, key in self._changes.get((suite, name), {}).items():
            package = self.package(key) if key else None
            sections[section] = Listed(section=section, package=package.key, source=package.source) if package else None
        return [one for one in sections.values() if one]

    def was_published(self, changes: CheckedChanges) -> bool:
        """As the catalogue's."""
        return changes.identity in self._published or self._below.was_published(changes)

    def has_source(self, source: str, version: str) -> bool:
        """As the catalogue's."""
        key = PackageKey(kind=SOURCE, name=source, version=version, architecture="source")
        return key in self._packages or self._below.has_source(source, version)
