"""What every attack needs: a folder that other accounts can pass through, keys, and a daemon as its unit runs it."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.accounts import Guarded, open_folder
from tests.support.keys import Keys


@pytest.fixture
def work() -> Iterator[Path]:
    """A folder that every account may pass through; pytest's own are closed to others."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to be several accounts")
    folder = open_folder(Path(tempfile.mkdtemp(prefix="attack.", dir="/tmp")))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def keys() -> Iterator[Keys]:
    # Its agent has to end with the test: each holds two of the machine's inotify instances.
    with Keys() as made:
        yield made


@pytest.fixture
def guarded(work: Path) -> Iterator[Callable[..., Guarded]]:
    """Makes instances, and stops their daemons at the end. Not started yet."""
    made: list[Guarded] = []

    def make(trust: Sequence[Path] = (), *, options: Sequence[str] = ()) -> Guarded:
        made.append(Guarded(work / f"instance{len(made)}", trust=trust, options=options))
        return made[-1]

    yield make
    for one in made:
        one.close()
