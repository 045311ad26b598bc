"""Decompresses what uploads hold, within limits: one stream, or several end to end, each of them whole.

What is wrong raises :class:`ArchiveError` with a sentence. What may come out is limited for all streams of an upload
together (:class:`Spare`), so that a bomb ends within seconds, however many there are of it.
"""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, Protocol, cast

import zstandard

#: zstd frames may ask for a window of up to 2 GiB; dpkg allows 128 MiB.
_ZSTD_WINDOW = 1 << 27
#: xz -9 takes 65 MiB; a header may ask for 4 GiB.
_LZMA_MEMORY = 136 << 20
#: Of four bytes zstd can make 128 KiB: what is handed to it at once stays small, or its output fills the memory.
_CHUNK = 1 << 10
#: What the other decompressors are asked for at once.
_MOST_OUT = 1 << 18
#: What may come out of all streams of an upload, and more for each byte that goes in, so that bombs end within seconds.
_FREE, GROWTH, _SMALL = 1 << 30, 200, 1 << 20
#: To read a header takes the time of so many bytes.
_MEMBER = 12 << 10


class ArchiveError(Exception):
    """The archive cannot be read whole; the message says where and why."""


class CompressionError(ArchiveError):
    """The compressed stream is cut off, damaged, or followed by something else."""


class Spare:
    """What the streams of one upload may hold together beyond 200 times their sizes: many bombs end as one does."""

    def __init__(self, free: int = _FREE) -> None:
        self._left = self._free = free

    @property
    def allowed(self) -> str:
        """For messages."""
        free = f"{self._free >> 20} MiB ([checks] max_unpacked)"
        return f"all that an upload holds may be {free} and {GROWTH} times its size"

    def limit(self, growth: int) -> int:
        """What a stream may hold that has so much by its size. A small one is not to blame for a bomb before it."""
        return max(self._left, _SMALL) + growth

    def take(self, count: int) -> None:
        """So many bytes beyond its size were in one."""
        self._left -= max(count, 0)


class _Decoder(Protocol):
    """What bz2 and lzma have for one stream."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _ZstdDecoder:
    """The same for one zstd frame; its output is limited by what is handed to it."""

    needs_input = True

    def __init__(self) -> None:
        self._frame = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()

    @property
    def eof(self) -> bool:
        return self._frame.eof

    @property
    def unused_data(self) -> bytes:
        return self._frame.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._frame.decompress(data)


class _Streams(io.RawIOBase):
    """What is in a compressed stream, which must be whole; in several that stand end to end, unless it is ``one``.

    dpkg-deb reads the first xz, bzip2, lzma or zstd stream of a member and nothing behind it (measured), while
    dpkg-source, by the programs of those names, reads all of them.
    """

    def __init__(self, source: IO[bytes], make: Callable[[], _Decoder], *, one: bool) -> None:
        self._source, self._make, self._one = source, make, one
        self._decoder = make()
        self._rest = b""
        self._out = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # as io calls it
        while not self._out:
            if self._decoder.eof and not self._next():
                return 0
            data = b""
            if self._decoder.needs_input:
                data, self._rest = self._rest or self._source.read(_CHUNK), b""
                if not data:
                    raise EOFError("it is cut off")
            try:
                self._out = memoryview(self._decoder.decompress(data, _MOST_OUT))
            except OSError as error:  # bz2's own
                raise CompressionError(f"its compressed stream is damaged: {error}") from error
        count = min(len(buffer), len(self._out))
        buffer[:count], self._out = self._out[:count], self._out[count:]
        return count

    def _next(self) -> bool:
        """Begin with the next stream; False where nothing follows."""
        self._rest = self._decoder.unused_data or self._source.read(_CHUNK)
        if self._rest and self._one:
            raise CompressionError("its compressed stream is followed by something that dpkg does not read")
        if self._rest:
            self._decoder = self._make()
        return bool(self._rest)


class Limited(io.RawIOBase):
    """Reads at most so many bytes from what a decompressor makes; ``count`` is how many it was."""

    def __init__(self, source: IO[bytes], limit: int, allowed: str) -> None:
        self._source, self._limit, self._allowed = source, limit, allowed
        self.count = 0

    def readable(self) -> bool:  # noqa: D102
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # noqa: D102  # as io calls it
        data = self._source.read(len(buffer))
        self.count += len(data)
        if self.count > self._limit:
            raise CompressionError(
                f"it holds more than {self._limit} bytes when it is decompressed (a member counts {_MEMBER >> 10} KiB "
                f"more), and {self._allowed}"
            )
        buffer[: len(data)] = data
        return len(data)

    def charge(self) -> None:
        """Count a member; too many show at the next read."""
        self.count += _MEMBER


def decompressor(source: IO[bytes], ending: str, *, deb: bool) -> IO[bytes]:
    """What is in a stream of that kind; ``deb``: as dpkg-deb reads it."""
    if ending == "gz":
        return cast("IO[bytes]", gzip.GzipFile(fileobj=source))
    if ending not in _DECODERS:
        raise CompressionError(f"it is compressed in an unknown way ({ending})")
    return cast("IO[bytes]", io.BufferedReader(_Streams(source, _DECODERS[ending], one=deb), 1 << 16))


_DECODERS: dict[str, Callable[[], _Decoder]] = {
    "bz2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _LZMA_MEMORY),
    "lzma": lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, _LZMA_MEMORY),
    "zst": _ZstdDecoder,
}


def at_once(data: bytes, ending: str, most: int) -> bytes | None:
    """What is in the one gzip or xz stream that ``data`` is, and no more than ``most``; None where it may be else."""
    decoder: Any = zlib.decompressobj(31) if ending == "gz" else _DECODERS["xz"]() if ending == "xz" else None
    if decoder is None:
        return None
    out: bytes = decoder.decompress(data, most + 1)
    return out if decoder.eof and not decoder.unused_data and len(out) <= most else None


@contextmanager
def translated() -> Iterator[None]:
    """Turn what the decompressors raise into :class:`ArchiveError`."""
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError, gzip.BadGzipFile) as error:
        raise CompressionError(f"its compressed stream is damaged: {error}") from error
    except (ValueError, OverflowError, OSError) as error:
        raise ArchiveError(f"it cannot be read: {error}") from error
