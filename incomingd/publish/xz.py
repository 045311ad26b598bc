"""Joins separately compressed blocks into one .xz file of a single stream.

apt refuses streams laid end to end but reads one stream of many blocks. So each block is compressed as a stream of its
own, taken out of it, and put between one stream header and one index and footer. The format is public ("The .xz File
Format", version 1.1.0); ``xz -t`` and ``xz -lv`` agree with what is made here.
"""

import lzma
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

_MAGIC, _FOOTER_MAGIC = b"\xfd7zXZ\x00", b"YZ"
#: Stream flags: CRC32 as the check of each block.
_FLAGS = b"\x00\x01"
HEADER = _MAGIC + _FLAGS + struct.pack("<I", zlib.crc32(_FLAGS))
#: A dictionary as large as a block may grow: more would only cost memory.
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 1 << 18}]


@dataclass(frozen=True, slots=True)
class XzBlock:
    """One block: its bytes with header, padding and check, and the two sizes that the index lists."""

    data: bytes
    unpadded: int
    uncompressed: int


def compress(raw: bytes) -> XzBlock:
    """``raw``, which is not empty, as one block."""
    stream = lzma.compress(raw, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC32, filters=_FILTERS)
    index_size = (struct.unpack("<I", stream[-8:-4])[0] + 1) * 4
    index = stream[-12 - index_size : -12]
    # Index indicator 0x00 and the number of records, 1, are a byte each.
    unpadded, _ = _read_vli(index, 2)
    return XzBlock(stream[len(HEADER) : -12 - index_size], unpadded, len(raw))


def tail(sizes: Iterable[tuple[int, int]]) -> bytes:
    """Index and footer for blocks of these (unpadded, uncompressed) sizes."""
    records = [_vli(unpadded) + _vli(uncompressed) for unpadded, uncompressed in sizes]
    index = b"\x00" + _vli(len(records)) + b"".join(records)
    index += b"\x00" * (-len(index) % 4)
    index += struct.pack("<I", zlib.crc32(index))
    backward = struct.pack("<I", len(index) // 4 - 1) + _FLAGS
    return index + struct.pack("<I", zlib.crc32(backward)) + backward + _FOOTER_MAGIC


def _vli(number: int) -> bytes:
    """A multibyte integer: seven bits a byte, the lowest first."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read_vli(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at
