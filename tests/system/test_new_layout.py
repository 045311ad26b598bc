"""Another incomingd may cut indexes in another way: at its first start it makes them anew, and no client notices."""

import lzma
import subprocess
from pathlib import Path

import pytest

from incomingd.config.reader import load
from incomingd.pipeline import Pipeline
from incomingd.publish import blocks, generation
from tests.support.apt import Apt
from tests.support.instance import Instance
from tests.support.uploads import Builder

PACKAGES = ("hello", "sed", "zsh")


def test_blocks_of_another_size(
    idle: Instance, builder: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in PACKAGES:
        builder.upload(package, "1.0-1").send_directory(idle.incoming)
    assert idle.run("incomingd", "--once").returncode == 0
    index = idle.archive / "dists/stable/main/binary-amd64/Packages.xz"
    before = lzma.decompress(index.read_bytes())
    assert count_blocks(index) == 1

    for name, value in (("MIN", 1), ("MAX", 1)):
        monkeypatch.setattr(blocks, name, value)
    monkeypatch.setattr(generation, "LAYOUT", "names-1")
    Pipeline(load(idle.config)).run_once()
    assert count_blocks(index) == len(PACKAGES)
    assert lzma.decompress(index.read_bytes()) == before
    apt = Apt(tmp_path / "apt", idle.archive.as_uri(), idle.keyring)
    apt.update()
    assert {name for name, _ in apt.packages()} == set(PACKAGES)
    assert idle.ctl("fsck", "--deep").returncode == 0


def count_blocks(file: Path) -> int:
    listed = subprocess.run(["xz", "-l", "--robot", file], check=True, capture_output=True, text=True).stdout
    return int(next(line for line in listed.splitlines() if line.startswith("file\t")).split("\t")[2])
