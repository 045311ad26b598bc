"""A publish whose commit fails, as on a full disk, is tried again by the same daemon."""

from typing import Any

import pytest

from incomingd.config.reader import load
from incomingd.errors import Retry
from incomingd.journal import Journal
from incomingd.journal.generations import Generations
from incomingd.journal.uploads import Uploads
from incomingd.pipeline import Pipeline, common, publishing
from tests.support import packages
from tests.support.instance import Instance, until
from tests.support.uploads import Builder


@pytest.fixture
def failures(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """As long as something stands in it, the next commit takes it out and fails."""
    planned: list[str] = []
    real = Generations.add

    def add(self: Generations, *words: Any) -> None:
        real(self, *words)
        if planned:
            raise Retry(planned.pop())

    monkeypatch.setattr(Generations, "add", add)
    return planned


def test_an_upload_and_an_import_are_published_after_a_commit_that_failed(
    idle: Instance, builder: Builder, failures: list[str]
) -> None:
    pipeline = Pipeline(load(idle.config))
    pipeline.start()
    try:
        until((idle.archive / "dists/stable").exists, "the first generation")
        failures.append("no space left")
        idle.succeeded(builder.upload("hello", "1.0-1").send_directory(idle.incoming))
        assert failures == []
        tree = idle.root / "tree"
        tree.mkdir()
        packages.binary(tree, "other", "1.0-1")
        failures.append("no space left")
        asked = idle.ctl("import", "--suite", "stable", tree, "--no-wait")
        assert asked.returncode == 0, asked.stderr
        pipeline.requested()
        done = idle.succeeded(asked.stdout.partition(":")[0])
        assert failures == []
        assert done["published"]["suites"]["stable"]["generation"] == 3
    finally:
        pipeline.stop()
    assert idle.ctl("fsck").returncode == 0


def test_a_line_without_an_end_leaves_nothing_behind(
    idle: Instance, builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What published uploads brought is removed in a pause; where there is none, between two publishes."""
    monkeypatch.setattr(Uploads, "more_come", lambda _: True)
    monkeypatch.setattr(publishing, "_UNTIDIED", 1)
    monkeypatch.setattr(common, "_DISCARD_AT_ONCE", 1)
    pipeline = Pipeline(load(idle.config))
    pipeline.start()
    try:
        for turn in range(4):
            sent = [builder.upload(name, f"1.0-{turn}").send_directory(idle.incoming) for name in ("a1", "b1", "c1")]
            for name in sent:
                idle.succeeded(name)
        assert len(list((idle.state / "sealed").iterdir())) <= len(sent)
    finally:
        pipeline.stop()
    assert list((idle.state / "sealed").iterdir()) == []


def test_a_log_that_cannot_be_carried_over_stops_nobody(
    idle: Instance, builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def settle(_: Journal) -> None:
        tried.append(1)
        raise Retry("no space left")

    monkeypatch.setattr(Journal, "settle", settle)
    pipeline = Pipeline(load(idle.config))
    pipeline.start()
    try:
        for number in range(2):
            idle.succeeded(builder.upload("hello", f"1.0-{number}").send_directory(idle.incoming))
            until(lambda number=number: len(tried) > number, "the pause")
            assert pipeline.health_state.health().state == "ok"
    finally:
        pipeline.stop()
