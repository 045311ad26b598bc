"""The workers that check uploads, as many as there are cores; each is replaced when it dies.

A worker that dies, hangs or answers nonsense costs the one upload that it was reading: that one is rejected, and the
next worker starts. What fails before an upload was read is the environment's doing and raises
:class:`~incomingd.errors.Retry`.
"""

import contextlib
import logging
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from datetime import datetime
from pathlib import Path

from incomingd import codec, rules
from incomingd.config import Config, QueueConfig
from incomingd.errors import Retry
from incomingd.model import CheckReport, Seal
from incomingd.verify.worker import MAX_MESSAGE, Reply, Request, failed

log = logging.getLogger(__name__)

#: Seconds after which a worker that has had nothing to do is ended: at rest they cost no memory.
_IDLE = 30.0


class _DiedError(Exception):
    """The worker's answer did not come; ``timed_out`` says whether it was ended for taking too long."""

    def __init__(self, *, timed_out: bool) -> None:
        super().__init__()
        self.timed_out = timed_out


class _Worker:
    """One worker process."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "incomingd.verify.worker"]
        try:
            # A session of its own: what it has started ends with it.
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
            )
        except OSError as error:
            raise Retry(f"no check worker can be started: {error}") from error
        self.config: Config | None = None
        self.rested_at = 0.0

    def ask(self, request: bytes, seconds: float) -> bytes:
        """Its answer. Raises :class:`_DiedError`."""
        process = self._process
        assert process.stdin is not None  # noqa: S101  # both are pipes
        assert process.stdout is not None  # noqa: S101
        until = time.monotonic() + seconds
        try:
            process.stdin.write(struct.pack(">I", len(request)) + request)
            process.stdin.flush()
        except OSError as error:
            raise _DiedError(timed_out=False) from error
        size = struct.unpack(">I", self._read(4, until))[0]
        if size > MAX_MESSAGE:
            raise _DiedError(timed_out=False)
        return self._read(size, until)

    def _read(self, count: int, until: float) -> bytes:
        assert self._process.stdout is not None  # noqa: S101
        fd = self._process.stdout.fileno()
        data = bytearray()
        while len(data) < count:
            ready, _, _ = select.select([fd], [], [], max(until - time.monotonic(), 0.0))
            if not ready:
                raise _DiedError(timed_out=True)
            chunk = os.read(fd, min(count - len(data), 1 << 20))
            if not chunk:
                raise _DiedError(timed_out=False)
            data += chunk
        return bytes(data)

    def kill(self) -> None:
        """Kill it and all that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def end(self) -> int:
        """Kill it, and wait for it; how it ended, as in ``Popen.returncode``."""
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        return self._process.wait()

    def died_of(self) -> int:
        """How it has ended by itself, waited for a moment; 0 where it has not."""
        try:
            return self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return 0


class Checkers:
    """The pool. :meth:`check` may be called by several threads at once."""

    def __init__(self, config: Config, home: Path) -> None:
        self._config = config
        self._home = home
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self._slots = threading.BoundedSemaphore(config.service.workers or os.cpu_count() or 1)
        self._closed = False

    def check(self, folder: Path, seal: Seal, queue: QueueConfig, now: datetime) -> CheckReport:
        """Check the sealed upload in ``folder``. Raises ``Retry``."""
        config = self._config
        with self._slots:
            worker = self._take()
            request = Request(
                folder=folder,
                seal=seal,
                queue=queue.name,
                home=self._home,
                now=now,
                config=None if worker.config is config else config,
            )
            worker.config = config
            try:
                answer = worker.ask(codec.dumps(request).encode("utf-8"), config.checks.worker_time)
                reply = codec.loads(answer, Reply)
            except (_DiedError, codec.CodecError) as failure:
                return self._buried(worker, failure)
            self._give_back(worker)
        if reply.report is None:
            raise Retry(reply.retry or "a check worker gave no reason")
        return reply.report

    def _take(self) -> _Worker:
        with self._lock:
            if self._closed:
                raise Retry("the daemon ends")
            worker = self._idle.pop() if self._idle else _Worker()
            self._busy.add(worker)
            return worker

    def _give_back(self, worker: _Worker) -> None:
        worker.rested_at = time.monotonic()
        with self._lock:
            self._busy.discard(worker)
            if not self._closed:
                self._idle.append(worker)
                return
        worker.end()

    def _buried(self, worker: _Worker, failure: Exception) -> CheckReport:
        """A dead worker's report: its one upload is rejected."""
        died_of = 0 if isinstance(failure, _DiedError) and failure.timed_out else worker.died_of()
        with self._lock:
            self._busy.discard(worker)
        worker.end()
        if self._closed:
            raise Retry("the daemon ends")
        log.warning("a check worker ended (%d): %s", died_of, failure)
        if isinstance(failure, _DiedError) and (failure.timed_out or died_of == -signal.SIGXCPU):
            return failed(rules.CHECK_TIMEOUT.problem("reading it took longer than is allowed"))
        if died_of in (-signal.SIGKILL, -signal.SIGSEGV, -signal.SIGABRT):
            return failed(rules.CHECK_CRASHED.problem(f"reading it was ended by {signal.Signals(-died_of).name}"))
        return failed(rules.CHECK_CRASHED.problem(f"reading it failed (status {died_of}; see the daemon's log)"))

    def rest(self) -> float:
        """End workers that have been idle for long; the seconds until the next one will have been."""
        now = time.monotonic()
        with self._lock:
            tired = [worker for worker in self._idle if now - worker.rested_at >= _IDLE]
            self._idle = [worker for worker in self._idle if now - worker.rested_at < _IDLE]
            due = min((worker.rested_at + _IDLE - now for worker in self._idle), default=float("inf"))
        for worker in tired:
            worker.end()
        return due

    def reload(self, config: Config) -> None:
        """Take up a new configuration: from the next check on."""
        self._config = config

    def close(self) -> None:
        """End all workers; checks that are under way end with ``Retry``."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            for worker in self._busy:
                worker.kill()
        for worker in idle:
            worker.end()
