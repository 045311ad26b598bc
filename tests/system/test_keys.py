"""Who is trusted: what an operator sees of it, and what health says before a key ends."""

import json

import pytest

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
