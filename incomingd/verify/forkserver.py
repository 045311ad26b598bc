"""The process that check workers are forked from: it has imported all that they need, and never reads an upload.

To start Python and to import takes 0.4 s of a core, to fork 3 ms, and what is forked shares its memory. A worker is
this process's child, so it is this process that waits for its end, when it is asked to. It is started when needed,
and again if it has ended; workers live on without it, and end with the daemon.
"""

import logging
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from typing import IO

from incomingd import codec
from incomingd.errors import Halt, Retry
from incomingd.model import printable
from incomingd.sandbox import environment
from incomingd.verify.protocol import Note, Settings, receive, send, send_with

log = logging.getLogger(__name__)

#: Seconds until it is there, and until it has forked.
_START = 60.0
#: Bytes of a line that is logged, and lines in a minute.
_LINE, _LINES = 2000, 200


class ForkServer:
    """One process; any thread may ask it for workers, one after the other."""

    def __init__(self, command: Sequence[str]) -> None:
        """Raises ``Retry``."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    cwd="/",
                    # One arena: each thread's own would count against the limit on memory.
                    env=environment.bare(LC_ALL="C.UTF-8", MALLOC_ARENA_MAX="1"),
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                raise Retry(f"no check worker can be started: {error}") from error
        threading.Thread(target=_log, args=(self._process.stderr,), name="worker-stderr", daemon=True).start()
        ours.settimeout(_START)
        self._socket = ours
        self._asking = threading.Lock()
        self._greeted = False
        self._settings: Settings | None = None

    def fork(self, theirs: socket.socket, note: Note, settings: Settings) -> int:
        """A new worker with these settings at the other end of ``theirs``: its number, which stays its own until
        :meth:`wait`. It says in ``note`` what it reads. Raises ``Retry``, and ``Halt`` if the self-test of the checks
        failed there.
        """
        try:
            with self._asking:
                if not self._greeted:
                    self._greet()
                if settings is not self._settings:
                    send(self._socket, b"S", codec.dumps(settings).encode())
                    self._settings = settings
                send_with(self._socket, b"N", theirs.fileno(), note.fd)
                return int(receive(self._socket)[1])
        except (EOFError, OSError, ValueError) as error:
            self.close()
            raise Retry(f"a check worker does not start; see the daemon's log ({error})") from error

    def _greet(self) -> None:
        unsound = receive(self._socket)[1]
        if unsound:
            self._process.kill()
            self._process.wait()
            raise Halt(unsound.decode("utf-8", "replace"))
        self._greeted = True

    def wait(self, pid: int) -> int | None:
        """How a worker that has been ended did end, as in ``Popen.returncode``; None where that cannot be known."""
        try:
            with self._asking:
                send(self._socket, b"W", str(pid).encode())
                return int(receive(self._socket)[1])
        except (EOFError, OSError, ValueError):
            self.close()
            return None

    def is_there(self) -> bool:
        """False where it has ended, or was closed."""
        return self._process.poll() is None

    def close(self) -> None:
        """End it. Who asks it for something is told."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        with self._asking:
            self._socket.close()


def _log(errors: IO[bytes]) -> None:
    """Log what the process and its workers print, as theirs: an upload that has taken one over could write any line."""
    since, count = time.monotonic(), 0
    with errors:
        while line := errors.readline(_LINE):
            if time.monotonic() - since > 60:
                since, count = time.monotonic(), 0
            count += 1
            if count <= _LINES:
                log.warning("a check worker says: %s", printable(line.decode("utf-8", "replace").rstrip()))
            elif count == _LINES + 1:
                log.warning("check workers print more than %d lines a minute; the rest is not logged", _LINES)
