"""Makes one whole generation of a suite below ``dists/.generations/SUITE/N/``.

Rules:

* Everything is written and synced before the commit; the folder is no generation until the journal says so, and one
  that the journal does not know is removed at the next start or the next try.
* A file that did not change is a hard link to that of the generation before. Files are never changed in place.
* Each generation's InRelease is dated at least a whole second after the one before: that is how finely HTTP tells new
  from old, and an apt that looked a moment ago would be told that nothing has changed.
* The folder is made whole with links to what did not change: nothing in it grows with what is kept by hash, which all
  generations share (:mod:`.by_hash`).
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from incomingd import fsio
from incomingd.config import Config, SuiteConfig
from incomingd.journal.blocks import Blocks, SectionBlocks
from incomingd.journal.catalogue import Catalogue, Change, PackageKey
from incomingd.journal.generations import Generation, Generations, IndexFile
from incomingd.places import Places
from incomingd.publish.blocks import LAYOUT
from incomingd.publish.by_hash import ByHash
from incomingd.publish.indexes import IndexWriter
from incomingd.publish.release import release_text
from incomingd.publish.sign import Signer
from incomingd.publish.translations import View, section_of

#: How many folders of old generations are removed at a time: the next publish waits no longer than for these.
_PRUNE_AT_ONCE = 1
_RELEASES = ("Release", "InRelease", "Release.gpg")


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A generation that is on the disk, ready to be committed, with the index blocks that it changes."""

    generation: Generation
    blocks: tuple[SectionBlocks, ...]


class GenerationBuilder:
    """Makes, and removes, generations."""

    def __init__(
        self,
        config: Config,
        catalogue: Catalogue,
        generations: Generations,
        blocks: Blocks,
        by_hash: ByHash,
        signer: Signer,
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        """``progress`` is called for each section that is written."""
        self._config = config
        self._places = Places(config)
        self._catalogue = catalogue
        self._generations = generations
        self._blocks = blocks
        self._by_hash = by_hash
        self._indexes = IndexWriter(config.publish, blocks)
        self._signer = signer
        self._progress = progress

    def settings(self, suite: SuiteConfig) -> str:
        """A digest of what a suite's Release and indexes depend on besides the packages."""
        archive, publish = self._config.archive, self._config.publish
        parts = (
            *(suite.name, suite.codename, suite.components, suite.binary_architectures),
            *(suite.origin, suite.label, suite.description, archive.signing_keys),
            *(publish.sha512, publish.zstd, LAYOUT),
            # Else the digest is what it was before there was such a setting.
            *(["translations"] if publish.translations else []),
            *([suite.suite] if suite.suite != suite.name else []),
            *(["by SHA512"] if publish.sha512 else []),
        )
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    def spread_all(self, suite: SuiteConfig) -> list[Change]:
        """What ``Architecture: all`` packages lack in the sections of architectures that were configured later."""
        return [
            Change(section=section, name=key.name, package=key)
            for component in suite.components
            for family in ("", "debian-installer/")
            for section, key in self._catalogue.missing_all(
                suite.name, [f"{component}/{family}binary-{arch}" for arch in suite.binary_architectures]
            )
        ]

    def build(
        self,
        suite: SuiteConfig,
        changes: Iterable[Change],
        stanzas: Mapping[PackageKey, bytes],
        reason: str,
        now: datetime,
        *,
        anew: bool = False,
    ) -> Built:
        """Make the next generation: the current one with ``changes``. ``stanzas`` are those of new packages.

        ``anew`` makes every index anew, whatever the blocks say. Raises ``OSError``, ``Retry`` and ``Halt``.
        """
        by_section: dict[str, dict[str, bytes | None]] = {}
        for change in changes:
            by_section.setdefault(change.section, {})[change.name] = _stanza(self._catalogue, change, stanzas)
        return self.build_sections(suite, by_section, reason, now, anew=anew)

    def build_sections(
        self,
        suite: SuiteConfig,
        changes: Mapping[str, Mapping[str, bytes | None]],
        reason: str,
        now: datetime,
        *,
        anew: bool = False,
    ) -> Built:
        """As :meth:`build`; ``changes`` are by section the names with their new stanzas, None for one that leaves."""
        view = view_of(self._catalogue, suite, translations=self._config.publish.translations)
        changes = view.changes(changes)
        previous = self._generations.current(suite.name)
        number = previous.number + 1 if previous else 1
        folder = self._places.generation(suite.name, number)
        fsio.remove_tree(folder)
        folders = fsio.make_directories(folder)
        files: list[IndexFile] = []
        blocks: list[SectionBlocks] = []
        shared: list[Path] = []
        for section in self._sections(suite, changes):
            self._progress()
            fsio.make_directories(folder / section)
            shared += self._by_hash.attach(suite.name, folder, section)
            own = changes.get(section, {})
            old = [f for f in previous.files if f.folder == section] if previous and not anew else []
            if previous and old and not own:
                files += self._link(self._places.generation(suite.name, previous.number), folder, old)
                continue
            written, changed = self._indexes.write(suite.name, section, view, own, folder / section, anew=anew)
            shared += self._by_hash.add(suite.name, folder, written)
            files += written
            blocks.append(changed)
        at = max(now, previous.at) if previous else now
        with ThreadPoolExecutor(1) as beside:  # one waits for the disk, the other for gpg's agent
            syncing = beside.submit(_sync_inside, folder, shared)
            inrelease = self._release(suite, folder, files, at)
        syncing.result()
        self._date(suite.name, folder, previous, at)
        _sync_top(folder, folders)
        generation = Generation(
            suite=suite.name,
            number=number,
            at=at,
            reason=reason,
            settings=self.settings(suite),
            inrelease_sha256=hashlib.sha256(inrelease).hexdigest(),
            files=tuple(files),
        )
        return Built(generation=generation, blocks=tuple(blocks))

    def commit(self, built: Iterable[Built], now: datetime) -> None:
        """Note generations, their index blocks, and what they supersede; in the transaction that commits them."""
        for one in built:
            previous = self._generations.current(one.generation.suite)
            self._generations.add(one.generation)
            self._blocks.apply(one.generation.suite, one.blocks)
            self._by_hash.committed(one.generation, previous, now)

    def committed(self, built: Iterable[Built]) -> None:
        """These are in force now."""
        self._by_hash.published()
        for one in built:
            for changed in one.blocks:
                self._indexes.committed(one.generation.suite, changed)

    def _sections(self, suite: SuiteConfig, changed: Iterable[str]) -> list[str]:
        """Every section of the suite; those of the installer only where there is something to list."""
        sections = [
            f"{component}/{index}"
            for component in suite.components
            for index in (*(f"binary-{arch}" for arch in suite.binary_architectures), "source")
        ]
        installer = [
            f"{component}/debian-installer/binary-{arch}"
            for component in suite.components
            for arch in suite.binary_architectures
        ]
        if self._config.publish.translations:
            sections += [section_of(component) for component in suite.components]
        in_use = set(changed) | self._catalogue.sections(suite.name)
        return sections + [section for section in installer if section in in_use]

    def _link(self, source: Path, target: Path, files: Iterable[IndexFile]) -> list[IndexFile]:
        linked = list(files)
        for file in linked:
            if file.stored:
                fsio.link(source / file.path, target / file.path)
        return linked

    def _release(self, suite: SuiteConfig, folder: Path, files: list[IndexFile], at: datetime) -> bytes:
        text = release_text(suite, files, at, sha512=self._config.publish.sha512)
        signatures = self._signer.sign(text)
        fsio.write_new(folder / "Release", [text])
        fsio.write_new(folder / "InRelease", [signatures.inrelease])
        fsio.write_new(folder / "Release.gpg", [signatures.release_gpg])
        return signatures.inrelease

    def _date(self, suite: str, folder: Path, previous: Generation | None, at: datetime) -> None:
        seconds = int(at.timestamp())
        before = self._places.generation(suite, previous.number) / "InRelease" if previous else None
        if before is not None and before.exists():
            seconds = max(seconds, int(before.stat().st_mtime) + 1)
        for name in _RELEASES:
            os.utime(folder / name, (seconds, seconds))

    def sweep(self, suite: str, current: Generation | None) -> None:
        """Remove generations that were never committed."""
        newest = current.number if current else 0
        for folder in self._folders(suite):
            if int(folder.name) > newest:
                fsio.remove_tree(folder)

    def prune(self, suite: str) -> bool:
        """Remove some folders older than ``keep_generations``; True where something was removed."""
        current = self._generations.current(suite)
        last = (current.number if current else 0) - self._config.publish.keep_generations
        old = sorted(int(f.name) for f in self._folders(suite) if int(f.name) <= last)[:_PRUNE_AT_ONCE]
        for number in old:
            fsio.remove_tree(self._places.generation(suite, number))
        return bool(old)

    def improve(self) -> bool:
        """Make some index blocks smaller that were compressed in haste; True where there were any."""
        return self._indexes.improve()

    def _folders(self, suite: str) -> list[Path]:
        parent = self._places.generation(suite, 0).parent
        return [f for f in parent.iterdir() if f.name.isdecimal()] if parent.is_dir() else []


def _sync_inside(folder: Path, shared: Iterable[Path]) -> None:
    """The sections' folders and what was added to those of by-hash, from the inside out. Their files were synced when
    they were written, or are links to old ones."""
    inside = [Path(parent) for parent, _, _ in os.walk(folder) if parent != str(folder)]
    fsio.sync(sorted({*inside, *shared}, key=lambda path: -len(path.parts)))


def _sync_top(folder: Path, above: Iterable[Path]) -> None:
    """The Release and its signatures, then their folder, then those above that were made too."""
    made = [path for path in above if folder not in path.parents]
    fsio.sync(dict.fromkeys([*(folder / name for name in _RELEASES), folder, folder.parent, *made]))


def view_of(catalogue: Catalogue, suite: SuiteConfig, *, translations: bool) -> View:
    """A suite as its indexes show it."""
    components = suite.components if translations else ()
    sections = {name: [f"{name}/binary-{arch}" for arch in suite.binary_architectures] for name in components}
    return View(catalogue, suite.name, sections)


def _stanza(catalogue: Catalogue, change: Change, stanzas: Mapping[PackageKey, bytes]) -> bytes | None:
    if change.package is None:
        return None
    fresh = stanzas.get(change.package)
    if fresh is not None:
        return fresh
    package = catalogue.package(change.package)
    if package is None:
        raise KeyError(change.package)
    return package.stanza
