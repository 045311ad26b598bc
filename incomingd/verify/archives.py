"""Opens ar and tar archives from uploads, packed or not (:mod:`.streams`, :mod:`.tar`), within limits and without
writing anything.

Rules: sizes in headers are believed only after they were found; a stream must be whole, with nothing behind it; nothing
is extracted. What is wrong raises :class:`ArchiveError` with a sentence. Memory, processor time and wall time are
limited from outside (:mod:`.worker`), since decompressors take what the stream asks for.
"""

import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from incomingd.verify.streams import GROWTH, ArchiveError, Limited, Spare, at_once, decompressor, translated
from incomingd.verify.tar import Content, TarMember, read_tar

_AR_MAGIC = b"!<arch>\n"
_AR_HEADER = 60
_DECIMAL = re.compile(rb"[0-9]{1,15} *", re.ASCII)
#: More members than any .deb has.
_MAX_AR_MEMBERS = 64
#: A stream of so many bytes that holds at most so many is read at once.
_SMALL, _SMALL_OUT = 256 << 10, 1 << 20
#: The endings of what is not compressed.
_PLAIN = ("", "tar")


@dataclass(frozen=True, slots=True, kw_only=True)
class ArMember:
    """One member of an ar archive: where its bytes are in the file, and when it says it was changed."""

    name: str
    offset: int
    size: int
    mtime: int


def ar_members(path: Path) -> list[ArMember]:
    """The members of an ar archive (deb(5), ar(5) of the common format), which fills the file exactly."""
    members: list[ArMember] = []
    total = path.stat().st_size
    with path.open("rb") as file:
        if file.read(len(_AR_MAGIC)) != _AR_MAGIC:
            raise ArchiveError("it is no ar archive")
        at = len(_AR_MAGIC)
        while at < total:
            if len(members) >= _MAX_AR_MEMBERS:
                raise ArchiveError(f"it has more than {_MAX_AR_MEMBERS} ar members")
            file.seek(at)
            member = _ar_member(file.read(_AR_HEADER), at + _AR_HEADER)
            # Members begin at even places; the last may lack its padding only where nothing follows.
            at = member.offset + member.size + member.size % 2
            if member.offset + member.size > total or (at > total and member.size % 2 == 0):
                raise ArchiveError(f"it is cut off in the member {member.name}")
            members.append(member)
    return members


def _ar_member(header: bytes, offset: int) -> ArMember:
    if len(header) < _AR_HEADER or header[58:60] != b"`\n":
        raise ArchiveError(f"there is no ar header at byte {offset - _AR_HEADER}")
    date, size = header[16:28], header[48:58]
    # Nothing depends on the date: some builders leave it out, with owner and mode.
    if not _DECIMAL.fullmatch(size) or not (_DECIMAL.fullmatch(date) or date.isspace()):
        raise ArchiveError(f"the ar header at byte {offset - _AR_HEADER} has a field that is not a number")
    try:
        # GNU ar ends names with a slash; dpkg and apt leave it out.
        name = header[:16].decode("ascii").rstrip(" ").removesuffix("/")
    except UnicodeDecodeError:
        raise ArchiveError("an ar member's name is not ASCII") from None
    return ArMember(name=name, offset=offset, size=int(size), mtime=int(date.strip() or b"0"))


class _Part(io.RawIOBase):
    """A stretch of a file, as a file."""

    def __init__(self, file: IO[bytes], offset: int, size: int) -> None:
        self._file, self._offset, self._size, self._at = file, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # as io calls it
        self._file.seek(self._offset + self._at)
        data = self._file.read(max(min(len(buffer), self._size - self._at), 0))
        self._at += len(data)
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def tar_stream(
    path: Path,
    ending: str,
    *,
    offset: int = 0,
    size: int | None = None,
    limit: int,
    spare: Spare | None = None,
    deb: bool = False,
) -> Iterator[Iterator[tuple[TarMember, Content | None]]]:
    """The members of a compressed tar in (a part of) a file, one after the other, each with its bytes if regular.

    At most ``limit`` bytes when decompressed, and what the upload has to ``spare``. Of a ``deb`` it is what dpkg-deb
    reads: one stream, and no header that it does not know. The stream is read to its very end: damage behind the last
    member shows. What is not compressed cannot show any, and is read only where it is of use.
    """
    with _opened(path, ending, offset, size, limit, spare or Spare(), deb=deb) as (raw, charge):
        yield read_tar(raw, deb=deb, charge=charge)


def read_through(path: Path, ending: str, *, limit: int, spare: Spare) -> None:
    """Read a compressed file that is no tar to its end."""
    with _opened(path, ending, 0, None, limit, spare, deb=False):
        pass


@contextmanager
def _opened(
    path: Path, ending: str, offset: int, size: int | None, limit: int, spare: Spare, *, deb: bool
) -> Iterator[tuple[IO[bytes], Callable[[], None]]]:
    """What a decompressor makes of (a part of) a file, and what to call for each member.

    At the end what is left of it is read.
    """
    with path.open("rb") as file:
        length = os.fstat(file.fileno()).st_size if size is None else size
        if ending in _PLAIN:
            if length > limit:
                raise ArchiveError("it holds more than is allowed")
            with translated():
                yield io.BufferedReader(_Part(file, offset, length), 1 << 12), lambda: None
            return
        growth = GROWTH * length
        most = min(limit, spare.limit(growth))
        with translated():
            small = _small(_Part(file, offset, length), ending, most, spare, deb=deb) if length <= _SMALL else None
            if small is not None:
                spare.take(len(small) - growth)
                # So few members cost too little to be counted.
                yield io.BytesIO(small), lambda: None
                return
        part = io.BufferedReader(_Part(file, offset, length), 1 << 16)
        limited = Limited(decompressor(part, ending, deb=deb), most, spare.allowed)
        try:
            with translated():
                raw = cast("IO[bytes]", io.BufferedReader(limited, 1 << 16))
                yield raw, limited.charge
                while raw.read(1 << 20):
                    pass
        finally:
            spare.take(limited.count - growth)


def _small(part: _Part, ending: str, most: int, spare: Spare, *, deb: bool) -> bytes | None:
    """All that a small stream holds, read to its end; None where that is much.

    Most packages are small, and memory is read in less time than a stream.
    """
    data = part.readall() or b""
    out = at_once(data, ending, _SMALL_OUT)
    if out is None or len(out) > most:
        limited = Limited(decompressor(io.BytesIO(data), ending, deb=deb), most, spare.allowed)
        out = io.BufferedReader(limited).read(_SMALL_OUT + 1)
    return out if len(out) <= _SMALL_OUT else None
