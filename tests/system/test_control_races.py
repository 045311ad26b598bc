"""A cancel at the worst moments: each between two steps of the pipeline that belong together.

The pipeline runs in this process, so that the cancel comes exactly there; it goes through a journal of its own, as
``incomingctl`` opens one.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from incomingd.cli.withdraw import cancel_upload
from incomingd.config.reader import load
from incomingd.errors import Retry
from incomingd.intake.incoming_folder import IncomingFolder
from incomingd.journal import Journal
from incomingd.journal.uploads import Uploads
from incomingd.model import Seal, UploadKind
from incomingd.pipeline import Pipeline
from incomingd.places import Places
from incomingd.publish.publisher import Publisher
from incomingd.verify.pool import Checkers
from tests.support.instance import Instance, until
from tests.support.uploads import Builder


class Operator:
    """Cancels one upload, once, as another process would."""

    def __init__(self, instance: Instance) -> None:
        self.config = load(instance.config)
        self.cancelled: list[str] = []

    def cancel(self, name: str) -> None:
        if name in self.cancelled:
            return
        self.cancelled.append(name)
        journal = Journal(Places(self.config).journal)
        try:
            upload = Uploads(journal).newest(name)
            assert upload
            assert cancel_upload(journal, Places(self.config), upload, "too much haste")
        finally:
            journal.close()


@pytest.fixture
def operator(idle: Instance) -> Operator:
    return Operator(idle)


@pytest.fixture
def before(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``before(Class, "method", "name")``: the upload is cancelled right before that method runs."""

    def install(kind: type, method: str, name: str) -> None:
        real = getattr(kind, method)

        def late(*words: Any, **named: Any) -> Any:
            operator.cancel(name)
            return real(*words, **named)

        monkeypatch.setattr(kind, method, late)

    return install


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        (Publisher, "publish"),
        (Publisher, "_decide"),
        (Publisher, "_publish_accepted"),
        (Checkers, "check"),
        (IncomingFolder, "_finish_claims"),
        (IncomingFolder, "_finish_claim"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_cancel_between_two_steps(
    idle: Instance, builder: Builder, before: Callable[..., None], kind: type, method: str
) -> None:
    first = builder.upload("first", "1.0").send_directory(idle.incoming)
    second = builder.upload("second", "1.0").send_directory(idle.incoming)
    _see(idle, first)
    before(kind, method, first)
    pipeline = Pipeline(load(idle.config))
    pipeline.run_once()
    assert pipeline.failure is None
    cancelled, published = idle.status(first), idle.status(second)
    assert cancelled
    assert published
    assert (cancelled["stage"], published["stage"]) == ("cancelled", "published")
    assert "too much haste" in cancelled["problems"][0]["message"]
    kept = idle.state / "rejected" / str(cancelled["id"])
    assert len(list(kept.iterdir())) == 2
    assert list((idle.state / "sealed").iterdir()) == []
    assert [one for one in idle.incoming.iterdir() if not one.name.startswith(".")] == []


def test_a_cancel_of_what_is_tried_again_and_again(
    idle: Instance, builder: Builder, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = builder.upload("hello", "1.0").send_directory(idle.incoming)

    def full(*_words: Any) -> Seal:
        raise Retry("no space left on device")

    monkeypatch.setattr("incomingd.pipeline.checking.seal_texts", full)
    pipeline = Pipeline(load(idle.config))
    pipeline.start()
    try:
        until(lambda: "no space left" in str(pipeline.health_state.health().reasons), "its first try to fail")
        operator.cancel(name)
        pipeline.requested()
        until(lambda: (idle.status(name) or {}).get("stage") == "cancelled", "its end")
        until(lambda: pipeline.health_state.health().state == "ok", "health without it")
        kept = idle.state / "rejected" / str((idle.status(name) or {})["id"])
        until(kept.is_dir, "its files to be kept")
        assert pipeline.failure is None
    finally:
        pipeline.stop()


def _see(instance: Instance, name: str) -> None:
    """It has a row already, as an earlier run of the daemon leaves it."""
    journal = Journal(Places(load(instance.config)).journal)
    try:
        Uploads(journal).see(name, "default", UploadKind.DIRECTORY, datetime.now(UTC), "seen")
    finally:
        journal.close()
