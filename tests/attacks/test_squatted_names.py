"""Names that the daemon uses in incoming, made by another account before the daemon does."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.accounts import ALICE, DAEMON, MALLORY, Guarded, run_as
from tests.support.instance import until
from tests.support.keys import Keys
from tests.support.uploads import Builder, Upload

SQUATS = {
    "a directory that everyone can write in": "mkdir -m 0777 DELAYED; mkdir -m 0777 DELAYED/3-day",
    "a link": "mkdir -m 0777 {elsewhere}/mine {elsewhere}/mine/3-day; ln -s {elsewhere}/mine DELAYED",
    "a file": "touch DELAYED",
}


@pytest.fixture
def key(keys: Keys) -> str:
    return keys.make("Alice")


@pytest.fixture
def delayed(guarded: Callable[..., Guarded], keys: Keys, key: str) -> Guarded:
    """An instance that takes delayed uploads, not started yet."""
    instance = guarded([keys.public(key)])
    instance.set("incoming.default", delayed=3)
    return instance


@pytest.fixture
def upload(work: Path, keys: Keys, key: str) -> Upload:
    return Builder(folder=work / "built", keys=keys, key=key).upload("hello", "1.0-1")


def is_made_well(folder: Path, owner: int = DAEMON) -> bool:
    """It is the daemon's, and others have the rights that they have in incoming."""
    if not folder.is_dir() or folder.is_symlink():
        return False
    status = folder.stat()
    # The group's bit cannot be given under every unit, and opens nothing.
    return status.st_uid == owner and stat.S_IMODE(status.st_mode) & ~stat.S_ISGID == 0o1770


@pytest.mark.parametrize("squat", SQUATS.values(), ids=SQUATS)
@pytest.mark.parametrize("as_root", [False, True], ids=["unit", "root"])
def test_the_folder_for_delayed_uploads_was_made_before(
    delayed: Guarded, upload: Upload, work: Path, squat: str, as_root: bool
) -> None:
    """What is delayed there could be changed for days; through a link it would lie in a folder of the attacker's."""
    elsewhere = work / "elsewhere"
    elsewhere.mkdir()
    elsewhere.chmod(0o777)
    if as_root:
        delayed.as_root()
    owner = 0 if as_root else DAEMON
    made = run_as(MALLORY, f"cd {delayed.incoming}; {squat.format(elsewhere=elsewhere)}")
    assert made.returncode == 0, made.stderr
    delayed.start()
    until(lambda: is_made_well(delayed.incoming / "DELAYED/3-day", owner), "the folder of the daemon's own")
    assert is_made_well(delayed.incoming / "DELAYED", owner)
    until(lambda: f"DELAYED belonged to uid {MALLORY}" in delayed.health(), "the word in health")
    assert not list(elsewhere.rglob("*.changes"))
    # Who uploads there is served.
    sent = run_as(ALICE, f"cp {upload.folder}/* {delayed.incoming}/DELAYED/0-day/")
    assert sent.returncode == 0, sent.stderr
    delayed.succeeded(upload.flat_name)


def test_the_folder_of_a_day_was_made_before(delayed: Guarded) -> None:
    delayed.start()
    until(lambda: is_made_well(delayed.incoming / "DELAYED/3-day"), "the folders")
    delayed.stop()
    (delayed.incoming / "DELAYED/3-day").rmdir()
    run_as(MALLORY, f"mkdir -m 0777 {delayed.incoming}/DELAYED/3-day; touch {delayed.incoming}/DELAYED/3-day/x.deb")
    delayed.start()
    until(lambda: is_made_well(delayed.incoming / "DELAYED/3-day"), "the folder of the daemon's own")
    until(lambda: f"3-day belonged to uid {MALLORY}" in delayed.health(), "the word in health")


def test_a_folder_of_the_daemons_own_that_is_too_open_gets_incomings_mode(delayed: Guarded) -> None:
    folder = delayed.incoming / "DELAYED"
    folder.mkdir()
    os.chown(folder, DAEMON, DAEMON)
    folder.chmod(0o777)
    delayed.start()
    until(lambda: is_made_well(folder), "the mode")
    assert "DELAYED" not in delayed.health()


PROBES = {
    "full directory": "mkdir -p .incomingd-probe/full",
    "closed directory": "mkdir -p .incomingd-probe/full; chmod 0 .incomingd-probe",
    "link": "ln -s / .incomingd-probe",
    "file": "touch .incomingd-probe",
}


@pytest.mark.parametrize("squat", PROBES.values(), ids=PROBES)
@pytest.mark.parametrize("as_root", [False, True], ids=["unit", "root"])
def test_the_name_of_the_probe_was_taken_before(
    guarded: Callable[..., Guarded], keys: Keys, key: str, upload: Upload, squat: str, as_root: bool
) -> None:
    instance = guarded([keys.public(key)])
    if as_root:
        instance.as_root()
    assert run_as(MALLORY, f"cd {instance.incoming}; {squat}").returncode == 0
    instance.start()
    name = upload.send_directory(instance.incoming)
    instance.succeeded(name)
    assert "cannot be written to" not in instance.health()
    assert "nothing can be renamed" not in instance.health()
    # What is another account's stays as it is; of the daemon's own nothing is left.
    assert [path.name for path in instance.incoming.glob(".incomingd-probe*")] == [".incomingd-probe"]
    assert (instance.incoming / ".incomingd-probe").lstat().st_uid == MALLORY


def test_a_probe_that_a_crash_left_is_removed(guarded: Callable[..., Guarded]) -> None:
    instance = guarded()
    for name in (".incomingd-probe", ".incomingd-probe-0123456789abcdef"):
        (instance.incoming / name).mkdir()
        os.chown(instance.incoming / name, DAEMON, DAEMON)
    instance.start()
    until(lambda: not list(instance.incoming.glob(".incomingd-probe*")), "the removal")
