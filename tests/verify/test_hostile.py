"""What is sent to fill the memory, the disk or the time: rejected within the limits, and the next upload is fine."""

import bz2
import functools
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from incomingd.publish.xz import compress, join
from incomingd.verify.pool import Checkers
from tests.verify.builders import Keys, Members, Upload, ar, codes, in_pool, make_config, put, sealed, tar, told

MIB = 1 << 20
ORIG = "hello_1.0.orig.tar.gz"


def zeros(compress: Callable[[bytes], bytes], times: int, *, head: bytes = b"") -> bytes:
    """``head`` and so many times 64 MiB of zeros, as compressed streams end to end."""
    return compress(head) + compress(bytes(64 * MIB)) * times


def many(count: int, kind: bytes) -> bytes:
    """A tarball of so many members without content."""
    info = tarfile.TarInfo("hello-1.0/x")
    info.type, info.linkname = kind, "y" * 90 if kind == tarfile.SYMTYPE else ""
    return gzip.compress(info.tobuf(tarfile.GNU_FORMAT) * count + bytes(1024), 1)


def zstd_zeros(times: int, *, head: bytes) -> bytes:
    """The same as one stream, of which alone dpkg-deb reads all."""
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    pieces = [packer.compress(head), *(packer.compress(bytes(64 * MIB)) for _ in range(times))]
    return b"".join([*pieces, packer.flush()])


def xz_zeros(times: int, *, head: bytes) -> bytes:
    block = compress(bytes(64 * MIB), quick=True)
    return b"".join(join([compress(head), *[block] * times]))


def huge_file(mebibytes: int, *, kind: bytes = tarfile.REGTYPE) -> bytes:
    """The tar header of a file of that size."""
    info = tarfile.TarInfo("huge")
    info.size, info.type = mebibytes * MIB, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def member(number: int, name: str, make: Callable[[], bytes]) -> Callable[[Members], Members]:
    return lambda members: [*members[:number], (name, make()), *members[number + 1 :]]


def orig(make: Callable[[], bytes]) -> Callable[[dict[str, bytes]], None]:
    return lambda files: files.update({ORIG: make()})


def components(count: int, make: Callable[[], bytes]) -> Callable[[dict[str, bytes]], None]:
    data = functools.cache(make)
    return lambda files: files.update({f"hello_1.0.orig-c{n}.tar.bz2": data() for n in range(count)})


def xz(data: bytes) -> bytes:
    return lzma.compress(data, preset=0)


def wide_window() -> bytes:
    """A zstd frame that asks for a window of 2 GiB."""
    parameters = zstandard.ZstdCompressionParameters(window_log=31, compression_level=1)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return stream.compress(tar(("a", b"x"), form="")) + stream.flush()


def wide_dictionary(code: int = 39) -> bytes:
    """An xz stream that asks for a dictionary of 3 GiB (39) or 256 MiB (32), in a header that says so truly."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0}]
    data = bytearray(lzma.compress(tar(("a", b"x" * 5000), form=""), check=lzma.CHECK_NONE, filters=filters))
    # Behind the stream header: size, flags, filter id, its length, the dictionary's code (xz file format 5.3.1).
    assert data[14:16] == b"\x21\x01"
    data[16] = code
    data[20:24] = zlib.crc32(bytes(data[12:20])).to_bytes(4, "little")
    return bytes(data)


HOSTILE: dict[str, tuple[set[str], Upload]] = {
    "a bomb of 1.5 GiB in data.tar.xz": (
        {"bad-compression"},
        Upload(parts=member(2, "data.tar.xz", lambda: xz_zeros(24, head=huge_file(8000)))),
    ),
    "a bomb of 1.5 GiB in data.tar.zst": (
        {"bad-compression"},
        Upload(parts=member(2, "data.tar.zst", lambda: zstd_zeros(24, head=huge_file(8000)))),
    ),
    "a bomb in control.tar.gz": (
        {"bad-compression"},
        Upload(parts=member(1, "control.tar.gz", lambda: zeros(gzip.compress, 1, head=huge_file(60)))),
    ),
    "a bomb in an orig tarball": (
        {"bad-tar"},
        Upload(tarballs=orig(lambda: zeros(gzip.compress, 40, head=huge_file(7000)))),
    ),
    "forty bombs, each just within the limit": (
        {"bad-tar"},
        Upload(tarballs=components(40, lambda: zeros(bz2.compress, 15, head=huge_file(960)))),
    ),
    "a name of 600 MiB in data.tar": (
        {"bad-deb"},
        Upload(parts=member(2, "data.tar.zst", lambda: zstd_zeros(10, head=huge_file(600, kind=b"L")))),
    ),
    "a zstd window of 2 GiB": ({"bad-compression"}, Upload(parts=member(2, "data.tar.zst", wide_window))),
    "an xz dictionary of 3 GiB": ({"bad-compression"}, Upload(parts=member(2, "data.tar.xz", wide_dictionary))),
    "an xz dictionary of 256 MiB": (
        {"bad-compression"},
        Upload(parts=member(2, "data.tar.xz", lambda: wide_dictionary(32))),
    ),
    "200,000 links": ({"bad-tar"}, Upload(tarballs=orig(lambda: many(200_000, tarfile.SYMTYPE)))),
    "half a million files in an orig": ({"bad-tar"}, Upload(tarballs=orig(lambda: many(500_000, tarfile.REGTYPE)))),
    "half a million files in data.tar": (
        {"bad-compression"},
        Upload(parts=member(2, "data.tar.gz", lambda: many(500_000, tarfile.REGTYPE))),
    ),
    "an xz stream that never ends": (
        {"bad-compression"},
        Upload(parts=member(2, "data.tar.xz", lambda: lzma.compress(tar(("a", b"x" * MIB), form=""))[:-40])),
    ),
    "a gzip stream of 100,000 members": (
        {"bad-deb", "bad-compression"},
        Upload(parts=member(2, "data.tar.gz", lambda: gzip.compress(b"", 1) * 100_000)),
    ),
    "an ar of 100,000 members": ({"bad-deb"}, Upload(deb=lambda _: ar([("_", b"")] * 100_000))),
    "100,000 files listed": (
        {"too-many-files"},
        Upload(
            settings={"checks.max_text_file": "64M"},
            changes=lambda text: (
                text.replace("Files:\n", "Files:\n" + "".join(f" {'0' * 32} 1 x y f{n}.deb\n" for n in range(100_000)))
            ).replace(
                "Checksums-Sha256:\n",
                "Checksums-Sha256:\n" + "".join(f" {'0' * 64} 1 f{n}.deb\n" for n in range(100_000)),
            ),
        ),
    ),
    "a field of 50 MB": ({"text-too-large"}, Upload(changes=put("X-Odd", "a\n" + " aaaaaaaaa\n" * 5_000_000 + " b"))),
    "a field of 50 MB in a control file": (
        {"stanza-too-large", "bad-compression"},
        Upload(control=put("X-Odd", "a\n" + " aaaaaaaaa\n" * 5_000_000 + " b")),
    ),
    "200,000 dependencies": (
        {"bad-relation", "stanza-too-large", "text-limit"},
        Upload(control=put("Depends", ",\n ".join(["a (" * 5] * 60_000))),
    ),
}


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory, keys: Keys) -> Iterator[Checkers]:
    """One worker within 300 MB."""
    settings = {"service.workers": 1, "checks.worker_memory": "300M", "checks.max_text_file": "1M"}
    everything = tmp_path_factory.getbasetemp()
    made = Checkers(make_config(tmp_path_factory.mktemp("pool"), settings), keys.keyring.home, [everything])
    yield made
    made.close()


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_rejected_and_the_next_is_fine(tmp_path: Path, keys: Keys, pool: Checkers, name: str) -> None:
    expected, upload = HOSTILE[name]
    config = make_config(tmp_path, {"service.workers": 1, "checks.worker_memory": "300M", **upload.settings})
    pool.reload(config)
    seal = sealed(tmp_path / "hostile", upload.files(keys))
    report = in_pool(pool, tmp_path / "hostile", seal, config.queues[0])
    found = set(codes(report.problems))
    assert found & expected, "\n".join(told(report))[:2000]
    assert found <= {*expected, "file-lists-differ", "architecture-mismatch"}
    assert report.changes == ()
    seal = sealed(tmp_path / "honest", Upload().files(keys))
    report = in_pool(pool, tmp_path / "honest", seal, config.queues[0])
    assert report.problems == (), "\n".join(told(report))


def test_the_largest_text_is_read_in_what_workers_for_texts_have(tmp_path: Path, keys: Keys, pool: Checkers) -> None:
    """As many lines as can be: each takes many times its bytes while it is read."""
    upload = Upload(changes=put("Changes", "\n hello\n" + " a\n" * 330_000 + " b"))
    config = make_config(tmp_path, {"service.workers": 1, "checks.worker_memory": "512M"})
    pool.reload(config)
    seal = sealed(tmp_path / "large", upload.files(keys))
    assert max(entry.size for entry in seal.files if entry.name.endswith(".changes")) > 950_000
    report = in_pool(pool, tmp_path / "large", seal, config.queues[0])
    assert report.problems == (), "\n".join(told(report))[:2000]
