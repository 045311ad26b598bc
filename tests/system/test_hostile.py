"""Attacks by somebody who may upload, against the running daemon, with an honest upload beside each.

Each ends in a clear rejection by the rule that it breaks, within ten seconds of the processor and 300 MB; the honest
upload is published meanwhile.
"""

import gzip
import hashlib
import io
import os
import re
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import zstandard

from incomingd.publish.xz import compress, join
from tests.bench import make
from tests.support.instance import Instance, until
from tests.support.keys import Keys
from tests.support.uploads import Builder

#: Of the daemon and all its workers together, in bytes.
MEMORY = 300 << 20
ZEROS = bytes(1 << 20)


# -- packages that are not what they seem -----------------------------------------------------------------------------


def tar_of_zeros(mebibytes: int) -> Iterator[bytes]:
    """A tar with one member of so many MiB, in pieces; its end is left out."""
    member = tarfile.TarInfo("./control")
    member.size = mebibytes << 20
    yield member.tobuf(tarfile.GNU_FORMAT)
    for _ in range(mebibytes):
        yield ZEROS


@cache
def zst_bomb() -> bytes:
    """4 GB in 400 kB."""
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    return b"".join(packer.compress(piece) for piece in tar_of_zeros(4_000)) + packer.flush()


@cache
def xz_bomb() -> bytes:
    """16 GB in 2.5 MB: one stream, of a block of 64 MiB over and over."""
    block = compress(bytes(64 << 20), quick=True)
    return b"".join(join([compress(next(tar_of_zeros(16_000))), *[block] * 250]))


def many_links() -> bytes:
    """A tar of 4 million names in 20 MB."""
    link = tarfile.TarInfo("x" * 90)
    link.type, link.linkname = tarfile.SYMTYPE, "y" * 90
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    some = link.tobuf(tarfile.GNU_FORMAT) * 10_000
    return b"".join(packer.compress(some) for _ in range(400)) + packer.flush()


def long_name() -> bytes:
    """A tar with a name of 400 MiB in 40 kB."""
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 400 << 20
    pieces = (member.tobuf(tarfile.GNU_FORMAT), *[ZEROS] * 400)
    return b"".join(map(packer.compress, pieces)) + packer.flush()


def endless(packed: bytes) -> bytes:
    """A stream that is cut before its end."""
    return packed[: len(packed) * 3 // 4]


def tar_gz(control: bytes, members: int = 1) -> bytes:
    out = io.BytesIO()
    with gzip.open(out, "wb", compresslevel=1) as packed:
        first = tarfile.TarInfo("./control")
        first.size = len(control)
        packed.write(first.tobuf(tarfile.GNU_FORMAT) + control + bytes(-len(control) % 512))
        packed.write(tarfile.TarInfo("./more").tobuf(tarfile.GNU_FORMAT) * (members - 1))
        packed.write(bytes(1024))
    return out.getvalue()


def ar(*members: tuple[str, bytes]) -> bytes:
    parts = [b"!<arch>\n"]
    for name, data in members:
        parts.append(f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode())
        parts.append(data + b"\n" * (len(data) % 2))
    return b"".join(parts)


def deb(control_name: str, control: bytes) -> bytes:
    data = tar_gz(b"data")
    return ar(("debian-binary", b"2.0\n"), (control_name, control), ("data.tar.gz", data))


def deb_of(data: bytes) -> bytes:
    control = tar_gz(make.control("attack", "1.0").encode())
    return ar(("debian-binary", b"2.0\n"), ("control.tar.gz", control), ("data.tar.zst", data))


def million_members() -> bytes:
    good = make.deb("attack", "1.0")
    return good + ar(("_x", b"")).removeprefix(b"!<arch>\n") * 1_000_000


def control_with(field: bytes) -> bytes:
    return tar_gz(make.control("attack", "1.0").encode() + field)


# -- uploads ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Attacker:
    """Has a key that is trusted, and a hand on the incoming folder."""

    folder: Path
    keys: Keys
    key: str

    def package(self, data: bytes) -> Path:
        """An upload of one .deb, signed and with the right digests."""
        return self.changes(make.changes("attack", "1.0", "attack_1.0_amd64.deb", data), data)

    def changes(self, text: str, data: bytes = b"x") -> Path:
        upload = self.folder / "attack"
        upload.mkdir(parents=True)
        (upload / "attack_1.0_amd64.deb").write_bytes(data)
        (upload / "attack_1.0_amd64.changes").write_bytes(self.keys.sign(text, self.key))
        return upload


def text_of_a_good_one() -> tuple[str, bytes]:
    data = make.deb("attack", "1.0")
    return make.changes("attack", "1.0", "attack_1.0_amd64.deb", data), data


def hundred_thousand_files(attacker: Attacker) -> Path:
    text, data = text_of_a_good_one()
    rows = "".join(f" {'0' * 64} 1 f{number}_1.0_amd64.deb\n" for number in range(100_000))
    return attacker.changes(text.replace("Files:\n", f"{rows}Files:\n"), data)


def huge_field(attacker: Attacker) -> Path:
    text, data = text_of_a_good_one()
    # In lines: gpg itself cuts those of more than 20,000 characters.
    return attacker.changes(f"{text}Remark:\n" + f" {'x' * 1000}\n" * (50 << 10), data)


def orig_bomb(attacker: Attacker) -> Path:
    builder = Builder(folder=attacker.folder / "built", keys=attacker.keys, key=attacker.key)
    made = builder.upload("attack", "1.0-1", binaries=(), source="quilt").folder
    (orig,) = made.glob("*.orig.tar.gz")
    orig.unlink()
    bomb = made / "attack_1.0.orig.tar.xz"
    bomb.write_bytes(xz_bomb())
    (dsc,) = made.glob("*.dsc")
    row = f"{len(bomb.read_bytes())} {bomb.name}"
    signed = dsc.read_text()
    text = signed[signed.find("Format:") : signed.find("\n-----BEGIN PGP SIG")] if "-----BEGIN" in signed else signed
    for algorithm, length in (("md5", 32), ("sha1", 40), ("sha256", 64)):
        digest = hashlib.new(algorithm, bomb.read_bytes()).hexdigest()
        text = re.sub(rf"^ [0-9a-f]{{{length}}} \d+ {orig.name}$", f" {digest} {row}", text, flags=re.MULTILINE)
    dsc.write_text(text)
    for file in made.glob("*.changes"):
        file.unlink()
    return builder.sign(made, [dsc, *(file for file in made.iterdir() if file != dsc)]).folder


def fifo(attacker: Attacker) -> Path:
    text, data = text_of_a_good_one()
    upload = attacker.changes(text, data)
    (upload / "attack_1.0_amd64.deb").unlink()
    os.mkfifo(upload / "attack_1.0_amd64.deb")
    return upload


def linked_file(attacker: Attacker) -> Path:
    upload = attacker.package(Path("/etc/passwd").read_bytes())
    (upload / "attack_1.0_amd64.deb").unlink()
    (upload / "attack_1.0_amd64.deb").symlink_to("/etc/passwd")
    return upload


def linked_parent(attacker: Attacker) -> Path:
    """A file that is reached through a link to a folder that uploaders may not read."""
    text, data = text_of_a_good_one()
    upload = attacker.changes(text.replace("attack_1.0_amd64.deb", "state/journal.db"), data)
    (upload / "state").symlink_to(attacker.folder.parent / "instance/state")
    return upload


#: What is sent, and the problems that it is rejected with.
ATTACKS: dict[str, tuple[Callable[[Attacker], Path], set[str]]] = {
    "a zstd bomb as control.tar": (lambda a: a.package(deb("control.tar.zst", zst_bomb())), {"stanza-too-large"}),
    "an xz bomb as control.tar": (lambda a: a.package(deb("control.tar.xz", xz_bomb())), {"stanza-too-large"}),
    "a zstd stream without end": (
        lambda a: a.package(deb("control.tar.zst", endless(zst_bomb()))),
        {"stanza-too-large"},
    ),
    "an xz stream without end": (
        lambda a: a.package(deb("control.tar.xz", endless(xz_bomb()))),
        {"stanza-too-large"},
    ),
    "a bomb as orig.tar": (orig_bomb, {"bad-tar"}),
    "an ar of a million members": (lambda a: a.package(million_members()), {"bad-deb"}),
    "a control.tar of a million members": (
        lambda a: a.package(deb("control.tar.gz", tar_gz(b"", 1_000_000))),
        {"bad-control-archive"},
    ),
    "a data.tar of 4 million links": (lambda a: a.package(deb_of(many_links())), {"bad-compression"}),
    "a name of 400 MiB": (lambda a: a.package(deb_of(long_name())), {"bad-deb"}),
    "100,000 files listed": (hundred_thousand_files, {"text-too-large"}),
    "a field of 50 MB in the .changes": (huge_field, {"text-too-large"}),
    "a field of 50 MB in control": (
        lambda a: a.package(deb("control.tar.gz", control_with(b"Remark: " + b"x" * (50 << 20) + b"\n"))),
        {"stanza-too-large"},
    ),
    "a FIFO in place of a file": (fifo, {"not-regular-file"}),
    "a link in place of a file": (linked_file, {"not-regular-file"}),
    "a path through a linked parent": (linked_parent, {"bad-file-name"}),
}


@pytest.fixture
def attacker(tmp_path: Path, keys: Keys, builder_key: str) -> Attacker:
    return Attacker(folder=tmp_path / "attacker", keys=keys, key=builder_key)


def resident(pid: int) -> int:
    """Bytes of memory of a process and all below it; what has just ended counts nothing."""
    total, todo = 0, [pid]
    while todo:
        one = todo.pop()
        try:
            pages = int(Path(f"/proc/{one}/statm").read_text().split()[1])
            for task in Path(f"/proc/{one}/task").iterdir():
                todo += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
        total += pages * os.sysconf("SC_PAGE_SIZE")
    return total


@contextmanager
def watched(instance: Instance) -> Iterator[list[int]]:
    """The memory of the daemon while something happens."""
    assert instance.daemon
    pid, over, seen = instance.daemon.pid, threading.Event(), [0]

    def watch() -> None:
        while not over.wait(0.02):
            seen.append(resident(pid))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_rejected_and_holds_up_nobody(
    attack: str, idle: Instance, builder: Builder, attacker: Attacker
) -> None:
    instance, (make_it, codes) = idle, ATTACKS[attack]
    # Who takes longer gets another problem than the one that is expected here.
    instance.set("checks", worker_cpu="10s")
    instance.start()
    upload, honest = make_it(attacker), builder.upload("honest")
    with watched(instance) as memory:
        upload.rename(instance.incoming / "attack")
        honest.send_directory(instance.incoming, "honest")
        instance.succeeded("honest")
        found = set(instance.failed("attack"))
    assert found & codes, found
    assert max(memory) < MEMORY
    assert instance.health() == "ok: "


def test_a_file_that_grows_while_it_is_read(instance: Instance, builder: Builder, attacker: Attacker) -> None:
    upload = attacker.package(make.deb("attack", "1.0"))
    over = threading.Event()

    def grow() -> None:
        with deb.open("ab", buffering=0) as file:
            while not over.wait(0.001) and file.tell() < 1 << 30:
                file.write(b"x" * 100_000)

    deb = upload / "attack_1.0_amd64.deb"
    honest = deb.stat().st_size
    writer = threading.Thread(target=grow)
    writer.start()
    try:
        until(lambda: deb.stat().st_size > honest)
        upload.rename(instance.incoming / "attack")
        builder.upload("honest").send_directory(instance.incoming, "honest")
        instance.succeeded("honest")
        found = instance.failed("attack")
    finally:
        over.set()
        writer.join()
    assert set(found) & {"size-mismatch", "changed-while-read", "upload-too-large", "checksum-mismatch"}, found


def test_a_directory_that_is_renamed_back_and_forth(instance: Instance, builder: Builder, attacker: Attacker) -> None:
    upload = attacker.package(b"not a package")
    one, other = instance.incoming / "one", instance.incoming / "other"
    upload.rename(one)
    over = threading.Event()

    def shuttle() -> None:
        while not over.is_set():
            try:
                one.rename(other)
                other.rename(one)
            except FileNotFoundError:
                return  # taken

    mover = threading.Thread(target=shuttle)
    mover.start()
    try:
        builder.upload("honest").send_directory(instance.incoming, "honest")
        instance.succeeded("honest")
    finally:
        over.set()
        mover.join()
    # A claim whose rename came too late is told as withdrawn; the next one takes it.
    until(
        lambda: any(
            problem["code"] == "bad-deb"
            for upload in instance.index()["ended"]
            if upload["name"] in ("one", "other")
            for problem in upload["problems"]
        ),
        "its rejection",
    )
    assert not one.exists()
    assert not other.exists()


def test_an_incoming_name_that_is_a_link_out(instance: Instance, builder: Builder, attacker: Attacker) -> None:
    upload = attacker.package(make.deb("attack", "1.0"))
    (instance.incoming / "attack").symlink_to(upload)
    builder.upload("honest").send_directory(instance.incoming, "honest")
    instance.succeeded("honest")
    assert (upload / "attack_1.0_amd64.deb").exists()
    assert instance.ctl("list", "--package", "attack").stdout == ""
