"""Writes one section's index files, compressing only what changed.

An index is a run of blocks (:mod:`.blocks`), which the journal stores raw and compressed. A change recuts the block
that it lies in; all the others are joined as they are: gzip members end to end are one gzip file (RFC 1952), xz blocks
are put into one stream (:mod:`.xz`), zstd frames end to end are one zstd file (RFC 8878).

On the way of an upload compression is quick, for a third of the time and an eighth more bytes; at leisure
:meth:`IndexWriter.improve` makes those blocks smaller, and the next publish joins what it made.
"""

import gzip
import hashlib
import itertools
import logging
import os
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import zstandard

from incomingd import fsio
from incomingd.config import PublishConfig
from incomingd.journal.blocks import Block, Blocks, LostBlockError, SectionBlocks
from incomingd.journal.generations import IndexFile
from incomingd.publish import blocks, xz
from incomingd.publish.translations import View

log = logging.getLogger(__name__)

#: Blocks stored in one transaction while a large index is made: bounds the memory (some 3 MB).
_STORE_AT_ONCE = 16
#: Blocks that are made smaller at a time: a publish that comes up waits for no more (some 30 ms).
_IMPROVE_AT_ONCE = 8
#: After so many blocks (some 2 MB) the digests of the raw index are noted, for the next publish.
_MARK_EVERY = 16

_T = TypeVar("_T")
_R = TypeVar("_R")


def index_name(section: str) -> str:
    """What the section's index file is called."""
    return {"source": "Sources", "i18n": "Translation-en"}.get(section.rpartition("/")[2], "Packages")


class IndexWriter:
    """Writes indexes from blocks. Only the publisher uses it."""

    def __init__(self, config: PublishConfig, store: Blocks) -> None:
        self._config = config
        self._blocks = store
        self._forms = ("gz", "xz", "zst") if config.zstd else ("gz", "xz")
        # By suite and section what is committed: the run, and the raw digests before every so many of its blocks.
        self._known: dict[tuple[str, str], _Known] = {}
        self._written: dict[tuple[str, str], _Known] = {}  # and what is not, yet
        self._threads = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="index")

    def write(
        self, suite: str, section: str, view: View, changes: Mapping[str, bytes | None], folder: Path, *, anew: bool
    ) -> tuple[list[IndexFile], SectionBlocks]:
        """Write the section's files into ``folder``; their bytes are synced, their names are not.

        ``view`` shows the stanzas as they were; ``changes`` are those that change, by name, None for one that leaves.
        ``anew`` rebuilds every block, as does a store that has lost some. Returns the files for the Release, the
        uncompressed one first, and the change of the run for the commit.
        """
        job = _Job(suite=suite, section=section, view=view, changes=changes, folder=folder)
        known = self._known.pop((suite, section), None)
        stored = known.run if known else self._blocks.run(suite, section)
        # Where some of the store is lost the packages still say what there was.
        whole = known is not None or self._blocks.has_all(suite, section, ("raw", *self._forms))
        try:
            return self._write(job, stored, stored if whole and not anew else [], known)
        except LostBlockError as lost:
            log.warning("%s: %s is made anew: %s", suite, section, lost)
            return self._write(job, stored, [], None)

    def committed(self, suite: str, changed: SectionBlocks) -> None:
        """What was written is in force: the next publish of that section goes on from it."""
        written = self._written.pop((suite, changed.section), None)
        if written is not None:
            self._known[suite, changed.section] = written

    def _write(
        self, job: "_Job", stored: Sequence[Block], old: Sequence[Block], known: "_Known | None"
    ) -> tuple[list[IndexFile], SectionBlocks]:
        """``stored`` is the run that the new one replaces, ``old`` what of it can be used."""
        run, added = self._recut(job, old)
        kept = {block.id for block in run}
        removed = tuple(block.id for block in stored if block.id not in kept)
        name = f"{job.section}/{index_name(job.section)}"
        raw = self._threads.submit(self._hash_raw, name, known, run)
        written = [self._threads.submit(self._write_form, name, form, run, job.folder) for form in self._forms]
        wait(written)  # whatever fails, none of them goes on
        first, marks = raw.result()
        files = [first, *(one.result() for one in written)]
        self._written[job.suite, job.section] = _Known(run=run, marks=marks)
        return files, SectionBlocks(section=job.section, removed=removed, added=tuple(added))

    def _recut(self, job: "_Job", old: Sequence[Block]) -> tuple[list[Block], list[Block]]:
        """The section's new run, and those of its blocks that are new."""

        if not old:
            every = blocks.changed(partial(job.view.stanzas, job.section), job.changes, "")
            made = self._store(blocks.cut(every), quick=False)
            return made, made
        firsts = [block.first for block in old]
        kept = {block.first: block for block in old}

        # Out of blocks: the catalogue would give the stanzas of one in 70 rows, each with a wait for Python's lock.
        def read(start: str) -> Generator[tuple[str, bytes], None, None]:
            begin = max(bisect_right(firsts, start) - 1, 0)
            return blocks.changed(lambda name: self._stanzas(old[begin:], name), job.changes, start)

        def fresh() -> Iterator[blocks.Chunk]:
            for recut in blocks.recut(firsts, job.changes, read):
                for first in recut.dropped:
                    del kept[first]
                yield from recut.chunks

        added = self._store(fresh(), quick=True)
        return sorted([*kept.values(), *added], key=lambda block: block.first), added

    def _stanzas(self, run: Sequence[Block], start: str) -> Iterator[tuple[str, bytes]]:
        """The stanzas of stored blocks from the name ``start`` on. Raises :class:`LostBlockError`."""
        for block in run:
            [(raw, _)] = self._blocks.data([block], "raw")
            try:
                yield from (one for one in blocks.stanzas(raw) if one[0] >= start)
            except ValueError as error:
                raise LostBlockError(f"index block {block.id} is damaged: {error}") from error

    def _store(self, chunks: Iterable[blocks.Chunk], *, quick: bool) -> list[Block]:
        """Compress chunks on all cores and store them, a few at a time."""
        stored: list[Block] = []
        compressed = _ahead(self._threads, partial(self._compress, quick=quick), chunks, _STORE_AT_ONCE)
        while some := list(itertools.islice(compressed, _STORE_AT_ONCE)):
            stored += self._blocks.store(some, quick=quick)
        return stored

    def _compress(self, chunk: blocks.Chunk, *, quick: bool) -> tuple[str, int, Mapping[str, tuple[bytes, int]]]:
        return chunk.first, len(chunk.raw), {"raw": (chunk.raw, 0), **self._packed(chunk.raw, quick=quick)}

    def _packed(self, raw: bytes, *, quick: bool) -> dict[str, tuple[bytes, int]]:
        """The compressed forms, with the unpadded size of xz."""
        block = xz.compress(raw, quick=quick)
        forms = {
            "gz": (gzip.compress(raw, compresslevel=4 if quick else 6, mtime=0), 0),
            "xz": (block.data, block.unpadded),
        }
        if self._config.zstd:
            forms["zst"] = (zstandard.ZstdCompressor(level=3 if quick else 15).compress(raw), 0)
        return forms

    def improve(self) -> bool:
        """Make the forms of some blocks smaller that a publish made in haste; True where there were any."""
        hasty = self._blocks.quick(_IMPROVE_AT_ONCE)
        if not hasty:
            return False
        packed = self._threads.map(partial(self._packed, quick=False), (raw for _, raw in hasty))
        self._blocks.improve(zip((number for number, _ in hasty), packed, strict=True))
        return True

    # -- joining ------------------------------------------------------------------------------------------------------

    def _hash_raw(self, name: str, known: "_Known | None", run: list[Block]) -> tuple[IndexFile, list["_Sums"]]:
        """Nobody reads the raw bytes but this: it goes on from the last mark before the first block that is new."""
        marks = known.marks[: _alike(known.run, run) // _MARK_EVERY + 1] if known else []
        sums = marks.pop() if marks else _Sums(sha512=self._config.sha512)
        start = len(marks) * _MARK_EVERY
        for number, (data, _) in enumerate(self._blocks.data(run[start:], "raw"), start):
            if number % _MARK_EVERY == 0:
                marks.append(sums.copy())
            sums.update(data)
        return sums.file(name, stored=False), marks

    def _write_form(self, name: str, form: str, run: list[Block], folder: Path) -> IndexFile:
        path = folder / f"{name.rpartition('/')[2]}.{form}"
        sums = _Sums(sha512=self._config.sha512)
        # Synced here: one form is on its way to the disk while the others are being hashed.
        with fsio.new_file(path, synced=True) as out:
            for chunk in self._joined(form, run):
                sums.update(chunk)
                out.write(chunk)
        return sums.file(f"{name}.{form}", stored=True, allocated=fsio.allocated(path))

    def _joined(self, form: str, run: list[Block]) -> Iterator[bytes]:
        data = self._blocks.data(run, form)
        if form == "xz":
            return xz.join(_xz_blocks(run, data))
        if not run:
            empty = gzip.compress(b"", mtime=0) if form == "gz" else zstandard.ZstdCompressor().compress(b"")
            return iter([empty])
        return (packed for packed, _ in data)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One section to be written into ``folder``; what it was, and what changes (:meth:`IndexWriter.write`)."""

    suite: str
    section: str
    view: View
    changes: Mapping[str, bytes | None]
    folder: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """One section as it was written last."""

    run: list[Block]
    marks: list["_Sums"]


class _Sums:
    """Size and digests of one file, as far as it has been seen."""

    def __init__(self, *, sha512: bool) -> None:
        self._size, self._sha256 = 0, hashlib.sha256()
        self._sha512 = hashlib.sha512() if sha512 else None

    def update(self, chunk: bytes) -> None:
        self._size += len(chunk)
        self._sha256.update(chunk)
        if self._sha512:
            self._sha512.update(chunk)

    def copy(self) -> "_Sums":
        """The same, to go on apart from this one."""
        other = _Sums(sha512=False)
        other._size, other._sha256 = self._size, self._sha256.copy()
        other._sha512 = self._sha512.copy() if self._sha512 else None
        return other

    def file(self, path: str, *, stored: bool, allocated: int = 0) -> IndexFile:
        return IndexFile(
            path=path,
            size=self._size,
            sha256=self._sha256.hexdigest(),
            sha512=self._sha512.hexdigest() if self._sha512 else None,
            stored=stored,
            allocated=allocated,
        )


def _alike(one: Sequence[Block], other: Sequence[Block]) -> int:
    """With how many equal blocks both begin."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _xz_blocks(run: list[Block], data: Iterable[tuple[bytes, int]]) -> Iterator[xz.XzBlock]:
    for block, (packed, unpadded) in zip(run, data, strict=True):
        yield xz.XzBlock(data=packed, unpadded=unpadded, raw=block.size)


def _ahead(threads: ThreadPoolExecutor, act: Callable[[_T], _R], items: Iterable[_T], depth: int) -> Iterator[_R]:
    """``map`` that takes no more than ``depth`` items ahead, so that a large index is never in memory whole."""
    waiting = []
    for item in items:
        waiting.append(threads.submit(act, item))
        if len(waiting) >= depth:
            yield waiting.pop(0).result()
    for future in waiting:
        yield future.result()
