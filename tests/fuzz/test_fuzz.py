"""What an attacker may send to the parsers: no crash, no hang, and nothing accepted that gpgv or dpkg-deb refuses.

Half a minute by default, four targets together; ``INCOMINGD_FUZZ_SECONDS=600`` for as long as one likes. Each target
begins with real files and cuts, doubles, swaps and flips pieces of them. What was found stays in :data:`FOUND`.
"""

import gzip
import lzma
import os
import re
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC
from pathlib import Path

import pytest
from debian.deb822 import Deb822
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from incomingd.model import Digests, Fields, FileEntry, Problem
from incomingd.verify import deb822, relations
from incomingd.verify.binary import BinaryContext, check_binary
from incomingd.verify.changes import read
from incomingd.verify.signature import Verifier, is_signed
from incomingd.verify.streams import Spare
from tests.verify.builders import NOW, Keys, Upload, ar, ar_parts, dpkg_deb, tar, tar_member

SECONDS = float(os.environ.get("INCOMINGD_FUZZ_SECONDS", "30")) / 4
#: No single input may take longer; with a machine that has other things to do in mind.
LIMIT = 20.0
#: KiB that any input may add to what this process ever had.
MEMORY = 512 << 10
DEB = "hello_1.0-1_amd64.deb"


def rounds(target: Callable[[bytes], None], seeds: list[bytes], tokens: list[bytes]) -> None:
    """Run a target on mutations of the seeds for its share of the time, by hypothesis, which shrinks what fails."""
    until, before = time.monotonic() + SECONDS, peak()

    @settings(
        max_examples=1_000_000,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(mutations(seeds, tokens))
    def run(data: bytes) -> None:
        # hypothesis cannot be told to stop: what is left is let through at once.
        if time.monotonic() > until:
            raise _Over
        started = time.monotonic()
        target(data)
        assert time.monotonic() - started < LIMIT
        assert peak() - before < MEMORY

    for seed in seeds:
        target(seed)
    try:
        run()
    except _Over:
        return


def peak() -> int:
    """The most memory that this process has had, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class _Over(BaseException):
    """The time is over."""


@st.composite
def mutations(draw: st.DrawFn, seeds: list[bytes], tokens: list[bytes]) -> bytes:
    """A seed with up to six changes."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(data)))
        span = draw(st.sampled_from([1, 1, 2, 4, 16, 60, 200]))
        how = draw(st.sampled_from(["token", "token", "byte", "cut", "double", "move", "bytes"]))
        if how == "token":
            data[at:at] = draw(st.sampled_from(tokens))
        elif how == "byte" and at < len(data):
            data[at] = draw(st.integers(0, 255))
        elif how == "cut":
            del data[at : at + span]
        elif how == "double":
            data[at:at] = data[at : at + span]
        elif how == "move":
            piece = bytes(data[at : at + span])
            del data[at : at + span]
            to = draw(st.integers(0, len(data)))
            data[to:to] = piece
        else:
            data[at : at + span] = draw(st.binary(max_size=20))
    return bytes(data)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Keys, dict[str, bytes]]]:
    """Real files: what dpkg-deb, dpkg-source and gpg made."""
    keys = Keys(tmp_path_factory.mktemp("k"))
    files = Upload(dsc_by="bob").files(keys)
    yield keys, files
    keys.close()


TEXT_TOKENS = [
    *(
        b"\n",
        b"\n\n",
        b"\r",
        b"\r\n",
        b"\0",
        b"\f",
        b"\x0b",
        b"\x1c",
        b"\x1e",
        b"\x85",
        b" \n",
        b"\t",
        b" .\n",
        b":",
        b"#",
    ),
    *("\u0085".encode(), "\u2028".encode(), "\ufeff".encode(), b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"-----"),
    *(b"Source: evil\n", b"source: evil\n", b"Package: evil\n", b"Files:\n", b" x\n", b"a" * 70_000, b"9" * 5000),
    *(b"Conflicts: a | b\n", b"Provides: hi,\n", b"Package-Type: udeb\n"),
    *(b"(", b")", b"<", b">", b"[", b"]", b"|", b",", b"=", b">> ", b"../", b"/", b"_", b"~", b"+b1"),
]


# -- texts ------------------------------------------------------------------------------------------------------------


def one_stanza(data: bytes) -> deb822.Stanza | None:
    """What the strict pass lets through reads the same to python-debian: the same fields, and no second stanza."""
    stanza, problems = deb822.parse(data, "x")
    assert (stanza is None) == bool(problems)
    if stanza is None:
        return None
    (other,) = Deb822.iter_paragraphs(data.decode().strip("\n").split("\n"), use_apt_pkg=False)
    assert [name for name, _ in stanza.fields] == list(other.keys())
    for name, value in stanza.fields:
        assert "\n\n" not in value
        assert trimmed(value) == trimmed(other[name]), name
    return stanza


def trimmed(value: str) -> list[str]:
    """The lines of a value without the blanks at their ends, which no parser keeps."""
    return [line.rstrip() for line in value.strip().split("\n")]


def changes_text(data: bytes) -> None:
    stanza = one_stanza(data)
    if stanza is None:
        return
    changes, problems = read(stanza, "hello_1.0-1_amd64.changes")
    for row in changes.rows:
        assert "/" not in row.name
        assert not row.name.startswith((".", "-"))
        assert len(row.digests.sha256) == 64
    assert problems or {"Source", "Version", "Distribution", "Checksums-Sha256"} <= {name for name, _ in stanza.fields}


def test_changes_text(seeds: tuple[Keys, dict[str, bytes]]) -> None:
    _, files = seeds
    signed = files["hello_1.0-1_amd64.changes"]
    text = signed[signed.index(b"\n\n") + 2 : signed.index(b"-----BEGIN PGP SIG")]
    rounds(changes_text, [text], TEXT_TOKENS)


class Dpkg:
    """Whether dpkg-deb takes a package."""

    def __init__(self, folder: Path) -> None:
        self.deb, self.tree = folder / DEB, folder / "tree"

    def takes(self, data: bytes) -> bool:
        self.deb.write_bytes(data)
        # A field that is asked for makes dpkg-deb parse the whole control file.
        for verb, *rest in (["--info"], ["--contents"], ["--field", "Package"]):
            done = subprocess.run(["dpkg-deb", verb, self.deb, *rest], capture_output=True, timeout=LIMIT)
            if done.returncode:
                return False
        return True

    def control(self, *field: str) -> str:
        return subprocess.run(
            ["dpkg-deb", "-f", self.deb, *field], capture_output=True, text=True, errors="replace"
        ).stdout.rstrip("\n")


CONTEXT = BinaryContext(
    source="hello",
    source_version="1.0-1",
    version="1.0-1",
    names=frozenset({"hello"}),
    section="devel",
    priority="optional",
    component="main",
    sourceful=True,
    now=NOW,
)


def verdict(data: bytes, folder: Path) -> tuple[Problem, ...]:
    path = folder / DEB
    path.write_bytes(data)
    entry = FileEntry(name=DEB, size=len(data), digests=Digests(md5="", sha1="", sha256=""))
    outcome = check_binary(path, entry, replace(CONTEXT, spare=Spare()))
    assert outcome.package or outcome.problems
    return outcome.problems


def fields(data: bytes, folder: Path) -> Fields:
    """The control file as it was read."""
    entry = FileEntry(name=DEB, size=len(data), digests=Digests(md5="", sha1="", sha256=""))
    package = check_binary(folder / DEB, entry, replace(CONTEXT, spare=Spare())).package
    assert package
    return package.control


def container(folder: Path) -> Callable[[bytes], None]:
    dpkg = Dpkg(folder)

    def target(data: bytes) -> None:
        if not verdict(data, folder):
            assert dpkg.takes(data), "accepted, and dpkg-deb refuses it"
            for field, value in (("Package", "hello"), ("Version", "1.0-1"), ("Architecture", "amd64")):
                assert dpkg.control(field) == value
            # All of it: a second control file, which only one of the two finds, would differ somewhere.
            ours = "".join(f"{name}:{value}" for name, value in fields(data, folder))
            assert "".join(dpkg.control().split()) == "".join(ours.split())

    return target


CONTAINER_TOKENS = [
    *(b"!<arch>\n", b"`\n", b"debian-binary   ", b"control.tar.gz  ", b"data.tar.xz     ", b"data.tar        ", b"_x "),
    *(
        b"2.0\n",
        b"2.\n",
        b"\n",
        b"\0",
        b"0",
        b"9999999999",
        b" ",
        b"./control",
        b"ustar\0",
        b"\x1f\x8b\x08",
        b"\xfd7zXZ\0",
    ),
    *(b"\0" * 512, b"\0" * 1024, b"\x28\xb5\x2f\xfd", b"BZh9", b"/", b"//", b"#1/20"),
]


def container_seeds() -> list[bytes]:
    control = Upload().control_text()
    sound = [dpkg_deb(control, compression) for compression in ("xz", "gzip", "zstd", "none")]
    raw = tar(("./", b""), ("./control", control.encode()), form="")
    members = ar_parts(sound[3])
    return [
        *sound,
        ar([("debian-binary", b"2.0\n"), ("_note", b"x"), ("control.tar", raw), members[2]]),
        ar([("debian-binary", b"2.0\n"), ("control.tar", _twice_named(control)), members[2]]),
        ar([("debian-binary", b"2.0\n"), ("control.tar.gz", gzip.compress(raw)), ("data.tar.xz", lzma.compress(raw))]),
    ]


def _twice_named(control: str) -> bytes:
    """A control.tar with a long name, a script, and room for more."""
    script = tar_member("././@LongLink", b"./postinst\0", kind=b"L") + tar_member("./p", b"#!/bin/sh\n")
    return tar_member("./control", control.encode()) + script + bytes(1024)


def test_deb_container(tmp_path: Path) -> None:
    rounds(container(tmp_path), container_seeds(), CONTAINER_TOKENS)


def control_file(folder: Path) -> Callable[[bytes], None]:
    dpkg = Dpkg(folder)
    data_member = ar_parts(dpkg_deb(Upload().control_text(), "none"))[2]

    def target(text: bytes) -> None:
        stanza = one_stanza(text)
        if stanza is not None:
            relations.faults(stanza, relations.SOURCE_FIELDS + relations.BINARY_FIELDS, source=True)
        deb = ar([("debian-binary", b"2.0\n"), ("control.tar", tar(("./control", text), form="")), data_member])
        if not verdict(deb, folder):
            assert dpkg.takes(deb), "accepted, and dpkg-deb refuses it"
            assert stanza is not None
            for name in ("Package", "Version", "Depends"):
                # dpkg-deb writes dependencies as it has understood them; < and > are its old words for <= and >=.
                understood = re.sub(r"\(([<>])(?![<>=])", r"(\1=", stanza.get(name))
                assert "".join(dpkg.control(name).split()) == "".join(understood.split())

    return target


def test_control_file(tmp_path: Path) -> None:
    text = Upload().control_text().encode()
    more = text + b"Provides: hi (= 1)\nBuilt-Using: gcc-12 (= 12.2-1)\nX-Odd: a\n b\n .\n c\n"
    rounds(control_file(tmp_path), [text, more], TEXT_TOKENS)


# -- signatures -------------------------------------------------------------------------------------------------------


def signed_block(keys: Keys) -> Callable[[bytes], None]:
    keyring = keys.keyring
    verifier = Verifier(keyring=keyring.public, keys=keyring.load(), now=NOW.astimezone(UTC))

    def target(data: bytes) -> None:
        if not is_signed(data):
            return
        signed = verifier.verify(data, "x")
        assert (signed.text is None) == bool(signed.faults)
        if signed.faults or signed.doubts:
            return
        command = ["gpgv", "--keyring", str(keyring.public), "--output", "-"]
        done = subprocess.run(command, input=data, capture_output=True, timeout=LIMIT)
        assert done.returncode == 0, "accepted, and gpgv refuses it"
        assert signed.text == done.stdout
        assert data.count(b"-----BEGIN PGP SIGNED MESSAGE-----") == 1
        # What was signed is what was sent, but for trailing blanks and escaped dashes.
        sent = [line.rstrip() for line in data.split(b"\n")]
        for line in signed.text.split(b"\n"):
            assert {line.rstrip(), b"- " + line.rstrip()} & set(sent), line

    return target


def test_signed_block(seeds: tuple[Keys, dict[str, bytes]]) -> None:
    keys, files = seeds
    blocks = [files["hello_1.0-1_amd64.changes"], files["hello_1.0-1.dsc"], keys.sign(b"- dash\nplain\n", by="rsa")]
    tokens = [
        *TEXT_TOKENS,
        *(
            b"-----BEGIN PGP SIGNED MESSAGE-----\n",
            b"-----BEGIN PGP SIGNATURE-----\n",
            b"-----END PGP SIGNATURE-----\n",
        ),
        *(
            b"Hash: SHA256\n",
            b"Hash: MD5\n",
            b"NotDashEscaped: yes\n",
            b"- ",
            b"-----BEGIN PGP MESSAGE-----\n",
            b"=AAAA\n",
        ),
        *blocks,
    ]
    rounds(signed_block(keys), blocks, tokens)


# -- what was found ---------------------------------------------------------------------------------------------------

#: Inputs that were once accepted or ended in a trace, by target.
FOUND: dict[str, list[Callable[[], bytes]]] = {
    "container": [
        # tarfile takes a damaged header for the end; tar goes on with the next.
        lambda: ar([("debian-binary", b"2.0\n"), ("control.tar", _damaged()), ("data.tar", tar(("a", b""), form=""))]),
        lambda: ar([("debian-binary", b"2.0\n"), ("control.tar", 2 * _control()), ("data.tar", _control())]),
        lambda: ar([("debian-binary", b"2.x\n"), ("control.tar", _control()), ("data.tar", _control())]),
    ],
    # dpkg refuses a last line without newline.
    "control": [lambda: Upload().control_text().encode()[:-1]],
}


def _control() -> bytes:
    return tar(("./control", Upload().control_text().encode()), form="")


def _damaged() -> bytes:
    return _control()[:1024] + b"junk" * 128 + _control()


@pytest.mark.parametrize("made", FOUND["container"])
def test_found_in_containers(tmp_path: Path, made: Callable[[], bytes]) -> None:
    assert verdict(made(), tmp_path)


@pytest.mark.parametrize("made", FOUND["control"])
def test_found_in_control_files(tmp_path: Path, made: Callable[[], bytes]) -> None:
    control_file(tmp_path)(made())
