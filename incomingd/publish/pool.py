"""Puts files into the pool, and takes unused ones out of it.

Rules: the names are noted in the journal before the files appear, so that a crash leaves no unknown file behind. A file
is in the pool, synced, before any index lists it; it leaves only after no suite has listed it for the grace time, and
the journal says so before it goes.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path

from incomingd import fsio
from incomingd.errors import Retry
from incomingd.journal.catalogue import Catalogue, PoolFile

#: So many files are placed between two signs of life.
_PROGRESS_EVERY = 500
#: How many unused files are removed at a time, so that the next publish never waits long.
_CLEAN_AT_ONCE = 200


class environment:  # noqa: N801  # reads as what it is in a with statement
    """Turns an ``OSError`` of the archive's disk into a :class:`Retry`."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            raise Retry(f"the archive cannot be written now: {what}") from error


class Pool:
    """The pool below one archive's root; ``progress`` is called for each file that is placed."""

    def __init__(self, root: Path, catalogue: Catalogue, progress: Callable[[], None] = lambda: None) -> None:
        self._root = root
        self._catalogue = catalogue
        self._progress = progress

    def place(self, files: Iterable[tuple[PoolFile, Path]]) -> None:
        """Give each sealed file its name in the pool, and wait until all are on the disk. May be done twice."""
        wanted = {file.path: sealed for file, sealed in files}
        if not wanted:
            return
        self._catalogue.intend(wanted)
        to_sync: dict[Path, None] = {}
        for path, sealed in wanted.items():
            target = self._root / path
            to_sync.update(dict.fromkeys(fsio.make_directories(target.parent)))
            fsio.place(sealed, target)
            to_sync[target] = None
            to_sync[target.parent] = None
            self._progress()
        # The files before the directories that name them.
        fsio.sync(sorted(to_sync, key=lambda path: len(path.parts), reverse=True))

    def place_many(self, files: Iterable[tuple[str, Path]]) -> None:
        """As :meth:`place`, for very many, sorted by path, whose names are noted already."""
        parents = {self._root}
        for count, (path, staged) in enumerate(files):
            target = self._root / path
            if target.parent not in parents:
                fsio.make_directories(target.parent)
                parents.add(target.parent)
            fsio.place(staged, target)
            if count % _PROGRESS_EVERY == 0:
                self._progress()
        fsio.sync_file_systems(parents)

    def sweep(self) -> list[str]:
        """Remove what an interrupted publish placed and never committed; return the names."""
        litter = self._catalogue.unfulfilled()
        for path in litter:
            self._remove(path)
        self._catalogue.forget_intents(litter)
        self._catalogue.forget_fulfilled()
        return litter

    def clean(self, unused_before: datetime, forgotten_before: datetime, now: datetime) -> list[str]:
        """Remove some files that no suite has listed since ``unused_before``; return their names, none when done.

        For those that an operator has forgotten ``forgotten_before`` counts instead. The names are free then.
        """
        paths = self._catalogue.unused_before(unused_before, forgotten_before, _CLEAN_AT_ONCE)
        if not paths:
            return []
        self._catalogue.set_gone(paths, now)
        for path in paths:
            self._remove(path)
        self._catalogue.forget_intents(paths)
        return paths

    def _remove(self, path: str) -> None:
        target = self._root / path
        fsio.remove(target)
        fsio.remove_empty(target.parent, self._root / "pool")
