"""The workers that check uploads, as many as there are cores; each is replaced when it dies.

A worker that dies, hangs or answers nonsense costs the one upload that it was reading: that one is rejected, and the
next worker starts. A worker that cannot be started, and what fails on the machine's side, raises
:class:`~incomingd.errors.Retry`: nothing of the upload is to blame.
"""

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from incomingd import codec, rules
from incomingd.config import Config, QueueConfig
from incomingd.errors import Retry
from incomingd.model import ChangesSummary, CheckReport, Problem, Seal
from incomingd.verify.external import External
from incomingd.verify.forkserver import ForkServer
from incomingd.verify.protocol import Request, receive, send

log = logging.getLogger(__name__)

#: -P: nothing is imported from the folder that the daemon happens to be in.
_COMMAND = (sys.executable, "-P", "-m", "incomingd.verify.worker")
#: Seconds until a new worker is there.
_START = 60.0
#: Seconds in which a worker that closed its end is gone.
_MOMENT = 1.0
#: Seconds after which a worker that has had nothing to do is ended: at rest they cost no memory.
_IDLE = 30.0
#: After so many checks a worker is replaced, and after one that left it larger than this many bytes.
_MAX_CHECKS, _MAX_SIZE = 500, 96 << 20
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """The last frame of a check."""

    kind: bytes
    data: bytes
    file: str | None


class _DiedError(Exception):
    """No answer came. ``file`` is what was being read, ``late`` says whether the time was over."""

    def __init__(self, file: str | None, *, late: bool) -> None:
        super().__init__(file)
        self.file = file
        self.late = late


class _Worker:
    """One worker process, from :meth:`start` on."""

    def __init__(self, server: ForkServer) -> None:
        self.config: Config | None = None
        self.rested_at = 0.0
        self.checks = 0
        self._server = server
        self._socket: socket.socket | None = None
        self._pid = 0  # none yet, or no longer its own
        self._killed = False
        self._ending = threading.Lock()

    def check(self, request: bytes, seconds: float) -> _Answer:
        """Have one upload checked. Raises :class:`_DiedError`, and ``Retry`` where the worker never was there."""
        to = self.start()
        until, file = time.monotonic() + seconds, None
        try:
            to.settimeout(seconds)
            send(to, b"J", request)
            while True:
                to.settimeout(max(until - time.monotonic(), 0.001))
                kind, data = receive(to)
                if kind != b"F":
                    self.checks += 1
                    return _Answer(kind=kind, data=data, file=file)
                file = data.decode("utf-8", "replace")
        except TimeoutError:
            raise _DiedError(file, late=True) from None
        except (EOFError, OSError, ValueError):
            raise _DiedError(file, late=False) from None

    def start(self) -> socket.socket:
        """Have it there. Raises ``Retry`` where it does not come."""
        if self._socket is not None:
            return self._socket
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                pid = self._server.fork(theirs)
            with self._ending:
                self._pid = pid
            if self._killed:  # before it was there
                raise Retry("the daemon ends")
            ours.settimeout(_START)
            receive(ours)
        except (EOFError, OSError, ValueError) as error:
            ours.close()
            raise Retry(f"a check worker does not start; see the daemon's log ({error})") from error
        except Retry:
            ours.close()
            raise
        self._socket = ours
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
        self.kill()  # also what it has started
        if self._socket is not None:
            self._socket.close()
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
        if self.checks >= _MAX_CHECKS:
            return True
        try:
            pages = int(Path(f"/proc/{self._pid}/statm").read_text(encoding="ascii").split()[1])
        except OSError:  # it has just ended
            return True
        return pages * _PAGE > _MAX_SIZE


def _failed(seal: Seal, problem: Problem) -> CheckReport:
    """The report of a check that came to no end."""
    names = sorted(entry.name for entry in seal.files if entry.name.endswith(".changes"))
    summaries = tuple(ChangesSummary(file=name) for name in names)
    return CheckReport(summaries=summaries, changes=(), problems=(*seal.problems, problem), warnings=())


def _how(ended: int | None) -> str:
    if ended is None:
        return "a status that is not known"
    return f"the signal {signal.Signals(-ended).name}" if ended < 0 else f"the status {ended}"


class Checkers:
    """The pool. :meth:`check` may be called by several threads at once; workers start when they are needed."""

    def __init__(self, config: Config, home: Path, *, command: Sequence[str] = _COMMAND) -> None:
        """``home`` is the uploaders' gnupg home (:class:`~incomingd.verify.keyring.Keyring`)."""
        self._config = config
        self._home = home
        self._command = command
        self._server: ForkServer | None = None
        self._free = threading.Condition()
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self._closed = False
        self._external = External()

    def check(
        self, folder: Path, seal: Seal, queue: QueueConfig, now: datetime, *, commands: bool = False
    ) -> CheckReport:
        """Check the sealed upload in ``folder``; waits for a free worker. Raises ``Retry``.

        ``seal`` is what sealing came to, ``now`` the time that signatures and dates are judged by; ``commands``: it
        is a .commands file.
        """
        worker, config = self._take()
        keep = False
        try:
            request = Request(
                folder=folder,
                seal=seal,
                queue=queue.name,
                home=self._home,
                now=now,
                config=None if worker.config is config else config,
                commands=commands,
            )
            worker.config = config
            answer = worker.check(codec.dumps(request).encode(), config.checks.worker_time)
            report = self._report(answer, seal, config)
            keep = not worker.worn()
        except _DiedError as death:
            return _failed(seal, self._buried(worker, death, config))
        finally:
            self._give_back(worker, keep=keep)
        return self._external.check(folder, seal, report, config)

    def warm(self) -> None:
        """Have a worker ready: the first upload need not wait for Python to start. Raises ``Retry``."""
        worker, _ = self._take()
        keep = False
        try:
            worker.start()
            keep = True
        finally:
            self._give_back(worker, keep=keep)

    def _report(self, answer: _Answer, seal: Seal, config: Config) -> CheckReport:
        if answer.kind == b"R":
            try:
                return codec.loads(answer.data, CheckReport)
            except (codec.CodecError, RecursionError) as error:
                log.error("a check worker answered nonsense: %s", error)
                return _failed(seal, rules.CHECK_CRASHED.problem("its report cannot be read", file=answer.file))
        if answer.kind == b"T":
            raise Retry(answer.data.decode("utf-8", "replace"))
        if answer.kind == b"M":
            most = config.checks.worker_memory
            found = f"reading it takes more than {most >> 20} MiB of memory"
            return _failed(seal, rules.CHECK_MEMORY.problem(found, file=answer.file))
        log.error("a bug ended the check of %s:\n%s", answer.file, answer.data.decode("utf-8", "replace"))
        return _failed(seal, rules.CHECK_CRASHED.problem("reading it failed by a bug of ours", file=answer.file))

    def _take(self) -> tuple[_Worker, Config]:
        with self._free:
            while not self._closed and not self._idle and len(self._busy) >= self._most():
                self._free.wait()
            if self._closed:
                raise Retry("the daemon ends")
            # The one that rested least, so that the others come to rest.
            worker = self._idle.pop() if self._idle else _Worker(self._fork_server())
            self._busy.add(worker)
            return worker, self._config

    def _fork_server(self) -> ForkServer:
        if self._server is None or not self._server.is_there():
            self._server = ForkServer(self._command)
        return self._server

    def _most(self) -> int:
        return self._config.service.workers or os.cpu_count() or 1

    def _give_back(self, worker: _Worker, *, keep: bool) -> None:
        worker.rested_at = time.monotonic()
        with self._free:
            self._busy.discard(worker)
            keep = keep and not self._closed and len(self._idle) + len(self._busy) < self._most()
            if keep:
                self._idle.append(worker)
            self._free.notify()
        if not keep:
            worker.discard()

    def _buried(self, worker: _Worker, death: _DiedError, config: Config) -> Problem:
        """Why a worker gave no answer: its one upload is rejected for it. Raises ``Retry`` where it was ended here."""
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
        how = _how(ended)
        return rules.CHECK_CRASHED.problem(f"the process that read it ended with {how}", file=death.file)

    def rest(self) -> float:
        """End workers that have been idle for long; the seconds until the next one will have been."""
        now = time.monotonic()
        with self._free:
            tired = [worker for worker in self._idle if now - worker.rested_at >= _IDLE]
            self._idle = [worker for worker in self._idle if worker not in tired]
            due = min((worker.rested_at + _IDLE - now for worker in self._idle), default=float("inf"))
        for worker in tired:
            worker.discard()
        return due

    def reload(self, config: Config) -> None:
        """Take up a new configuration: from the next check on."""
        with self._free:
            self._config = config
            self._free.notify_all()

    def close(self) -> None:
        """End all workers; checks that are under way end with ``Retry``."""
        with self._free:
            self._closed = True
            idle, self._idle = self._idle, []
            for worker in self._busy:
                worker.kill()
            self._free.notify_all()
        self._external.close()
        for worker in idle:
            worker.discard()
        if self._server is not None:
            self._server.close()
