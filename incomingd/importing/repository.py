"""Finds what an existing repository lists: its signed InRelease vouches for its indexes, and these for its files.

Rules:

* A size that is listed is a limit, for what is fetched and for what an index unpacks to. InRelease has at most 4 MiB.
* An index is unpacked only after it had the digest that is signed for. One that is listed and not there is an error:
  a server could leave packages out.
* The files themselves are fetched when they are read (:mod:`.reading`).
"""

import hashlib
import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import IO

from incomingd import rules
from incomingd.config import SuiteConfig
from incomingd.errors import ConfigError, Retry
from incomingd.importing import release
from incomingd.importing.index import WANTED, EntryError, Stanza, entry, stanzas
from incomingd.importing.release import Release, Wanted
from incomingd.importing.remote import Place, TooLongError
from incomingd.journal.staging import Origin
from incomingd.model import Problem, plain
from incomingd.verify import streams

_INRELEASE = 4 << 20
#: What an index may have, packed or unpacked, whatever is listed, and what all of them may list.
_MOST_BYTES, _MOST_PACKAGES = 2 << 30, 1_000_000
#: In the order in which one is taken.
_ENDINGS = (".xz", ".gz", ".bz2", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What there is to be imported; ``faults`` is what cannot be, each with what it is called.

    ``date`` is when the repository says that it was made; None for a folder of files.
    """

    origins: list[Origin]
    faults: list[tuple[str, Problem]]
    date: datetime | None = None


class Repository:
    """One suite of an existing repository; ``suite`` is its folder below ``dists``."""

    def __init__(self, place: Place, suite: str) -> None:
        self._place = place
        self._suite = suite

    def contents(self, wanted: Wanted, into: SuiteConfig, folder: Path) -> Contents:
        """What it lists for components and architectures that ``into`` has; ``folder`` takes an index for a moment.

        Raises ``ConfigError`` and ``Retry``.
        """
        try:
            found = self._release(wanted)
            return replace(self._listed(found, into, folder), date=found.date)
        except ConfigError as error:
            where = f"{plain(self._place.base)} {plain(self._suite)}"
            raise ConfigError(f"{where}: {line}" for line in error.errors) from error

    def _release(self, wanted: Wanted) -> Release:
        try:
            data = b"".join(self._place.chunks(f"dists/{self._suite}/InRelease", _INRELEASE))
        except FileNotFoundError as error:
            what = "there is no InRelease; is it a repository, and is its suite called so (--from-suite)?"
            raise ConfigError([what]) from error
        except TooLongError as error:
            raise ConfigError([f"its InRelease has more than {_INRELEASE >> 20} MiB; it is none"]) from error
        return release.verify(data, wanted)

    def _listed(self, found: Release, into: SuiteConfig, folder: Path) -> Contents:
        components = [name for name in found.components if name in into.components]
        if not components:
            theirs, ours = ", ".join(found.components) or "no component", ", ".join(into.components)
            raise ConfigError([f"it has {plain(theirs)}, and {into.name} has {ours}"])
        kinds = ("source/Sources", *(f"binary-{arch}/Packages" for arch in (*into.binary_architectures, "all")))
        origins: dict[str, Origin] = {}
        faults: dict[str, Problem] = {}
        for component in components:
            for kind in kinds:
                for stanza in self._index(f"{component}/{kind}", found, folder):
                    self._note(stanza, f"{component}/{kind}", component, origins, faults)
        return Contents(origins=sorted(origins.values(), key=lambda one: one.path), faults=list(faults.items()))

    def _note(
        self, stanza: Stanza, index: str, component: str, origins: dict[str, Origin], faults: dict[str, Problem]
    ) -> None:
        try:
            found = entry(stanza)
        except EntryError as error:
            problem = rules.BAD_INDEX_ENTRY.problem(str(error))
            faults[f"{plain(self._place.base)} {plain(self._suite)} {index}: {stanza}"] = problem
        else:
            path = f"{self._place.base}/{found.file.path}"
            origins[path] = Origin(
                path=path,
                size=found.file.size,
                mtime_ns=0,
                component=component,
                sha256=found.file.sha256,
                package=found.package,
                version=found.version,
                beside=found.beside,
            )
        if len(origins) + len(faults) > _MOST_PACKAGES:
            raise ConfigError([f"it lists more than {_MOST_PACKAGES} packages; import it by component or architecture"])

    def _index(self, name: str, found: Release, folder: Path) -> Iterator[Stanza]:
        """The stanzas of one index. It need not be listed: a component need not have sources."""
        known = [ending for ending in _ENDINGS if name + ending in found.indexes]
        for ending in known:
            with tempfile.TemporaryFile(dir=folder) as file:
                if self._fetch(name + ending, found, file):
                    yield from self._unpacked(name, ending, found, file)
                    return
        if known and found.indexes[name + known[-1]].size:
            raise ConfigError([f"its Release lists {name}{known[0]}, and it is not there; try again later"])

    def _fetch(self, name: str, found: Release, file: IO[bytes]) -> bool:
        """Have an index in ``file``, with its listed digest; False if it is not there."""
        listed = found.indexes[name]
        folder, _, _ = name.rpartition("/")
        names = [f"dists/{self._suite}/{name}"]
        if found.by_hash:
            names.insert(0, f"dists/{self._suite}/{folder}/by-hash/SHA256/{listed.sha256}")
        for one in names:
            file.seek(0)
            file.truncate()
            digest = hashlib.sha256()
            try:
                for chunk in self._place.chunks(one, min(listed.size, _MOST_BYTES)):
                    digest.update(chunk)
                    file.write(chunk)
            except FileNotFoundError:
                continue
            except TooLongError as error:
                raise Retry(
                    f"{self._place.base}/{one} has more than the {listed.size} bytes that are listed"
                ) from error
            if digest.hexdigest() != listed.sha256:
                raise Retry(f"{self._place.base}/{one} is not the one that InRelease lists; try again")
            file.seek(0)
            return True
        return False

    def _unpacked(self, name: str, ending: str, found: Release, file: IO[bytes]) -> Iterator[Stanza]:
        plain_one = found.indexes.get(name)
        limit = min(plain_one.size if plain_one else _MOST_BYTES, _MOST_BYTES)
        try:
            with streams.translated():
                unpacked = streams.decompressor(file, ending[1:], deb=False) if ending else file
                yield from stanzas(io.BufferedReader(_Limited(unpacked, limit), 1 << 16), WANTED)
        except streams.ArchiveError as error:
            raise ConfigError([f"its index {name}{ending} cannot be read: {error}"]) from error


class _Limited(io.RawIOBase):
    """At most so many bytes of a stream."""

    def __init__(self, source: IO[bytes], limit: int) -> None:
        self._source, self._limit, self._left = source, limit, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # as io calls it
        data = self._source.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise streams.CompressionError(f"it unpacks to more than {self._limit} bytes, which is what is listed")
        buffer[: len(data)] = data
        return len(data)
