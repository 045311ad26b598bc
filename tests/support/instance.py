"""A whole instance as a user has it: made by ``incomingctl init``, run by a real ``incomingd`` process."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

BIN = Path(sys.executable).parent
#: Generous: the machine may be busy with other tests.
PATIENCE = 60.0


def until(condition: Callable[[], Any], what: str = "it", seconds: float = PATIENCE) -> Any:
    """Wait for something that is to happen, and return what ``condition`` then said."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"{what} did not happen within {seconds:.0f} s"
        time.sleep(0.01)
    return found


class Instance:
    """One instance below ``root``. As a context: started at the beginning, stopped at the end.

    ``prefix`` goes before the daemon's command, as ``setpriv`` does.
    """

    def __init__(self, root: Path, *, trust: Sequence[Path] = (), options: Sequence[str] = ()) -> None:
        self.root = root
        self.daemon: subprocess.Popen[bytes] | None = None
        self.prefix: tuple[str | Path, ...] = ()
        keys = [word for file in trust for word in ("--trust", str(file))]
        subprocess.run([BIN / "incomingctl", "init", root, *keys, *options], check=True, stdout=subprocess.DEVNULL)
        self.set("incoming.default", settle="0.3s")

    config = property(lambda self: self.root / "incomingd.toml")
    incoming = property(lambda self: self.root / "incoming")
    archive = property(lambda self: self.root / "archive")
    state = property(lambda self: self.root / "state")
    keyring = property(lambda self: self.archive / "archive-keyring.asc")
    log_file = property(lambda self: self.root / "daemon.log")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            print(self.log(), file=sys.stderr)
        self.close()

    def close(self) -> None:
        """Stop the daemon, and the agent that one which was killed has left."""
        if self.daemon is not None:
            self.stop()
        home = self.state / "gnupg/signing"
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], capture_output=True, check=False)

    # -- settings -----------------------------------------------------------------------------------------------------

    def set(self, table: str, **settings: Any) -> None:
        """Set some keys of one table of the configuration; a table that is not there is added."""
        text = self.config.read_text()
        header = re.compile(rf"^\[{re.escape(table)}\]$".replace("stable", '"?stable"?'), re.MULTILINE)
        if not header.search(text):
            text += f"\n[{table}]\n"
        found = header.search(text)
        assert found
        head, body, tail = _table(text, found.end())
        for key, value in settings.items():
            body = re.sub(rf"^{key} =.*\n", "", body, flags=re.MULTILINE)
            # What JSON writes for text, numbers, flags and lists of these is TOML, too.
            body = f"\n{key} = {json.dumps(value)}{body}"
        self.config.write_text(head + body + tail)

    # -- the daemon ---------------------------------------------------------------------------------------------------

    def start(self, *, wait: bool = True) -> None:
        """Start the daemon; with ``wait``, return when it says that it is ready (sd_notify(3))."""
        environment = dict(os.environ)
        with self._notified(environment) as notes, self.log_file.open("ab") as log:
            command = [*self.prefix, BIN / "incomingd", "--config", self.config]
            self.daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
            if wait:
                until(lambda: self._is_ready(notes), "READY=1")

    @contextlib.contextmanager
    def _notified(self, environment: dict[str, str]) -> Iterator[socket.socket]:
        """What a service manager gives a service. Closed as soon as it is ready: nobody would read on."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notes:
            name = f"incomingd-test-{uuid.uuid4()}"
            notes.bind(f"\0{name}")
            notes.setblocking(False)
            environment["NOTIFY_SOCKET"] = f"@{name}"
            yield notes

    def _is_ready(self, notes: socket.socket) -> bool:
        assert self.daemon is not None
        assert self.daemon.poll() is None, f"the daemon ended with {self.daemon.returncode}:\n{self.log()}"
        with contextlib.suppress(BlockingIOError):
            return b"READY=1" in notes.recv(65536)
        return False

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        """SIGKILL, at whatever moment it is."""
        return self._end(signal.SIGKILL)

    def _end(self, number: int) -> int:
        assert self.daemon is not None
        daemon, self.daemon = self.daemon, None
        daemon.send_signal(number)
        try:
            return daemon.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
            raise

    def reload(self) -> None:
        """SIGHUP."""
        assert self.daemon is not None
        self.daemon.send_signal(signal.SIGHUP)

    def log(self) -> str:
        """What the daemon has said since the instance was made."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    # -- what is asked of it ------------------------------------------------------------------------------------------

    def run(self, command: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """``incomingd`` or ``incomingctl`` on this instance, to its end, whatever that is."""
        return subprocess.run(
            [*self.prefix, BIN / command, "--config", self.config, *words],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    def ctl(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """``incomingctl`` with these words."""
        return self.run("incomingctl", *words)

    def status(self, name: str) -> dict[str, Any] | None:
        """The status file of that name, as a script reads it; ``None`` where there is none yet."""
        try:
            found: dict[str, Any] = json.loads((self.root / "status" / f"{name}.json").read_bytes())
        except FileNotFoundError:
            return None
        return found

    def index(self) -> dict[str, Any]:
        """status/index.json."""
        found: dict[str, Any] = json.loads((self.root / "status/index.json").read_bytes())
        return found

    def health(self) -> str:
        """``state: reason; reason`` of the service, as index.json has it."""
        health = self.index()["health"]
        return f"{health['state']}: {'; '.join(health['reasons'])}"

    def wait(self, name: str, seconds: float = PATIENCE) -> dict[str, Any]:
        """The status of an upload that has ended."""

        def ended() -> dict[str, Any] | None:
            found = self.status(name)
            return found if found and found["state"] >= 2 else None

        try:
            found: dict[str, Any] = until(ended, f"the end of {name}", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.status(name)}\n{self.log()}") from None
        return found

    def succeeded(self, name: str) -> dict[str, Any]:
        """As :meth:`wait`; it must have been published."""
        found = self.wait(name)
        assert found["state_name"] == "SUCCEEDED", found["problems"]
        return found

    def failed(self, name: str) -> list[str]:
        """As :meth:`wait`; it must have been rejected: the codes of its problems."""
        found = self.wait(name)
        assert found["state_name"] == "FAILED", found
        return [problem["code"] for problem in found["problems"]]


def _table(text: str, start: int) -> tuple[str, str, str]:
    """The text up to a table's header, the table's lines, and the rest."""
    following = re.compile(r"^\[", re.MULTILINE).search(text, start)
    end = following.start() if following else len(text)
    return text[:start], text[start:end], text[end:]
