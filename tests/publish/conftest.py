"""What several tests of publishing need: a signing key, and an apt of its own."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from incomingd.publish.sign import Signer


@pytest.fixture(scope="session")
def key_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A gnupg home with one signing key, and its fingerprint; not to be changed."""
    if not shutil.which("gpg"):
        pytest.skip("gpg is not installed")
    home = tmp_path_factory.mktemp("key") / "signing"
    maker = Signer(home, ())
    key = maker.create_key("Example archive")
    yield home, key
    maker.close()


@pytest.fixture
def signer(key_home: tuple[Path, str]) -> Signer:
    """Signs with the key of ``key_home``, whose agent ends with the session."""
    home, key = key_home
    return Signer(home, (key,))
