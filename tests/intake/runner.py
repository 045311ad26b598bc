"""Runs an intake for a test, in a process of its own: ``python -m tests.intake.runner FOLDER SETTINGS``.

SETTINGS are the queue's, as JSON. Prints one JSON line for each upload that is told of or claimed, and one with all
faults whenever these change.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from pathlib import Path

from incomingd.intake import Intake
from incomingd.intake.accounts import Failures
from incomingd.journal import Journal
from incomingd.journal.uploads import Uploads
from incomingd.places import Places
from tests.intake.conftest import make_config


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


def main(folder: Path, settings: dict[str, str]) -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    config = make_config(folder, **{"settle": "0.3s", **settings})
    places = Places(config)
    places.state.mkdir(mode=0o700, exist_ok=True)
    intake = Intake(
        config,
        places,
        Uploads(Journal(places.journal)),
        lambda: datetime.now(UTC),
        lambda upload: say(told=upload.name, stage=upload.stage),
        lambda _: None,
        lambda upload: say(claimed=upload.name),
        lambda upload: say(told=upload.name, stage=upload.stage),
        Failures(),
    )
    intake.start_watching()
    say(ready=True)
    faults: tuple[str, ...] | None = None
    while True:
        pause = intake.look()
        if intake.faults() != faults:
            faults = intake.faults()
            say(faults=faults)
        intake.wait(min(pause, 1.0))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
