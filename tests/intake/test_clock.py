"""The whole intake, on a machine whose wall clock jumps."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from incomingd.intake import Intake
from incomingd.intake.accounts import Failures
from tests.intake.conftest import Inbox, until


class Clock:
    """The machine's, and how far somebody has set it wrong."""

    wrong = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.wrong


@pytest.mark.parametrize("jump", [timedelta(days=2), timedelta(days=-2)], ids=["ahead", "back"])
def test_a_jump_takes_nobody_early_abandons_nobody_and_stops_nobody(inbox: Inbox, jump: timedelta) -> None:
    inbox.configure(settle="0.3s", abandon_after="1d", stray_after="1d")
    clock = Clock()
    told = (inbox.told.append, inbox.taking.extend, inbox.claimed.append, inbox.ended)
    intake = Intake(inbox.config, inbox.places, inbox.uploads, clock, *told, Failures())
    (inbox.path / "part").mkdir()
    (inbox.path / "nobodys").touch()
    folder = inbox.fill("job-1", hello_deb=b"deb")
    intake.look()
    time.sleep(inbox.queue.settle)  # so that the look before is no proof that the change is new
    clock.wrong = jump
    (folder / "hello.deb").chmod(0o600)
    intake.look()  # whenever that is: of a change that is seen after a jump nobody knows how old it is
    assert intake.settling()
    assert inbox.claimed == []

    def taken() -> bool:
        intake.look()
        return [upload.name for upload in inbox.claimed] == ["job-1"]

    until(taken)
    assert inbox.stage("part") == "receiving"
    assert (inbox.path / "nobodys").exists()
    clock.wrong = timedelta()
    inbox.fill("part", hello_deb=b"deb")
    until(lambda: intake.look() is not None and len(inbox.claimed) == 2)
    assert intake.faults() == ()
