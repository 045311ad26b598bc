"""Writes one section's index files, compressing only what changed.

An index is a run of blocks (:mod:`incomingd.journal.blocks`), cut at package names. A change touches the block that
covers its name: that block's stanzas are read from the catalogue, with the change laid over them, and cut anew; a block
that has become small takes in its neighbour. All the others are joined as they are: gzip members end to end are one
gzip file (RFC 1952), xz blocks are put into one stream (:mod:`.xz`), zstd frames end to end are one file (RFC 8878).

The raw index has the same bytes whatever the history; where it is cut, and so its compressed form, may differ.
"""

import bisect
import gzip
import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import zstandard

from incomingd import fsio
from incomingd.config import PublishConfig
from incomingd.journal.blocks import Block, Blocks, SectionBlocks
from incomingd.journal.catalogue import Catalogue
from incomingd.journal.generations import IndexFile
from incomingd.publish import xz

#: Raw bytes: what a block is cut to, when it is cut again, and when it takes in its neighbour.
_TARGET, _LARGEST, _SMALLEST = 128 << 10, 192 << 10, 32 << 10
#: Blocks stored in one transaction while a large index is made: bounds the memory (some 3 MB).
_STORE_AT_ONCE = 16

Stanza = tuple[str, bytes]
_T = TypeVar("_T")
_R = TypeVar("_R")


def index_name(section: str) -> str:
    """What the section's index file is called."""
    return "Sources" if section.endswith("/source") else "Packages"


class IndexWriter:
    """Writes indexes from blocks. Only the publisher uses it."""

    def __init__(self, config: PublishConfig, catalogue: Catalogue, blocks: Blocks) -> None:
        self._config = config
        self._catalogue = catalogue
        self._blocks = blocks
        self._forms = ("gz", "xz", "zst") if config.zstd else ("gz", "xz")
        self._threads = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="index")

    def write(
        self, suite: str, section: str, changes: Mapping[str, bytes | None], folder: Path, *, anew: bool
    ) -> tuple[list[IndexFile], SectionBlocks]:
        """Write the section's files into ``folder`` and by hash below it; not synced.

        ``changes`` are stanzas by name, None for one that leaves. ``anew`` rebuilds every block. Returns the files for
        the Release, the uncompressed one first, and the change of the run for the commit.
        """
        old = self._blocks.run(suite, section)
        run = self._rebuilt(suite, section, changes) if anew or not old else self._changed(suite, section, old, changes)
        kept = {block.id for block in run} & {block.id for block in old}
        blocks = SectionBlocks(
            section,
            removed=tuple(block.id for block in old if block.id not in kept),
            added=tuple(block for block in run if block.id not in kept),
        )
        name = f"{section}/{index_name(section)}"
        raw = self._threads.submit(self._hash_raw, name, run)
        files = self._threads.map(lambda form: self._write_form(name, form, run, folder), self._forms)
        return [raw.result(), *files], blocks

    # -- cutting ------------------------------------------------------------------------------------------------------

    def _rebuilt(self, suite: str, section: str, changes: Mapping[str, bytes | None]) -> list[Block]:
        stanzas = _overlaid(self._catalogue.section_stanzas(suite, section, "", None), changes)
        return self._store(_cut(stanzas))

    def _changed(self, suite: str, section: str, old: list[Block], changes: Mapping[str, bytes | None]) -> list[Block]:
        firsts = [block.first for block in old]
        touched = sorted({max(bisect.bisect_right(firsts, name) - 1, 0) for name in changes})
        run: list[Block] = []
        done = 0
        for number in touched:
            if number < done:
                continue  # taken in by the block before
            run += old[done:number]
            fresh, done = self._recut(suite, section, firsts, number, changes)
            run += self._store(fresh)
        return run + old[done:]

    def _recut(
        self, suite: str, section: str, firsts: list[str], number: int, changes: Mapping[str, bytes | None]
    ) -> tuple[list[list[Stanza]], int]:
        """The block ``number`` cut anew, and the number of the first block after what it now covers."""
        start = "" if number == 0 else firsts[number]
        after = number + 1
        while True:
            end = firsts[after] if after < len(firsts) else None
            own = {n: s for n, s in changes.items() if n >= start and (end is None or n < end)}
            cut = list(_cut(_overlaid(self._catalogue.section_stanzas(suite, section, start, end), own)))
            if end is None or sum(len(stanza) for part in cut for _, stanza in part) >= _SMALLEST:
                return cut, after
            after += 1

    def _store(self, parts: Iterable[list[Stanza]]) -> list[Block]:
        """Compress parts on all cores and store them, a few at a time."""
        stored: list[Block] = []
        compressed = _ahead(self._threads, self._compress, parts, _STORE_AT_ONCE)
        while some := list(itertools.islice(compressed, _STORE_AT_ONCE)):
            stored += self._blocks.store(some)
        return stored

    def _compress(self, part: list[Stanza]) -> tuple[str, int, Mapping[str, tuple[bytes, int]]]:
        raw = b"".join(stanza for _, stanza in part)
        block = xz.compress(raw)
        forms = {
            "raw": (raw, 0),
            "gz": (gzip.compress(raw, compresslevel=6, mtime=0), 0),
            "xz": (block.data, block.unpadded),
        }
        if self._config.zstd:
            forms["zst"] = (zstandard.ZstdCompressor(level=15).compress(raw), 0)
        return part[0][0], len(raw), forms

    # -- joining ------------------------------------------------------------------------------------------------------

    def _hash_raw(self, name: str, run: list[Block]) -> IndexFile:
        return self._file(name, (data for data, _ in self._blocks.data(run, "raw")), lambda _: None, stored=False)

    def _write_form(self, name: str, form: str, run: list[Block], folder: Path) -> IndexFile:
        path = folder / f"{name.rpartition('/')[2]}.{form}"
        with fsio.new_file(path) as out:
            file = self._file(f"{name}.{form}", self._joined(form, run), out.write, stored=True)
        fsio.link(path, folder / "by-hash" / "SHA256" / file.sha256)
        return file

    def _joined(self, form: str, run: list[Block]) -> Iterator[bytes]:
        blocks = self._blocks.data(run, form)
        if form == "xz":
            return _xz_stream(run, blocks)
        if not run:
            empty = gzip.compress(b"", mtime=0) if form == "gz" else zstandard.ZstdCompressor().compress(b"")
            return iter([empty])
        return (data for data, _ in blocks)

    def _file(self, path: str, chunks: Iterable[bytes], write: Callable[[bytes], object], *, stored: bool) -> IndexFile:
        size, sha256 = 0, hashlib.sha256()
        sha512 = hashlib.sha512() if self._config.sha512 else None
        for chunk in chunks:
            size += len(chunk)
            sha256.update(chunk)
            if sha512:
                sha512.update(chunk)
            write(chunk)
        return IndexFile(
            path=path,
            size=size,
            sha256=sha256.hexdigest(),
            sha512=sha512.hexdigest() if sha512 else None,
            stored=stored,
        )


def _xz_stream(run: list[Block], blocks: Iterable[tuple[bytes, int]]) -> Iterator[bytes]:
    yield xz.HEADER
    sizes = []
    for block, (data, unpadded) in zip(run, blocks, strict=True):
        sizes.append((unpadded, block.size))
        yield data
    yield xz.tail(sizes)


def _overlaid(stanzas: Iterable[Stanza], changes: Mapping[str, bytes | None]) -> Iterator[Stanza]:
    """``stanzas``, sorted by name, with ``changes`` laid over them, sorted."""
    fresh = iter(sorted((name, stanza) for name, stanza in changes.items() if stanza is not None))
    coming = next(fresh, None)
    for name, stanza in stanzas:
        while coming is not None and coming[0] < name:
            yield coming
            coming = next(fresh, None)
        if name not in changes:
            yield name, stanza
    while coming is not None:
        yield coming
        coming = next(fresh, None)


def _cut(stanzas: Iterable[Stanza]) -> Iterator[list[Stanza]]:
    """Parts of about the target's size; a last one that is small stays with the one before it."""
    part: list[Stanza] = []
    size = 0
    for name, stanza in stanzas:
        if size >= _LARGEST:
            head, rest = _split(part)
            yield head
            part, size = rest, sum(len(s) for _, s in rest)
        part.append((name, stanza))
        size += len(stanza)
    if part:
        yield part


def _split(part: list[Stanza]) -> tuple[list[Stanza], list[Stanza]]:
    size = 0
    for number, (_, stanza) in enumerate(part):
        size += len(stanza)
        if size >= _TARGET:
            return part[: number + 1], part[number + 1 :]
    return part, []


def _ahead(threads: ThreadPoolExecutor, act: Callable[[_T], _R], items: Iterable[_T], depth: int) -> Iterator[_R]:
    """``map`` that takes no more than ``depth`` items ahead, so that a large index is never in memory whole."""
    waiting = []
    for item in items:
        waiting.append(threads.submit(act, item))
        if len(waiting) >= depth:
            yield waiting.pop(0).result()
    for future in waiting:
        yield future.result()
