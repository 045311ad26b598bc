"""The process that reads what senders sent: confined, within limits, one upload at a time, JSON in and JSON out.

Rules: it is forked from a process that has read nothing but what the operator wrote (:mod:`.forkserver`), and has one
socket, to the daemon (:mod:`.pool`, :mod:`.protocol`). Before it takes a job it is confined to sealed uploads, the
uploaders' keyring and the system's programs and libraries (:mod:`incomingd.sandbox.profiles`); gpgv below it, too.

It has limits on memory, processor time, open files and file sizes, and its parent has one on the time. It may die of
any of them: the parent rejects that upload and starts another. It ends when its parent does, whatever it is doing.
"""

import contextlib
import errno
import faulthandler
import gc
import os
import resource
import select
import signal
import socket
import threading
import traceback

from incomingd import codec
from incomingd.config import Config
from incomingd.errors import ProgramKilled, Retry
from incomingd.model import CheckReport
from incomingd.sandbox import limits, profiles
from incomingd.verify import overrides, selftest
from incomingd.verify.authorise import Authorisation, authorise
from incomingd.verify.check import check
from incomingd.verify.commands import check_commands
from incomingd.verify.job import Job
from incomingd.verify.keyring import Keyring
from incomingd.verify.protocol import Note, Request, Settings, Step, memory, receive, receive_with, send

#: What a worker may write anywhere, if no signed text may be larger: such a text for gpgv, and gpgv's status lines.
_FILE_SIZE = 1 << 20
_OPEN_FILES = 64
#: What is wrong here is wrong with the machine, not with the upload.
_ENVIRONMENT = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EIO, errno.EROFS, errno.ESTALE),
    *(errno.ENOENT, errno.EACCES, errno.EPERM),
}


class _Known:
    """What the operator wrote: the configuration, the uploaders' keys and the override files.

    Read before a worker is forked, so that no worker has to, and again by each check: a file may have changed.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.config = settings.config
        self.keyring = Keyring(settings.home)
        self.system = profiles.system([settings.config.service.state.resolve()])

    def read(self) -> None:
        """Read what has changed. What cannot be read is told by the next check."""
        with contextlib.suppress(Retry):
            self.keyring.load()
        with contextlib.suppress(Retry):
            overrides.load(self.config.suites)


class _Worker:
    """Does the jobs that come over one socket."""

    def __init__(self, parent: socket.socket, note: Note, known: _Known) -> None:
        self._parent = parent
        self._note = note
        self._config = known.config
        self._keyring = known.keyring

    def serve(self) -> None:
        send(self._parent, b"H", b"")
        while True:
            kind, data = self._answer(receive(self._parent)[1])
            send(self._parent, kind, data)

    def _answer(self, data: bytes) -> tuple[bytes, bytes]:
        try:
            return b"R", self._check(codec.loads(data, Request))
        except ProgramKilled as failure:
            return b"K", str(failure).encode()
        except Retry as failure:
            return b"T", str(failure).encode()
        except MemoryError:
            return b"M", b""
        except OSError as error:
            # bz2 and gzip raise OSError for bad data too, without a number: that is a fault of this program.
            if error.errno in _ENVIRONMENT:
                return b"T", str(error).encode("utf-8", "replace")
            return b"C", _trace()
        except Exception:  # noqa: BLE001  # the parent logs it, and rejects this upload alone
            return b"C", _trace()

    def _check(self, request: Request) -> bytes:
        wanted = self._config.queue(request.queue)
        if wanted is None:
            raise Retry(f"the queue {request.queue} is not configured")
        _limit(self._config, request.step)
        self._note.write("")
        job = Job(
            folder=request.folder,
            seal=request.seal,
            queue=wanted,
            config=self._config,
            keyring=self._keyring.public,
            keys=self._keyring.load(),
            now=request.now,
            reading=self._note.write,
        )
        return codec.dumps(_take(request.step, job, request.authorisation)).encode()


def _take(step: Step, job: Job, authorisation: Authorisation | None) -> Authorisation | CheckReport:
    """One step with one upload."""
    if step is Step.AUTHORISE:
        return authorise(job)
    return check_commands(job) if step is Step.COMMANDS else check(job, authorisation)


def _trace() -> bytes:
    return traceback.format_exc(limit=-20)[-8000:].encode("utf-8", "replace")


def _limit(config: Config, step: Step) -> None:
    """Memory, and as much processor time as configured from now on."""
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    processor = int(used + config.checks.worker_cpu) + 1
    limits.at_most({resource.RLIMIT_AS: memory(step, config), resource.RLIMIT_CPU: processor}, raisable=True)


def _confine() -> None:
    """What holds for the process that workers are forked from, for all of them, and for gpgv below them."""
    limits.end_first()
    limits.at_most({resource.RLIMIT_CORE: 0, resource.RLIMIT_NOFILE: _OPEN_FILES})
    # systemd signals a whole unit. The daemon ends its workers, or an upload would look as if it had killed one.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    faulthandler.enable()
    profiles.confine_worker()


def _end_with(parent: socket.socket) -> None:
    """When the parent is gone, end this process and all that it has started, at once. Jobs do not wake it."""
    gone = select.poll()
    gone.register(parent, select.POLLRDHUP)
    gone.poll()
    os.kill(0, signal.SIGKILL)


def _work(parent: socket.socket, note: Note, known: _Known) -> None:
    """Be a worker until the parent is gone."""
    os.setsid()  # what it starts ends with it
    profiles.keep_in_session()
    limits.at_most({resource.RLIMIT_FSIZE: max(_FILE_SIZE, known.config.max_text)})
    # Of a thread that is there already landlock would take nothing away.
    profiles.confine_to_uploads([*known.settings.folders, *known.settings.files], known.system)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    with contextlib.suppress(BrokenPipeError, EOFError):
        _Worker(parent, note, known).serve()


def _fork(passed: socket.socket, note: Note, asker: socket.socket, known: _Known) -> int:
    """A worker at the other end of ``passed``. This process has one thread, so nothing is left half done in it."""
    pid = os.fork()
    if pid:
        passed.close()
        note.close()
        return pid
    try:
        asker.close()
        _work(passed, note, known)
    except BaseException:  # noqa: BLE001  # it must not go on as the process that it was forked from
        traceback.print_exc()
    finally:
        os._exit(1)


def _ended(pid: int) -> int:
    """As ``Popen.returncode``."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _serve(asker: socket.socket) -> None:
    """Fork a worker whenever the parent asks for one, until it is gone. Each of them sees by itself that it is."""
    known: _Known | None = None
    while True:
        kind, data, passed = receive_with(asker)
        if kind == b"S":
            known = _Known(codec.loads(data, Settings))
            continue
        if known and len(passed) == 2:
            known.read()
            number = _fork(socket.socket(fileno=passed[0]), Note(passed[1]), asker, known)
        else:
            number = _ended(int(data))
        send(asker, b"A", str(number).encode())


def main() -> None:
    """Be the process that workers are forked from."""
    unsound = selftest.fault()
    _confine()
    codec.prepare(Request, Settings, CheckReport, Authorisation)
    asker = socket.socket(fileno=os.dup(0))
    # Whatever else prints must not land among the frames.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    gc.collect()
    gc.freeze()  # what was imported is no garbage: it need not be looked through, and stays shared
    send(asker, b"H", unsound.encode())
    with contextlib.suppress(EOFError, OSError):
        _serve(asker)


if __name__ == "__main__":
    main()
