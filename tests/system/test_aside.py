"""Uploads that stand aside while something is in their way, and who waits for them.

The pipeline runs in this process, so that the faults come exactly where they are meant to.
"""

import contextlib
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from incomingd import rules
from incomingd.config.reader import load
from incomingd.errors import Obstructed, Retry, WorkerKilled
from incomingd.model import CheckReport
from incomingd.pipeline import Pipeline, checking
from incomingd.verify.pool import Checkers
from tests.support.instance import Instance, until
from tests.support.uploads import Builder


class Faults:
    """Makes a step of the pipeline fail for uploads whose .changes has that word in its name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.failures: dict[str, Exception] = {}
        self.at_once, self.most_at_once, self.tries = 0, 0, 0
        self._lock = threading.Lock()
        self._install(monkeypatch, checking, "seal_listed", lambda words: words[0].result())
        self._install(monkeypatch, Checkers, "check", lambda words: words[1].seal)

    def _install(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, seal: Callable[[Any], Any]) -> None:
        real = getattr(owner, name)

        def failing(*words: Any) -> Any:
            failure = self._failure(seal(words), name)
            if failure is None:
                return real(*words)
            with self._lock:
                self.tries += 1
                self.at_once += 1
                self.most_at_once = max(self.most_at_once, self.at_once)
            threading.Event().wait(0.2)
            with self._lock:
                self.at_once -= 1
            raise failure

        monkeypatch.setattr(owner, name, failing)

    def _failure(self, seal: Any, step: str) -> Exception | None:
        names = " ".join(entry.name for entry in seal.files if entry.name.endswith(".changes"))
        for word, failure in self.failures.items():
            if word in names and (step == "check") == isinstance(failure, WorkerKilled):
                return failure
        return None


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    return Faults(monkeypatch)


@contextlib.contextmanager
def running(instance: Instance) -> Iterator[Pipeline]:
    pipeline = Pipeline(load(instance.config))
    pipeline.start()
    try:
        yield pipeline
        assert pipeline.failure is None
    finally:
        pipeline.stop()


def killed() -> WorkerKilled:
    found = "the process that read it ended with the signal SIGKILL"
    return WorkerKilled(rules.CHECK_CRASHED.problem(found), found)


def says(instance: Instance, name: str, text: str) -> Callable[[], bool]:
    return lambda: text in str((instance.status(name) or {}).get("log"))


def test_only_the_same_source_waits_for_one_that_the_machine_fails(
    idle: Instance, builder: Builder, faults: Faults
) -> None:
    faults.failures["hello_1.0-1"] = Retry("no space left on device")
    with running(idle) as pipeline:
        first = builder.upload("hello", "1.0-1").send_directory(idle.incoming)
        until(says(idle, first, "stands aside"), "its standing aside")
        second = builder.upload("hello", "1.0-2").send_directory(idle.incoming)
        other = builder.upload("spring", "1.0-1").send_directory(idle.incoming)
        idle.succeeded(other)
        until(lambda: (idle.status(second) or {}).get("stage") == "queued", "its waiting")
        assert (idle.status(first) or {})["stage"] in ("claimed", "checking")
        assert "no space left" in str(pipeline.health_state.health().reasons)
        faults.failures.clear()
        assert (
            idle.succeeded(first)["published"]["suites"]["stable"]["generation"]
            <= (idle.succeeded(second)["published"]["suites"]["stable"]["generation"])
        )
        until(lambda: pipeline.health_state.health().state == "ok", "health without it")


def test_one_that_stands_aside_does_so_after_a_restart(idle: Instance, builder: Builder, faults: Faults) -> None:
    faults.failures["hello_1.0-1"] = Retry("no space left on device")
    with running(idle):
        first = builder.upload("hello", "1.0-1").send_directory(idle.incoming)
        until(says(idle, first, "stands aside"), "its standing aside")
    with running(idle):
        second = builder.upload("hello", "1.0-2").send_directory(idle.incoming)
        other = builder.upload("spring", "1.0-1").send_directory(idle.incoming)
        idle.succeeded(other)
        assert re.search("(claimed|checking), aside", idle.ctl("queue").stdout)
        until(lambda: (idle.status(second) or {})["state"] == 1, "the check of the second")
        faults.failures.clear()
        idle.succeeded(first)
        idle.succeeded(second)


def test_one_that_is_in_its_own_way_degrades_nothing(idle: Instance, builder: Builder, faults: Faults) -> None:
    problem = rules.FILE_BUSY.problem("it cannot be read: Resource temporarily unavailable", file="x.deb")
    faults.failures["hello_1.0-1"] = Obstructed(problem)
    with running(idle) as pipeline:
        first = builder.upload("hello", "1.0-1").send_directory(idle.incoming)
        until(says(idle, first, "stands aside"), "its standing aside")
        idle.succeeded(builder.upload("hello", "1.0-2").send_directory(idle.incoming))
        assert pipeline.health_state.health().state == "ok"
        assert idle.ctl("retry", first).returncode == 1
        assert idle.ctl("cancel", first).returncode == 0
        pipeline.requested()
        until(lambda: (idle.status(first) or {})["stage"] == "cancelled", "its end")


def test_uploads_whose_worker_is_killed_are_tried_three_times_and_one_by_one(
    idle: Instance, builder: Builder, faults: Faults
) -> None:
    faults.failures |= {"bad-one": killed(), "bad-two": killed()}
    idle.set("service", workers=4)
    with running(idle):
        bad = [builder.upload(name, "1.0-1").send_directory(idle.incoming) for name in ("bad-one", "bad-two")]
        until(lambda: all(says(idle, name, "stands aside")() for name in bad), "the first try of both")
        faults.most_at_once = 0
        for number in range(3):
            idle.succeeded(builder.upload(f"good{number}", "1.0-1").send_directory(idle.incoming))
        assert [idle.failed(name) for name in bad] == [["check-crashed"], ["check-crashed"]]
        assert "SIGKILL, as 2 others before it" in str(idle.wait(bad[0])["problems"])
    assert faults.tries == 6
    assert faults.most_at_once == 1


def test_one_whose_worker_was_killed_once_is_published(
    idle: Instance, builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, kills = Checkers.check, [killed(), killed()]

    def check(*words: Any) -> CheckReport:
        if kills:
            raise kills.pop()
        return real(*words)

    monkeypatch.setattr(Checkers, "check", check)
    with running(idle):
        idle.succeeded(builder.upload("hello", "1.0-1").send_directory(idle.incoming))


def test_once_leaves_it_for_the_next_time(idle: Instance, builder: Builder, faults: Faults) -> None:
    faults.failures["hello_1.0-1"] = Retry("no space left on device")
    first = builder.upload("hello", "1.0-1").send_directory(idle.incoming)
    second = builder.upload("hello", "1.0-2").send_directory(idle.incoming)
    other = builder.upload("spring", "1.0-1").send_directory(idle.incoming)
    with pytest.raises(Retry, match="stand aside"):
        Pipeline(load(idle.config)).run_once()
    stages = [(idle.status(name) or {})["stage"] for name in (first, second, other)]
    assert stages == ["claimed", "queued", "published"]
    faults.failures.clear()
    assert Pipeline(load(idle.config)).run_once() is False
    idle.succeeded(first)
    idle.succeeded(second)


def test_once_does_not_fail_for_one_that_is_in_its_own_way(idle: Instance, builder: Builder, faults: Faults) -> None:
    problem = rules.FILE_BUSY.problem("it cannot be read: Resource temporarily unavailable", file="x.deb")
    faults.failures["hello_1.0-1"] = Obstructed(problem)
    first = builder.upload("hello", "1.0-1").send_directory(idle.incoming)
    other = builder.upload("spring", "1.0-1").send_directory(idle.incoming)
    assert Pipeline(load(idle.config)).run_once() is False
    assert [(idle.status(name) or {})["stage"] for name in (first, other)] == ["claimed", "published"]


def test_one_whose_gpgv_is_killed_each_time_is_tried_three_times(
    idle: Instance, builder: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kernel does when memory is short: what the signature is about may be why."""
    gpgv = tmp_path / "bin/gpgv"
    gpgv.parent.mkdir()
    gpgv.write_text("#!/bin/sh\nwhile :; do :; done\n")
    gpgv.chmod(0o755)
    monkeypatch.setenv("PATH", str(gpgv.parent), prepend=os.pathsep)
    idle.start()
    name = builder.upload("hello").send_directory(idle.incoming)

    def ended() -> bool:
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if str(gpgv) in (process / "cmdline").read_text():
                    os.kill(int(process.name), signal.SIGKILL)
        return (idle.status(name) or {}).get("state") == 3

    until(ended, "the upload to fail")
    assert idle.failed(name) == ["check-crashed"]
    found = idle.status(name) or {}
    assert "gpgv was ended by SIGKILL, as 2 others before it" in found["problems"][0]["message"]
    until(lambda: idle.index()["health"]["state"] == "ok", "the machine to be well again")
