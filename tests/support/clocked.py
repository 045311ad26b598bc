"""incomingd with a clock that a test moves: ``python -P clocked.py FILE PROGRAM WORDS…``.

FILE holds the days that its clock is ahead, and may be replaced at any time. Programs other than incomingd, which have
no clock, are run as they are.
"""

import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from incomingd import daemon
from incomingd.pipeline import Pipeline


def clock_of(ahead: Path) -> Callable[[], datetime]:
    """The clock that ``ahead`` moves."""
    return lambda: datetime.now(UTC) + timedelta(days=float(ahead.read_text()))


def run(ahead: Path) -> None:
    daemon.Pipeline = partial(Pipeline, clock=clock_of(ahead))  # type: ignore[assignment,misc]  # called in the same way
    daemon.main(sys.argv[1:])


if __name__ == "__main__":
    file, program, *words = sys.argv[1:]
    if Path(program).name != "incomingd":
        os.execv(program, [program, *words])
    sys.argv = [program, *words]
    run(Path(file))
