"""Runs a program that the operator has chosen over an upload: no shell, within limits, and without a network.

The program gets a session and an empty working folder of its own, which is also its ``HOME`` and ``TMPDIR`` and is
removed afterwards, nothing on standard input, and a bare environment. It may use so much time, and each of its
processes so much memory. It runs as the daemon's user, and may read and change only what
:func:`incomingd.sandbox.profiles.confine_program` leaves it: what it reads may get hold of it.

Between the daemon and the program stands ``python -m incomingd.verify.confined TERMS PROGRAM ARGUMENT…``: limits are
set in a process of their own. TERMS is a :class:`Terms` as JSON.
"""

import os
import resource
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from incomingd import codec
from incomingd.sandbox import environment, limits, profiles

#: The program that the launcher was to become cannot be started.
CANNOT_START = 127
#: What is read of standard output and of standard error; who says more is ended.
MOST_OUTPUT = 1 << 20
_LAUNCHER = (sys.executable, "-P", "-m", "incomingd.verify.confined")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a program is run with: the ``memory`` of each of its processes, the sealed upload's ``folder``, and what it
    may not see."""

    memory: int
    folder: Path
    hidden: tuple[Path, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a program ended: ``status`` as in ``Popen.returncode``, and what it said.

    ``over`` says which limit it passed, empty for none; then it was killed.
    """

    status: int
    output: str
    errors: str
    over: str = ""


class ClosedError(Exception):
    """The runner was closed while the program ran."""


class Runner:
    """Runs programs, several threads' at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    def run(self, command: Sequence[str], terms: Terms, seconds: float) -> Ended:
        """Run ``command`` to its end. Raises :class:`ClosedError`, and ``OSError`` where no process can be made."""
        with tempfile.TemporaryDirectory(prefix="incomingd-check-", ignore_cleanup_errors=True) as folder:
            process = self._start([*_LAUNCHER, codec.dumps(terms), *command], folder)
            try:
                output, errors, over = _said(process, seconds)
            finally:
                self._end(process)
        if self._closed:
            raise ClosedError
        return Ended(status=process.returncode, output=output, errors=errors, over=over)

    def _start(self, command: Sequence[str], folder: str) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._closed:
                raise ClosedError
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=folder,
                env=environment.bare(LC_ALL="C.UTF-8", HOME=folder, TMPDIR=folder),
                start_new_session=True,
            )
            self._running.add(process)
            return process

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Kill what is left of it, and wait for it."""
        with self._lock, process:
            # Once it has been waited for, its number may be another's.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            self._running.discard(process)

    def close(self) -> None:
        """Kill all that runs; whoever waits for it is told."""
        with self._lock:
            self._closed = True
            for process in self._running:
                os.killpg(process.pid, signal.SIGKILL)


def _said(process: subprocess.Popen[bytes], seconds: float) -> tuple[str, str, str]:
    """Standard output and error when it has ended, and the limit that it has passed before."""
    until = time.monotonic() + seconds
    pipes = [pipe for pipe in (process.stdout, process.stderr) if pipe is not None]
    heard = {pipe.fileno(): bytearray() for pipe in pipes}
    over = ""
    pid = os.pidfd_open(process.pid)
    try:
        with selectors.DefaultSelector() as selector:
            for fd in (pid, *heard):
                selector.register(fd, selectors.EVENT_READ)
            while selector.get_map() and not over:
                for key, _ in selector.select(max(until - time.monotonic(), 0)):
                    if not _more(process, heard, key.fd):
                        selector.unregister(key.fd)
                over = _over(heard, seconds, late=bool(selector.get_map()) and time.monotonic() >= until)
    finally:
        os.close(pid)
    output, errors = (data.decode("utf-8", "replace") for data in heard.values())
    return output, errors, over


def _more(process: subprocess.Popen[bytes], heard: Mapping[int, bytearray], fd: int) -> bool:
    """Take in what there is to read; False where nothing will follow."""
    if fd in heard:
        data = os.read(fd, 1 << 16)
        heard[fd] += data
        return bool(data)
    # It has ended. What it has left in the background would keep the pipes open.
    os.killpg(process.pid, signal.SIGKILL)
    return False


def _over(heard: Mapping[int, bytearray], seconds: float, *, late: bool) -> str:
    if late:
        return f"takes longer than {seconds:g} s"
    return f"says more than {MOST_OUTPUT >> 20} MiB" if max(map(len, heard.values())) > MOST_OUTPUT else ""


# -- the launcher -----------------------------------------------------------------------------------------------------


def main() -> None:
    """Set the limits, then become the program."""
    words, *command = sys.argv[1:]
    terms = codec.loads(words, Terms)
    limits.end_first()
    limits.at_most({resource.RLIMIT_CORE: 0, resource.RLIMIT_AS: terms.memory})
    limits.leave_network()
    profiles.confine_program(terms.folder, Path.cwd(), terms.hidden)
    try:
        os.execvp(command[0], command)  # noqa: S606  # no shell is the point
    except OSError as error:
        sys.stderr.write(f"{command[0]} cannot be started: {error.strerror}\n")
        sys.exit(CANNOT_START)


if __name__ == "__main__":
    main()
