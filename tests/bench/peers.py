"""The tools that are measured: each takes an upload directory, and says how long until clients could see it."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

BIN = Path(sys.executable).parent


class Incomingd:
    """This project: from the rename into incoming to SUCCEEDED in the status file."""

    name = "incomingd"

    def __init__(self, folder: Path, public_key: Path) -> None:
        self.folder = folder
        command = [BIN / "incomingctl", "init", folder, "--trust", public_key, "--arch", "amd64"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def __enter__(self) -> Self:
        self.log = (self.folder / "daemon.log").open("w")
        command = [BIN / "incomingd", "--config", self.folder / "incomingd.toml"]
        self.daemon = subprocess.Popen(command, stderr=self.log)
        while not self._waits_for_uploads():
            if self.daemon.poll() is not None:
                raise RuntimeError((self.folder / "daemon.log").read_text())
            time.sleep(0.05)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.peak = self.memory_mb()
        self.daemon.send_signal(signal.SIGTERM)
        self.daemon.wait()
        self.log.close()

    def drop(self, upload: Path) -> None:
        """Copy under a hidden name, then rename: only the rename is on the clock's way."""
        hidden = self.folder / "incoming" / f".{upload.name}"
        shutil.copytree(upload, hidden)

    def _waits_for_uploads(self) -> bool:
        try:
            health = json.loads((self.folder / "status/index.json").read_bytes())["health"]
        except FileNotFoundError:
            return False
        return bool(health["pid"] == self.daemon.pid and health["doing"] == "waiting for uploads")

    def _ended(self, name: str) -> bool:
        try:
            status = json.loads((self.folder / "status" / f"{name}.json").read_bytes())
        except FileNotFoundError:
            return False
        if status["state"] == 3:
            raise RuntimeError(f"{name}: {status['problems']}")
        return bool(status["state"] == 2)

    def load(self, packages: Path) -> float:
        """Seconds to take in a tree of .deb files at once."""
        start = time.perf_counter()
        command = [
            BIN / "incomingctl",
            "--config",
            self.folder / "incomingd.toml",
            "import",
            "--suite",
            "stable",
            packages,
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start

    def one(self, upload: Path) -> float:
        """Seconds for one upload."""
        self.drop(upload)
        start = time.perf_counter()
        self.take(upload)
        return time.perf_counter() - start

    def take(self, upload: Path) -> None:
        """Rename what was dropped into incoming, and wait for its end."""
        incoming = self.folder / "incoming"
        (incoming / f".{upload.name}").rename(incoming / upload.name)
        while not self._ended(upload.name):
            time.sleep(0.001)

    def all_at_once(self, uploads: list[Path]) -> tuple[float, list[float]]:
        """Seconds for all, and for each, as one client sees them that waits for one after the other.

        They are published in the order of their renames. To poll all of them all the time would take half a core.
        """
        for upload in uploads:
            self.drop(upload)
        incoming = self.folder / "incoming"
        start = time.perf_counter()
        for upload in uploads:
            (incoming / f".{upload.name}").rename(incoming / upload.name)
        latencies = []
        for upload in uploads:
            while not self._ended(upload.name):
                time.sleep(0.005)
            latencies.append(time.perf_counter() - start)
        return latencies[-1], latencies

    def memory_mb(self) -> float:
        """Proportional memory of the daemon and its children, MB."""
        if self.daemon.poll() is not None:
            return self.peak
        pids = [self.daemon.pid, *descendants(self.daemon.pid)]
        return sum(proportional_kb(pid) for pid in pids) / 1024

    def written_kb(self) -> float:
        """kB that the daemon, its children and what they have waited for gave to write(2) and its like so far."""
        pids = [self.daemon.pid, *descendants(self.daemon.pid)]
        return sum(_written(pid) for pid in pids) / 1000


def descendants(pid: int) -> list[int]:
    """Every process below ``pid``; threads and processes may end while they are looked at."""
    children: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            children += [int(c) for c in (task / "children").read_text().split()]
    return children + [below for child in children for below in descendants(child)]


def _written(pid: int) -> int:
    """Bytes, ``wchar`` of proc(5); 0 where the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar:"))


def proportional_kb(pid: int) -> int:
    """Pss of one process, kB; 0 where it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


class Reprepro:
    """reprepro, signing too: include for each upload, processincoming for all at once.

    It writes what this project writes, .gz and .xz; or .gz alone, which is what it does where nothing is configured.
    """

    def __init__(self, folder: Path, key_home: Path, *, xz: bool = True) -> None:
        self.name = "reprepro" if xz else "reprepro, .gz only"
        self.folder, self.home = folder, key_home
        (folder / "conf").mkdir(parents=True)
        forms = ".gz .xz" if xz else ".gz"
        (folder / "conf/distributions").write_text(
            "Codename: stable\nArchitectures: amd64 source\nComponents: main\nSignWith: yes\n"
            f"DebIndices: Packages Release {forms}\nDscIndices: Sources Release {forms}\n"
        )
        (folder / "conf/incoming").write_text(
            f"Name: default\nIncomingDir: {folder}/incoming\nTempDir: {folder}/tmp\nDefault: stable\n"
        )
        for name in ("incoming", "tmp"):
            (folder / name).mkdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def _run(self, *arguments: str | Path) -> None:
        command = ["reprepro", "--silent", "--gnupghome", self.home, "-b", self.folder, *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def load(self, packages: Path) -> float:
        """Seconds to take in a tree of .deb files at once."""
        start = time.perf_counter()
        debs = sorted(packages.rglob("*.deb"))
        for first in range(0, len(debs), 5000):  # as many as a command line holds; the export comes once, at the end
            self._run("--export=never", "includedeb", "stable", *debs[first : first + 5000])
        self._run("export", "stable")
        return time.perf_counter() - start

    def one(self, upload: Path) -> float:
        """Seconds for one upload."""
        start = time.perf_counter()
        self._run("--ignore=wrongdistribution", "include", "stable", next(upload.glob("*.changes")))
        return time.perf_counter() - start

    def all_at_once(self, uploads: list[Path]) -> tuple[float, list[float]]:
        """Seconds for all in one run, and for each: what all take."""
        for upload in uploads:
            for file in upload.iterdir():
                shutil.copy(file, self.folder / "incoming")
        start = time.perf_counter()
        self._run("processincoming", "default")
        whole = time.perf_counter() - start
        return whole, [whole] * len(uploads)

    def memory_mb(self) -> float:
        """Not measured here: it is no daemon."""
        return float("nan")


class Aptly:
    """aptly, signing too: include and publish update for each upload, one publish for all at once."""

    name = "aptly"

    def __init__(self, folder: Path, key_home: Path) -> None:
        folder.mkdir(parents=True)
        self.folder, self.home = folder, key_home
        self.config = folder / "aptly.conf"
        settings = {"rootDir": str(folder / "root"), "architectures": ["amd64"], "gpgProvider": "gpg"}
        self.config.write_text(json.dumps(settings))
        self._run("repo", "create", "-distribution=stable", "-component=main", "bench")
        self._run("publish", "repo", "-batch", "-skip-contents", "bench")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def _run(self, *arguments: str | Path) -> None:
        command = ["aptly", f"-config={self.config}", *arguments]
        environment = {**os.environ, "GNUPGHOME": str(self.home)}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)

    def _publish(self) -> None:
        self._run("publish", "update", "-batch", "-skip-contents", "stable")

    def load(self, packages: Path) -> float:
        """Seconds to take in a tree of .deb files at once."""
        start = time.perf_counter()
        self._run("repo", "add", "bench", packages)
        self._publish()
        return time.perf_counter() - start

    def _include(self, *uploads: Path) -> None:
        keep = ["-no-remove-files", "-accept-unsigned", "-ignore-signatures", "-repo=bench"]
        self._run("repo", "include", *keep, *uploads)

    def one(self, upload: Path) -> float:
        """Seconds for one upload."""
        start = time.perf_counter()
        self._include(upload)
        self._publish()
        return time.perf_counter() - start

    def all_at_once(self, uploads: list[Path]) -> tuple[float, list[float]]:
        """Seconds for all in one run, and for each: what all take."""
        start = time.perf_counter()
        self._include(*uploads)
        self._publish()
        whole = time.perf_counter() - start
        return whole, [whole] * len(uploads)

    def memory_mb(self) -> float:
        """Not measured here: it is no daemon."""
        return float("nan")
