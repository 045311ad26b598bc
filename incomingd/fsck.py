"""Holds journal, pool and dists against each other: ``incomingctl fsck``.

Reads only, and may run beside the daemon: what a publish changes meanwhile looks like a fault, so the caller looks
again and believes what it is told before and after. ``deep`` reads every byte: pool files against their digests,
compressed indexes against the raw one, and the indexes against the catalogue.
"""

import gzip
import hashlib
import lzma
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import zstandard

from incomingd import fsio
from incomingd.config import Config, SuiteConfig
from incomingd.journal import Journal
from incomingd.journal.audit import Audit
from incomingd.journal.catalogue import Catalogue, PoolFile
from incomingd.journal.generations import Generation, Generations, IndexFile
from incomingd.journal.kept import KeptIndexes
from incomingd.journal.uploads import Uploads
from incomingd.model import UploadKind
from incomingd.places import Places
from incomingd.publish.generation import view_of
from incomingd.states import Stage

_UNPACK: dict[str, Callable[[Path], Iterator[bytes]]] = {
    ".gz": lambda path: _chunks(cast(IO[bytes], gzip.open(path))),  # noqa: SIM115  # _chunks closes it
    ".xz": lambda path: _chunks(lzma.open(path)),  # noqa: SIM115  # as above
    ".zst": lambda path: _chunks(zstandard.open(path, "rb")),
}
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Progress:
    """Who is told how far it is: called with a heading and how many steps it has; returns what a step is told to."""

    begin: Callable[[str, int], Callable[[], None]]


class Fsck:
    """One look at an instance. :meth:`faults` yields a sentence for each fault, none where all agrees."""

    def __init__(self, config: Config, journal: Journal, progress: Progress, *, deep: bool) -> None:
        self._config = config
        self._places = Places(config)
        self._audit = Audit(journal)
        self._catalogue = Catalogue(journal)
        self._generations = Generations(journal)
        self._kept = KeptIndexes(journal)
        self._uploads = Uploads(journal)
        self._begin = progress.begin
        self._deep = deep

    def faults(self) -> Iterator[str]:
        """Every fault, most important first: the journal itself, the pool, what clients see, what waits."""
        yield from self._journal()
        yield from self._pool()
        for suite in self._config.suites:
            yield from self._suite(suite)
        yield from self._waiting()

    def _journal(self) -> Iterator[str]:
        self._begin("journal", 1)
        yield from (f"journal: {fault}" for fault in self._audit.integrity(deep=self._deep))
        for package, path in self._audit.listed_but_gone():
            yield f"journal: {package} is listed, and its {path} is noted as removed; upload it again"

    # -- the pool -----------------------------------------------------------------------------------------------------

    def _pool(self) -> Iterator[str]:
        step = self._begin("pool", self._audit.count_pool_files())
        for file in self._audit.pool_files():
            yield from self._pool_file(file)
            step()
        intended = set(self._audit.intents())
        root = self._places.archive
        for path in sorted(_files(root / "pool")):
            name = str(path.relative_to(root))
            known = self._catalogue.pool_file(name)
            if (known is None or known.gone) and name not in intended:
                yield f"{path}: is in the pool and the journal does not know it; move it away"

    def _pool_file(self, file: PoolFile) -> Iterator[str]:
        path = self._places.archive / file.path
        try:
            size = path.lstat().st_size
            if size != file.file.size:
                yield f"{path}: has {size} bytes, and the journal says {file.file.size}; restore it"
            elif self._deep and fsio.hash_file(path).digests != file.file.digests:
                yield f"{path}: its bytes are not those that were published; restore it"
        except FileNotFoundError:
            yield f"{path}: is missing; restore it, or upload it again after incomingctl remove"
        except OSError as error:
            yield f"{path}: cannot be read: {error.strerror}"

    # -- dists --------------------------------------------------------------------------------------------------------

    def _suite(self, suite: SuiteConfig) -> Iterator[str]:
        current = self._generations.current(suite.name)
        if current is None:
            return
        stored = [file for file in current.files if file.stored]
        step = self._begin(suite.name, len(stored))
        link, folder = self._places.suite_link(suite.name), self._places.generation(suite.name, current.number)
        if not fsio.points_to(link, f".generations/{suite.name}/{current.number}"):
            yield f"{link}: does not lead to generation {current.number}, the current one; reload the daemon"
        yield from self._signed(folder, current)
        for file in stored:
            yield from self._index(folder, file)
            step()
        yield from self._superseded(suite.name)
        if self._deep:
            yield from self._content(suite, folder, current)

    def _signed(self, folder: Path, current: Generation) -> Iterator[str]:
        try:
            inrelease = (folder / "InRelease").read_bytes()
            release = (folder / "Release").read_bytes()
            (folder / "Release.gpg").stat()
        except OSError as error:
            yield f"{error.filename}: cannot be read: {error.strerror}; reload the daemon with any changed setting"
            return
        if hashlib.sha256(inrelease).hexdigest() != current.inrelease_sha256:
            yield f"{folder / 'InRelease'}: is not the one that was published"
        if release.strip() not in inrelease:
            yield f"{folder / 'Release'}: is not the text that InRelease signs"

    def _index(self, folder: Path, file: IndexFile) -> Iterator[str]:
        path = folder / file.path
        for each in (path, *(path.parent / "by-hash" / name for name in file.by_hash)):
            try:
                size = each.stat().st_size
            except OSError as error:
                yield f"{each}: cannot be read: {error.strerror}"
                continue
            if size != file.size:
                yield f"{each}: has {size} bytes, and its Release says {file.size}"
            elif self._deep and fsio.hash_file(each).digests.sha256 != file.sha256:
                yield f"{each}: its bytes are not those that its Release names"

    def _superseded(self, suite: str) -> Iterator[str]:
        """What clients with an older Release may still ask for, and what lies beside it."""
        top = self._places.by_hash(suite)
        known = {path: one for one in self._kept.all(suite) for path in (top / one.folder / n for n in one.by_hash)}
        there = set(_files(top))
        step = self._begin(f"{suite}, superseded indexes", len(known))
        for path, one in known.items():
            if path not in there and one.superseded:
                yield f"{path}: is missing, and a client with an older Release may ask for it; reload the daemon"
            elif self._deep and path in there and fsio.hash_file(path).digests.sha256 != one.sha256:
                yield f"{path}: its bytes are not those that were published; remove it and reload the daemon"
            step()
        for path in sorted(there - known.keys()):
            yield f"{path}: lies under by-hash and the journal does not know it; reload the daemon"

    def _content(self, suite: SuiteConfig, folder: Path, current: Generation) -> Iterator[str]:
        """Each index unpacked: all its forms are the raw one, and that is what the catalogue lists."""
        raw = {file.path: file for file in current.files if not file.stored}
        for file in current.files:
            plain, suffix = file.path.rpartition(".")[0], Path(file.path).suffix
            if not file.stored or plain not in raw:
                continue
            try:
                unpacked = _digest(_UNPACK[suffix](folder / file.path))
            except (OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
                yield f"{folder / file.path}: cannot be unpacked: {error}"
                continue
            if unpacked != raw[plain].sha256:
                yield f"{folder / file.path}: unpacks to something else than its Release names"
        # Whatever the configuration says by now: what was published.
        view = view_of(self._catalogue, suite, translations=any(path.endswith("/Translation-en") for path in raw))
        for path, file in raw.items():
            stanzas = view.stanzas(path.rpartition("/")[0])
            if _digest(stanza for _, stanza in stanzas) != file.sha256:
                yield f"{folder / path}: is not what the journal lists for it"

    # -- what waits ---------------------------------------------------------------------------------------------------

    def _waiting(self) -> Iterator[str]:
        for upload in self._uploads.open():
            if upload.stage is not Stage.QUEUED or upload.kind is UploadKind.OPERATION:
                continue
            for changes in self._uploads.facts(upload.id):
                brought = [changes.file, *(binary.file for binary in changes.binaries)]
                brought += [source.dsc for source in changes.sources]
                for path in (self._places.sealed(upload.id) / file.name for file in brought):
                    if not path.exists():
                        yield f"{path}: is missing, and {upload} waits to be published; send it again"


def _files(top: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(top):
        yield from (Path(folder) / name for name in names)


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _digest(chunks: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()
