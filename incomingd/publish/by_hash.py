"""Keeps superseded indexes reachable by hash, in one folder of each section that all generations of a suite share.

::

    dists/stable                                            -> .generations/stable/17
    dists/.generations/stable/17/main/binary-amd64/by-hash  -> ../../../by-hash/main/binary-amd64
    dists/.generations/stable/by-hash/main/binary-amd64/SHA256/…, and SHA512/… if Release lists it

Rules:

* A publish adds the names of its new index files, and touches none of those that are kept: it costs the same whether
  ten are kept or ten thousand.
* The names are there, synced, before the generation that lists them is committed. What a failed publish added is
  removed by the next try.
* What a crash or a restored journal leaves here unknown may have been published: it stays for ``index_grace``, as what
  is superseded does.
* An archive of the version before has real by-hash folders in its current generation. Their files are linked here at
  start-up, and the next publish leads to them here.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from incomingd import fsio
from incomingd.config import Config
from incomingd.journal.generations import Generation, Generations, IndexFile
from incomingd.journal.kept import KeptIndexes
from incomingd.model import shown_size
from incomingd.places import Places
from incomingd.publish import spacing

#: Indexes that are removed at a time: the next publish waits for no more (some 10 ms).
_PRUNE_AT_ONCE = 100
#: The grace time begins when clients see the next generation: at most so long after the note of it, or start-up
#: corrects that note.
_SWITCHED_WITHIN = timedelta(seconds=5)


class ByHash:
    """The by-hash folders of one archive."""

    def __init__(self, config: Config, kept: KeptIndexes, generations: Generations) -> None:
        self._config = config.publish
        self._places = Places(config)
        self._kept = kept
        self._generations = generations
        self._added: list[tuple[str, IndexFile]] = []  # and not committed

    # -- on the way of a publish --------------------------------------------------------------------------------------

    def attach(self, suite: str, generation: Path, section: str) -> list[Path]:
        """Have a section of a new generation lead here; return the folders to sync."""
        shared = self._places.by_hash(suite) / section
        made = fsio.make_directories(shared / "SHA256")
        fsio.point(generation / section / "by-hash", os.path.relpath(shared, generation / section))
        return made

    def add(self, suite: str, generation: Path, files: Iterable[IndexFile]) -> list[Path]:
        """Give new index files of a generation their names here; return the folders to sync."""
        to_sync: dict[Path, None] = {}
        for file in files:
            if file.stored:
                self._added.append((suite, file))
                to_sync.update(dict.fromkeys(self._place(suite, generation / file.path, file)))
        return list(to_sync)

    def _place(self, suite: str, source: Path, file: IndexFile) -> Iterator[Path]:
        for name in file.by_hash:
            target = self._places.by_hash(suite) / file.folder / name
            yield from fsio.make_directories(target.parent)
            fsio.place(source, target)
            yield target.parent

    def committed(self, generation: Generation, previous: Generation | None, at: datetime) -> None:
        """Note what the generation lists; in the transaction that commits it."""
        suite, number = generation.suite, generation.number
        self._kept.replace(suite, number, previous.files if previous else (), generation.files, at)
        self._kept.outlived(suite, self._oldest(number))

    def _oldest(self, current: int) -> int:
        """The oldest of the newest ``keep_generations``."""
        return current - self._config.keep_generations + 1

    def published(self) -> None:
        """The transaction has ended well."""
        self._added.clear()

    def forget_failed(self) -> None:
        """Remove what a publish added that failed; nothing is done after one that was committed."""
        for suite, file in self._added:
            if not self._kept.knows(suite, file):
                self._remove(suite, file.folder, file.by_hash)
        self._added.clear()

    # -- at leisure ---------------------------------------------------------------------------------------------------

    def prune(self, now: datetime) -> bool:
        """Remove some indexes that nothing keeps any more; True if there were any."""
        grace = timedelta(seconds=self._config.index_grace)
        due = self._kept.due(now - grace - _SWITCHED_WITHIN, _PRUNE_AT_ONCE)
        for one in due:
            self._remove(one.suite, one.folder, one.by_hash)
        if due:
            self._kept.forget(due)
        return bool(due)

    def _remove(self, suite: str, folder: str, names: Sequence[str]) -> None:
        top = self._places.by_hash(suite)
        for name in reversed(names):  # SHA256 last: what a crash leaves is known by it
            fsio.remove(top / folder / name)
            fsio.remove_empty((top / folder / name).parent, top)

    def wait(self, now: datetime, since_last: timedelta) -> float:
        """Seconds until the next publish may be made, if superseded indexes use up their space (:mod:`.spacing`);
        ``since_last`` has passed since the last one."""
        passed = since_last.total_seconds()
        # After the clock was put back no one knows how much has passed.
        if not 0 <= passed < spacing.LONGEST:
            return 0.0
        if not spacing.is_tight(self._config.index_space, self._kept.space().grace_only):
            return 0.0
        while self.prune(now):
            pass
        stays = timedelta(seconds=self._config.index_grace) + _SWITCHED_WITHIN
        leaving = [((one.superseded_at + stays - now).total_seconds(), one.size) for one in self._kept.leaving()]
        return max(spacing.interval(self._config.index_space, leaving) - passed, 0.0)

    def overfull(self) -> str:
        """What is to be told of superseded indexes that use more than their space; empty if they do not."""
        used, space = self._kept.space().grace_only, self._config.index_space
        if used <= space:
            return ""
        return (
            f"superseded indexes use {shown_size(used)}, [publish] index_space is {shown_size(space)}; none of them is "
            "dropped before index_grace is over: raise index_space, or lower index_grace"
        )

    # -- at start-up --------------------------------------------------------------------------------------------------

    def prepare(self, current: Generation, now: datetime) -> None:
        """Have all that the newest generations list here, as far as it is on the disk: after the version before, or if
        a backup has left it out."""
        suite, to_sync = current.suite, dict[Path, None]()
        if not all(self._kept.knows(suite, file) for file in current.files if file.stored):
            to_sync.update(dict.fromkeys(self._adopt(current, now)))
        for file in current.files:
            source = self._places.generation(suite, current.number) / file.path
            names = (self._places.by_hash(suite) / file.folder / name for name in file.by_hash)
            if file.stored and source.exists() and not all(name.exists() for name in names):
                to_sync.update(dict.fromkeys(self._place(suite, source, file)))
        fsio.sync(to_sync)

    def _adopt(self, current: Generation, now: datetime) -> Iterator[Path]:
        """Take over what lies in the by-hash folders of the current generation itself."""
        suite, folder = current.suite, self._places.generation(current.suite, current.number)
        generations = self._generations.newest(suite, self._config.keep_generations)
        for generation in generations:
            found = []
            for file in generation.files:
                source = folder / file.folder / "by-hash" / "SHA256" / file.sha256
                if file.stored and source.exists():
                    yield from self._place(suite, source, file)
                    found.append(_measured(file, source))
            if generation.number == current.number:
                self._kept.replace(suite, current.number, (), found, now)
            else:
                self._kept.adopt(suite, generation.number + 1, found, now)

    def reconcile(self, suite: str, current: Generation | None, now: datetime) -> None:
        """Bring journal and folders together: forget superseded indexes that are gone, note unknown ones."""
        top = self._places.by_hash(suite)
        known = {(one.folder, one.sha256): one for one in self._kept.all(suite)}
        there = _Found(top)
        self._kept.forget(one for key, one in known.items() if one.superseded and key not in there.by_sha256)
        unknown = {key: path for key, path in there.by_sha256.items() if key not in known}
        names = {(one.folder, name) for one in known.values() for name in one.by_hash}
        others = {path.stat().st_ino: path for key, path in there.others.items() if key not in names}
        found = []
        for (folder, sha256), path in unknown.items():
            twin = others.pop(path.stat().st_ino, None)
            size, allocated = path.stat().st_size, fsio.allocated(path)
            sha512 = twin.name if twin else None
            found.append(
                IndexFile(path=f"{folder}/{sha256}", size=size, sha256=sha256, sha512=sha512, allocated=allocated)
            )
        self._kept.adopt(suite, 0, found, now)
        self._kept.outlived_all(suite, max(self._oldest(current.number if current else 0), 0))
        for path in (*others.values(), *there.litter):
            fsio.remove(path)

    def switched_late(self, suite: str, number: int, now: datetime) -> None:
        """Clients saw what generation ``number`` supersedes until now."""
        self._kept.switched_late(suite, number, now)


class _Found:
    """What lies in the by-hash folders of a suite."""

    def __init__(self, top: Path) -> None:
        self.by_sha256: dict[tuple[str, str], Path] = {}
        self.others: dict[tuple[str, str], Path] = {}  # by the name with its digest's folder
        self.litter: list[Path] = []  # what a crash has left half made
        for parent, _, names in os.walk(top):
            folder, digest = os.path.relpath(Path(parent).parent, top), Path(parent).name
            for name in names:
                path = Path(parent) / name
                if name.startswith("."):
                    self.litter.append(path)
                elif digest == "SHA256":
                    self.by_sha256[folder, name] = path
                else:
                    self.others[folder, f"{digest}/{name}"] = path


def _measured(file: IndexFile, path: Path) -> IndexFile:
    return IndexFile(
        path=file.path,
        size=file.size,
        sha256=file.sha256,
        sha512=file.sha512,
        stored=file.stored,
        allocated=fsio.allocated(path),
    )
