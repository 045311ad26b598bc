"""The tar reader beside GNU tar and Python's tarfile: what it takes all of them read alike, and the rest it refuses."""

import io
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from incomingd.verify.streams import ArchiveError
from incomingd.verify.tar import Kind, TarMember, read_tar
from tests.verify.builders import tar_member

END = bytes(1024)
HIDDEN = tar_member("hidden", b"x")
LAST = tar_member("last", b"y")
POSIX = {257: b"ustar\x0000"}


def record(name: str, value: str | bytes) -> bytes:
    """One record of a pax header."""
    rest = b" %s=%s\n" % (name.encode(), value if isinstance(value, bytes) else value.encode())
    size = len(rest) + 1
    while len(str(size)) + len(rest) > size:
        size += 1
    return str(size).encode() + rest


def pax(*records: tuple[str, str | bytes], kind: bytes = b"x") -> bytes:
    return tar_member("pax", b"".join(record(*one) for one in records), kind=kind)


def long(name: str, kind: bytes = b"L") -> bytes:
    return tar_member("././@LongLink", name.encode() + b"\0", kind=kind)


def ours(data: bytes, *, deb: bool = False, streamed: bool = False) -> list[TarMember]:
    source = io.BytesIO(data)
    if streamed:
        source.seekable = lambda: False  # type: ignore[method-assign]
    return [member for member, _ in read_tar(source, deb=deb)]


def names(members: Iterable[TarMember]) -> list[str]:
    return [member.name for member in members]


def listed_by_tar(data: bytes, folder: Path) -> list[str]:
    """What GNU tar lists, without the slashes of directories."""
    (folder / "x.tar").write_bytes(data)
    command = ["tar", "-tf", folder / "x.tar", "--quoting-style=literal"]
    done = subprocess.run(command, capture_output=True, check=True, text=True, errors="surrogateescape")
    return [name.rstrip("/") for name in done.stdout.splitlines()]


def listed_by_tarfile(data: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return [member.name.rstrip("/") for member in archive]


# -- what real programs write -----------------------------------------------------------------------------------------

LONG = "long/" + "n" * 180


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Names of all lengths and alphabets, links of all kinds, a sparse file, a FIFO, and a date before 1970."""
    root = tmp_path_factory.mktemp("tree")
    (root / "long").mkdir()
    (root / LONG).write_bytes(b"long")
    (root / "long/link").symlink_to("t" * 150)
    (root / "long/hard").hardlink_to(root / LONG)
    for name in ("empty", "ä", "a b", "\udcff", "x" * 100, "y" * 99, "folder"):
        (root / name).write_bytes(b"content of it" * 100) if name != "folder" else (root / name).mkdir()
    with (root / "sparse").open("wb") as file:
        for at in range(0, 100 << 20, 4 << 20):  # more pieces than one header lists
            file.seek(at)
            file.write(b"data" * 1024)
    subprocess.run(["mkfifo", root / "fifo"], check=True)
    subprocess.run(["touch", "-d", "1960-01-01", root / "empty"], check=True)
    return root


@pytest.mark.parametrize("streamed", [False, True], ids=["seekable", "streamed"])
@pytest.mark.parametrize("form", ["v7", "oldgnu", "gnu", "ustar", "pax", "gnu --sparse", "pax --sparse"])
def test_what_tar_writes(tree: Path, form: str, streamed: bool, tmp_path: Path) -> None:
    old = ["--exclude=long", "--exclude=fifo", "--exclude=empty"] if form in ("v7", "ustar") else []
    sparse = [] if form.endswith("--sparse") else ["--exclude=sparse"]
    command = ["tar", "-C", tree, "-cf", "-", *old, *sparse, f"--format={form}", "."]
    data = subprocess.run([word for one in command for word in str(one).split(" ")], capture_output=True).stdout
    found = ours(data, streamed=streamed)
    assert names(found) == listed_by_tar(data, tmp_path) == listed_by_tarfile(data)
    assert len(found) >= 5
    kinds = {member.name: member.kind for member in found}
    assert kinds["."] == kinds["./folder"] == Kind.DIRECTORY
    if not old:
        links = {member.name: member.link for member in found if member.link}
        assert links["./long/link"] == "t" * 150
        assert kinds["./fifo"] is Kind.DEVICE
        assert {kinds["./long/hard"], kinds[f"./{LONG}"]} == {Kind.FILE, Kind.HARD_LINK}


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
def test_what_tarfile_writes(tree: Path, form: int, tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for path in sorted(tree.iterdir()):
            # A name that is no UTF-8 becomes in a pax header what only tarfile can read again.
            if path.name not in ("sparse", "\udcff") and (form != tarfile.USTAR_FORMAT or path.name != "empty"):
                archive.add(path, path.name, recursive=path.name == "long" and form != tarfile.USTAR_FORMAT)
    data = out.getvalue()
    assert names(ours(data)) == listed_by_tar(data, tmp_path) == listed_by_tarfile(data)


def test_the_content_of_files() -> None:
    data = tar_member("one", b"1" * 700) + tar_member("none", b"") + tar_member("two", b"2" * 512) + END
    for whole in (True, False):
        read = [content.read() for _, content in read_tar(io.BytesIO(data), deb=True) if content and whole]
        assert read == ([b"1" * 700, b"", b"2" * 512] if whole else [])


#: Odd, and read alike by tar and tarfile.
TAKEN = {
    "a name in the prefix": tar_member("a", prefix=b"b", others=POSIX),
    "a long name and a long link": long("n" * 200) + long("t" * 200, b"K") + tar_member("n", kind=b"2"),
    "a directory of the old format": tar_member("d/", kind=b"\0"),
    "a directory with a size": tar_member("d/", kind=b"5", size="00000002000\0"),
    "a hard link with a size": tar_member("h", kind=b"1", size="00000002000\0", others={157: b"a"}),
    "a volume label": tar_member("Backup", kind=b"V"),
    "a size in binary": tar_member("a", b"x" * 600, others={124: b"\x80" + (600).to_bytes(11)}),
    "a size without leading zeros": tar_member("a", b"x" * 8, size="         10 "),
    "no numbers but the size": tar_member("a", b"x", others={100: bytes(24), 136: bytes(12), 329: b" " * 16}),
    "a pax name": pax(("path", "b"), ("mtime", "1.5")) + tar_member("a", b"x"),
    "a pax size that says the same": pax(("size", "600")) + tar_member("a", b"x" * 600),
    "a comment for all": pax(("comment", "0" * 40), kind=b"g") + tar_member("a"),
    "names of dots": tar_member("..."),
}


def test_a_long_name_whose_beginning_ends_with_a_slash(tmp_path: Path) -> None:
    """tarfile is not asked: whether it takes this for a directory, whose content it skips, differs between updates."""
    whole = long("d/" + "n" * 200) + tar_member("d/", b"x", kind=b"\0") + LAST + END
    assert len(names(ours(whole))) == 2
    assert names(ours(whole)) == listed_by_tar(whole, tmp_path)


@pytest.mark.parametrize("data", TAKEN.values(), ids=TAKEN)
def test_it_is_read_as_others_read_it(data: bytes, tmp_path: Path) -> None:
    whole = data + LAST + END
    found = names(ours(whole))
    assert len(found) == 2
    assert found == listed_by_tar(whole, tmp_path) == listed_by_tarfile(whole)


def test_a_large_size_comes_from_the_pax_header() -> None:
    """tar writes zeros where the header has no room."""
    head = pax(("size", str(9 << 30))) + tar_member("a")
    reader = read_tar(io.BytesIO(head), deb=False)
    assert next(reader)[0].size == 9 << 30


#: Of a source as of a package.
REFUSED = {
    "text": b"hello" * 200,
    "a damaged checksum": bytes([HIDDEN[0] ^ 1]) + HIDDEN[1:],
    "a damaged header behind a sound one": LAST + b"junk" * 128 + LAST,
    "a checksum of signed bytes": tar_member("ä", others={148: b"%06o\0 " % (sum(tar_member("ä")[:512]) % 7)}),
    "half a header": LAST + LAST[:100],
    "half a file": tar_member("a", b"x" * 600)[:-600],
    "a file without its padding": tar_member("a", b"x")[:600],
    "something behind the end": LAST + END + LAST,
    "a byte behind the end": LAST + END + bytes(511) + b"x",
    "no name": tar_member(""),
    "no name, and a prefix": tar_member("", prefix=b"b", others=POSIX),
    "an empty long name": long("") + tar_member("a"),
    "a directory called by slashes": tar_member("/", kind=b"5"),
    "a file called .": tar_member("."),
    "a file called ./.": tar_member("./.", b"x"),
    "a link called .": tar_member(".", kind=b"2", others={157: b"a"}),
    "a hard link called ./": tar_member(".", kind=b"1", others={157: b"a"}),
    "a prefix in GNU's format": tar_member("a", prefix=b"b"),
    "a prefix in the old format": tar_member("a", prefix=b"b", others={257: bytes(8)}),
    "two long names": long("a") + long("b") + tar_member("c"),
    "two long links": long("a", b"K") + long("b", b"K") + tar_member("c", kind=b"2"),
    "a long name at the end": LAST + long("a"),
    "a long name of 2 MiB": long("a" * (2 << 20)) + tar_member("a"),
    "a file called a directory": tar_member("a/"),
    "a file called a directory, with content": tar_member("a/", HIDDEN),
    "an old directory with content": tar_member("a/", HIDDEN, kind=b"\0"),
    "a link with content": tar_member("a", kind=b"2", hidden=HIDDEN),
    "a FIFO with content": tar_member("a", kind=b"6", hidden=HIDDEN),
    "a device with content": tar_member("a", kind=b"3", hidden=HIDDEN),
    "a size with _": tar_member("a", b"x" * 8, size="000000000_10"),
    "a size with 0o": tar_member("a", b"x" * 8, size="0o000000010\0"),
    "a size with a sign": tar_member("a", b"x" * 8, size="+0000000010\0"),
    "a size with something behind it": tar_member("a", b"x" * 8, size="10\x0010\0"),
    "a size of blanks": tar_member("a", size=" " * 12),
    "a size below 0": tar_member("a", others={124: b"\xff" * 12}),
    "a size of 2^88": tar_member("a", others={124: b"\x80" + b"\xff" * 11}),
    "a mode that is no number": tar_member("a", others={100: b"rw-r--r--"[:8]}),
    "a user below 0": tar_member("a", others={108: b"\xff" * 8}),
    "a device that is no number": tar_member("a", kind=b"3", others={329: b"major\0"}),
    "a part of another volume": tar_member("a", b"x", kind=b"M"),
    "a list of a directory": tar_member("a", b"x", kind=b"D"),
    "a kind that no one knows": tar_member("a", b"x", kind=b"Z"),
    "a sparse file with a prefix": tar_member("a", kind=b"S", prefix=b"b", others=POSIX),
    "a sparse file whose list is cut off": tar_member("a", kind=b"S", others={482: b"\1"}) + bytes(100),
}
#: Of a source: a package may not have any pax header.
REFUSED_PAX = {
    "a pax header and a long name": long("a") + pax(("path", "b")) + tar_member("c"),
    "a long name and a pax header": pax(("path", "b")) + long("a") + tar_member("c"),
    "two pax headers": pax(("path", "a")) + pax(("path", "b")) + tar_member("c"),
    "a pax header for all between": pax(("path", "a")) + pax(("comment", "x"), kind=b"g") + tar_member("c"),
    "a name for all": pax(("path", "a"), kind=b"g") + tar_member("c"),
    "a size for all": pax(("size", "512"), kind=b"g") + tar_member("c") + HIDDEN,
    "two names in one pax header": pax(("path", "a"), ("path", "b")) + tar_member("c"),
    "a pax name with NUL": pax(("path", b"a\0b")) + tar_member("c"),
    "an empty pax name": pax(("path", "")) + tar_member("c"),
    "a pax size that hides a member": pax(("size", str(len(HIDDEN)))) + tar_member("c") + HIDDEN,
    "a pax size that shows one": pax(("size", "0")) + tar_member("c", HIDDEN),
    "a pax size that is no number": pax(("size", "1_0")) + tar_member("c", b"x" * 10),
    "a pax header with a wrong length": tar_member("p", b"99 path=a\n", kind=b"x") + tar_member("c"),
    "a pax header with a length of 0": tar_member("p", b"0 path=a\n", kind=b"x") + tar_member("c"),
    "a pax header without newline": tar_member("p", b"9 path=ab", kind=b"x") + tar_member("c"),
    "a pax header of zeros": tar_member("p", bytes(9), kind=b"x") + tar_member("c"),
    "a pax header at the end": LAST + pax(("path", "a")),
    "a sparse file that lies outside": pax(("path", "../a"), ("GNU.sparse.name", "a")) + tar_member("c"),
    "a sparse link": pax(("GNU.sparse.name", "a")) + tar_member("c", kind=b"2"),
    "sparse files for all": pax(("GNU.sparse.major", "1"), kind=b"g") + tar_member("c"),
}


@pytest.mark.parametrize("streamed", [False, True], ids=["seekable", "streamed"])
@pytest.mark.parametrize("data", [*REFUSED.values(), *REFUSED_PAX.values()], ids=[*REFUSED, *REFUSED_PAX])
def test_it_is_refused_in_a_source(data: bytes, streamed: bool) -> None:
    with pytest.raises(ArchiveError):
        ours(data if len(data) % 512 else data + END, streamed=streamed)


#: What dpkg does not know, or reads in another way than tar.
DEB_ALONE = {
    "a pax header": pax(("mtime", "1.5")) + tar_member("a"),
    "a pax header for all": pax(("comment", "x"), kind=b"g") + tar_member("a"),
    "a sparse file": tar_member("a", kind=b"S"),
    "a contiguous file": tar_member("a", b"x", kind=b"7"),
    "a volume label": tar_member("Backup", kind=b"V"),
    "a directory with a size": TAKEN["a directory with a size"],
    "a hard link with a size": TAKEN["a hard link with a size"],
}


@pytest.mark.parametrize("data", [*REFUSED.values(), *DEB_ALONE.values()], ids=[*REFUSED, *DEB_ALONE])
def test_it_is_refused_in_a_package(data: bytes) -> None:
    with pytest.raises(ArchiveError):
        ours(data if len(data) % 512 else data + END, deb=True)


@pytest.mark.parametrize("name", DEB_ALONE)
def test_a_source_may_have_it(name: str) -> None:
    assert len(ours(DEB_ALONE[name] + END)) == 1


@pytest.mark.parametrize("deb", [False, True])
def test_an_empty_file_is_no_archive_and_an_empty_archive_is_one(deb: bool) -> None:
    with pytest.raises(ArchiveError):
        ours(b"", deb=deb)
    assert ours(END, deb=deb) == ours(bytes(512), deb=deb) == []
    assert names(ours(LAST, deb=deb)) == ["last"], "the end may be missing, as for dpkg"


def test_it_costs_as_many_charges_as_it_has_members() -> None:
    charges: list[int] = []
    data = pax(("comment", "x"), kind=b"g") * 5 + long("a") + tar_member("b") + pax(("path", "c")) + LAST + END
    assert len(list(read_tar(io.BytesIO(data), deb=False, charge=lambda: charges.append(1)))) == 2
    assert len(charges) == 5 + 2


def test_nothing_is_kept_of_a_million_members() -> None:
    """A list of what was read would need hundreds of MB; tests of the check workers hold their memory."""

    class Endless(io.RawIOBase):
        left = 200_000

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            if not self.left:
                return 0
            self.left -= 1
            buffer[:512] = LINK
            return 512

    def peak() -> Iterator[int]:
        import tracemalloc

        tracemalloc.start()
        yield sum(1 for _ in read_tar(io.BufferedReader(Endless(), 512), deb=True))
        yield tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

    count, most = peak()
    assert count == 200_000
    assert most < 1 << 20


LINK = tar_member("x" * 90, kind=b"2", others={157: b"y" * 90})


def test_the_checks_do_without_tarfile() -> None:
    """Of the library that reads tar archives in a way that changes between Debian's updates nothing is loaded."""
    code = "import sys, incomingd.verify.worker; print('tarfile' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
