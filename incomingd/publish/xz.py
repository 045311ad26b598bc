"""Takes .xz blocks out of their streams, and joins many of them into one stream.

apt refuses a file of several .xz *streams* and reads one stream of many *blocks*. A stream is a header, its blocks, an
index that lists each block's sizes, and a footer (The .xz File Format 1.1.0). A block does not depend on its place, so
one that was compressed once is copied from then on.

Rules: every block is made by :func:`compress`, since all blocks of a stream share one kind of check; what is kept of a
block are its bytes and two sizes, so that joining reads no compressed data. The same input gives the same bytes for as
long as liblzma is the same. Nothing here fails but by a bug: a wrong size is a ``ValueError``.
"""

import lzma
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

#: CRC32 is the one check that every reader has; Release vouches for the whole file anyway.
_CHECK = lzma.CHECK_CRC32
# 128 KiB of stanzas: 18 ms and 21.2 % of their size; preset 6 takes 31 ms for 20.9 %, preset 3 takes 11 ms for 23.7 %,
# which gzip has too. Text has no alignment (pb=0), and its next letter follows from the one before (lc=4).
# A dictionary of a whole block is enough; twice as large a one gives the same bytes and costs 0.9 ms of page faults.
_TEXT = {"id": lzma.FILTER_LZMA2, "dict_size": 1 << 17, "lc": 4, "lp": 0, "pb": 0}
_SMALL = [{**_TEXT, "mode": lzma.MODE_NORMAL, "mf": lzma.MF_BT4, "nice_len": 32}]
# 53 KB of the benchmark's stanzas: 2.1 ms and 19.3 % of their size, where the other takes 11.6 ms for 15.7 %. HC4 takes
# a tenth longer for the same: its larger tables are so many more page faults.
_QUICK = [{**_TEXT, "mode": lzma.MODE_FAST, "mf": lzma.MF_HC3, "nice_len": 273, "depth": 4}]

_FLAGS = bytes((0, _CHECK))
_HEADER = b"\xfd7zXZ\x00" + _FLAGS + zlib.crc32(_FLAGS).to_bytes(4, "little")
_FOOTER_SIZE = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class XzBlock:
    """One block: header, compressed data, padding and check in ``data``; ``unpadded`` is without the padding, ``raw``
    the uncompressed size, both in bytes."""

    data: bytes
    unpadded: int
    raw: int


def compress(raw: bytes, *, quick: bool = False) -> XzBlock:
    """``raw``, which must not be empty, as one block. Releases the interpreter's lock.

    ``quick`` takes a third of the time for an eighth more bytes.
    """
    if not raw:
        raise ValueError("an .xz block of nothing; a stream of no blocks holds nothing")
    stream = lzma.compress(raw, format=lzma.FORMAT_XZ, check=_CHECK, filters=_QUICK if quick else _SMALL)
    index_size = (int.from_bytes(stream[-8:-4], "little") + 1) * 4
    index_at = len(stream) - _FOOTER_SIZE - index_size
    # §4: the indicator 0x00, the number of records, then the sizes of each block.
    count, at = _integer(stream, index_at + 1)
    unpadded, at = _integer(stream, at)
    size, _ = _integer(stream, at)
    data = stream[len(_HEADER) : index_at]
    if (count, size, -(-unpadded // 4) * 4) != (1, len(raw), len(data)) or stream[: len(_HEADER)] != _HEADER:
        raise ValueError(f"liblzma made {count} blocks, the first of {unpadded} bytes for {size}; expected one")
    return XzBlock(data=data, unpadded=unpadded, raw=size)


def join(blocks: Iterable[XzBlock]) -> Iterator[bytes]:
    """The stream of all blocks in order, piece by piece; of none, a stream that holds nothing."""
    records, count = bytearray(), 0
    yield _HEADER
    for block in blocks:
        if len(block.data) != -(-block.unpadded // 4) * 4:
            raise ValueError(f"an .xz block of {len(block.data)} bytes, which its size of {block.unpadded} denies")
        count += 1
        records += _encoded(block.unpadded) + _encoded(block.raw)
        yield block.data
    index = b"\x00" + _encoded(count) + records
    index += b"\x00" * (-len(index) % 4)
    index += zlib.crc32(index).to_bytes(4, "little")
    tail = (len(index) // 4 - 1).to_bytes(4, "little") + _FLAGS
    yield index + zlib.crc32(tail).to_bytes(4, "little") + tail + b"YZ"


def _encoded(number: int) -> bytes:
    """A multibyte integer (§1.2): seven bits a byte, the lowest first, the top bit set on all but the last."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _integer(data: bytes, at: int) -> tuple[int, int]:
    """The multibyte integer at ``at``, and where the next thing begins."""
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at
