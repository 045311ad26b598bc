"""What a machine can do to the daemon: each fault is told clearly, loses nothing, and ends when it is mended."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.instance import Instance, until
from tests.support.uploads import Builder

NOBODY = 65534
#: root, without the power to read and write whatever it likes: as any other account, but one that has a Python.
POWERLESS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")


def can(*command: str) -> bool:
    return bool(shutil.which(command[0])) and subprocess.run([*command, "true"], capture_output=True).returncode == 0


needs_powerless = pytest.mark.skipif(
    os.geteuid() != 0 or not can(*POWERLESS), reason="needs root, and setpriv to give up its powers"
)
needs_mounts = pytest.mark.skipif(not can("unshare", "--mount"), reason="needs a mount namespace of its own")


def log_of(instance: Instance, name: str) -> str:
    status = instance.status(name)
    return "\n".join(line["message"] for line in status["log"]) if status else ""


# -- configuration ----------------------------------------------------------------------------------------------------


def test_every_error_of_a_broken_configuration_is_told_at_once(idle: Instance) -> None:
    idle.set("publish", batch=0, zstandard=True)
    idle.set("incoming.default", settle="soon")
    for words in ((), ("--check-config",), ("--once",)):
        done = idle.run("incomingd", *words)
        assert done.returncode == 2
        for expected in ("[publish] batch", "zstandard", "[incoming.default] settle", str(idle.config)):
            assert expected in done.stderr
    assert idle.ctl("list").returncode == 2


def test_a_broken_configuration_is_refused_and_the_old_one_kept(instance: Instance, builder: Builder) -> None:
    text = instance.config.read_text()
    instance.config.write_text(text.replace("[archive]", "[archiv]"))
    instance.reload()
    until(lambda: "the old one kept" in instance.health(), "the refusal")
    assert "archiv" in instance.health()
    instance.succeeded(builder.upload("hello").send_directory(instance.incoming))
    instance.config.write_text(text)
    instance.reload()
    until(lambda: instance.health() == "ok: ", "an end of the complaint")


def test_a_second_daemon_is_refused(instance: Instance) -> None:
    done = instance.run("incomingd", "--once")
    assert done.returncode == 4
    assert "another incomingd runs" in done.stderr


# -- incoming ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder on another file system."""
    shm = Path("/dev/shm")
    if not os.access(shm, os.W_OK) or shm.stat().st_dev == Path(tempfile.gettempdir()).stat().st_dev:
        pytest.skip("there is no second file system here")
    folder = Path(tempfile.mkdtemp(prefix="incomingd-", dir=shm))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_incoming_on_another_file_system(idle: Instance, builder: Builder, elsewhere: Path) -> None:
    incoming = elsewhere / "incoming"
    incoming.mkdir()
    idle.set("incoming.default", path=str(incoming))
    idle.start()
    upload = builder.upload("hello")
    name = upload.send_directory(incoming)
    until(lambda: "claims" in log_of(idle, name), "the reason in the upload's log")
    assert "claims" in idle.health()
    assert "file system" in idle.health()
    assert (incoming / name / upload.changes.name).exists()
    idle.set("incoming.default", claims=str(elsewhere / "claims"))
    idle.reload()
    idle.succeeded(name)


@needs_powerless
def test_an_incoming_folder_that_cannot_be_written(idle: Instance, builder: Builder) -> None:
    idle.prefix = POWERLESS
    os.chown(idle.incoming, NOBODY, NOBODY)
    idle.start()
    upload = builder.upload("hello")
    name = upload.send_directory(idle.incoming)
    until(lambda: "Permission denied" in log_of(idle, name), "the reason in the upload's log")
    assert str(idle.incoming) in idle.health()
    assert (idle.incoming / name / upload.changes.name).exists()
    os.chown(idle.incoming, 0, 0)
    idle.succeeded(name)


def test_an_incoming_folder_that_is_gone_for_a_while(idle: Instance, builder: Builder) -> None:
    idle.set("service", scan_interval="0.5s")
    idle.start()
    idle.incoming.rmdir()
    until(lambda: "cannot be read" in idle.health(), "a word about it")
    idle.incoming.mkdir()
    idle.succeeded(builder.upload("hello").send_directory(idle.incoming))
    until(lambda: idle.health() == "ok: ", "an end of the complaint")


@needs_powerless
def test_an_upload_that_cannot_be_read(idle: Instance, builder: Builder) -> None:
    idle.prefix = POWERLESS
    idle.start()
    upload = builder.upload("hello")
    deb = upload.file("*.deb")
    deb.chmod(0o600)
    os.chown(deb, NOBODY, NOBODY)
    shutil.move(upload.folder, idle.incoming / upload.name)  # keeps the owner
    assert idle.failed(upload.name) == ["unreadable-file"]
    kept = idle.state / "rejected" / str(idle.wait(upload.name)["id"])
    until(lambda: [file.suffix for file in kept.rglob("*.changes")] == [".changes"], "what is kept of it")
    idle.succeeded(builder.upload("spring").send_directory(idle.incoming))


# -- signing ----------------------------------------------------------------------------------------------------------


def test_without_a_signing_key_nothing_is_published_and_nothing_lost(idle: Instance, builder: Builder) -> None:
    secrets = idle.state / "gnupg/signing/private-keys-v1.d"
    away = idle.root / "away"
    secrets.rename(away)
    idle.start()
    until(lambda: idle.health().startswith("halted: no usable signing key"), "the halt")
    name = builder.upload("hello").send_directory(idle.incoming)
    until(lambda: (idle.status(name) or {"stage": ""})["stage"] == "queued", "its being taken in")
    assert idle.ctl("status").returncode == 4
    waited = idle.ctl("wait", name, "--timeout", "30")
    assert waited.returncode == 4
    assert "no usable signing key" in waited.stderr
    assert not (idle.archive / "pool").exists() or not list((idle.archive / "pool").rglob("*.deb"))
    shutil.rmtree(secrets, ignore_errors=True)
    away.rename(secrets)
    idle.reload()
    idle.succeeded(name)
    until(lambda: idle.health() == "ok: ", "an end of the halt")
    assert idle.ctl("status").returncode == 0


def test_once_says_by_its_exit_status_that_it_is_halted(idle: Instance) -> None:
    idle.set("archive", signing_keys=["0" * 40])
    done = idle.run("incomingd", "--once")
    assert done.returncode == 4
    assert "0" * 40 in done.stderr


# -- disks ------------------------------------------------------------------------------------------------------------


class SmallDisk:
    """A tmpfs of a few MB over one folder of an instance, in a mount namespace of the daemon's own."""

    def __init__(self, instance: Instance, folder: str) -> None:
        self.instance, self.folder = instance, instance.root / folder
        saved = instance.root / "saved"
        script = (
            f"cp -a {self.folder} {saved} && mount -t tmpfs -o size=6m none {self.folder} "
            f'&& cp -a {saved}/. {self.folder} && exec "$@"'
        )
        instance.prefix = ("unshare", "--mount", "sh", "-c", script, "sh")

    @property
    def inside(self) -> Path:
        """The folder as the daemon sees it."""
        assert self.instance.daemon is not None
        return Path(f"/proc/{self.instance.daemon.pid}/root{self.folder}")

    def fill(self) -> None:
        with (self.inside / "filler").open("wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(4096))
            except OSError:
                return

    def free(self) -> None:
        (self.inside / "filler").unlink()


@needs_mounts
def test_a_full_archive(idle: Instance, builder: Builder) -> None:
    disk = SmallDisk(idle, "archive")
    idle.start()
    idle.succeeded(builder.upload("hello", "1.0-1").send_directory(idle.incoming))
    disk.fill()
    names = [builder.upload(name).send_directory(idle.incoming) for name in ("spring", "summer")]
    for name in names:
        until(lambda name=name: "No space left" in log_of(idle, name), "the reason in the upload's log")
        status = idle.status(name)
        assert status is not None
        assert status["state_name"] == "RUNNING"
    until(lambda: "No space left" in idle.health(), "health to tell of it")
    disk.free()
    for name in names:
        idle.succeeded(name)
    until(lambda: idle.health() == "ok: ", "an end of the complaint")
    assert len(list((disk.inside / "pool").rglob("*.deb"))) == 3


@needs_mounts
def test_a_full_state(idle: Instance, builder: Builder) -> None:
    """Neither the journal nor a sealed copy can be written: what is in incoming stays there until it can."""
    disk = SmallDisk(idle, "state")
    idle.set("incoming.default", claims=str(idle.root / "claims"))
    idle.start()
    disk.fill()
    upload = builder.upload("hello", "1.0-1", content="x" * 100_000)
    name = upload.send_directory(idle.incoming)
    until(lambda: "full" in idle.health() or "No space left" in idle.health(), "a word about it")
    assert idle.daemon is not None
    assert idle.daemon.poll() is None, idle.log()
    disk.free()
    idle.succeeded(name)


# -- ends -------------------------------------------------------------------------------------------------------------


def test_a_stop_in_the_middle_loses_nothing(instance: Instance, builder: Builder) -> None:
    uploads = [builder.upload(f"hello{number}") for number in range(10)]
    names = [upload.send_directory(instance.incoming) for upload in uploads]
    until(lambda: instance.status(names[-1]), "the last one being seen")
    assert instance.stop() == 0
    assert instance.health().startswith("stopped")
    instance.start()
    for name in names:
        instance.succeeded(name)


def test_check_workers_that_are_killed_cost_no_upload(instance: Instance, builder: Builder) -> None:
    uploads = [builder.upload(f"hello{number}") for number in range(5)]
    names = [upload.send_directory(instance.incoming) for upload in uploads]
    assert instance.daemon is not None
    for child in children_of(instance.daemon.pid):
        for one in (*children_of(child), child):
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
    for name in names:
        instance.succeeded(name)


def children_of(pid: int) -> list[int]:
    """The processes that any thread of one has started."""
    return [int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()]
