"""An uploader whose key file claims another uploader's key takes nothing from that one."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.accounts import Guarded
from tests.support.crafted_keys import bind, without_back_signature
from tests.support.instance import until
from tests.support.keys import LONG_AGO, Keys
from tests.support.uploads import Builder


@pytest.fixture
def mallory(keys: Keys) -> str:
    return keys.make("Mallory", options=("--faked-system-time", LONG_AGO))


@pytest.fixture
def alice(keys: Keys, mallory: str) -> str:
    return keys.make("Alice")


@pytest.fixture
def claim(keys: Keys, work: Path, alice: str, mallory: str) -> Path:
    """Mallory's key file, with Alice's key as a subkey."""
    file = work / "mallory.gpg"
    file.write_bytes(without_back_signature(bind(keys.home, mallory, alice)))
    return file


def test_it_is_refused_and_the_other_goes_on_uploading(
    guarded: Callable[..., Guarded], keys: Keys, work: Path, alice: str, mallory: str, claim: Path
) -> None:
    instance = guarded([keys.public(alice)])
    instance.set("uploaders", key=alice, sources=["hello"])
    instance.config.write_text(instance.config.read_text().replace("[uploaders]", "[[uploaders]]"))
    instance.start()
    refused = instance.ctl("trust", claim)
    assert refused.returncode == 1
    for name in (alice, "Alice <alice@example.org>", mallory, "Mallory <mallory@example.org>"):
        assert name in refused.stderr
    instance.succeeded(
        Builder(folder=work / "a", keys=keys, key=f"{alice}!").upload().send_directory(instance.incoming)
    )
    by_mallory = Builder(folder=work / "m", keys=keys, key=f"{mallory}!").upload("hello", "2.0-1")
    assert instance.failed(by_mallory.send_directory(instance.incoming)) == ["unknown-key"]


def test_it_is_refused_where_an_instance_is_made(
    guarded: Callable[..., Guarded], keys: Keys, alice: str, claim: Path
) -> None:
    for files in ([keys.public(alice), claim], [claim, keys.public(alice)]):
        with pytest.raises(subprocess.CalledProcessError):
            guarded(files)


def test_one_that_was_trusted_before_is_told_and_harms_nothing(
    guarded: Callable[..., Guarded], keys: Keys, work: Path, alice: str, mallory: str, claim: Path
) -> None:
    """As by a version that did not ask whose a key is."""
    instance = guarded([keys.public(alice)])
    home = instance.state / "gnupg/uploaders"
    command = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--no-autostart", "--import", str(claim)]
    subprocess.run(command, check=True, capture_output=True)
    instance.hand_over()
    instance.start()

    def told() -> bool:
        return any(f"the key {alice} belongs to {alice}" in reason for reason in instance.index()["health"]["reasons"])

    until(told, "the fault in health")
    instance.succeeded(
        Builder(folder=work / "a", keys=keys, key=f"{alice}!").upload().send_directory(instance.incoming)
    )
    assert instance.ctl("untrust", mallory).returncode == 0
    until(lambda: not told(), "the fault to go")
