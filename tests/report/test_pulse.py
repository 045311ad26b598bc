"""What the service manager hears of the daemon's loops."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from incomingd.report.pulse import Pulse


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


def started(manager: Manager) -> Pulse:
    pulse = Pulse()
    pulse.ready()
    manager.heard()
    return pulse


def test_the_watchdog_is_fed_while_every_loop_beats(manager: Manager) -> None:
    pulse = started(manager)
    pulse.register("intake")
    pulse.register("publish")
    pulse.beat("intake")
    assert manager.heard() == ["WATCHDOG=1"]


def test_one_loop_that_hangs_starves_the_watchdog_whatever_the_others_do(manager: Manager) -> None:
    pulse = started(manager)
    pulse.register("intake")
    pulse.register("publish")
    time.sleep(0.25)  # more than half of the watchdog's time: that is what it is about
    pulse.beat("intake")
    assert manager.heard() == []
    pulse.beat("publish")
    assert manager.heard() == ["WATCHDOG=1"]


def test_a_loop_that_has_ended_is_not_waited_for(manager: Manager) -> None:
    pulse = started(manager)
    pulse.register("intake")
    pulse.register("publish")
    time.sleep(0.25)
    pulse.unregister("publish")
    pulse.beat("intake")
    assert manager.heard() == ["WATCHDOG=1"]


def test_a_start_and_a_stop_that_make_headway_get_more_time(manager: Manager) -> None:
    pulse = Pulse()
    pulse.register("publish")
    pulse.beat("publish")
    pulse.ready()
    pulse.beat("publish")
    pulse.stopping()
    pulse.beat("publish")
    fed, more = "WATCHDOG=1", "\nEXTEND_TIMEOUT_USEC=400000"
    assert manager.heard() == [fed + more, "READY=1", fed, "STOPPING=1", fed + more]


def test_a_loop_with_nothing_to_do_beats_often_enough(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Pulse().idle == pytest.approx(0.1)
    monkeypatch.setenv("WATCHDOG_USEC", "300000000")
    assert Pulse().idle == 20.0
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid() + 1))  # it is another process that is watched
    monkeypatch.setenv("WATCHDOG_USEC", "400000")
    assert Pulse().idle == 20.0


def test_a_status_is_one_line_and_told_when_it_changes(manager: Manager) -> None:
    pulse = Pulse()
    for line in ("halted: no key\nREADY=1", "halted: no key\nREADY=1", "waiting"):
        pulse.status(line)
    assert manager.heard() == ["STATUS=halted: no key READY=1", "STATUS=waiting"]


def test_a_reload_is_told_from_its_beginning_to_its_end(manager: Manager) -> None:
    pulse = Pulse()
    pulse.ready()
    pulse.ready()
    with pulse.reloading():
        pass
    first, begun, ended = manager.heard()
    assert (first, ended) == ("READY=1", "READY=1")
    assert begun.startswith("RELOADING=1\nMONOTONIC_USEC=")


def test_a_reload_during_the_start_does_not_end_the_start(manager: Manager) -> None:
    pulse = Pulse()
    with pulse.reloading():
        pass
    assert manager.heard() == []
    pulse.ready()
    assert manager.heard() == ["READY=1"]


def test_without_a_service_manager_nothing_is_told(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET")
    pulse = Pulse()
    pulse.register("intake")
    pulse.beat("intake")
    pulse.ready()
    pulse.stopping()
    assert manager.heard() == []
