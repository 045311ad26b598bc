"""A real systemd as process 1 of namespaces of its own: it shares nothing with this machine but programs and kernel."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.instance import until

_BOOT = Path(__file__).with_suffix(".sh")
_SYSTEMD = Path("/lib/systemd/systemd")
PROJECT = Path(__file__).parents[2]
#: What a private systemd has of its own, and so does not see of this machine.
_OWN = tuple(map(Path, ("/run", "/srv", "/var", "/root", "/home", "/tmp")))


class UnavailableError(Exception):
    """Why there can be none here."""


def _hidden(folders: Sequence[Path]) -> list[Path]:
    return [folder for folder in dict.fromkeys(folders) if any(own in folder.parents for own in _OWN)]


#: What the daemon of this checkout needs to run, where it has to be shown.
NEEDED = _hidden([Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), PROJECT])


class PrivateSystemd:
    """Use it as a context: booted at the beginning, gone with all that it runs at the end.

    ``installable``: programs can be installed in there; this machine sees nothing of it.
    """

    def __init__(self, *, installable: bool = False) -> None:
        _require()
        self._options = ["--installable"] if installable else []
        self._cgroup = Path(tempfile.mkdtemp(prefix="incomingd-test-", dir=_cgroup2()))
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed at the end of the context
        self._boot: subprocess.Popen[bytes] | None = None
        self.pid = 0

    def __enter__(self) -> Self:
        self._boot = subprocess.Popen(
            ["bash", _BOOT, self._cgroup, *self._options, *NEEDED],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        try:
            self.pid = until(self._init, "a first process")
            until(self._is_up, "the boot of a private systemd")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._boot is not None:
            self._boot.kill()  # unshare's --kill-child ends process 1, and the kernel all the others
            self._boot.wait()
        until(self._remove_cgroup, "the end of all processes")
        self._log.close()

    def _init(self) -> int:
        assert self._boot is not None
        assert self._boot.poll() is None, f"it did not boot: {self._said()}"
        children = Path(f"/proc/{self._boot.pid}/task/{self._boot.pid}/children").read_text().split()
        return int(children[0]) if children else 0

    def _is_up(self) -> bool:
        assert self._boot is not None
        assert self._boot.poll() is None, f"it did not boot: {self._said()}"
        # Until it has become systemd the mounts are still being made.
        if Path(f"/proc/{self.pid}/exe").readlink() != _SYSTEMD.resolve():
            return False
        return self.run("systemctl", "is-active", "--quiet", "basic.target", check=False).returncode == 0

    def _said(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-3000:]

    def _remove_cgroup(self) -> bool:
        try:
            for folder, _, _ in os.walk(self._cgroup, topdown=False):
                Path(folder).rmdir()
        except OSError:
            return False
        return True

    def run(
        self, *command: str | Path, check: bool = True, data: bytes = b"", user: str = "", groups: str = ""
    ) -> subprocess.CompletedProcess[bytes]:
        """Run something in there, as root or as ``user`` (a name or a number, its group the same)."""
        become: list[str] = []
        if user:
            become = ["setpriv", f"--reuid={user}", f"--regid={user}"]
            become.append(f"--groups={groups}" if groups else "--clear-groups")
        done = subprocess.run(
            [
                "nsenter",
                "-t",
                str(self.pid),
                "-a",
                "env",
                "-i",
                "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
                *become,
                *command,
            ],
            input=data,
            capture_output=True,
        )
        if check and done.returncode:
            said = (done.stdout + done.stderr).decode(errors="replace")
            raise AssertionError(f"{' '.join(map(str, command))} ended with {done.returncode}: {said}")
        return done

    @contextlib.contextmanager
    def memory_limit(self, unit: str, most: int) -> Iterator[Callable[[], int]]:
        """Give a service that runs so many bytes; the function tells how many processes the kernel has killed for it.

        By ``MemoryMax=``; or, if this machine has memory in the first version's hierarchy, by a group of that: the
        kernel kills in the same way, and systemd sees no more than a process that was killed.
        """
        unified = self._cgroup / "system.slice" / unit
        if (unified / "memory.max").exists():
            self.systemctl("set-property", "--runtime", unit, f"MemoryMax={most}", "MemorySwapMax=0")
            yield lambda: _counted(unified / "memory.events")
            return
        group = Path(tempfile.mkdtemp(prefix="incomingd-test-", dir="/sys/fs/cgroup/memory"))
        (group / "memory.limit_in_bytes").write_text(str(most))
        try:
            for pid in (unified / "cgroup.procs").read_text().split():
                (group / "cgroup.procs").write_text(pid)
            yield lambda: _counted(group / "memory.oom_control")
        finally:
            for pid in (group / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    (group.parent / "cgroup.procs").write_text(pid)
            until(lambda: _removed(group), "the end of a memory group")

    def systemctl(self, *words: str) -> str:
        """What ``systemctl`` says; it must end well."""
        return self.run("systemctl", "--no-pager", *words).stdout.decode()

    def write(self, path: Path | str, text: str) -> None:
        """A file in there."""
        self.run("install", "-D", "-m", "0644", "/dev/stdin", path, data=text.encode())


def _counted(events: Path) -> int:
    return int(re.findall(r"^oom_kill (\d+)$", events.read_text(), re.MULTILINE)[0])


def _removed(group: Path) -> bool:
    try:
        group.rmdir()
    except OSError:
        return False
    return True


def _require() -> None:
    if os.geteuid() != 0:
        raise UnavailableError("a private systemd needs root, for namespaces and mounts")
    missing = [name for name in ("unshare", "nsenter", "setpriv", "mount") if not shutil.which(name)]
    missing += [] if _SYSTEMD.exists() else ["systemd"]
    if missing:
        raise UnavailableError(f"a private systemd needs {', '.join(missing)}")
    tried = subprocess.run(
        ["unshare", "--pid", "--mount", "--uts", "--ipc", "--cgroup", "--fork", "--mount-proc", "true"],
        capture_output=True,
    )
    if tried.returncode:
        raise UnavailableError(f"no namespaces can be had here: {tried.stderr.decode().strip()}")
    _cgroup2()


def _cgroup2() -> Path:
    """Where this machine has the unified hierarchy; in it, the cgroup of this process."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, kind = line.partition(" - ")
        if kind.startswith("cgroup2 ") and "rw" in kind.split()[-1].split(","):
            own = next(x for x in Path("/proc/self/cgroup").read_text().splitlines() if x.startswith("0::"))
            mounted = Path(fields.split()[4])
            inside = mounted / own[3:].strip("/")
            return inside if inside.is_dir() else mounted
    raise UnavailableError("no cgroup2 is mounted here for writing")
