"""Reads tar archives header by header: POSIX's ustar and pax, GNU's long names and sparse files, and the old format.

dpkg, GNU tar and Python's tarfile read odd headers differently: such an archive could show one control file to the
checks and another to dpkg. This reader takes only what all three read alike, and it does not depend on any of them.

Rules:

* A header has the right checksum, and plain octal numbers (GNU's binary form if they are large). Its first name byte is
  not NUL, which dpkg takes for the end.
* A name has one source: the header, one GNU long name, or one pax ``path``. A prefix counts only in POSIX's format. A
  slash at the end means a directory, and only a directory is called ``.``.
* Only a file has content. (For a directory and a hard link tar and tarfile pass over a size; dpkg does not.)
* A pax header is well-formed, and changes a size only if the header has no room for it. A global one names no member.
* A kind that not all of them know is refused. Of a ``deb`` that includes pax headers and sparse files.
* Behind the end, which is one block of zeros, there are only zeros.

What is wrong raises :class:`ArchiveError` with a sentence. No name, no pax header and no list is kept.
"""

import os
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import IO

from incomingd.model import plain
from incomingd.verify.streams import ArchiveError

_BLOCK = 512
_ZEROS = bytes(_BLOCK)
#: What is read at once of content that no one wants to see.
_PIECE = 1 << 18
#: A long name or a pax header is read whole, and no path is longer than 4,096 bytes.
_MAX_MORE = 1 << 20
#: name, mode, uid, gid, size, mtime, checksum, kind, link, (user, group,) major, minor, prefix
_FIELDS = struct.Struct("100s8s8s8s12s12s8sc100s72x8s8s155s12x")
_MAGIC = slice(257, 263)
_POSIX = b"ustar\0"
#: To tarfile "1_0" and "0o10" are numbers, and blanks alone; to dpkg and tar they are not.
_NUMBER = re.compile(rb" *[0-7]+[ \0]*|\0+")
#: The numbers of a device, which may be blank if it is none.
_DEVICE_NUMBER = re.compile(rb" *[0-7]*[ \0]*")
#: First bytes of a number in GNU's binary form, at least 0 and below it.
_BINARY, _NEGATIVE = 0x80, 0xFF
_MAX_ID, _MAX_SIZE = (1 << 32) - 1, (1 << 63) - 1
#: A size that the octal digits of a header cannot hold.
_LARGE = 8 << 30
_RECORD = re.compile(rb"([1-9][0-9]{0,6}) ([^=\0\n]+)=", re.ASCII)

_LONG_NAME, _LONG_LINK = b"L", b"K"
_PAX, _GLOBAL = frozenset({b"x", b"X"}), b"g"
_OLD_FILE, _SPARSE = b"\0", b"S"
#: These say more of the member that follows.
_SAYS_MORE = frozenset({_LONG_NAME, _LONG_LINK, _GLOBAL}) | _PAX
#: In a sparse file's header, and in each block that goes on with it: where it says that another follows.
_GOES_ON, _STILL_GOES_ON = 482, 504
#: pax records by which a member gets another name, size or place.
_PATH, _LINK_PATH, _PAX_SIZE, _SPARSE_NAME = b"path", b"linkpath", b"size", b"GNU.sparse.name"
_MEANINGFUL = frozenset({_PATH, _LINK_PATH, _PAX_SIZE, _SPARSE_NAME})


class Kind(Enum):
    """What a member is."""

    FILE = "file"
    HARD_LINK = "hard link"
    LINK = "symbolic link"
    DEVICE = "device or FIFO"
    DIRECTORY = "directory"
    LABEL = "volume label"


#: What dpkg unpacks (deb(5)).
_DEB_KINDS = {
    _OLD_FILE: Kind.FILE,
    b"0": Kind.FILE,
    b"1": Kind.HARD_LINK,
    b"2": Kind.LINK,
    b"5": Kind.DIRECTORY,
    **dict.fromkeys((b"3", b"4", b"6"), Kind.DEVICE),
}
_KINDS = {**_DEB_KINDS, b"7": Kind.FILE, _SPARSE: Kind.FILE, b"V": Kind.LABEL}


@dataclass(frozen=True, slots=True, kw_only=True)
class TarMember:
    """One member. ``name`` is without the slashes behind a directory's, ``mtime`` the header's."""

    name: str
    kind: Kind
    size: int
    mtime: int
    link: str = ""


class Content:
    """The bytes of a file in the archive, to be read before the next member is asked for."""

    def __init__(self, blocks: "_Blocks", size: int) -> None:
        self._blocks, self.left = blocks, size

    def read(self) -> bytes:
        """All of it. The caller knows its size."""
        count, self.left = self.left, 0
        return self._blocks.take(count)


def read_tar(
    file: IO[bytes], *, deb: bool, charge: Callable[[], None] = lambda: None
) -> Iterator[tuple[TarMember, Content | None]]:
    """Each member with its content if it is a file; at the end, what follows is read.

    ``charge`` is called for each header that takes time, except those of which a member has at most two.
    """
    blocks, more = _Blocks(file), _More()
    block = blocks.header()
    if not block:
        raise ArchiveError("its tar archive is empty")
    while block and block != _ZEROS:
        header = _header(block)
        if header.kind not in _SAYS_MORE or header.kind == _GLOBAL:
            charge()
        if header.kind in _SAYS_MORE:
            more.add(header, blocks.text(header.size), deb=deb)
        else:
            if header.kind == _SPARSE:
                blocks.pass_sparse(block)
            member = more.member(header, deb=deb)
            more = _More()
            size = member.size if member.kind is Kind.FILE else 0
            content = Content(blocks, size)
            yield member, content if member.kind is Kind.FILE else None
            blocks.skip(content.left + -size % _BLOCK)
        block = blocks.header()
    if more:
        raise ArchiveError("its tar archive ends behind a header that says more of the next member")
    blocks.end()


class _Blocks:
    """The archive as blocks of 512 bytes. None is read twice."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._seekable = file.seekable()

    def header(self) -> bytes:
        """The next block; empty at the end of the file."""
        block = self._file.read(_BLOCK)
        return block if not block or len(block) == _BLOCK else self._cut_off()

    def take(self, count: int) -> bytes:
        data = self._file.read(count)
        return data if len(data) == count else self._cut_off()

    def text(self, size: int) -> bytes:
        """What a header says more, without its padding."""
        if size > _MAX_MORE:
            raise ArchiveError(f"its tar archive has a name or a header of {size} bytes")
        return self.take(size + -size % _BLOCK)[:size]

    def skip(self, count: int) -> None:
        if count and self._seekable:
            self._file.seek(count - 1, os.SEEK_CUR)
            count = 1
        while count:
            count -= len(self.take(min(count, _PIECE)))

    def pass_sparse(self, block: bytes) -> None:
        """The list of a sparse file's pieces may need more blocks."""
        goes_on = block[_GOES_ON]
        while goes_on:
            goes_on = self.take(_BLOCK)[_STILL_GOES_ON]

    def end(self) -> None:
        """What others may find behind the end, no one has checked."""
        while rest := self._file.read(_PIECE):
            if rest.strip(b"\0"):
                raise ArchiveError("its tar archive goes on behind its end")

    def _cut_off(self) -> bytes:
        raise ArchiveError("its tar archive is damaged: it is cut off")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    """What one block says. ``name`` has the prefix."""

    name: bytes
    kind: bytes
    size: int
    mtime: int
    link: bytes


def _header(block: bytes) -> _Header:
    name, mode, uid, gid, size, mtime, checksum, kind, link, major, minor, prefix = _FIELDS.unpack(block)
    # Some old writers added the bytes as signed numbers, which dpkg does not accept.
    said = int(checksum.strip(b" \0") or b"0", 8) if _NUMBER.fullmatch(checksum) else -1
    if said != sum(block) - sum(checksum) + 8 * ord(" "):
        raise ArchiveError("its tar archive has a damaged header: its checksum is wrong")
    for number, what in ((mode, "mode"), (uid, "user"), (gid, "group")):
        _number(number, what, most=_MAX_ID)
    if not (_DEVICE_NUMBER.fullmatch(major) and _DEVICE_NUMBER.fullmatch(minor)) and major[0] != _BINARY:
        raise ArchiveError("its tar archive has a damaged header: its device has no number")
    if not block[0]:
        raise ArchiveError("its tar archive has a member without name")
    whole = _string(name)
    if prefix[0]:
        # tarfile puts the prefix before the name whatever the format; tar and dpkg only in POSIX's, tarfile not if
        # the file is sparse.
        if block[_MAGIC] != _POSIX or kind == _SPARSE:
            raise ArchiveError("its tar archive has a header with a prefix, and is not of POSIX's format")
        whole = _string(prefix) + b"/" + whole
    return _Header(
        name=whole,
        kind=kind,
        size=_number(size, "size", most=_MAX_SIZE),
        mtime=_number(mtime, "time"),
        link=_string(link),
    )


def _string(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes, what: str, *, most: int | None = None) -> int:
    """A number of a header; it is 0 or more if there is a limit."""
    if field[0] in (_BINARY, _NEGATIVE):
        number = int.from_bytes(field[1:]) - (0 if field[0] == _BINARY else 1 << 8 * (len(field) - 1))
        good = most is None or 0 <= number <= most
    else:
        good = _NUMBER.fullmatch(field) is not None
        number = int(field.strip(b" \0") or b"0", 8) if good else 0
    if not good:
        raise ArchiveError(f"its tar archive has a header with the {what} {plain(field)}")
    return number


class _More:
    """What the headers before a member say of it."""

    def __init__(self) -> None:
        self._long: dict[bytes, bytes] = {}
        self._pax: Mapping[bytes, bytes] | None = None

    def __bool__(self) -> bool:
        return bool(self._long) or self._pax is not None

    def add(self, header: _Header, text: bytes, *, deb: bool) -> None:
        """Of two long names tarfile takes the first and tar the last; of other pairs each has its own idea."""
        if header.kind in (_LONG_NAME, _LONG_LINK):
            if header.kind in self._long or self._pax is not None:
                raise ArchiveError("its tar archive names one member twice")
            self._long[header.kind] = _string(text)
            return
        if deb:
            raise _unknown(header.kind)
        if self:
            raise ArchiveError("its tar archive names one member twice")
        records = _records(text)
        if header.kind == _GLOBAL:
            if any(name in _MEANINGFUL or name.startswith(b"GNU.sparse.") for name in records):
                raise ArchiveError("its tar archive has a pax header that names all members that follow")
        else:
            self._pax = records

    def member(self, header: _Header, *, deb: bool) -> TarMember:
        """The member that ``header`` begins."""
        kind = (_DEB_KINDS if deb else _KINDS).get(header.kind)
        if kind is None:
            raise _unknown(header.kind)
        pax = self._pax or {}
        name = self._long.get(_LONG_NAME, pax.get(_PATH, header.name))
        link = self._long.get(_LONG_LINK, pax.get(_LINK_PATH, header.link))
        if _SPARSE_NAME in pax:
            # Some readers take one of the two names, some the other.
            if b".." in name.split(b"/") or name.startswith(b"/") or kind is not Kind.FILE:
                raise ArchiveError(f"its tar archive has a sparse file called {_text(name)}")
            name = pax[_SPARSE_NAME]
        size = _pax_size(header, pax)
        if kind is Kind.FILE and name.endswith(b"/"):
            kind = _directory(header, name)
        _has_content(kind, size, name, deb=deb)
        name = name.rstrip(b"/") if kind is Kind.DIRECTORY else name
        if not name.strip(b"/"):
            raise ArchiveError("its tar archive has a member without name")
        if kind not in (Kind.DIRECTORY, Kind.LABEL) and not name.strip(b"/."):
            _called_root(name)
        return TarMember(name=_decoded(name), kind=kind, size=size, mtime=header.mtime, link=_decoded(link))


def _unknown(kind: bytes) -> ArchiveError:
    return ArchiveError(f"its tar archive has a header of the kind {kind!r}, which not all of dpkg and tar can read")


def _pax_size(header: _Header, pax: Mapping[bytes, bytes]) -> int:
    """tar passes over as many bytes as the pax header says, others over as many as the member's own header says."""
    said = pax.get(_PAX_SIZE)
    if said is None:
        return header.size
    size = int(said) if said.isdigit() and len(said) < 20 else -1
    if size != header.size and size < _LARGE:
        raise ArchiveError(f"its tar archive has a member of {header.size} bytes, and a pax header says {plain(said)}")
    return size


def _directory(header: _Header, name: bytes) -> Kind:
    """A file whose name has a slash at the end is a directory in the old format, and to tar and dpkg in any."""
    if header.kind != _OLD_FILE or header.size:
        raise ArchiveError(f"its tar archive has a file called {_text(name)}")
    return Kind.DIRECTORY


def _has_content(kind: Kind, size: int, name: bytes, *, deb: bool) -> None:
    if size and (deb or kind in (Kind.LINK, Kind.DEVICE, Kind.LABEL)) and kind is not Kind.FILE:
        raise ArchiveError(f"{_text(name)} is no file, and its tar header has the size {size}")


def _called_root(name: bytes) -> None:
    """Refuse ``.``, ``./.`` and the like, which no one can unpack as a file; ``..`` and ``...`` are names."""
    if all(part in (b"", b".") for part in name.split(b"/")):
        raise ArchiveError(f"its tar archive has a file called {_text(name)}, which can only be a directory")


def _records(text: bytes) -> dict[bytes, bytes]:
    """The records of a pax header (pax(1)), of those that this reader acts on: none empty, with a NUL, or twice."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(text):
        match = _RECORD.match(text, at)
        end = at + int(match[1]) if match else 0
        if match is None or not match.end() < end <= len(text) or text[end - 1 : end] != b"\n":
            raise ArchiveError(f"its tar archive has a damaged pax header: {plain(text[at : at + 40])}")
        name, value = match[2], text[match.end() : end - 1]
        if name in _MEANINGFUL and (not value or b"\0" in value or name in found):
            raise ArchiveError(f"its tar archive has a pax header with an odd {plain(name)}: {plain(value[:40])}")
        found[name] = value
        at = end
    return found


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _text(name: bytes) -> str:
    """A name as it may be shown."""
    return plain(_decoded(name))
