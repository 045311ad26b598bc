"""What is read of a Release and of an index."""

import io
from datetime import UTC, datetime
from pathlib import Path

import pytest

from incomingd.errors import ConfigError
from incomingd.importing.index import WANTED, EntryError, entry, inside, stanzas
from incomingd.importing.release import Wanted, read

DIGEST = "ab" * 32
NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
RELEASE = f"""\
Origin: J\udcf6rg
Suite: stable
Codename: bookworm
Date: Fri, 02 Jan 2026 11:00:00 UTC
Components: main contrib
SHA256:
 {DIGEST} 12 main/binary-amd64/Packages
""".encode("utf-8", "surrogateescape")


def wanted(name: str = "stable") -> Wanted:
    return Wanted(name=name, keyring=Path("unused"), now=NOW)


def test_a_release() -> None:
    found = read(RELEASE, wanted())
    assert found.components == ("main", "contrib")
    assert found.indexes["main/binary-amd64/Packages"].size == 12
    assert not found.by_hash


@pytest.mark.parametrize("name", ["stable", "bookworm", "stable/updates"])
def test_its_name(name: str) -> None:
    assert read(RELEASE, wanted(name)).date.hour == 11


@pytest.mark.parametrize("name", ["unstable", "stab", "", "updates/stable"])
def test_another_name(name: str) -> None:
    with pytest.raises(ConfigError, match="was asked for"):
        read(RELEASE, wanted(name))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b"Date: Fri, 02 Jan 2026", b"Date: Sun, 04 Jan 2026", "is dated 2026-01-04"),
        (b"Date: ", b"X: ", 'Date of its Release is ""'),
        (b"Date: Fri", b"Valid-Until: Thu, 01 Jan 2026 00:00:00 UTC\nDate: Fri", "was valid until 2026-01-01"),
        (b"Suite: stable", b"Suite: stable\nSuite: unstable", "stands twice"),
        (b"Suite: stable", b"Suite: stable\n\nSuite: unstable", "2 stanzas"),
        (DIGEST.encode(), b"../../x", "not digest, size and name"),
        (b" 12 ", b" -12 ", "not a number of bytes"),
        (b"SHA256:\n", b"SHA256:\n " + b"cd" * 32 + b" 13 main/binary-amd64/Packages\n", "twice, with other digests"),
        (b"SHA256:", b"SHA1:", "lists no SHA256"),
    ],
)
def test_a_release_that_is_refused(old: bytes, new: bytes, said: str) -> None:
    assert old in RELEASE
    with pytest.raises(ConfigError, match=said):
        read(RELEASE.replace(old, new), wanted())


def entries(data: bytes) -> list[str]:
    """The path of each stanza, or why it has none."""
    found = []
    for stanza in stanzas(io.BytesIO(data), WANTED):
        try:
            found.append(entry(stanza).file.path)
        except EntryError as error:
            found.append(f"{stanza}: {error}")
    return found


def test_a_fault_is_that_of_its_own_stanza() -> None:
    good = f"Package: a\nFilename: ./pool/a.deb\nSize: 1\nSHA256: {DIGEST.upper()}\nX: \udcff\n".encode(
        "utf-8", "surrogateescape"
    )
    long = b"Package: long\nDescription: " + b"x" * (3 << 20) + b"\n"
    # What follows on the same line is no field, and no empty line.
    sly = b"Package: sly\nX: " + b"x" * ((1 << 16) - 3) + b"Filename: pool/sly.deb\n"
    found = entries(b"\n\n".join([good, long, b"nonsense\n", sly, b"\n", good]))
    assert [one.partition(": ")[0] for one in found] == [
        "pool/a.deb",
        "long",
        "the stanza at line 12",
        "sly",
        "pool/a.deb",
    ]
    assert "more than 1048576 bytes" in found[1]


def test_a_source() -> None:
    text = f"Package: a\nDirectory: pool/a\nChecksums-Sha256:\n {DIGEST} 1 a.dsc\n {DIGEST} 2 a.tar.xz\n"
    assert entries(text.encode()) == ["pool/a/a.dsc"]
    assert entries(text.replace("pool/a", ".").encode()) == ["a.dsc"]
    assert "0 .dsc files" in entries(text.replace(".dsc", ".txt").encode())[0]


@pytest.mark.parametrize("path", ["", ".", "..", "/a", "a/../b", "a//b", "a/", "http:x", "a\0b", "a\nb", "x" * 5000])
def test_a_path_that_leads_outside(path: str) -> None:
    with pytest.raises(EntryError, match="no path inside"):
        inside(path)
