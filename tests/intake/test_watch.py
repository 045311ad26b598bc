"""The real watch, in a process of its own: what it hears, what it misses, and that it comes back."""

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from incomingd.errors import ConfigError
from incomingd.intake import preflight, watch
from tests.intake.conftest import changes_text, make_config, needs_root

#: For events that have to come; what must not wait for a scan is told by a count of looks, not by a clock.
PATIENCE = 30.0
BACKENDS = ["inotify", "polling"] + ([] if watch.unavailable("pyinotify") else ["pyinotify"])
ROOT = Path(__file__).parents[2]


class Runner:
    """An intake in its own process, and what it said."""

    def __init__(self, folder: Path, backend: str = "inotify", prefix: tuple[str, ...] = (), **settings: str) -> None:
        self.incoming = folder / settings.get("path", "incoming")
        self.work = folder / "work"
        self.incoming.mkdir(exist_ok=True, parents=True)
        self.work.mkdir(exist_ok=True)
        self.process = subprocess.Popen(
            [
                *prefix,
                sys.executable,
                "-m",
                "tests.intake.runner",
                str(folder),
                json.dumps({"watch": backend, **settings}),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.said: list[dict[str, Any]] = []
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.await_line(lambda line: "ready" in line)
        self.await_line(lambda line: "faults" in line)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)

    def await_line(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while True:
            line = json.loads(self._lines.get(timeout=max(end - time.monotonic(), 0.01)))
            self.said.append(line)
            if wanted(line):
                return line

    def await_claim(self, name: str) -> None:
        self.await_line(lambda line: line.get("claimed") == name)

    def await_fault(self, *words: str) -> None:
        self.await_line(lambda line: any(all(w in fault for w in words) for fault in line.get("faults", ())))

    def await_no_fault(self) -> None:
        self.await_line(lambda line: line.get("faults") == [])

    def upload(self, folder: Path, name: str, *, whole: bool = True) -> Path:
        path = folder / name
        path.mkdir()
        (path / "hello.changes").write_text(changes_text(hello_deb=3))
        if whole:
            (path / "hello.deb").write_bytes(b"deb")
        return path

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Runner]]:
    running: list[Runner] = []

    def start(backend: str = "inotify", **more: Any) -> Runner:
        running.append(Runner(tmp_path, backend, **more))
        return running[-1]

    yield start
    for runner in running:
        runner.stop()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_rename_within_incoming_is_heard_as_one(run: Callable[..., Runner], backend: str) -> None:
    runner = run(backend)
    hidden = runner.upload(runner.incoming, ".job-1", whole=False)
    if backend == "polling":
        time.sleep(2.5)  # it has to be in a poll under its first name
    hidden.rename(runner.incoming / "job-1")
    runner.await_claim("job-1")  # it is incomplete: only as one that was renamed in is it taken


@pytest.mark.parametrize("backend", [b for b in BACKENDS if b != "polling"])
def test_a_rename_from_outside_is_told_from_a_mkdir(run: Callable[..., Runner], backend: str) -> None:
    runner = run(backend)
    runner.upload(runner.incoming, "in-place", whole=False)
    runner.upload(runner.work, "job-1", whole=False).rename(runner.incoming / "job-1")
    runner.await_claim("job-1")
    assert {"claimed": "in-place"} not in runner.said
    (runner.incoming / "in-place" / "hello.deb").write_bytes(b"deb")
    runner.await_claim("in-place")


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_ways_in_at_once(run: Callable[..., Runner], backend: str) -> None:
    runner = run(backend)
    for number in range(30):
        runner.upload(runner.incoming, f"in-place-{number}")
        runner.upload(runner.work, f"outside-{number}").rename(runner.incoming / f"outside-{number}")
        (runner.incoming / "hello.deb").write_bytes(b"deb")
        (runner.incoming / f"flat-{number}.changes").write_text(changes_text(hello_deb=3))
    wanted = {f"{way}-{number}" for way in ("in-place", "outside", "flat") for number in range(30)}
    while wanted:
        wanted.discard(runner.await_line(lambda line: "claimed" in line)["claimed"])


def test_a_name_that_is_no_utf8_deafens_nobody(run: Callable[..., Runner]) -> None:
    for backend in BACKENDS:
        runner = run(backend)
        (runner.work / os.fsdecode(b"j\xf6b")).mkdir()
        (runner.work / os.fsdecode(b"j\xf6b")).rename(runner.incoming / os.fsdecode(b"j\xf6b"))
        runner.upload(runner.work, f"job-{backend}").rename(runner.incoming / f"job-{backend}")
        runner.await_claim(f"job-{backend}")
        runner.stop()


def test_an_incoming_directory_that_is_made_anew_is_watched_again(run: Callable[..., Runner]) -> None:
    runner = run()
    for number in (1, 2):
        runner.upload(runner.work, f"job-{number}", whole=False).rename(runner.incoming / f"job-{number}")
        runner.await_claim(f"job-{number}")
        runner.incoming.rmdir()
        runner.await_fault(str(runner.incoming), "cannot be read")
        runner.incoming.mkdir()
        runner.await_no_fault()


def test_one_that_is_moved_away_and_replaced_is_not_watched_any_more(run: Callable[..., Runner]) -> None:
    runner = run()
    runner.incoming.rename(runner.work / "old")
    runner.incoming.mkdir()
    time.sleep(1.5)  # a periodic look
    runner.upload(runner.work, "job-1", whole=False).rename(runner.incoming / "job-1")
    runner.await_claim("job-1")


def _can_unshare(*options: str) -> bool:
    return shutil.which("unshare") is not None and (
        subprocess.run(["unshare", *options, "true"], capture_output=True).returncode == 0
    )


@needs_root
@pytest.mark.skipif(not _can_unshare("--mount"), reason="needs a mount namespace")
def test_one_that_is_unmounted_and_mounted_between_two_looks_is_watched_again(
    run: Callable[..., Runner], tmp_path: Path
) -> None:
    """Nothing that stat(2) tells has changed then: only the kernel knows that the watch is gone."""
    image, disk = tmp_path / "image", tmp_path / "disk"
    image.touch()
    os.truncate(image, 8 << 20)
    disk.mkdir()
    mount = f"mount -o loop {image} {disk}"
    prepare = f"mkfs.ext4 -q {image} && {mount} && mkdir {disk}/incoming {disk}/claims"
    if subprocess.run(["unshare", "--mount", "sh", "-c", prepare], capture_output=True).returncode != 0:
        pytest.skip("needs mkfs.ext4 and a loop device")
    prefix = ("unshare", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh")
    runner = run(prefix=prefix, path="disk/incoming", claims="disk/claims")
    inside = ["nsenter", f"--mount=/proc/{runner.process.pid}/ns/mnt", "sh", "-ec"]
    runner.process.send_signal(signal.SIGSTOP)
    subprocess.run([*inside, f"umount {disk}; {mount}; mkdir -p {runner.incoming}/.job"], check=True)
    runner.process.send_signal(signal.SIGCONT)
    time.sleep(7)  # longer than from one look after the watch to the next
    subprocess.run([*inside, f"mv {runner.incoming}/.job {runner.incoming}/job"], check=True)
    runner.await_claim("job")  # it is incomplete: only as one that was renamed in is it taken
    assert all(line["faults"] == [] for line in runner.said if "faults" in line)


def test_an_overflow_of_the_kernels_queue_loses_nobody(run: Callable[..., Runner]) -> None:
    runner = run()
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 100_000:
        pytest.skip("the queue is too long to fill")
    runner.process.send_signal(signal.SIGSTOP)
    try:
        for number in range(limit // 2 + 1000):  # each is an open, a close and a creation
            (runner.incoming / f".filler-{number % 50}").touch()
            (runner.incoming / f".filler-{number % 50}").unlink()
        for number in range(20):
            runner.upload(runner.work, f"job-{number}").rename(runner.incoming / f"job-{number}")
    finally:
        runner.process.send_signal(signal.SIGCONT)
    wanted = {f"job-{number}" for number in range(20)}
    while wanted:
        wanted.discard(runner.await_line(lambda line: "claimed" in line)["claimed"])
    runner.await_fault("the watch missed them", "max_queued_events")


@pytest.mark.skipif(not _can_unshare("--user", "--map-root-user"), reason="needs a user namespace")
@pytest.mark.parametrize("backend", [b for b in BACKENDS if b != "polling"])
@pytest.mark.parametrize("limit", ["max_inotify_watches", "max_inotify_instances"])
def test_without_a_watch_the_periodic_scan_goes_on(run: Callable[..., Runner], backend: str, limit: str) -> None:
    shell = f'echo 0 > /proc/sys/user/{limit} && exec "$@"'
    runner = run(backend, prefix=("unshare", "--user", "--map-root-user", "sh", "-c", shell, "sh"))
    assert any("inotify.max_user" in fault and "periodic scan" in fault for fault in runner.said[-1]["faults"])
    runner.upload(runner.work, "job-1").rename(runner.incoming / "job-1")
    runner.await_claim("job-1")


def test_a_back_end_that_cannot_be_imported_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyinotify", None)
    with pytest.raises(ConfigError) as caught:
        preflight(make_config(tmp_path, watch="pyinotify"))
    (error,) = caught.value.errors
    assert "[incoming.default] watch" in error
    assert '"inotify"' in error
    preflight(make_config(tmp_path, watch="inotify"))
