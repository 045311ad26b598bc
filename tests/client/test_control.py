"""What the client reads of packages, beside what python-debian reads."""

import contextlib
import lzma
import shutil
from pathlib import Path

import pytest
from debian.deb822 import Changes, Deb822, Dsc
from debian.debfile import DebFile

from incomingd.client import control
from incomingd.client.control import control_file, stanza_of
from incomingd.client.errors import PackageError
from tests.support import packages
from tests.support.keys import Keys

DEBS = sorted((Path(__file__).parents[1] / "data/debs").rglob("*.deb"))


def same(own: control.Stanza, theirs: Deb822) -> None:
    for name in theirs:
        if isinstance(theirs[name], str):
            assert own[_read(name)].strip() == theirs[name].strip(), name
    assert {_read(name) for name in theirs} == set(own)


def _read(name: str) -> str:
    """python-debian takes the mark of the order of bytes for a part of the first field."""
    return name.lower().lstrip("\ufeff")


@pytest.mark.parametrize("deb", DEBS, ids=lambda path: path.name)
def test_control_of_packages_of_all_builders(deb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without dpkg-deb: the same as python-debian reads, and what that cannot read, too, or a sentence."""
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "dpkg-deb" else f"/usr/bin/{name}")
    try:
        with DebFile(str(deb)) as theirs:
            wanted = Deb822(theirs.control.get_content("control"))
    except Exception:  # noqa: BLE001  # of many kinds
        with contextlib.suppress(PackageError, ValueError):
            stanza_of(control_file(deb))
        return
    same(stanza_of(control_file(deb)), wanted)


@pytest.mark.parametrize("compression", ["gzip", "xz", "zstd"])
def test_every_compression(tmp_path: Path, compression: str, monkeypatch: pytest.MonkeyPatch) -> None:
    deb = packages.binary(tmp_path, "hello", "1.0-1", compression=compression)
    with_dpkg = control_file(deb)
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "dpkg-deb" else f"/usr/bin/{name}")
    assert stanza_of(control_file(deb)) == stanza_of(with_dpkg)


def test_signed_texts(tmp_path: Path) -> None:
    dsc, *_ = packages.source(tmp_path, "hello", "1.0-1", form="quilt")
    plain = stanza_of(dsc.read_bytes())
    with Keys() as keys:
        signed = keys.sign(dsc.read_bytes() + b"\nSecond: stanza\n", keys.make())
    assert stanza_of(signed) == plain
    theirs = Dsc(signed)
    assert [row[-1] for row in plain.rows("Files")] == [row["name"] for row in theirs["Files"]]
    assert plain.rows("Package-List")[0][2] == theirs["Package-List"][0]["section"]


def test_a_changes() -> None:
    text = b"Format: 1.8\nDescription:\n hello - x\nFiles:\n 00 1 misc optional a.deb\n 11 2 misc optional b.deb\n"
    assert [row[-1] for row in stanza_of(text).rows("Files")] == [row["name"] for row in Changes(text)["Files"]]


@pytest.mark.parametrize("text", [b" leads with a blank\n", b"no field\n", b"A: b\nnone\n"])
def test_what_is_no_stanza(text: bytes) -> None:
    with pytest.raises(ValueError, match="is no field"):
        stanza_of(text)


@pytest.mark.parametrize(
    "data", [b"", b"!<arch>\n", b"!<arch>\nshort", b"!<arch>\n" + b"x" * 60, lzma.compress(b"x"), b"\0" * 1000]
)
def test_what_is_no_package(tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.deb").write_bytes(data)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(PackageError, match="is no Debian package"):
        control_file(tmp_path / "x.deb")
