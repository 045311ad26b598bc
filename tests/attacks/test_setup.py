"""Root sets up, or makes, an instance in a place that another account can change."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.accounts import DAEMON, MALLORY, own
from tests.support.instance import BIN
from tests.support.private_systemd import PROJECT

CTL = BIN / "incomingctl"


@pytest.fixture
def config(work: Path) -> Path:
    """The packaged configuration, for folders of this test; only ``etc`` is where the attack is."""
    for name in ("incoming", "claims", "status", "archive", "state", "etc"):
        (work / name).mkdir(mode=0o700 if name in ("claims", "state") else 0o755)
    text = (PROJECT / "conf/incomingd.toml").read_text()
    text = text.replace("/var/lib/incomingd", f"{work}/state").replace("/srv/incomingd", str(work))
    (work / "etc/incomingd.toml").write_text(text)
    return work / "etc/incomingd.toml"


def setup(config: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [str(CTL), "--config", str(config), "setup", "--yes", "--no-start", "--url", "http://x.example.org"]
    return subprocess.run([*command, *options], capture_output=True, text=True, stdin=subprocess.DEVNULL)


def refused(config: Path, why: str) -> None:
    folder = config.resolve().parent
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    done = setup(config, "--suite", "bookworm", "--web-server", "nginx")
    assert done.returncode == 2, done.stdout
    assert "root does not set up what another account could change" in done.stderr
    assert why in done.stderr
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("whose", ["file", "folder", "folder above", "link on the way"])
def test_a_configuration_that_another_account_could_swap_is_not_set_up(whose: str, config: Path, work: Path) -> None:
    """The owner of the folder could have root give it any file, by a link under the name that root writes."""
    if whose == "folder above":
        (work / "home").mkdir()
        theirs, named = work / "home", work / "home/etc/incomingd.toml"
        config.parent.rename(named.parent)
    elif whose == "link on the way":
        theirs, named = work / "link", work / "link/incomingd.toml"
        theirs.symlink_to(config.parent)
    else:
        theirs, named = (config if whose == "file" else config.parent), config
    os.chown(theirs, MALLORY, DAEMON, follow_symlinks=False)
    refused(named, f"{theirs} belongs to uid {MALLORY}, not to root")


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775])
def test_a_configuration_in_a_folder_that_others_may_write_is_not_set_up(mode: int, config: Path) -> None:
    os.chown(config.parent, 0, DAEMON)
    config.parent.chmod(mode)
    refused(config, f"{config.parent} has mode {mode:04o} and can be written by other accounts")


def test_a_group_without_a_name_is_no_error(config: Path, work: Path) -> None:
    for name in ("incoming", "claims", "status", "archive", "state"):
        own(work / name, DAEMON)
    done = setup(config)
    subprocess.run(["gpgconf", "--homedir", work / "state/gnupg/signing", "--kill", "all"], check=False)
    assert done.returncode == 0, done.stderr
    assert f"ACCOUNT is one that may write into {work}/incoming" in done.stdout
    before = config.read_bytes()
    done = setup(config, "--uploader", "nobody", "--suite", "trixie")
    assert done.returncode == 2
    assert f"belongs to the group {DAEMON}, which has no name; make it: groupadd" in done.stderr
    assert config.read_bytes() == before


def test_the_files_keep_their_group_and_mode(config: Path, work: Path) -> None:
    """The daemon may read it by its group, and no one else."""
    os.chown(config, 0, DAEMON)
    config.chmod(0o640)
    done = setup(config, "--suite", "bookworm")
    subprocess.run(["gpgconf", "--homedir", work / "state/gnupg/signing", "--kill", "all"], check=False)
    assert done.returncode == 0, done.stderr
    for file in (config, config.with_name("incomingd.toml.old")):
        status = file.stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (0, DAEMON, 0o640)


# -- init -------------------------------------------------------------------------------------------------------------


def init(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([CTL, "init", folder], capture_output=True, text=True, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("there", ["", "state", "state/gnupg", "state/gnupg/signing", "archive", "status"])
def test_init_does_not_use_a_folder_that_another_account_made(there: str, work: Path) -> None:
    theirs = work / "apt" / there
    theirs.mkdir(parents=True)
    os.chown(theirs, MALLORY, DAEMON)
    done = init(work / "apt")
    assert done.returncode == 2, done.stdout
    assert f"{theirs} belongs to uid {MALLORY}, not to root (uid 0); name a folder that is not there yet" in done.stderr
    assert not (work / "apt/incomingd.toml").exists()
    assert not (work / "apt/incoming").exists()


def test_init_does_not_run_what_another_account_has_written_for_gpg(work: Path) -> None:
    """gpg-agent starts the program that this file names, as the account that it serves."""
    ran, program = work / "ran", work / "pinentry"
    program.write_text(f"#!/bin/sh\nid -u >{ran}\n")
    program.chmod(0o755)
    home = work / "apt/state/gnupg/signing"
    home.mkdir(parents=True, mode=0o700)
    (home / "gpg-agent.conf").write_text(f"scdaemon-program {program}\npinentry-program {program}\n")
    own(home / "gpg-agent.conf", MALLORY)
    done = init(work / "apt")
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False)
    assert done.returncode == 2, done.stdout
    assert f"gpg-agent.conf belongs to uid {MALLORY}" in done.stderr
    assert not ran.exists()


def test_init_follows_no_link_of_another_account(work: Path) -> None:
    (work / "apt").mkdir()
    (work / "apt/state").symlink_to(work / "nowhere")
    os.chown(work / "apt/state", MALLORY, DAEMON, follow_symlinks=False)
    done = init(work / "apt")
    assert done.returncode == 2, done.stdout
    assert f"apt/state belongs to uid {MALLORY}" in done.stderr


@pytest.mark.parametrize("there", ["", "state", "state/gnupg"])
@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_init_does_not_use_a_folder_that_others_may_write(there: str, mode: int, work: Path) -> None:
    shared = work / "apt" / there
    shared.mkdir(parents=True)
    shared.chmod(mode)
    done = init(work / "apt")
    assert done.returncode == 2, done.stdout
    assert f"{shared} has mode {mode:04o} and can be written by other accounts" in done.stderr
    assert f"chmod go-w {shared}" in done.stderr


def test_init_goes_on_with_what_an_earlier_try_has_left(work: Path) -> None:
    (work / "apt/state/gnupg/signing").mkdir(parents=True, mode=0o700)
    done = init(work / "apt")
    subprocess.run(["gpgconf", "--homedir", work / "apt/state/gnupg/signing", "--kill", "all"], check=False)
    assert done.returncode == 0, done.stderr
