"""Attacks by what is signed, or looks as if it were: bombs in the armor."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.accounts import MALLORY, Guarded, own
from tests.support.keys import Keys
from tests.support.uploads import Builder, changes_text

#: A clear-signed text of 1.4 kB. In the place of a signature are compressed packets in one another, at last 60 GB.
BOMB = (Path(__file__).parents[1] / "data/armored-bomb.txt").read_bytes()


def refused_unread(instance: Guarded, name: str, file: str) -> None:
    """The upload fails, and gpg never got to see what the armor of ``file`` holds."""
    (problem,) = [one for one in instance.wait(name)["problems"] if one["file"] == file]
    assert problem["code"] == "bad-signature"
    assert "a packet has no length of its own" in problem["message"]


@pytest.mark.parametrize("ending", ["changes", "commands"])
def test_a_bomb_in_the_armor_of_what_anyone_may_send(guarded: Callable[..., Guarded], ending: str) -> None:
    instance = guarded()
    instance.start()
    hidden = instance.incoming / ".hidden"
    hidden.write_bytes(BOMB)
    own(hidden, MALLORY)
    hidden.rename(instance.incoming / f"bomb_1_amd64.{ending}")
    refused_unread(instance, "bomb_1_amd64", f"bomb_1_amd64.{ending}")


@pytest.mark.parametrize("ending", ["dsc", "buildinfo"])
def test_a_bomb_in_what_a_signed_changes_lists(
    guarded: Callable[..., Guarded], keys: Keys, work: Path, ending: str
) -> None:
    key = keys.make("Mallory")
    instance = guarded([keys.public(key)])
    instance.start()
    upload = Builder(folder=work / "built", keys=keys, key=key).upload("hello", "1.0", source="native", buildinfo=True)
    file = upload.file(f"*.{ending}")
    text = changes_text([one for one in upload.files if one != upload.changes])[0]
    for algorithm in ("md5", "sha1", "sha256"):
        digest = hashlib.new(algorithm, file.read_bytes()).hexdigest()
        text = text.replace(digest, hashlib.new(algorithm, BOMB).hexdigest())
    text = re.sub(rf"\b{file.stat().st_size}( .*{re.escape(file.name)})$", rf"{len(BOMB)}\1", text, flags=re.M)
    file.write_bytes(BOMB)
    upload.changes.write_bytes(keys.sign(text, key))
    refused_unread(instance, upload.send_directory(instance.incoming), file.name)
