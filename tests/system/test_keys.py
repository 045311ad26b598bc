"""Who is trusted: what an operator sees of it, and what health says before a key ends."""

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from incomingd.config.reader import load
from tests.support.instance import Instance, until
from tests.support.keys import Keys


def trust(instance: Instance, keys: Keys, name: str, expires: str = "never") -> str:
    key = keys.make(name, expires=expires)
    assert instance.ctl("trust", keys.public(key)).returncode == 0
    return key


def test_they_are_listed_with_what_each_may_upload(idle: Instance, keys: Keys) -> None:
    ada, bob = trust(idle, keys, "Ada"), trust(idle, keys, "Bob", "2y")
    for key in (ada, bob):
        assert f"{key}" in idle.ctl("keys").stdout
    assert idle.ctl("keys").stdout.count("everything") == 3  # the fixture's own key, too
    idle.config.write_text(
        idle.config.read_text()
        + f'\n[[uploaders]]\nkey = "{bob}"\nsources = ["team-b-*"]\nsuites = ["stable"]\nbinaries_only = true\n'
    )
    found = {one["fingerprint"]: one for one in json.loads(idle.ctl("keys", "--json").stdout)}
    assert found[bob]["may_upload"] == ["team-b-* to stable, no sources"]
    assert found[ada]["may_upload"] == ["nothing: no [[uploaders]] names it"]
    assert found[ada]["expires"] is None
    assert len(found[bob]["expires"]) == len("2028-01-01")
    assert found[bob]["names"] == ["Bob <bob@example.org>"]


@pytest.mark.parametrize(("expires", "days"), [("20d", "30 days"), ("5d", "7 days"), ("20h", "1 day"), ("60d", "")])
def test_health_says_so_before_one_ends(idle: Instance, keys: Keys, expires: str, days: str) -> None:
    key = trust(idle, keys, f"Ends in {expires}", "seconds=72000" if expires == "20h" else expires)
    idle.start()
    if days:
        until(lambda: f"ends within {days}, on" in str(idle.index()["health"]["reasons"]), "the warning")
        assert key in str(idle.index()["health"]["reasons"])
    else:
        assert idle.index()["health"]["reasons"] == []


def test_health_says_so_before_the_archives_own_key_ends(idle: Instance) -> None:
    home = Path(tempfile.mkdtemp(prefix="incomingd-signing-")) / "home"  # short, for the sockets of gpg's agent
    home.symlink_to(idle.state / "gnupg/signing")
    [key] = load(idle.config).archive.signing_keys
    idle.start()
    assert idle.index()["health"]["reasons"] == []
    subprocess.run(["gpg", "--homedir", home, "--batch", "--quiet", "--quick-set-expire", key, "5d"], check=True)
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True)
    shutil.rmtree(home.parent)
    assert idle.ctl("reload").returncode == 0
    until(lambda: "ends within 7 days" in str(idle.index()["health"]["reasons"]), "the warning")
    assert idle.index()["health"]["state"] == "degraded"


def test_a_new_archives_key_is_one_that_apt_3_takes(idle: Instance) -> None:
    dists = idle.archive / "dists/stable"
    idle.start()
    until((dists / "Release.gpg").exists, "the first generation")
    ring = idle.archive / "archive-keyring.gpg"
    subprocess.run(["sqv", "--keyring", ring, dists / "Release.gpg", dists / "Release"], check=True)
