"""What the service manager hears of the daemon's loops."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from incomingd.report.heartbeat import Heartbeat


class Manager:
    """The end of the line where a service manager listens."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.setblocking(False)

    def heard(self) -> list[str]:
        """All that came since it was last asked."""
        found = []
        while True:
            try:
                found.append(self.socket.recv(65536).decode())
            except BlockingIOError:
                return found


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    listens = Manager(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "400000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    yield listens
    listens.socket.close()


def started(manager: Manager) -> Heartbeat:
    heartbeat = Heartbeat()
    heartbeat.ready()
    manager.heard()
    return heartbeat


def test_the_watchdog_is_fed_while_every_loop_beats(manager: Manager) -> None:
    heartbeat = started(manager)
    heartbeat.register("intake")
    heartbeat.register("publish")
    heartbeat.beat("intake")
    assert manager.heard() == ["WATCHDOG=1"]


def test_one_loop_that_hangs_starves_the_watchdog_whatever_the_others_do(manager: Manager) -> None:
    heartbeat = started(manager)
    heartbeat.register("intake")
    heartbeat.register("publish")
    time.sleep(0.25)  # more than half of the watchdog's time: that is what it is about
    heartbeat.beat("intake")
    assert manager.heard() == []
    heartbeat.beat("publish")
    assert manager.heard() == ["WATCHDOG=1"]


def test_a_loop_that_has_ended_is_not_waited_for(manager: Manager) -> None:
    heartbeat = started(manager)
    heartbeat.register("intake")
    heartbeat.register("publish")
    time.sleep(0.25)
    heartbeat.unregister("publish")
    heartbeat.beat("intake")
    assert manager.heard() == ["WATCHDOG=1"]


def test_a_start_and_a_stop_that_make_headway_get_more_time(manager: Manager) -> None:
    heartbeat = Heartbeat()
    heartbeat.register("publish")
    heartbeat.beat("publish")
    heartbeat.ready()
    heartbeat.beat("publish")
    heartbeat.stopping()
    heartbeat.beat("publish")
    fed, more = "WATCHDOG=1", "\nEXTEND_TIMEOUT_USEC=400000"
    assert manager.heard() == [fed + more, "READY=1", fed, "STOPPING=1", fed + more]


def test_a_loop_with_nothing_to_do_beats_often_enough(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Heartbeat().idle == pytest.approx(0.1)
    monkeypatch.setenv("WATCHDOG_USEC", "300000000")
    assert Heartbeat().idle == 20.0
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid() + 1))  # it is another process that is watched
    monkeypatch.setenv("WATCHDOG_USEC", "400000")
    assert Heartbeat().idle == 20.0


def test_a_status_is_one_line_and_told_when_it_changes(manager: Manager) -> None:
    heartbeat = Heartbeat()
    for line in ("halted: no key\nREADY=1", "halted: no key\nREADY=1", "waiting"):
        heartbeat.status(line)
    assert manager.heard() == ["STATUS=halted: no key READY=1", "STATUS=waiting"]


def test_a_reload_is_told_from_its_beginning_to_its_end(manager: Manager) -> None:
    heartbeat = Heartbeat()
    heartbeat.ready()
    heartbeat.ready()
    with heartbeat.reloading():
        pass
    first, begun, ended = manager.heard()
    assert (first, ended) == ("READY=1", "READY=1")
    assert begun.startswith("RELOADING=1\nMONOTONIC_USEC=")


def test_a_reload_during_the_start_does_not_end_the_start(manager: Manager) -> None:
    heartbeat = Heartbeat()
    with heartbeat.reloading():
        pass
    assert manager.heard() == []
    heartbeat.ready()
    assert manager.heard() == ["READY=1"]


def test_without_a_service_manager_nothing_is_told(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET")
    heartbeat = Heartbeat()
    heartbeat.register("intake")
    heartbeat.beat("intake")
    heartbeat.ready()
    heartbeat.stopping()
    assert manager.heard() == []
