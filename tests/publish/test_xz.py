"""One .xz stream out of blocks that were compressed apart: every reader must take it for its own."""

import lzma
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incomingd.publish import xz

WORDS = [
    b"Package",
    b"Version",
    b"Depends",
    b"lib",
    b"amd64",
    b"perl",
    b"python3",
    b">=",
    b"1.0",
    b"2.36",
    b"Maintainer",
]


def stanzas(size: int, seed: int) -> bytes:
    dice = random.Random(seed)
    out = b""
    while len(out) < size:
        out += b" ".join(dice.choices(WORDS, k=12)) + str(dice.random()).encode() + b"\n"
    return out[:size]


def joined(parts: list[bytes]) -> bytes:
    return b"".join(xz.join(xz.compress(part) for part in parts))


@pytest.mark.parametrize(
    "sizes",
    [[], [1], [3, 4, 5], [131072] * 3, [127, 128, 129, 16383, 16384, 16385], [17] * 300, [1 << 20]],
    ids=[
        "no block",
        "a byte",
        "tiny",
        "usual",
        "around the integers' sizes",
        "a two-byte count",
        "larger than the dict",
    ],
)
def test_readers_agree(sizes: list[int], tmp_path: Path) -> None:
    parts = [stanzas(size, seed) for seed, size in enumerate(sizes)]
    whole, file = b"".join(parts), tmp_path / "index.xz"
    file.write_bytes(joined(parts))

    decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ)
    assert decoder.decompress(file.read_bytes()) == whole
    assert decoder.eof
    assert decoder.unused_data == b""
    if not shutil.which("xz"):
        pytest.skip("xz is not installed")
    subprocess.run(["xz", "-t", file], check=True)
    assert subprocess.run(["xz", "-dc", file], capture_output=True, check=True).stdout == whole
    listed = subprocess.run(["xz", "-lvv", "--robot", file], capture_output=True, check=True, text=True).stdout
    rows = [line.split("\t") for line in listed.splitlines()]
    totals = next(row for row in rows if row[0] == "file")
    assert totals[1:5] == ["1", str(len(sizes)), str(file.stat().st_size), str(len(whole))]
    assert totals[6] == "CRC32"
    assert [int(row[7]) for row in rows if row[0] == "block"] == sizes
    # In threads xz goes by the sizes in the index and seeks from block to block.
    assert subprocess.run(["xz", "-dc", "-T4", file], capture_output=True, check=True).stdout == whole


def test_a_block_is_the_same_wherever_it_stands() -> None:
    one, two = stanzas(5000, 1), stanzas(7000, 2)
    assert xz.compress(one) == xz.compress(bytes(one))
    assert xz.compress(one).data in joined([two, one, two])


def test_a_size_that_cannot_be_is_refused() -> None:
    good = xz.compress(b"Package: hello\n\n")
    bad = xz.XzBlock(data=good.data, unpadded=good.unpadded + 4, raw=good.raw)
    with pytest.raises(ValueError, match="size"):
        list(xz.join([bad]))


def test_nothing_is_no_block() -> None:
    with pytest.raises(ValueError, match="nothing"):
        xz.compress(b"")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=3000), max_size=6))
def test_any_bytes_come_back(parts: list[bytes]) -> None:
    assert lzma.decompress(joined(parts)) == b"".join(parts)
