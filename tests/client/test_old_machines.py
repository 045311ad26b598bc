"""The client on machines with an old Python and nothing installed: one file, the same source, the same answers."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from incomingd.client import bundle as bundling
from tests.support import packages
from tests.support.instance import BIN, Instance
from tests.support.keys import Keys

ROOM = Path(bundling.__file__).parent


@pytest.fixture
def program(tmp_path: Path) -> Path:
    file = tmp_path / "incomingctl-submit"
    subprocess.run([sys.executable, "-m", "incomingd.client.bundle", file], check=True)
    return file


def test_it_needs_no_newer_python_than_3_8() -> None:
    found = subprocess.run(
        [BIN / "vermin", "--no-tips", "--violations", "--target=3.8-", ROOM], capture_output=True, text=True
    )
    assert found.returncode == 0, found.stdout
    assert "Minimum required versions: 3.8" in found.stdout


def test_the_same_source_gives_the_same_bytes(program: Path) -> None:
    assert program.read_bytes() == bundling.bundle()
    assert os.access(program, os.X_OK)
    assert program.stat().st_size < 100_000


def test_it_sends_signs_and_waits(program: Path, instance: Instance, keys: Keys, tmp_path: Path) -> None:
    key = keys.make("Old machine")
    assert instance.ctl("trust", keys.public(key)).returncode == 0
    deb = packages.binary(tmp_path, "hello", "1.0-1", "amd64")
    environment = {"GNUPGHOME": str(keys.home), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(
        # -I: of the interpreter's own library alone.
        [
            *("/usr/bin/python3", "-I", program, deb, "--to", instance.incoming, "--suite", "stable", "--key", key),
            *("--name", "from-an-old-machine", "--wait"),
        ],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "from-an-old-machine: SUCCEEDED: published in stable generation" in done.stdout
    assert "hello" in instance.ctl("list", "stable").stdout


FAULTS = {
    "no suite": (("hello.deb", "--to", "{incoming}"), 2),
    "a suite for a .changes": (("hello.changes", "--to", "{incoming}", "--suite", "stable"), 2),
    "an unknown key": (("hello.deb", "--to", "{incoming}", "--suite", "stable", "--key", "A" * 40), 1),
    "no package": (("broken.deb", "--to", "{incoming}", "--suite", "stable"), 1),
    "a name that is none": (("hello.deb", "--to", "{incoming}", "--suite", "stable", "--name", "a b"), 2),
    "no such folder": (("hello.deb", "--to", "{incoming}/none/at-all", "--suite", "stable", "--name", "x"), 5),
    "a host that is none": (("hello.deb", "--to=-oX:y", "--suite", "stable"), 2),
    "refused": (("hello.deb", "--to", "{incoming}", "--suite", "nowhere", "--wait", "--name", "refused"), 1),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_it_answers_as_incomingctl_does(fault: str, program: Path, instance: Instance, tmp_path: Path) -> None:
    words, code = FAULTS[fault]
    shutil.move(packages.binary(tmp_path, "hello", "1.0-1", "amd64"), tmp_path / "hello.deb")
    (tmp_path / "broken.deb").write_bytes(b"none")
    (tmp_path / "hello.changes").write_text("Files:\n 0 0 x y hello.deb\n")
    arguments = [word.format(incoming=instance.incoming) for word in words]
    told = []
    for command in ([program], [BIN / "incomingctl", "submit"]):
        done = subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == code, (done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        told.append((done.stdout + done.stderr).rpartition("Error: ")[2] if code != 1 or "refused" not in fault else "")
    assert told[0] == told[1]
