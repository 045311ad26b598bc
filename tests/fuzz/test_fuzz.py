"""What an attacker may send to the parsers: no crash, no hang, and nothing accepted that gpgv, dpkg-deb or tar refuses.

Forty seconds by default, thirteen targets together; ``INCOMINGD_FUZZ_SECONDS=600`` for as long as one likes. Each
target begins with real files and cuts, doubles, swaps and flips pieces of them. What was found stays in :data:`FOUND`.
"""

import base64
import bz2
import gzip
import hashlib
import io
import lzma
import os
import posixpath
import re
import resource
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC
from pathlib import Path

import pytest
from debian.deb822 import Deb822
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from incomingd.errors import ConfigError, Retry
from incomingd.importing import index, release, remote, repository
from incomingd.importing.reading import Reader
from incomingd.journal.staging import Item, Origin, Staging
from incomingd.model import Digests, Fields, FileEntry, Problem
from incomingd.verify import deb822, openpgp, relations
from incomingd.verify.binary import BinaryContext, check_binary
from incomingd.verify.changes import read
from incomingd.verify.signature import Verifier, is_signed
from incomingd.verify.streams import ArchiveError, Spare
from incomingd.verify.tar import Kind, read_tar
from tests.support import imports, packages
from tests.verify.builders import NOW, Keys, Upload, ar, ar_parts, dpkg_deb, tar, tar_member

SECONDS = float(os.environ.get("INCOMINGD_FUZZ_SECONDS", "40")) / 13
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


def one_stanza(data: bytes, **limits: int) -> deb822.Stanza | None:
    """What the strict pass lets through reads the same to python-debian: the same fields, and no second stanza."""
    stanza, problems = deb822.parse(data, "x", **limits)
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


def summed(data: bytes) -> bytes:
    """A tar in which each block that may be a header has the right checksum, or none would be read at all."""
    blocks = [bytearray(data[at : at + 512]) for at in range(0, len(data), 512)]
    for block in blocks:
        if len(block) == 512 and any(block):
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
    return b"".join(blocks)


def archive(folder: Path) -> Callable[[bytes], None]:
    """What is taken has the same members, of the same sizes, to GNU tar and to Python's tarfile."""
    path = folder / "x.tar"

    def target(data: bytes) -> None:
        data = summed(data)
        try:
            members = [member for member, _ in read_tar(io.BytesIO(data), deb=False)]
        except (ArchiveError, OSError, OverflowError):
            return
        ours = [(m.name, m.size if m.kind is Kind.FILE else 0) for m in members]
        path.write_bytes(data)
        command = ["tar", "-tvf", path, "--quoting-style=escape", "--numeric-owner", "--full-time"]
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=LIMIT, env={"LC_ALL": "C.UTF-8"}
        )
        assert done.returncode == 0, f"taken, and tar refuses it: {done.stderr}"
        assert len(done.stdout.splitlines()) == len(ours), "taken, and tar finds other members"
        for line, (name, _) in zip(done.stdout.splitlines(), ours, strict=True):
            if name.isascii() and name.isprintable() and "\\" not in name:
                assert f" {name}" in line
        with tarfile.open(path) as read:
            theirs = [(m.name.rstrip("/"), m.size if m.isreg() else 0) for m in read]
        sparse = b"S" in {data[at + 156 : at + 157] for at in range(0, len(data), 512)}
        assert sparse or theirs == [(name.rstrip("/"), size) for name, size in ours], "taken, and tarfile differs"

    return target


def archive_seeds() -> list[bytes]:
    posix = {257: b"ustar\x0000"}
    long = [tar_member("././@LongLink", b"n" * 120 + b"\0", kind=kind) for kind in (b"L", b"K")]
    pax = tar_member("pax", b"12 path=abc\n11 size=10\n", kind=b"x")
    return [
        tar(("d/", b""), ("a", b"x" * 600), ("l", "a"), form=""),
        tar_member("a", b"x", others={257: bytes(8)}) + tar_member("d/", kind=b"\0") + bytes(1024),
        tar_member("a", b"x" * 10, prefix=b"p", others=posix) + tar_member("d/", kind=b"5", others=posix) + bytes(1024),
        b"".join(long) + tar_member("l", kind=b"2", others={157: b"t"}) + tar_member("a", b"x") + bytes(1024),
        pax + tar_member("a", b"x" * 10) + tar_member("h", kind=b"1", others={157: b"abc"}) + bytes(1024),
    ]


ARCHIVE_TOKENS = [
    *(tar_member("hidden", b"x"), tar_member("./x/", b""), tar_member("l", kind=b"2", size="00000001000\0")),
    *(tar_member("././@LongLink", b"other\0", kind=b"L"), tar_member("pax", b"11 path=ab\n", kind=b"x"), bytes(512)),
    *(b"ustar\x0000", b"ustar  \0", b"\x80", b"\xff", b"/", b".", b"00000001000\0", b"12 size=512\n", b"7", b"L"),
]


def test_tar_archives(tmp_path: Path) -> None:
    rounds(archive(tmp_path), archive_seeds(), ARCHIVE_TOKENS)


def control_file(folder: Path) -> Callable[[bytes], None]:
    dpkg = Dpkg(folder)
    data_member = ar_parts(dpkg_deb(Upload().control_text(), "none"))[2]

    def target(text: bytes) -> None:
        stanza = one_stanza(text, max_line=1 << 20)  # as of a control file
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


def only_signatures(data: bytes) -> None:
    """Whatever is let through, gpg finds no other packet in it, and no more signatures."""
    try:
        found = openpgp.signature_packets(data)
    except openpgp.OpenPGPError:
        return
    command = ["gpg", "--homedir", "/nonexistent", "--list-packets"]
    handed_on = b"".join(packet.raw for packet in found)
    done = subprocess.run(command, input=handed_on, capture_output=True, timeout=LIMIT)
    listed = [line.split(b":")[1] for line in done.stdout.split(b"\n") if line.startswith(b":")]
    assert set(listed) <= {b"signature packet"}, listed
    assert len(listed) <= len(found)


def test_signature_packets(seeds: tuple[Keys, dict[str, bytes]]) -> None:
    keys, _ = seeds
    made = [keys.sign(b"text", by=name).split(b"\n\n", 2)[2].split(b"\n=")[0] for name in ("ada", "rsa")]
    binary = [base64.b64decode(text) for text in made]
    tokens = [b"\xa3\x01", b"\xc8", b"\xcb\x06b\0\0\0\0\0", b"\x8b", b"\xe1", b"\xff\0\0\1\0", b"\xd0\x03PGP", *binary]
    rounds(only_signatures, binary, tokens)


def armored_again(target: Callable[[bytes], None], text: bytes) -> Callable[[bytes], None]:
    """Puts altered packets in the place of a text's signature."""
    block = b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n%s\n-----BEGIN PGP SIGNATURE-----\n\n%s" % (
        text,
        b"%s",
    )
    return lambda data: target(block % base64.encodebytes(data) + b"-----END PGP SIGNATURE-----\n")


def test_signed_block_with_other_packets(seeds: tuple[Keys, dict[str, bytes]]) -> None:
    keys, _ = seeds
    made = keys.sign(b"Source: hello\n").split(b"\n\n", 2)[2].split(b"\n=")[0]
    tokens = [b"\xa3\x01", b"\xc8", b"\xcb\x06b\0\0\0\0\0", b"\xd0\x03PGP", base64.b64decode(made)]
    rounds(armored_again(signed_block(keys), b"Source: hello"), [base64.b64decode(made)], tokens)


# -- a repository's texts ---------------------------------------------------------------------------------------------


def index_text(data: bytes) -> None:
    """Any index is read to its end, and what it lists lies inside of the repository, with a size and a SHA256."""
    for stanza in index.stanzas(io.BytesIO(data), index.WANTED):
        assert str(stanza).isprintable()
        said, listed = "", None
        try:
            listed = index.entry(stanza).file
        except index.EntryError as error:
            said = str(error)
        assert said.isprintable()
        if listed is None:
            assert said
            continue
        assert listed.size >= 0
        assert re.fullmatch("[0-9a-f]{64}", listed.sha256)
        assert posixpath.normpath(f"/x/{listed.path}") == f"/x/{listed.path}"
        assert b"\0" not in os.fsencode(listed.path)


INDEX_TOKENS = [
    *TEXT_TOKENS,
    *(
        b"Filename: ",
        b"Size: ",
        b"SHA256: ",
        b"Directory: ",
        b"Checksums-Sha256:\n ",
        b"../",
        b"..",
        b"//",
        b"./",
        b".dsc",
    ),
    *(b"http://x/", b"\xf6", b"\\xf6", b"\xff" * 70_000, b"\n\n", b"ab" * 32),
    *(b"x" * 250, b"x/" * 300, b"a.deb/", b"link/", b"loop/", b"-1", b"1" * 20, "\u00b2".encode(), b" 9 b.dsc\n "),
]


#: A path with these in it may be that of no file at all.
PATH_TOKENS = [
    *(
        b"../",
        b"..",
        b"//",
        b"./",
        b"/",
        b".dsc",
        b".deb/",
        b"/x.deb",
        b"link/",
        b"loop/",
        b"http://x/",
        b":",
        b" ",
        b"%2f",
    ),
    *(
        b"x" * 250,
        b"x" * 300 + b"/",
        b"x/" * 2040,
        b"\xf6",
        b"\\xf6",
        b"\xed\xa0\x80",
        "\u2028".encode(),
        b"\0",
        b"\x1b[2J",
    ),
]


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of real packages, with the indexes and the Release that apt-ftparchive makes of it."""
    root = tmp_path_factory.mktemp("repo")
    pool = root / "pool"
    pool.mkdir()
    packages.binary(pool, "hello", "2.0-1")
    packages.binary(pool, "common", "1:1.0", "all")
    packages.source(pool, "hello", "2.0-1", form="quilt")
    for kind, where in (("packages", "binary-amd64/Packages"), ("sources", "source/Sources")):
        file = root / f"dists/stable/main/{where}"
        file.parent.mkdir(parents=True)
        file.write_bytes(ftparchive(root, kind, "pool"))
    (pool / "link").symlink_to("/etc")
    (pool / "loop").symlink_to("loop")
    return root


def ftparchive(root: Path, *words: str) -> bytes:
    if not shutil.which("apt-ftparchive"):
        pytest.skip("apt-ftparchive is not installed")
    return subprocess.run(["apt-ftparchive", *words], cwd=root, check=True, capture_output=True).stdout


def real_indexes(repo: Path) -> list[bytes]:
    main = repo / "dists/stable/main"
    return [(main / name).read_bytes() for name in ("binary-amd64/Packages", "source/Sources")]


def test_index_text(repo: Path) -> None:
    digest = b"ab" * 32
    short = b"Package: a\nVersion: 1\nFilename: pool/a_1_all.deb\nSize: 9\nSHA256: " + digest + b"\n"
    sources = b"Package: a\nDirectory: pool/a\nChecksums-Sha256:\n " + digest + b" 9 a_1.dsc\n"
    rounds(index_text, [short, sources, short + b"\n" + sources, *real_indexes(repo)], INDEX_TOKENS)


#: How an index may be packed.
PACKED: dict[str, Callable[[bytes], bytes]] = {".xz": lzma.compress, ".gz": gzip.compress, ".bz2": bz2.compress}
MAGIC = {b"\xfd": ".xz", b"\x1f": ".gz", b"B": ".bz2"}


class Importing:
    """Reads a repository that lists one index as ``import --from-repo`` does, up to what is staged of its packages."""

    def __init__(self, repo: Path, folder: Path) -> None:
        self.root = folder / "theirs"
        shutil.copytree(repo, self.root, symlinks=True)
        self.task = imports.task(folder, self.root, NOW.astimezone(UTC))
        self.staging, self.reader = Staging(self.task.folder), Reader(self.task, "1-0")

    def contents(self, name: str, data: bytes, listed: int) -> repository.Contents | None:
        """What is found where ``data`` is the index ``name``, which unpacks to ``listed`` bytes; None where nothing."""
        (self.root / f"dists/stable/{name}").write_bytes(data)
        text = f"Suite: stable\nDate: {NOW:%a, %d %b %Y %H:%M:%S} UTC\nComponents: main\nSHA256:\n"
        text += f" {hashlib.sha256(data).hexdigest()} {len(data)} {name}\n"
        plain = name.removesuffix(Path(name).suffix)
        if plain != name:
            text += f" {'ab' * 32} {listed} {plain}\n"
        (self.root / "dists/stable/InRelease").write_text(text)
        wanted = release.Wanted(name="stable", keyring=Path("unused"), now=self.task.now)
        place = remote.Folder(base=str(self.root))
        found: repository.Contents | None = None
        said: tuple[str, ...] = ()
        try:
            found = repository.Repository(place, "stable").contents(wanted, self.task.suite, self.task.folder)
        except ConfigError as error:
            said = error.errors
        except Retry as error:
            said = (str(error),)
        assert found or said
        assert all(line.isprintable() for line in said)
        return found

    def stage(self, contents: repository.Contents) -> None:
        """Have everything read and noted, and the staging area as it was before."""
        for called, problem in contents.faults:
            assert called.isprintable()
            assert problem.message.isprintable()
        assert all(origin.path.startswith(f"{self.root}/") for origin in contents.origins)
        todo = self.staging.keep(contents.origins)
        assert len(todo) == len(contents.origins)
        self.staging.add([self.item(*one) for one in enumerate(todo, self.staging.next_id())])
        count, told = self.staging.problems(len(todo))
        assert count == len({origin for origin, _ in told})
        assert self.staging.count() + count == len(todo)
        self.staging.keep([])
        shutil.rmtree(self.task.files, ignore_errors=True)

    def item(self, number: int, origin: Origin) -> Item:
        found = self.reader.read(number, origin)
        assert found.package or found.problems
        # Nothing is published of what is not the listed bytes.
        assert found.package is None or found.package.sha256 == origin.sha256
        return found


@pytest.fixture
def importing(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Importing]:
    # gpg would take nine tenths of the time; test_inrelease has it.
    monkeypatch.setattr(release, "verify", release.read)
    made = Importing(repo, tmp_path)
    yield made
    made.staging.close()


def test_packed_indexes(repo: Path, importing: Importing) -> None:
    """Bytes that a decompressor gets."""

    def target(data: bytes) -> None:
        name = "main/binary-amd64/Packages" + MAGIC.get(data[:1], "")
        contents = importing.contents(name, data, 1 << 20)
        if contents and name.endswith("Packages"):
            importing.stage(contents)

    text = real_indexes(repo)[0]
    bomb = [pack(bytes(8 << 20)) for pack in PACKED.values()]
    sound = [pack(text) for pack in PACKED.values()]
    rounds(target, [text, *sound, *bomb], [*CONTAINER_TOKENS, *sound])


def test_listed_packages(repo: Path, importing: Importing) -> None:
    """Texts that are packed as they should be: what they list is read, and told of, whatever it is."""
    names = ("main/binary-amd64/Packages", "main/source/Sources")

    def target(data: bytes) -> None:
        ending = ("", *PACKED)[len(data) % 4]
        packed = PACKED[ending](data) if ending else data
        name = names[b"Directory" in data]
        # One byte less than there is, now and then.
        contents = importing.contents(name + ending, packed, len(data) - (len(data) % 8 == 7))
        (importing.root / f"dists/stable/{name}{ending}").unlink()
        if contents:
            importing.stage(contents)

    rounds(target, [*real_indexes(repo), *map(shortened, real_indexes(repo))], INDEX_TOKENS)


def test_listed_paths(repo: Path, importing: Importing) -> None:
    """A path, and beside it what people are shown of one with other bytes."""
    name = "main/binary-amd64/Packages"
    before, _, after = shortened(real_indexes(repo)[0]).split(b"\n\n")[-2].partition(b"pool/")
    path, _, after = after.partition(b"\n")

    def target(data: bytes) -> None:
        shown = data.decode("utf-8", "backslashreplace").encode()
        text = b"\n\n".join(before + one + b"\n" + after for one in (data, shown))
        contents = importing.contents(name, text, len(text))
        if contents:
            importing.stage(contents)

    rounds(target, [b"pool/" + path], PATH_TOKENS)


def shortened(text: bytes) -> bytes:
    """An index with hardly more than the fields that are read, so that most changes meet one of them."""
    wanted = re.compile(rb"(Package|Version|Filename|Size|SHA256|Directory|Checksums-Sha256):")
    field = re.compile(rb"\S[^\n]*\n(?: [^\n]*\n)*|\n")
    return b"".join(found[0] for found in field.finditer(text) if found[0] == b"\n" or wanted.match(found[0]))


def release_text(data: bytes) -> None:
    """Any Release is taken or refused with a sentence."""
    wanted = release.Wanted(name="stable", keyring=Path("unused"), now=NOW.astimezone(UTC))
    said: tuple[str, ...] = ()
    rows: list[index.Listed] = []
    try:
        rows = list(release.read(data, wanted).indexes.values())
    except ConfigError as error:
        said = error.errors
    assert said or rows
    assert all(line.isprintable() for line in said)
    assert all(re.fullmatch("[0-9a-f]{64}", row.sha256) for row in rows)


RELEASE_TOKENS = [
    *INDEX_TOKENS,
    *(b"Suite: ", b"Date: ", b"+9999", b"99999999999", b"Valid-Until: ", b"Mon, 01 Jan 0001 00:00:00 +2359", b"-2359"),
]


def real_release(repo: Path) -> bytes:
    """Made at the time that the targets say it is."""
    fields = {"Suite": "stable", "Codename": "bookworm", "Components": "main", "Architectures": "amd64"}
    options = [word for name, value in fields.items() for word in ("-o", f"APT::FTPArchive::Release::{name}={value}")]
    text = ftparchive(repo / "dists/stable", *options, "release", ".")
    return re.sub(rb"Date: .*", f"Date: {NOW:%a, %d %b %Y %H:%M:%S} UTC".encode(), text)


def test_release_text(repo: Path) -> None:
    text = f"Suite: stable\nCodename: bookworm\nDate: {NOW:%a, %d %b %Y %H:%M:%S} UTC\nComponents: main\n"
    text += f"Valid-Until: Fri, 01 Jan 2100 00:00:00 UTC\nSHA256:\n {'ab' * 32} 9 main/binary-amd64/Packages\n"
    rounds(release_text, [text.encode(), real_release(repo)], RELEASE_TOKENS)


def test_inrelease(repo: Path, seeds: tuple[Keys, dict[str, bytes]], tmp_path: Path) -> None:
    """What is taken is a text that gpgv, too, says one of the owner's keys has signed."""
    keys, _ = seeds
    keyring = tmp_path / "owner.asc"
    keyring.write_bytes(keys.public("ada"))
    wanted = release.Wanted(name="stable", keyring=keyring, now=NOW.astimezone(UTC))
    text = real_release(repo)

    def target(data: bytes) -> None:
        found: release.Release | None = None
        said: tuple[str, ...] = ("",)
        try:
            found = release.verify(data, wanted)
        except ConfigError as error:
            said = error.errors
        if found is None:
            assert all(said)
            assert all(line.isprintable() for line in said)
            return
        # Of several signatures gpgv may call others bad, and then ends badly.
        command = ["gpgv", "--keyring", str(keys.keyring.public), "--status-fd", "2", "--output", "-"]
        done = subprocess.run(command, input=data, capture_output=True, timeout=LIMIT)
        assert f"VALIDSIG {keys.fingerprints['ada']}".encode() in done.stderr, "accepted, and gpgv refuses it"
        assert release.read(done.stdout, wanted) == found

    signed = keys.sign(text, by="ada")
    rounds(
        target, [signed, keys.sign(text, by="bob"), text], [*RELEASE_TOKENS, signed, b"-----BEGIN PGP SIGNATURE-----\n"]
    )


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
