"""Writes one section's index files, compressing only what changed.

An index is a run of blocks (:mod:`.blocks`), which the journal stores raw and compressed. A change recuts the block
that it lies in; all the others are joined as they are: gzip members end to end are one gzip file (RFC 1952), xz blocks
are put into one stream (:mod:`.xz`), zstd frames end to end are one zstd file (RFC 8878).
"""

import gzip
import hashlib
import itertools
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import zstandard

from incomingd import fsio
from incomingd.config import PublishConfig
from incomingd.journal.blocks import Block, Blocks, SectionBlocks
from incomingd.journal.generations import IndexFile
from incomingd.publish import blocks, xz
from incomingd.publish.translations import View

#: Blocks stored in one transaction while a large index is made: bounds the memory (some 3 MB).
_STORE_AT_ONCE = 16

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
        self._threads = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="index")

    def write(
        self, suite: str, section: str, view: View, changes: Mapping[str, bytes | None], folder: Path, *, anew: bool
    ) -> tuple[list[IndexFile], SectionBlocks]:
        """Write the section's files into ``folder`` and by hash below it; not synced.

        ``view`` shows the stanzas as they were; ``changes`` are those that change, by name, None for one that leaves.
        ``anew`` rebuilds every block, as does a store that has lost some. Returns the files for the Release, the
        uncompressed one first, and the change of the run for the commit.
        """
        stored = self._blocks.run(suite, section)
        # Where some of the store is lost the packages still say what there was.
        old = [] if anew or not self._blocks.has_all(stored, ("raw", *self._forms)) else stored
        run, added = self._recut(section, view, old, changes)
        kept = {block.id for block in run}
        removed = tuple(block.id for block in stored if block.id not in kept)
        name = f"{section}/{index_name(section)}"
        raw = self._threads.submit(self._hash_raw, name, run)
        files = self._threads.map(lambda form: self._write_form(name, form, run, folder), self._forms)
        return [raw.result(), *files], SectionBlocks(section, removed, tuple(added))

    def _recut(
        self, section: str, view: View, old: Sequence[Block], changes: Mapping[str, bytes | None]
    ) -> tuple[list[Block], list[Block]]:
        """The section's new run, and those of its blocks that are new."""

        def read(start: str) -> Generator[tuple[str, bytes], None, None]:
            return blocks.changed(lambda name: view.stanzas(section, name), changes, start)

        if not old:
            added = self._store(blocks.cut(read("")))
            return added, added
        by_first = {block.first: block for block in old}
        added = []
        for recut in blocks.recut([block.first for block in old], changes, read):
            for first in recut.dropped:
                del by_first[first]
            fresh = self._store(recut.chunks)
            by_first |= {block.first: block for block in fresh}
            added += fresh
        return sorted(by_first.values(), key=lambda block: block.first), added

    def _store(self, chunks: Iterable[blocks.Chunk]) -> list[Block]:
        """Compress chunks on all cores and store them, a few at a time."""
        stored: list[Block] = []
        compressed = _ahead(self._threads, self._compress, chunks, _STORE_AT_ONCE)
        while some := list(itertools.islice(compressed, _STORE_AT_ONCE)):
            stored += self._blocks.store(some)
        return stored

    def _compress(self, chunk: blocks.Chunk) -> tuple[str, int, Mapping[str, tuple[bytes, int]]]:
        block = xz.compress(chunk.raw)
        forms = {
            "raw": (chunk.raw, 0),
            "gz": (gzip.compress(chunk.raw, compresslevel=6, mtime=0), 0),
            "xz": (block.data, block.unpadded),
        }
        if self._config.zstd:
            forms["zst"] = (zstandard.ZstdCompressor(level=15).compress(chunk.raw), 0)
        return chunk.first, len(chunk.raw), forms

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
        data = self._blocks.data(run, form)
        if form == "xz":
            return xz.join(_xz_blocks(run, data))
        if not run:
            empty = gzip.compress(b"", mtime=0) if form == "gz" else zstandard.ZstdCompressor().compress(b"")
            return iter([empty])
        return (packed for packed, _ in data)

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
