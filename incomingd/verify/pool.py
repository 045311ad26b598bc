"""The workers that check uploads, as many as there are cores; each is replaced when it dies.

A worker that crashes, hangs or answers what cannot be (:mod:`.answers`) costs the one upload that it was reading: that
one is rejected, and the next worker starts. If a signal from outside has ended it, the upload may not be to blame: it
is tried again a few times (:class:`~incomingd.errors.WorkerKilled`). A worker that cannot be started, and what fails on
the machine's side, raises :class:`~incomingd.errors.Retry`: nothing of the upload is to blame. If the checks fail their
own test (:mod:`.selftest`), there are no workers, and what needs one raises :class:`~incomingd.errors.Halt`.

There are two kinds of them: those that verify signatures and decide who may upload never read a package. So a package
that gets hold of a worker can say what it likes of itself, and nothing of who has signed it.

A worker may read the files that were there when it was forked. If a file is another one since then (the keyring after
``incomingctl trust``), or the configuration, the worker is replaced before its next check.
"""

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from incomingd import codec, rules
from incomingd.config import Config, QueueConfig
from incomingd.errors import Halt, Retry, WorkerKilled
from incomingd.model import ChangesSummary, CheckReport, Problem, Seal, plain
from incomingd.verify import answers
from incomingd.verify.authorise import Authorisation
from incomingd.verify.external import External
from incomingd.verify.forkserver import ForkServer
from incomingd.verify.protocol import TEXTS, Note, Request, Settings, Step, memory, receive, send

log = logging.getLogger(__name__)

#: -P: nothing is imported from the folder that the daemon happens to be in.
_COMMAND = (sys.executable, "-P", "-m", "incomingd.verify.worker")
#: Seconds until a new worker is there.
_START = 60.0
#: Seconds in which a worker that closed its end is gone.
_MOMENT = 1.0
#: Seconds after which a worker that has had nothing to do is ended: at rest they cost no memory.
_IDLE = 30.0
#: After so many checks a worker is replaced, and after one that left it larger than this many bytes. A worker that an
#: upload has got hold of could say what it likes of those that come after; a new one costs as much as two checks.
_MAX_CHECKS, _MAX_SIZE = 100, 96 << 20
#: Signals by which a process ends itself: a crash, or a limit of its own. All others came from outside.
_OWN_ENDS = frozenset(
    {
        *(signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS),
        *(signal.SIGXCPU, signal.SIGXFSZ, signal.SIGPIPE),
    }
)
_PAGE = os.sysconf("SC_PAGE_SIZE")
#: Asked once: each time it reads a file of the kernel's, four times for an upload.
_CORES = os.cpu_count() or 1
#: Bytes of what a worker says in words, or of its trace, that are told or logged.
_MOST_WORDS = 8000
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """The last frame of a check."""

    kind: bytes
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Terms:
    """What a worker is forked with; ``files`` says which files its settings meant then."""

    settings: Settings
    files: tuple[tuple[int, int] | None, ...]

    def hold(self, now: "_Terms") -> bool:
        """True if a worker that is forked now would have the same."""
        return now.settings is self.settings and self.files == now.files


class _OutdatedError(Retry):
    """A check failed, and by now the worker's terms are others."""


class _DiedError(Exception):
    """No answer came. ``file`` is what was being read, ``late`` says whether the time was over."""

    def __init__(self, file: str | None, *, late: bool) -> None:
        super().__init__(file)
        self.file = file
        self.late = late


class _Worker:
    """One worker process, from :meth:`start` on."""

    def __init__(self, server: ForkServer, terms: "_Terms", *, texts: bool) -> None:
        self.terms = terms
        self.texts = texts  # all that it reads is what is signed
        self.rested_at = 0.0
        self.ended_alone = False
        self.checks = 0
        self._server = server
        self._socket: socket.socket | None = None
        self._note: Note | None = None
        self._statm = -1  # kept open: it is read after each check
        self._pid = 0  # none yet, or no longer its own
        self._killed = False
        self._ending = threading.Lock()

    def check(self, request: bytes, seconds: float) -> _Answer:
        """Have one upload checked. Raises :class:`_DiedError`, and ``Retry`` where the worker never was there."""
        to = self.start()
        try:
            if to.gettimeout() != seconds:
                to.settimeout(seconds)
            send(to, b"J", request)
            kind, data = receive(to, seconds)
        except TimeoutError:
            raise _DiedError(self.reading(), late=True) from None
        except (EOFError, OSError, ValueError):
            raise _DiedError(self.reading(), late=False) from None
        self.checks += 1
        return _Answer(kind=kind, data=data)

    def reading(self) -> str | None:
        """The file that it was looking into when it gave no report, as it says."""
        name = self._note.read() if self._note else None
        return None if name is None else plain(name)

    def start(self) -> socket.socket:
        """Have it there. Raises ``Retry`` if it does not come, and ``Halt`` if the self-test failed."""
        if self._socket is not None:
            return self._socket
        ours, theirs = socket.socketpair()
        note = Note()
        try:
            with theirs:
                pid = self._server.fork(theirs, note, self.terms.settings)
            with self._ending:
                self._pid = pid
            if self._killed:  # before it was there
                raise Retry("the daemon ends")
            receive(ours, _START)
        except (EOFError, OSError, ValueError) as error:
            ours.close()
            note.close()
            raise Retry(f"a check worker does not start; see the daemon's log ({error})") from error
        except (Retry, Halt):
            ours.close()
            note.close()
            raise
        self._socket, self._note = ours, note
        return ours

    def kill(self) -> None:
        """Kill it and all that it has started; whoever waits for its answer is told."""
        with self._ending:
            self._killed = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)  # it ends itself then, even where its parent is gone
            # Its number is its own for as long as its parent is there, which has not been asked to wait for it.
            if self._pid and self._server.is_there():
                for kill in (os.killpg, os.kill):
                    with contextlib.suppress(ProcessLookupError):
                        kill(self._pid, signal.SIGKILL)

    def end(self) -> int | None:
        """How it ended by itself, if it does so within a moment, as in ``Popen.returncode``; else kill it."""
        if not self._pid:
            return None
        until = time.monotonic() + _MOMENT
        while not self._has_ended() and time.monotonic() < until:
            time.sleep(0.005)
        self.ended_alone = self._has_ended()
        self.kill()  # also what it has started
        if self._socket is not None:
            self._socket.close()
        if self._note is not None:
            self._note.close()
            self._note = None
        if self._statm >= 0:
            os.close(self._statm)
            self._statm = -1
        with self._ending:
            ended, self._pid = self._server.wait(self._pid), 0
            return ended

    def _has_ended(self) -> bool:
        """True where it has, still without waiting for it."""
        status = Path(f"/proc/{self._pid}/stat")
        try:
            return status.read_bytes().rpartition(b")")[2].split()[0] in (b"Z", b"X")
        except OSError:
            return True

    def discard(self) -> None:
        """Kill it, and wait for it."""
        self.kill()
        self.end()

    def worn(self) -> bool:
        """True where a new one would be better."""
        if self.checks >= _MAX_CHECKS or self.texts:  # what a text may be is small
            return self.checks >= _MAX_CHECKS
        try:
            if self._statm < 0:
                self._statm = os.open(f"/proc/{self._pid}/statm", os.O_RDONLY | os.O_CLOEXEC)
            pages = int(os.pread(self._statm, 100, 0).split()[1])
        except (OSError, IndexError):  # it has just ended
            return True
        return pages * _PAGE > _MAX_SIZE


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A sealed upload in ``folder``: ``seal`` is what sealing came to, ``now`` the time that signatures and dates are
    judged by."""

    folder: Path
    seal: Seal
    queue: QueueConfig
    now: datetime

    def request(self, step: Step, authorisation: Authorisation | None = None) -> Request:
        """What a worker is asked."""
        return Request(
            step=step,
            folder=self.folder,
            seal=self.seal,
            queue=self.queue.name,
            now=self.now,
            authorisation=authorisation,
        )


def _failed(task: Task, authorisation: Authorisation | None, problem: Problem) -> CheckReport:
    """The report of a check that came to no end."""
    problems = (*(authorisation.problems if authorisation else ()), *task.seal.problems, problem)
    summaries = authorisation.summaries if authorisation else _summaries(task)
    return CheckReport(summaries=summaries, changes=(), problems=problems, warnings=())


def _summaries(task: Task) -> tuple[ChangesSummary, ...]:
    """Of .changes that could not be read."""
    names = sorted(entry.name for entry in task.seal.files if entry.name.endswith(".changes"))
    return tuple(ChangesSummary(file=name) for name in names)


def _lines(data: bytes) -> list[str]:
    """What a worker says, for a message or the log: so much of it, and nothing that would look like another line."""
    return [plain(line) for line in data[-_MOST_WORDS:].decode("utf-8", "replace").splitlines()]


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file a name means now; one that is replaced is another one."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _how(ended: int | None) -> str:
    if ended is None:
        return "a status that is not known"
    return f"the signal {signal.Signals(-ended).name}" if ended < 0 else f"the status {ended}"


class Checkers:
    """The pool. What it does may be asked by several threads at once; workers start when they are needed."""

    def __init__(
        self, config: Config, home: Path, folders: Iterable[Path], *, command: Sequence[str] = _COMMAND
    ) -> None:
        """``home`` is the uploaders' gnupg home (:class:`~incomingd.verify.keyring.Keyring`).

        All uploads lie in ``folders``, which have to be there: nothing else can be read.
        """
        self._settings = Settings(config=config, home=home, folders=tuple(folders))
        self._files = self._settings.files
        self._command = command
        self._server: ForkServer | None = None
        self._lock = threading.Lock()
        self._free = {texts: threading.Condition(self._lock) for texts in (True, False)}
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self._closed = False
        #: Why no upload can be checked: the self-test failed. :meth:`warm` tries again.
        self.unsound: Halt | None = None
        self._external = External()

    def authorise(self, task: Task) -> Authorisation:
        """Decide on the sealed .changes of an upload; waits for a free worker. Raises ``Retry`` and
        ``Halt``."""
        found, _ = self._ask(task.request(Step.AUTHORISE), Authorisation)
        if isinstance(found, Problem):
            return Authorisation(refused=True, summaries=_summaries(task), problems=(*task.seal.problems, found))
        return found

    def commands(self, task: Task) -> CheckReport:
        """Read the sealed .commands file of an upload; waits as :meth:`authorise`, and raises the same."""
        found, _ = self._ask(task.request(Step.COMMANDS), CheckReport)
        return _failed(task, None, found) if isinstance(found, Problem) else found

    def check(self, task: Task, authorisation: Authorisation | None) -> CheckReport:
        """Check a sealed upload that is authorised by this; None if it is packages without a .changes. Waits as
        :meth:`authorise`, and raises the same."""
        found, config = self._ask(task.request(Step.CHECK, authorisation), CheckReport)
        if isinstance(found, Problem):
            return _failed(task, authorisation, found)
        return self._external.check(task.folder, task.seal, found, config)

    def _ask(self, request: Request, kind: type[_T]) -> tuple[_T | Problem, Config]:
        """What a worker finds, and by which configuration; a problem if the worker came to no end."""
        try:
            return self._ask_one(request, kind)
        except _OutdatedError:
            return self._ask_one(request, kind)

    def _ask_one(self, request: Request, kind: type[_T]) -> tuple[_T | Problem, Config]:
        worker = self._take(texts=request.step in TEXTS)
        config, keep = worker.terms.settings.config, False
        found: _T | Problem
        try:
            answer = worker.check(codec.dumps(request).encode(), config.checks.worker_time)
            found = self._found(answer, worker, request, kind, config)
            # One that answers what cannot be may be an upload's by now.
            keep = not worker.worn() and not (isinstance(found, Problem) and found.code == rules.CHECK_CRASHED.code)
        except _DiedError as death:
            found = self._buried(worker, death, config)
        except Retry as failure:
            if not worker.terms.hold(self._terms()):
                raise _OutdatedError(str(failure)) from failure
            raise
        except Halt as failure:
            self.unsound = failure
            raise
        finally:
            self._give_back(worker, keep=keep)
        return found, config

    def warm(self) -> None:
        """Have a worker ready: the first upload need not wait for Python to start. Raises ``Retry`` and ``Halt``."""
        worker = self._take(texts=True)
        keep = False
        try:
            worker.start()
            self.unsound = None
            keep = True
        except Halt as failure:
            self.unsound = failure
            raise
        finally:
            self._give_back(worker, keep=keep)

    def _found(
        self, answer: _Answer, worker: _Worker, request: Request, kind: type[_T], config: Config
    ) -> _T | Problem:
        if answer.kind == b"R":
            try:
                found = codec.loads(answer.data, kind)
            except (codec.CodecError, RecursionError) as error:
                log.error("a check worker answered nonsense: %s", plain(error))
                return rules.CHECK_CRASHED.problem("its report cannot be read", file=worker.reading())
            fault = next(answers.faults(found, request, config), "")
            if not fault:
                return found
            log.error("a check worker's report on %s is not true, and an upload may be why: %s", request.folder, fault)
            return rules.CHECK_CRASHED.problem("its report is not true", file=worker.reading())
        if answer.kind == b"T":
            raise Retry(" ".join(_lines(answer.data)))
        if answer.kind == b"K":
            words = " ".join(_lines(answer.data))
            raise WorkerKilled(rules.CHECK_CRASHED.problem(words, file=worker.reading()), words)
        if answer.kind == b"M":
            words = f"reading it takes more than {memory(request.step, config) >> 20} MiB of memory"
            return rules.CHECK_MEMORY.problem(words, file=worker.reading())
        log.error("a bug ended the check of %s:\n    %s", worker.reading(), "\n    ".join(_lines(answer.data)))
        return rules.CHECK_CRASHED.problem(
            "an internal error of incomingd ended its check; the daemon's log has the details", file=worker.reading()
        )

    def _take(self, *, texts: bool) -> _Worker:
        with self._lock:
            while not self._closed and sum(one.texts is texts for one in self._busy) >= self._most():
                self._free[texts].wait()
            if self._closed:
                raise Retry("the daemon ends")
            terms = self._terms()
            outdated = [worker for worker in self._idle if not worker.terms.hold(terms)]
            self._idle = [worker for worker in self._idle if worker not in outdated]
            # The one that rested least, so that the others come to rest.
            worker = next((one for one in reversed(self._idle) if one.texts is texts), None)
            if worker is None:
                worker = _Worker(self._fork_server(), terms, texts=texts)
            else:
                self._idle.remove(worker)
            self._busy.add(worker)
        for other in outdated:
            other.discard()
        return worker

    def _terms(self) -> _Terms:
        return _Terms(settings=self._settings, files=tuple(map(_identity, self._files)))

    def _fork_server(self) -> ForkServer:
        if self._server is None or not self._server.is_there():
            self._server = ForkServer(self._command)
        return self._server

    def _most(self) -> int:
        return self._settings.config.service.workers or _CORES

    def _tell_all(self) -> None:
        for free in self._free.values():
            free.notify_all()

    def _give_back(self, worker: _Worker, *, keep: bool) -> None:
        worker.rested_at = time.monotonic()
        with self._lock:
            self._busy.discard(worker)
            alike = sum(one.texts is worker.texts for one in (*self._idle, *self._busy))
            keep = keep and not self._closed and alike < self._most()
            if keep:
                self._idle.append(worker)
            self._free[worker.texts].notify()
        if not keep:
            worker.discard()

    def _buried(self, worker: _Worker, death: _DiedError, config: Config) -> Problem:
        """Why a worker gave no answer: its one upload is rejected for it. Raises ``Retry`` if it was ended here, and
        :class:`~incomingd.errors.WorkerKilled` if something else has ended it."""
        seconds, processor = config.checks.worker_time, config.checks.worker_cpu
        if death.late:
            worker.kill()
        ended = worker.end()
        if self._closed:
            raise Retry("the daemon ends")
        log.warning("a check worker ended (%s) while it read %s", ended, death.file)
        if death.late:
            return rules.CHECK_TIMEOUT.problem(f"reading it took longer than {seconds:g} s", file=death.file)
        if ended == -signal.SIGXCPU:
            found = f"reading it took more than {processor:g} s of processor time"
            return rules.CHECK_TIMEOUT.problem(found, file=death.file)
        found = f"the process that read it ended with {_how(ended)}"
        problem = rules.CHECK_CRASHED.problem(found, file=death.file)
        if worker.ended_alone and (ended is None or (ended < 0 and -ended not in _OWN_ENDS)):
            raise WorkerKilled(problem, found)
        return problem

    def rest(self) -> float:
        """End workers that have been idle for long; the seconds until the next one will have been."""
        now = time.monotonic()
        with self._lock:
            tired = [worker for worker in self._idle if now - worker.rested_at >= _IDLE]
            self._idle = [worker for worker in self._idle if worker not in tired]
            due = min((worker.rested_at + _IDLE - now for worker in self._idle), default=float("inf"))
        for worker in tired:
            worker.discard()
        return due

    def reload(self, config: Config) -> None:
        """Take up a new configuration: from the next check on."""
        with self._lock:
            self._settings = replace(self._settings, config=config)
            self._files = self._settings.files
            self._tell_all()

    def close(self) -> None:
        """End all workers; checks that are under way end with ``Retry``."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            for worker in self._busy:
                worker.kill()
            self._tell_all()
        self._external.close()
        for worker in idle:
            worker.discard()
        if self._server is not None:
            self._server.close()
