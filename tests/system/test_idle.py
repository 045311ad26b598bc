"""A daemon with nothing to do does nothing: it wakes for the periodic scan and the watchdog, and for nothing else."""

import time
from pathlib import Path

import pytest

from tests.support.instance import Instance, until
from tests.support.processes import family, memory, wake_ups
from tests.support.uploads import Builder

WATCHED = 20.0
#: A scan every 10 s takes about ten, with its report. A loop that looks every half second would be forty more.
AT_MOST = 40
MEMORY = 100 << 20


def check_workers(daemon: int) -> list[int]:
    return [one for one in family(daemon) if b"incomingd.verify.worker" in command_line(one)]


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has just ended
        return b""


def woken_in(seconds: float, pid: int) -> int:
    before = wake_ups(pid)
    time.sleep(seconds)
    return wake_ups(pid) - before


@pytest.mark.parametrize("delayed", [0, 15], ids=["nothing waits", "a delayed upload waits"])
def test_at_rest(idle: Instance, builder: Builder, delayed: int) -> None:
    idle.set("incoming.default", delayed=delayed)
    idle.start()
    idle.succeeded(builder.upload("hello", "1.0-1").send_directory(idle.incoming))
    if delayed:
        late = builder.upload("late", "1.0-1")
        late.send_flat(idle.incoming / "DELAYED/15-day")
        until(lambda: (idle.status(late.flat_name) or {}).get("stage") == "queued", "the delay")
    assert idle.daemon
    daemon = idle.daemon.pid

    def rests() -> bool:
        return woken_in(1, daemon) == 0  # what follows an upload, as housekeeping, has an end

    until(lambda: len(check_workers(daemon)) <= 1, "the end of workers that have nothing to do")
    until(rests, "the daemon's rest")
    # What comes once, as the end of a thread that waited, is in one of the windows; what comes again is in each.
    assert min(woken_in(WATCHED, daemon) for _ in range(3)) <= AT_MOST
    assert memory(daemon) < MEMORY
