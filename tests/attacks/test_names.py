"""A key that is limited to some sources tries to bring what belongs to others, by every way into the archive."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import packages
from tests.support.accounts import Guarded
from tests.support.apt import Apt
from tests.support.instance import Instance, until
from tests.support.keys import Keys
from tests.support.uploads import Builder, Upload

FOREIGN, UNNAMED, ESSENTIAL = "binary-of-other-source", "binary-not-allowed", "essential-not-allowed"


class Teams:
    """Two teams with a key each, and an instance with two suites that trusts both. Not started yet."""

    def __init__(self, work: Path, keys: Keys, guarded: Callable[..., Guarded]) -> None:
        self.a, self.b = keys.make("Team A"), keys.make("Team B")
        trusted = [keys.public(self.a), keys.public(self.b)]
        self.instance = guarded(trusted, options=("--suite", "stable", "--suite", "testing"))
        self._builds = Builder(folder=work / "built", keys=keys, key=self.b)
        self._count = 0

    def rules(self, *rules: dict[str, Any]) -> None:
        """The [[uploaders]] tables."""
        text = self.instance.config.read_text()
        for rule in rules:
            lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in rule.items())
            text += f"\n[[uploaders]]\n{lines}"
        self.instance.config.write_text(text)

    def build(self, package: str, version: str, *binaries: str, **more: Any) -> Upload:
        """An upload, by default of team B."""
        self._count += 1
        name = f"{package}-{self._count}"
        return self._builds.upload(package, version, binaries=binaries or None, upload_name=name, **more)

    def send(self, upload: Upload) -> dict[str, Any]:
        """How it ended."""
        return self.instance.wait(upload.send_directory(self.instance.incoming))

    def published(self, upload: Upload) -> dict[str, Any]:
        found = self.send(upload)
        assert found["state_name"] == "SUCCEEDED", found["problems"]
        return found

    def listed(self, suite: str, name: str) -> list[tuple[str, str]]:
        """Version and source of each architecture that the suite lists."""
        found = json.loads(self.instance.ctl("list", suite, "--package", name, "--json").stdout)
        return [(one["version"], one["source"]) for one in found if one["name"] == name and one["kind"] != "dsc"]


@pytest.fixture
def teams(work: Path, keys: Keys, guarded: Callable[..., Guarded]) -> Teams:
    return Teams(work, keys, guarded)


def codes(status: dict[str, Any]) -> list[str]:
    assert status["state_name"] == "FAILED", status
    return sorted({problem["code"] for problem in status["problems"]})


def has_files(folder: Path) -> bool:
    """True if there is a file anywhere below; folders may leave meanwhile."""
    return any(names for _, _, names in os.walk(folder))


def in_directory(instance: Instance, upload: Upload) -> str:
    return upload.send_directory(instance.incoming)


def flat(instance: Instance, upload: Upload) -> str:
    return upload.send_flat(instance.incoming)


def delayed(instance: Instance, upload: Upload) -> str:
    return upload.send_directory(instance.incoming / "DELAYED/0-day")


def test_no_upload_takes_what_belongs_to_another_source(teams: Teams) -> None:
    instance = teams.instance
    instance.set("incoming.default", delayed=1)
    instance.set("service", scan_interval="200ms")
    teams.rules({"key": teams.a, "sources": ["team-a-*"]}, {"key": teams.b})
    instance.start()
    teams.published(teams.build("sudo", "1.9-1"))
    teams.published(teams.build("team-b", "1.0-1", "b-tool"))
    for way in (in_directory, flat, delayed):
        for name in ("sudo", "b-tool"):
            attack = teams.build("team-a-x", "99:1-1", name, key=teams.a)
            status = instance.wait(way(instance, attack))
            assert codes(status) == [UNNAMED, FOREIGN], way
            # Nothing of what the archive holds is told besides whose the name is.
            assert not any("SHA256" in problem["message"] for problem in status["problems"])
    essential = teams.build("team-a-x", "1.0-1", "team-a-x", key=teams.a, fields={"Essential": "yes"})
    assert codes(teams.send(essential)) == [ESSENTIAL]
    claims = teams.build("team-a-x", "1.0-1", "team-a-x", "sudo", source="quilt", key=teams.a)
    for deb in claims.folder.glob("sudo_*"):
        deb.unlink()
    files = [file for file in claims.files if file.suffix != ".changes"]
    claims.changes.unlink()
    assert codes(teams.send(teams._builds.sign(claims.folder, files, key=teams.a))) == [UNNAMED, FOREIGN]
    assert (teams.listed("stable", "sudo"), teams.listed("stable", "b-tool")) == (
        [("1.9-1", "sudo")],
        [("1.0-1", "team-b")],
    )
    # Team B is not locked out, and team A goes on with what is its own.
    teams.published(teams.build("sudo", "1.9-2"))
    teams.published(teams.build("team-a-x", "1.0-1", "team-a-x", "team-a-x-dbgsym", key=teams.a))


def test_unsigned_uploads_take_nothing_over_beside_a_table(teams: Teams, work: Path) -> None:
    instance = teams.instance
    instance.set("incoming.default", signatures="optional", allow_bare_debs=True, default_suite="stable")
    teams.rules({"key": teams.b})
    checked = instance.run("incomingd", "--check-config")
    assert checked.returncode == 0
    assert "warning: " in checked.stdout
    assert "[incoming.default] signatures" in checked.stdout
    instance.start()
    assert "[incoming.default] signatures" in instance.log()
    teams.published(teams.build("sudo", "1.9-1"))
    assert codes(teams.send(teams.build("evil", "99:1-1", "sudo", key=None))) == [FOREIGN]
    essential = teams.build("evil", "1.0-1", key=None, fields={"Protected": "yes"})
    assert codes(teams.send(essential)) == [ESSENTIAL]
    for number, (name, fields) in enumerate((("sudo", {}), ("evil", {"Priority": "required"}))):
        folder = work / f"bare-{number}"
        folder.mkdir()
        packages.binary(folder, name, "99:1-1", "amd64", source="evil" if name != "evil" else None, fields=fields)
        shutil.copytree(folder, instance.incoming / f".{folder.name}")
        (instance.incoming / f".{folder.name}").rename(instance.incoming / folder.name)
        assert codes(instance.wait(folder.name)) == [ESSENTIAL if fields else FOREIGN]
    assert teams.listed("stable", "sudo") == [("1.9-1", "sudo")]


def test_a_copy_counts_as_by_the_key_that_brought_the_package(teams: Teams) -> None:
    """Team A may do everything in testing; no one in stable is to get its sudo by an ordinary copy."""
    instance = teams.instance
    teams.rules({"key": teams.a, "suites": ["testing"], "essential": True}, {"key": teams.b})
    instance.start()
    teams.published(teams.build("sudo", "1.9-1"))
    own = {"key": teams.a, "distribution": "testing"}
    teams.published(teams.build("team-a-x", "99:1-1", "sudo", "team-a-x", **own))
    teams.published(teams.build("team-a-y", "1.0-1", **own, fields={"Essential": "yes"}))
    teams.published(teams.build("team-a-z", "1.0-1", **own))
    for source, code in (("team-a-x", FOREIGN), ("team-a-y", ESSENTIAL)):
        refused = instance.ctl("copy", source, "testing", "stable")
        assert refused.returncode == 1
        assert f"[{code}]" in refused.stdout
        assert "--take-over" in refused.stdout
    assert instance.ctl("copy", "team-a-z", "testing", "stable").returncode == 0
    assert teams.listed("stable", "sudo") == [("1.9-1", "sudo")]
    taken = json.loads(instance.ctl("copy", "--take-over", "team-a-x", "testing", "stable", "--json").stdout)
    assert [(one["state_name"], [w["code"] for w in one["warnings"]]) for one in taken] == [
        ("SUCCEEDED", ["binary-taken-over"])
    ]
    assert teams.listed("stable", "sudo") == [("99:1-1", "team-a-x")]
    # From now on it belongs to the other source.
    assert codes(teams.send(teams.build("sudo", "99:2-1", key=teams.a))) == ["key-not-allowed"]


def test_an_import_is_the_operators_word(teams: Teams, work: Path) -> None:
    teams.rules({"key": teams.b})
    teams.instance.start()
    teams.published(teams.build("sudo", "1.9-1"))
    tree = work / "tree"
    tree.mkdir()
    tree.chmod(0o755)
    packages.binary(tree, "sudo", "2.0-1", "amd64", source="sudo-ng", fields={"Essential": "yes"})
    packages.binary(tree, "other", "2.0-1", "amd64")
    done = teams.instance.ctl("import", "--suite", "stable", tree, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    (status,) = json.loads(done.stdout)
    assert [(one["code"], "sudo-ng" in one["message"]) for one in status["warnings"]] == [("binary-taken-over", True)]
    assert teams.listed("stable", "sudo") == [("2.0-1", "sudo-ng")]


def test_without_a_table_a_takeover_is_told(teams: Teams) -> None:
    teams.instance.start()
    teams.published(teams.build("sudo", "1.9-1"))
    status = teams.published(teams.build("team-a-x", "99:1-1", "sudo", key=teams.a, fields={"Essential": "yes"}))
    assert [warning["code"] for warning in status["warnings"]] == ["binary-taken-over", "essential-package"]
    assert "belonged to the source sudo" in teams.instance.ctl("status", status["name"]).stdout


@pytest.mark.parametrize("forget", [False, True], ids=["after grace", "forgotten"])
def test_a_name_that_was_squatted_and_removed_is_free(teams: Teams, work: Path, forget: bool) -> None:
    """By the same source (the same file in the pool) and by another one (the same package and version)."""
    instance = teams.instance
    instance.set("publish", **({"index_grace": "1s"} if forget else {"grace": "1s"}))
    instance.start()
    squats = [
        teams.build("tool", "1.0-1", "tool", "tool-doc", key=teams.a, source="quilt", content="evil"),
        teams.build("squat", "1.0-1", "helper", key=teams.a, content="evil"),
    ]
    for squat in squats:
        teams.published(squat)
    honest = [
        {"name": "tool", "binaries": ("tool", "tool-doc"), "source": "quilt"},
        {"name": "honest", "binaries": ("helper",)},
    ]

    def build(name: str, binaries: tuple[str, ...], source: str = "") -> Upload:
        return teams.build(name, "1.0-1", *binaries, source=source, content="good")

    for one in honest:
        assert set(codes(teams.send(build(**one)))) <= {"pool-conflict", "same-version-other-content"}
    squatted = json.loads(instance.ctl("history", "stable", "--json").stdout)[0]["generation"]
    words = ["--forget"] if forget else []
    for source in ("tool", "squat"):
        assert instance.ctl("remove", *words, source, "stable").returncode == 0
    until(lambda: not has_files(instance.archive / "pool"), "the end of the squatted files")
    for squat in squats:
        shutil.copytree(squat.folder, again := squat.folder.with_name(f"{squat.name}-again"))
        replayed = Upload(folder=again, changes=again / squat.changes.name, name=again.name)
        assert codes(teams.send(replayed)) == ["replayed"]
    for one in honest:
        assert teams.published(build(**one))["warnings"] == []
    # A generation that lists the squatted content cannot come back with other bytes under the same names.
    back = instance.ctl("rollback", "stable", str(squatted))
    assert back.returncode == 1
    assert "[pool-file-gone]" in back.stdout
    assert "tool 1.0-1 amd64" in back.stdout
    shown = json.loads(instance.ctl("show", "helper", "1.0-1", "--json").stdout)["packages"]
    assert [(one["source"], one["lost"]) for one in shown] == [("honest", False), ("squat", True)]
    checked = instance.ctl("fsck", "--deep")
    assert checked.returncode == 0, checked.stdout
    apt = Apt(work / "apt", instance.archive.as_uri(), instance.keyring)
    apt.update()
    assert apt.packages() == {("tool", "1.0-1"), ("tool-doc", "1.0-1"), ("helper", "1.0-1")}
    assert "good" in (apt.install("helper") / "usr/share/doc/helper/README").read_text()
    assert "tool_1.0-1.dsc" in apt.source("tool")


def test_an_import_brings_other_content_for_a_free_name(teams: Teams, work: Path) -> None:
    instance = teams.instance
    instance.set("publish", grace="1s")
    instance.start()
    teams.published(teams.build("tool", "1.0-1", key=teams.a, content="evil"))
    teams.published(teams.build("squat", "1.0-1", "helper", key=teams.a, content="evil"))
    for source in ("tool", "squat"):
        assert instance.ctl("remove", source, "stable").returncode == 0
    until(lambda: not has_files(instance.archive / "pool"), "the end of the files")
    tree = work / "tree"
    tree.mkdir()
    for name in ("tool", "helper"):
        packages.binary(tree, name, "1.0-1", "amd64", content="good")
    done = instance.ctl("import", "--suite", "stable", tree)
    assert done.returncode == 0, done.stdout + done.stderr
    assert instance.ctl("rollback", "stable", "2").returncode == 1
    checked = instance.ctl("fsck", "--deep")
    assert checked.returncode == 0, checked.stdout
    assert teams.listed("stable", "helper") == [("1.0-1", "helper")]


def test_what_was_removed_before_can_be_forgotten(teams: Teams) -> None:
    instance = teams.instance
    instance.set("publish", index_grace="1s")
    instance.start()
    teams.published(teams.build("squat", "1.0-1", "helper", key=teams.a))
    teams.published(teams.build("kept", "1.0-1"))
    assert instance.ctl("remove", "squat", "stable").returncode == 0
    forgotten = instance.ctl("remove", "--forget", "squat", "stable")
    assert forgotten.returncode == 0, forgotten.stdout
    until(lambda: not has_files(instance.archive / "pool/main/s"), "the end of the file")
    assert instance.ctl("remove", "--forget", "squat", "stable").returncode == 1
    teams.published(teams.build("honest", "1.0-1", "helper", content="good"))
    assert teams.listed("stable", "kept") == [("1.0-1", "kept")]
