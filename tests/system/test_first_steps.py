"""What ``incomingctl init`` prints to be typed next is typed here, as it stands, by a shell."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import packages
from tests.support.apt import Apt
from tests.support.instance import BIN, until
from tests.support.keys import Keys


@pytest.fixture
def shell(tmp_path: Path) -> Iterator["Shell"]:
    made = Shell(tmp_path / "here")
    yield made
    made.close()


class Shell:
    """A newcomer's: a home of its own, and nothing set."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.home = Path(tempfile.mkdtemp(prefix="incomingd-home-"))  # short, for the socket of gpg's agent
        kept = {name: value for name, value in os.environ.items() if name in ("LANG", "LC_ALL", "TMPDIR")}
        self.variables = {**kept, "HOME": str(self.home), "PATH": f"{BIN}:/usr/sbin:/usr/bin:/sbin:/bin"}
        self.daemon: subprocess.Popen[bytes] | None = None

    def type(self, line: str) -> str:
        done = subprocess.run(
            ["bash", "-c", line], cwd=self.folder, env=self.variables, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        return done.stdout

    def leave_running(self, line: str) -> None:
        self.daemon = subprocess.Popen(["bash", "-c", f"exec {line}"], cwd=self.folder, env=self.variables)

    def close(self) -> None:
        if self.daemon is not None:
            self.daemon.terminate()
            assert self.daemon.wait(60) == 0
        subprocess.run(["gpgconf", "--kill", "all"], env=self.variables, check=False)
        shutil.rmtree(self.home, ignore_errors=True)


@pytest.mark.parametrize("trusted", [False, True], ids=["nobody trusted yet", "with --trust"])
def test_from_init_to_a_package_that_apt_installs(shell: Shell, tmp_path: Path, trusted: bool) -> None:
    said = ""
    if trusted:
        shell.type("gpg --batch --passphrase '' --quick-gen-key ada@example.org ed25519 sign never")
        shell.type("gpg --armor --export ada@example.org >ada.asc")
        said = shell.type("incomingctl init example --trust ada.asc")
    else:
        said = shell.type("incomingctl init example")
    packages.binary(shell.folder, "hello", "1.0-1", "amd64")
    daemon, *rest = [line.strip() for line in said.splitlines() if line.startswith("  ")]
    shell.leave_running(daemon)
    index = shell.folder / "example/status/index.json"
    until(lambda: index.exists() and '"doing": "waiting for uploads"' in index.read_text(), "the daemon")
    assert rest[-1] == "apt-get update"
    source = re.fullmatch(r"echo '?(deb .*?)'? >/etc/apt/sources\.list\.d/incomingd\.list", rest[-2])
    assert source, rest
    for line in rest[:-2]:
        shell.type(line)
    assert len(rest) == (3 if trusted else 5)
    archive = shell.folder / "example/archive"
    assert f"file:{archive} stable main" in source[1]
    apt = Apt(tmp_path / "apt", archive.as_uri(), archive / "archive-keyring.asc")
    apt.update()
    assert apt.candidate("hello") == "1.0-1"


def test_keys_of_a_name_that_was_given_are_shown(shell: Shell) -> None:
    with Keys() as keys:
        key = keys.make("Ada")
        said = shell.type(f"incomingctl init plain --trust {keys.public(key)}")
    assert f"may upload: {key} (Ada <ada@example.org>)" in said
    assert f"--key {key} --wait" in said
