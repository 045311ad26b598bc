"""Many real clients at once over a real sshd: everything is published, in the order of the claims, and no client fails.

120 uploads by 16 clients; ``INCOMINGD_TEST_CROWD=1000x32`` has a thousand by 32.
"""

import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from incomingd.journal import Journal
from incomingd.journal.uploads import Uploads
from tests.bench.peers import descendants, proportional_kb
from tests.support.instance import Instance, until
from tests.support.keys import Keys
from tests.support.sshd import Sshd
from tests.support.uploads import Upload
from tests.system.storm import Draft
from tests.system.test_clients import needs, server

__all__ = ["server"]  # the fixture

COUNT, CLIENTS = (int(word) for word in os.environ.get("INCOMINGD_TEST_CROWD", "120x16").split("x"))


def rsync_directory(upload: Upload, server: Sshd, target: str) -> Sequence[str | Path]:
    return ["rsync", "-a", "-e", " ".join(["ssh", *server.options]), upload.folder, target]


def rsync_flat(upload: Upload, server: Sshd, target: str) -> Sequence[str | Path]:
    return ["rsync", "-e", " ".join(["ssh", *server.options]), *upload.files, target]


def scp_directory(upload: Upload, server: Sshd, target: str) -> Sequence[str | Path]:
    return ["scp", "-q", "-r", "-p", *server.options, upload.folder, target]


def scp_flat(upload: Upload, server: Sshd, target: str) -> Sequence[str | Path]:
    return ["scp", "-q", "-O", *server.options, *upload.files, target]


Way = Callable[[Upload, Sshd, str], Sequence[str | Path]]
WAYS: tuple[Way, ...] = (rsync_directory, rsync_flat, scp_directory, scp_flat)


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory, keys: Keys, builder_key: str) -> list[Upload]:
    folder = tmp_path_factory.mktemp("crowd")

    def make(number: int) -> Upload:
        return Draft(folder / f"job-{number}", f"crowd{number:04d}", keys, builder_key).write()

    with ThreadPoolExecutor(4) as threads:
        return list(threads.map(make, range(COUNT)))


class Scales:
    """The most memory that a daemon, its workers and what it starts had at one time, in MB (Pss)."""

    def __init__(self, pid: int) -> None:
        self.peak = 0.0
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._weigh)

    def __enter__(self) -> "Scales":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _weigh(self) -> None:
        while not self._over.wait(0.5):
            all_of_it = sum(proportional_kb(pid) for pid in (self._pid, *descendants(self._pid)))
            self.peak = max(self.peak, all_of_it / 1000)


def name_of(upload: Upload, way: Way) -> str:
    return upload.flat_name if way in (rsync_flat, scp_flat) else upload.name


def send_all(sent: Sequence[tuple[Upload, Way]], server: Sshd, target: str) -> list[str]:
    """What the clients had to complain of."""

    def send(one: tuple[Upload, Way]) -> str:
        upload, way = one
        done = subprocess.run(way(upload, server, target), capture_output=True, text=True)
        return f"{way.__name__} {upload.name}: {done.returncode} {done.stderr}" if done.returncode else ""

    with ThreadPoolExecutor(CLIENTS) as clients:
        return list(filter(None, clients.map(send, sent)))


@needs("rsync")
@needs("scp")
def test_a_crowd(idle: Instance, uploads: list[Upload], server: Sshd) -> None:
    idle.set("incoming.default", settle="2s")  # as it is where nobody sets it
    idle.start()
    assert idle.daemon is not None
    sent = [(upload, WAYS[number % len(WAYS)]) for number, upload in enumerate(uploads)]
    names = [name_of(*one) for one in sent]
    started = time.monotonic()
    with Scales(idle.daemon.pid) as scales:
        complaints = send_all(sent, server, f"root@127.0.0.1:{idle.incoming}/")
        sending = time.monotonic() - started
        _all_ended(idle, names)
    whole = time.monotonic() - started
    print(
        f"{COUNT} uploads by {CLIENTS} clients: sent in {sending:.1f} s, published {whole - sending:.1f} s after the "
        f"last was sent; the daemon and its workers had {scales.peak:.0f} MB at most"
    )
    assert complaints == []
    for name in names:
        idle.succeeded(name)
    assert idle.stop() == 0
    _published_once_in_the_order_of_the_claims(idle, names)
    assert list(idle.incoming.iterdir()) == []


def test_all_at_once_while_the_daemon_does_not_listen(idle: Instance, uploads: list[Upload]) -> None:
    """The kernel's queue of events overflows: what was renamed in, and what is written flat, is found all the same."""
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 100_000:
        pytest.skip("the queue is too long to fill")
    idle.start()
    assert idle.daemon is not None
    idle.daemon.send_signal(signal.SIGSTOP)
    try:
        for number in range(limit // 2 + 1000):
            (idle.incoming / f".filler-{number % 50}").touch()
            (idle.incoming / f".filler-{number % 50}").unlink()
        names = [
            one.send_flat(idle.incoming) if number % 2 else one.send_directory(idle.incoming)
            for number, one in enumerate(uploads)
        ]
    finally:
        idle.daemon.send_signal(signal.SIGCONT)
    started = time.monotonic()
    with Scales(idle.daemon.pid) as scales:
        _all_ended(idle, names)
    print(f"{COUNT} found at once were published in {time.monotonic() - started:.1f} s; {scales.peak:.0f} MB at most")
    for name in names:
        idle.succeeded(name)
    until(lambda: "the watch missed them" in idle.health(), "what was missed, in health")
    assert idle.stop() == 0
    _published_once_in_the_order_of_the_claims(idle, names)
    assert list(idle.incoming.iterdir()) == []


def _all_ended(instance: Instance, names: Sequence[str]) -> None:
    until(lambda: all((instance.status(name) or {"state": 0})["state"] >= 2 for name in names), "the end", 300)


def _published_once_in_the_order_of_the_claims(instance: Instance, names: list[str]) -> None:
    journal = Journal(instance.state / "journal.db")
    try:
        rows = [Uploads(journal).newest(name) for name in names]
    finally:
        journal.close()
    ended = sorted((row for row in rows if row is not None), key=lambda row: row.sequence or 0)
    assert len({row.sequence for row in ended}) == len(names)
    generations = [row.published.suites["stable"].generation for row in ended if row.published]
    assert len(generations) == len(names)
    assert generations == sorted(generations)
    pool = Counter(file.name for file in (instance.archive / "pool").rglob("*.deb"))
    assert pool == {f"crowd{number:04d}_1.0_amd64.deb": 1 for number in range(len(names))}
