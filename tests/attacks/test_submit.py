"""An operator submits what lies in another account's folder."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.accounts import DAEMON, MALLORY, Guarded

CHANGES = "Format: 1.8\nSource: x\nVersion: 1.0\nFiles:\n {digest} 11 misc optional x_1.0.tar.gz\n"


@pytest.mark.parametrize("linked", ["x_1.0.tar.gz", "x_1.0_source.changes"])
def test_a_link_of_that_account_sends_no_file_of_the_operators(
    linked: str, guarded: Callable[..., Guarded], work: Path
) -> None:
    instance = guarded()
    secret, folder = work / "secret", work / "mallorys"
    secret.write_text("TOP SECRET\n")
    secret.chmod(0o600)
    folder.mkdir()
    (folder / "x_1.0.tar.gz").write_text("TOP SECRET\n")
    (folder / "x_1.0_source.changes").write_text(CHANGES.format(digest="0" * 32))
    (folder / linked).unlink()
    (folder / linked).symlink_to(secret)
    for path in (folder, *folder.iterdir()):
        os.chown(path, MALLORY, DAEMON, follow_symlinks=False)
    sent = instance.ctl("submit", "--to", str(instance.incoming), str(folder))
    assert sent.returncode != 0
    assert f"{linked}: is a link that uid {MALLORY} has made" in sent.stderr
    assert "SECRET" not in sent.stderr
    assert list(instance.incoming.iterdir()) == []


def test_links_of_ones_own_are_followed(guarded: Callable[..., Guarded], work: Path) -> None:
    instance = guarded()
    (work / "tarball").write_text("some source\n"[:11])
    folder = work / "mine"
    folder.mkdir()
    (folder / "x_1.0.tar.gz").symlink_to(work / "tarball")
    (folder / "x_1.0_source.changes").write_text(CHANGES.format(digest="0" * 32))
    assert instance.ctl("submit", "--to", str(instance.incoming), str(folder)).returncode == 0
