"""What every story begins with: a builder whose key an instance trusts."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import pages
from tests.support.instance import Instance
from tests.support.keys import Keys
from tests.support.pages import Command, Commands
from tests.support.uploads import Builder


@pytest.fixture(scope="session")
def keys() -> Iterator[Keys]:
    """A gnupg home; each test makes the keys that it needs beyond ``builder_key``."""
    for tool in ("gpg", "dpkg-deb", "dpkg-source", "apt-get"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")
    with Keys() as made:
        yield made


@pytest.fixture(scope="session")
def builder_key(keys: Keys) -> str:
    """The key of somebody whom every instance trusts."""
    return keys.make("Joan Builder")


@pytest.fixture
def builder(tmp_path: Path, keys: Keys, builder_key: str) -> Builder:
    """Makes uploads, signed with the trusted key."""
    return Builder(folder=tmp_path / "built", keys=keys, key=builder_key)


@pytest.fixture
def idle(tmp_path: Path, keys: Keys, builder_key: str) -> Iterator[Instance]:
    """An instance whose daemon the test starts."""
    made = Instance(tmp_path / "instance", trust=[keys.public(builder_key)])
    yield made
    made.close()


@pytest.fixture
def instance(idle: Instance) -> Instance:
    """An instance, running."""
    idle.start()
    return idle


@pytest.fixture
def typed(request: pytest.FixtureRequest) -> Iterator[Commands]:
    """The commands of the sections that ``@pytest.mark.types(PAGE, SECTION)`` names. None may be left at the end."""
    yield from _all_of(request, "types", pages.commands)


@pytest.fixture
def written(request: pytest.FixtureRequest) -> Iterator[Commands]:
    """The same of file parts and ``@pytest.mark.writes(PAGE, SECTION)``."""
    yield from _all_of(request, "writes", pages.file_parts)


@pytest.fixture
def tabled(request: pytest.FixtureRequest) -> Iterator[Commands]:
    """The same of the commands in tables and ``@pytest.mark.types_table(PAGE, SECTION)``."""
    yield from _all_of(request, "types_table", pages.table_commands)


def _all_of(request: pytest.FixtureRequest, mark: str, find: Callable[..., list[Command]]) -> Iterator[Commands]:
    sections = [marker.args for marker in reversed([*request.node.iter_markers(mark)])]
    yield (given := Commands([command for section in sections for command in find(*section)]))
    assert given.left == [], "what the test did not type"
