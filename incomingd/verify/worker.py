"""The process that reads what uploaders sent: within limits, one upload at a time, JSON in and JSON out.

Rules: it is forked from a process that has read nothing (:mod:`.forkserver`), and has one socket, to the daemon
(:mod:`.pool`, :mod:`.protocol`).

It has limits on memory, processor time, open files and file sizes, and its parent has one on the time. It may die of
any of them: the parent rejects that upload and starts another. It ends when its parent does, whatever it is doing.
"""

import contextlib
import ctypes
import errno
import faulthandler
import gc
import os
import queue
import resource
import signal
import socket
import threading
import traceback

from incomingd import codec
from incomingd.config import Config
from incomingd.errors import Retry
from incomingd.model import CheckReport
from incomingd.verify.check import Job, check
from incomingd.verify.commands import check_commands
from incomingd.verify.keyring import Keyring
from incomingd.verify.protocol import Request, receive, receive_with, send

#: What a worker may write anywhere: gpgv's status lines.
_FILE_SIZE = 1 << 20
_OPEN_FILES = 64
_PR_SET_NO_NEW_PRIVS = 38
#: What is wrong here is wrong with the machine, not with the upload.
_ENVIRONMENT = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EIO, errno.EROFS, errno.ESTALE),
    *(errno.ENOENT, errno.EACCES, errno.EPERM),
}


class _Worker:
    """Does the jobs that come over one socket."""

    def __init__(self, parent: socket.socket) -> None:
        self._parent = parent
        self._config: Config | None = None
        self._keyring: Keyring | None = None

    def serve(self, jobs: "queue.SimpleQueue[bytes]") -> None:
        send(self._parent, b"H", b"")
        while True:
            kind, data = self._answer(jobs.get())
            send(self._parent, kind, data)

    def _answer(self, data: bytes) -> tuple[bytes, bytes]:
        try:
            return b"R", self._check(codec.loads(data, Request))
        except Retry as failure:
            return b"T", str(failure).encode()
        except MemoryError:
            return b"M", b""
        except OSError as error:
            # bz2 and gzip raise OSError for bad data too, without a number; theirs would be a bug of ours.
            if error.errno in _ENVIRONMENT:
                return b"T", str(error).encode("utf-8", "replace")
            return b"C", _trace()
        except Exception:  # noqa: BLE001  # the parent logs it, and rejects this upload alone
            return b"C", _trace()

    def _check(self, request: Request) -> bytes:
        if request.config is not None:
            self._config = request.config
        if self._config is None or self._config.queue(request.queue) is None:
            raise Retry(f"the queue {request.queue} is not configured")
        if self._keyring is None or self._keyring.home != request.home:
            self._keyring = Keyring(request.home)
        _limit(self._config)
        judge = check_commands if request.commands else check
        report = judge(
            Job(
                folder=request.folder,
                seal=request.seal,
                queue=self._config.queue(request.queue),  # type: ignore[arg-type]  # it has just been looked up
                config=self._config,
                keyring=self._keyring.public,
                keys=self._keyring.load(),
                now=request.now,
                reading=lambda name: send(self._parent, b"F", name.encode()),
            )
        )
        return codec.dumps(report).encode()


def _trace() -> bytes:
    return traceback.format_exc(limit=-20)[-8000:].encode("utf-8", "replace")


def _limit(config: Config) -> None:
    """Memory as configured, and as much processor time from now on."""
    checks = config.checks
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    for what, most in (
        (resource.RLIMIT_AS, checks.worker_memory),
        (resource.RLIMIT_CPU, int(used + checks.worker_cpu) + 1),
    ):
        hard = resource.getrlimit(what)[1]
        resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _confine() -> None:
    """What holds for the whole life of the process, and for gpgv below it."""
    for what, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, _FILE_SIZE),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
    ):
        resource.setrlimit(what, (most, most))
    ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # systemd signals a whole unit. The daemon ends its workers, or an upload would look as if it had killed one.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    faulthandler.enable()


def _listen(parent: socket.socket, jobs: "queue.SimpleQueue[bytes]") -> None:
    """Take in jobs; when the parent is gone, end this process and all that it has started, at once."""
    try:
        while True:
            jobs.put(receive(parent)[1])
    except (EOFError, OSError, ValueError):
        os.killpg(os.getpid(), signal.SIGKILL)


def _work(parent: socket.socket) -> None:
    """Be a worker until the parent is gone."""
    os.setsid()  # what it starts ends with it
    jobs: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(parent, jobs), daemon=True).start()
    with contextlib.suppress(BrokenPipeError):
        _Worker(parent).serve(jobs)


def _fork(passed: socket.socket, asker: socket.socket) -> int:
    """A worker at the other end of ``passed``. This process has one thread, so nothing is left half done in it."""
    pid = os.fork()
    if pid:
        passed.close()
        return pid
    try:
        asker.close()
        _work(passed)
    except BaseException:  # noqa: BLE001  # it must not go on as the process that it was forked from
        traceback.print_exc()
    finally:
        os._exit(1)


def _ended(pid: int) -> int:
    """As ``Popen.returncode``."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> None:
    """Fork a worker whenever the parent asks for one, until it is gone. Each of them sees by itself that it is."""
    _confine()
    codec.prepare(Request, CheckReport)
    asker = socket.socket(fileno=os.dup(0))
    # Whatever else prints must not land among the frames.
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    gc.collect()
    gc.freeze()  # what was imported is no garbage: it need not be looked through, and stays shared
    send(asker, b"H", b"")
    with contextlib.suppress(EOFError, OSError):
        while True:
            _, data, passed = receive_with(asker)
            number = _fork(passed, asker) if passed else _ended(int(data))
            send(asker, b"A", str(number).encode())


if __name__ == "__main__":
    main()
