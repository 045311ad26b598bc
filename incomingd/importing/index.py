"""Reads the texts of a repository, a Release or an index, from their bytes.

Rules:

* A field is ``Name: value``, and lines that begin with a blank belong to the field before. An empty line ends a stanza.
  Bytes need not be UTF-8: apt reads them too, and what a package itself says is checked when it is read.
* What a stanza has wrong is its own: those behind it are read all the same.
* A stanza has at most 1 MiB; what is beyond is passed over.
* A file that an index lists lies inside of the repository: its path has no empty part, no ``.`` or ``..``, no scheme
  and no control character.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import IO

from incomingd.model import plain

#: Bytes of a stanza, and of a line that is read in one go.
_MOST, _LINE = 1 << 20, 1 << 16
_NAME = re.compile(rb"[!-9;-~]+")
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_SIZE = re.compile(r"[0-9]{1,15}", re.ASCII)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_PATH = 4096
#: The fields that an entry is made of.
WANTED = ("package", "version", "filename", "size", "sha256", "directory", "checksums-sha256")


@dataclass(slots=True, kw_only=True)
class Stanza:
    """The wanted fields of one stanza, by their names in lower case; ``fault`` says what is wrong with it."""

    line: int
    fields: dict[str, bytes] = field(default_factory=dict)
    fault: str = ""

    def get(self, name: str) -> str:
        """A field as text, without blanks around it; bytes that are not UTF-8 as file names have them."""
        return self.fields.get(name, b"").decode("utf-8", "surrogateescape").strip()

    def __str__(self) -> str:
        """What people call it."""
        names = [plain(self.get(name)) for name in ("package", "version") if self.get(name)]
        return " ".join(names) or f"the stanza at line {self.line}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One file with its size and SHA256, as a signed text lists it. ``path`` counts from the repository's top."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What a stanza of an index is about: a .deb, or a .dsc and the names of the other files that it lists."""

    file: Listed
    package: str
    version: str
    beside: tuple[str, ...] = ()


class EntryError(Exception):
    """A stanza of an index names no file that can be taken; the message says why."""


def stanzas(source: IO[bytes], wanted: Collection[str]) -> Iterator[Stanza]:
    """The stanzas of a text."""
    reader = _Reader(wanted)
    begins = True  # at the beginning of a line
    while piece := source.readline(_LINE):
        if begins and not piece.strip():
            if reader.stanza is not None:
                yield reader.stanza
            reader.end()
        else:
            reader.take(piece, begins=begins)
        begins = piece.endswith(b"\n")
        reader.number += begins
    if reader.stanza is not None:
        yield reader.stanza


class _Reader:
    """Gathers the lines of one stanza after the other."""

    def __init__(self, wanted: Collection[str]) -> None:
        self._wanted = frozenset(wanted)
        self.number = 1
        self.end()

    def end(self) -> None:
        self.stanza: Stanza | None = None
        self._size = 0
        self._name: str | None = None

    def take(self, piece: bytes, *, begins: bool) -> None:
        if self.stanza is None:
            self.stanza = Stanza(line=self.number)
        self._size += len(piece)
        if self._size > _MOST:
            self._wrong(f"it has more than {_MOST} bytes")
        elif not begins or piece[:1] in b" \t":
            if self._name in self._wanted:
                self.stanza.fields[self._name] += piece
        elif not piece.startswith(b"#"):
            self._field(piece, self.stanza)

    def _field(self, piece: bytes, stanza: Stanza) -> None:
        name, colon, value = piece.partition(b":")
        if not colon or not _NAME.fullmatch(name):
            self._wrong(f'line {self.number} is no field: "{plain(piece[:60].decode("utf-8", "replace"))}"')
            return
        self._name = name.decode("ascii").lower()
        if self._name in stanza.fields:
            self._wrong(f"the field {self._name} stands twice")
        elif self._name in self._wanted:
            stanza.fields[self._name] = value

    def _wrong(self, fault: str) -> None:
        self._name = None
        if self.stanza is not None and not self.stanza.fault:
            self.stanza.fault = fault


def entry(stanza: Stanza) -> Entry:
    """The package that a stanza of an index is about. Raises :class:`EntryError`."""
    if stanza.fault:
        raise EntryError(stanza.fault)
    beside: tuple[str, ...] = ()
    if "filename" in stanza.fields:
        found = Listed(path=stanza.get("filename"), size=_size(stanza.get("size")), sha256=stanza.get("sha256"))
    else:
        every = listed(stanza.get("checksums-sha256"))
        rows = [row for row in every if row.path.endswith(".dsc")]
        if len(rows) != 1:
            raise EntryError(f"it lists {len(rows)} .dsc files with their SHA256, not one")
        directory = stanza.get("directory")
        path = rows[0].path if directory in ("", ".") else f"{directory}/{rows[0].path}"
        found = Listed(path=path, size=rows[0].size, sha256=rows[0].sha256)
        beside = tuple(row.path for row in every if row is not rows[0])
    sha256 = found.sha256.lower()
    if not _SHA256.fullmatch(sha256):
        raise EntryError(f'its SHA256 is "{plain(found.sha256)}", not 64 hexadecimal digits')
    return Entry(
        file=Listed(path=inside(found.path), size=found.size, sha256=sha256),
        package=stanza.get("package"),
        version=stanza.get("version"),
        beside=beside,
    )


def listed(text: str) -> list[Listed]:
    """The rows of a SHA256 or Checksums-Sha256 field: digest, size, name. Raises :class:`EntryError`."""
    rows = [line.split() for line in text.split("\n") if line.strip()]
    for row in rows:
        if len(row) != 3 or not _SHA256.fullmatch(row[0].lower()):
            raise EntryError(f'a line of its SHA256 list is "{plain(" ".join(row))}", not digest, size and name')
    return [Listed(sha256=digest.lower(), size=_size(size), path=name) for digest, size, name in rows]


def inside(path: str) -> str:
    """``path`` without ``./`` before it, if it stays inside of the repository. Raises :class:`EntryError`."""
    short = path.removeprefix("./")
    parts = short.split("/")
    odd = any(part in ("", ".", "..") for part in parts) or _SCHEME.match(short) or len(os_bytes(short)) > _PATH
    if odd or any(ord(c) < 0x20 or ord(c) == 0x7F for c in short):
        raise EntryError(f'its file is "{plain(path)}", which is no path inside of the repository')
    return short


def os_bytes(path: str) -> bytes:
    """The bytes that :meth:`Stanza.get` made ``path`` of."""
    return path.encode("utf-8", "surrogateescape")


def _size(text: str) -> int:
    if not _SIZE.fullmatch(text):
        raise EntryError(f'its size is "{plain(text)}", not a number of bytes')
    return int(text)
