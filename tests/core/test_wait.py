"""Which upload ``incomingctl wait`` follows, look by look."""

from typing import Any

import pytest

from incomingd.cli.screen import Lines
from incomingd.client import following
from incomingd.client.following import Waiting


class Told:
    """Status files that say something else at each look."""

    def __init__(self, *looks: dict[str, Any]) -> None:
        self.looks = list(looks)
        self.now: dict[str, Any] = {}

    def look(self, name: str) -> tuple[bool, dict[str, Any] | None]:
        found = self.upload(name)
        return bool(self.now.get("waits")), found

    def upload(self, name: str) -> dict[str, Any] | None:
        self._next()
        found: dict[str, Any] | None = self.now.get(name)
        return found

    def _next(self) -> None:
        self.now = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]

    def halted(self) -> str | None:
        return None

    def hindrances(self) -> list[str]:
        return ["the service is held: for a moment"]

    def is_others(self, upload: dict[str, Any]) -> bool:
        return False


def status(number: int, state: int, *, ended: bool) -> dict[str, Any]:
    at = "2026-01-02T03:04:05.678Z" if ended else None
    names = {1: "RUNNING", 2: "SUCCEEDED", 3: "FAILED"}
    common: dict[str, Any] = {"name": "job", "stage": "queued", "position": None, "problems": [], "warnings": []}
    return {**common, "id": number, "state": state, "state_name": names[state], "finished_at": at, "log": []}


def follow(*looks: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    with Lines(quiet=False) as screen:
        code = Waiting(Told(*looks), ["job"], screen).run(60)
    return code, capsys.readouterr().out


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_SOONEST", 0.0)


OLD, FIRST, FIRST_ENDED = status(1, 3, ended=True), status(7, 1, ended=False), status(7, 2, ended=True)
SECOND = status(8, 3, ended=True)


def test_the_one_that_was_seen_first_is_followed_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    looks = ({"job": FIRST}, {"job": SECOND, "#7": FIRST}, {"job": SECOND, "#7": FIRST_ENDED})
    assert follow(*looks, capsys=capsys) == (0, "job: SUCCEEDED: queued\n")


def test_an_older_one_is_passed_over_while_the_new_one_lies_in_incoming(capsys: pytest.CaptureFixture[str]) -> None:
    looks = ({"job": OLD, "waits": True}, {"job": FIRST}, {"job": SECOND, "#7": FIRST_ENDED})
    assert follow(*looks, capsys=capsys)[0] == 0


def test_an_older_one_is_told_if_no_other_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert follow({"job": OLD}, capsys=capsys)[0] == 1
