"""One set of keys for the whole session, and a bench to check uploads on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.verify.builders import Bench, Keys


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keys]:
    """Not to be changed."""
    made = Keys(tmp_path_factory.mktemp("k"))
    yield made
    made.close()


@pytest.fixture
def bench(tmp_path: Path, keys: Keys) -> Bench:
    return Bench(folder=tmp_path, keys=keys)
