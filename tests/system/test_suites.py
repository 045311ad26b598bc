"""A suite may be called something else; its clients never find it empty, or another one in its place, unnoticed."""

import subprocess
from pathlib import Path

import pytest
from debian.deb822 import Release

from tests.support import packages
from tests.support.apt import Apt
from tests.support.instance import Instance, until
from tests.support.uploads import Builder


@pytest.fixture
def idle(idle: Instance) -> Instance:
    """An instance with one suite, trixie, that is called testing."""
    text = idle.config.read_text().replace("[suites.stable]", '[suites.trixie]\nsuite = "testing"')
    idle.config.write_text(text)
    # What init has published under the other name.
    (idle.archive / "dists/stable").unlink()
    (idle.state / "journal.db").unlink()
    idle.set("incoming.default", watch="polling")
    idle.set("service", scan_interval="200ms")
    return idle


def publish(instance: Instance, builder: Builder, version: str = "1.0-1", distribution: str = "trixie") -> None:
    upload = builder.upload("hello", version, distribution=distribution)
    instance.succeeded(upload.send_directory(instance.incoming))


def edit(instance: Instance, old: str, new: str) -> None:
    text = instance.config.read_text()
    assert old in text
    instance.config.write_text(text.replace(old, new))


def release(instance: Instance, name: str) -> Release:
    return Release((instance.archive / "dists" / name / "Release").read_bytes())


def versions(instance: Instance, root: Path, name: str) -> str:
    apt = Apt(root / f"apt-{name}", instance.archive.as_uri(), instance.keyring, suite=name)
    apt.update()
    return apt.candidate("hello")


def check(instance: Instance) -> subprocess.CompletedProcess[str]:
    return instance.run("incomingd", "--check-config")


def test_a_release_day_keeps_every_package(idle: Instance, builder: Builder, tmp_path: Path) -> None:
    with idle:
        publish(idle, builder, distribution="testing")
        assert release(idle, "testing")["Suite"] == "testing"
        edit(idle, 'suite = "testing"', 'suite = "stable"\nlabel = "Stable packages"')
        said = check(idle)
        assert said.returncode == 0
        assert 'clients read Suite "testing", and it becomes "stable"' in said.stdout
        assert '[suites.trixie] label: clients read Label "instance"' in said.stdout
        assert "allow-releaseinfo-change" in said.stdout
        again = idle.ctl("reload")
        assert again.returncode == 0
        assert 'it becomes "stable"' in again.stderr
        assert 'it becomes "stable"' in idle.log()
        until(lambda: release(idle, "trixie")["Suite"] == "stable", "the new Release")
        found = release(idle, "trixie")
        assert (found["Suite"], found["Codename"], found["Label"]) == ("stable", "trixie", "Stable packages")
        for name in ("stable", "trixie"):
            assert versions(idle, tmp_path, name) == "1.0-1"
        # No one else is called testing: its clients find the suite as ever.
        assert (idle.archive / "dists/testing").readlink() == Path("trixie")
        publish(idle, builder, "1.0-2", distribution="stable")
        assert "becomes" not in check(idle).stdout
        assert idle.ctl("fsck", "--deep").stdout == ""


def test_each_suite_takes_the_names_that_its_table_says(idle: Instance, builder: Builder, tmp_path: Path) -> None:
    with idle:
        publish(idle, builder)
        edit(idle, 'suite = "testing"', 'suite = "stable"')
        with idle.config.open("a") as file:
            file.write('\n[suites.forky]\nsuite = "testing"\n')
        assert idle.ctl("reload").returncode == 0
        until(lambda: (idle.archive / "dists/testing").readlink() == Path("forky"), "the other suite")
        assert versions(idle, tmp_path, "stable") == "1.0-1"
        assert versions(idle, tmp_path, "testing") == ""


def test_a_table_with_another_name_empties_no_suite(idle: Instance, builder: Builder, tmp_path: Path) -> None:
    with idle:
        publish(idle, builder)
        edit(idle, "[suites.trixie]", "[suites.stable]")
        refused = idle.ctl("reload")
        assert refused.returncode == 2
        assert "[suites.trixie] is missing, and clients read that suite" in refused.stderr
        assert versions(idle, tmp_path, "testing") == "1.0-1"
    said = check(idle)
    assert said.returncode == 2
    for advice in ('(suite = "NEW")', "retired = true", "incomingctl drop-suite trixie"):
        assert advice in said.stderr
    assert idle.run("incomingd", "--once").returncode == 4
    with idle:
        until(lambda: idle.health().startswith("halted: "), "the halt")
        assert "[suites.trixie] is missing" in idle.health()
        waits = builder.upload("other", "1.0-1", distribution="stable").send_directory(idle.incoming)
        until(lambda: (idle.status(waits) or {}).get("stage") == "queued", "the check")
        assert not (idle.archive / "dists/stable").exists()
        edit(idle, "[suites.stable]", "[suites.trixie]")
        edit(idle, 'suite = "testing"', 'suite = "stable"')
        assert idle.ctl("reload").returncode == 0
        assert idle.failed(waits) == ["unknown-distribution"]  # it was checked for the other table
        publish(idle, builder, "1.0-2", distribution="stable")
        assert versions(idle, tmp_path, "stable") == "1.0-2"


def test_a_retired_suite_is_served_on_unchanged(idle: Instance, builder: Builder, tmp_path: Path) -> None:
    with idle:
        publish(idle, builder)
        before = (idle.archive / "dists/trixie/InRelease").read_bytes()
        edit(idle, 'suite = "testing"', 'retired = true\nlabel = "of no effect"')
        with idle.config.open("a") as file:
            file.write("\n[suites.forky]\n")
        assert idle.ctl("reload").returncode == 0
        assert (idle.archive / "dists/testing/InRelease").read_bytes() == before
        assert "becomes" not in check(idle).stdout
        late = builder.upload("hello", "1.0-2", distribution="trixie").send_directory(idle.incoming)
        assert idle.failed(late) == ["suite-retired"]
        for words in (("remove", "hello", "trixie"), ("rollback", "trixie", "1")):
            done = idle.ctl(*words)
            assert (done.returncode, "[suite-retired]" in done.stdout) == (1, True)
        packages.binary(tmp_path, "more", "1.0")
        done = idle.ctl("import", "--suite", "trixie", tmp_path / "more_1.0_amd64.deb")
        assert (done.returncode, "[suite-retired]" in done.stdout) == (1, True)
        assert idle.ctl("copy", "hello", "trixie", "forky").returncode == 0
        assert (idle.archive / "dists/testing/InRelease").read_bytes() == before
        assert versions(idle, tmp_path, "testing") == "1.0-1"


@pytest.mark.parametrize("running", [True, False])
def test_a_suite_ends_when_an_operator_says_so(running: bool, idle: Instance, builder: Builder, tmp_path: Path) -> None:
    with idle.config.open("a") as file:
        file.write("\n[suites.forky]\n")
    with idle:
        publish(idle, builder)
        publish(idle, builder, "1.0-2", distribution="forky")
        assert "take the table [suites.trixie] out first" in idle.ctl("drop-suite", "trixie").stderr
    edit(idle, "[suites.trixie]", "[suites.other]")
    edit(idle, 'suite = "testing"', "")
    assert "no suite sid is published; there are forky, trixie" in idle.ctl("drop-suite", "sid").stderr
    if not running:
        said = idle.ctl("drop-suite", "trixie")
        assert "is dropped when incomingd starts" in said.stdout
        assert check(idle).returncode == 0
    with idle:
        if running:
            until(lambda: idle.health().startswith("halted: "), "the halt")
            said = idle.ctl("drop-suite", "trixie")
            assert (said.returncode, "trixie: dropped" in said.stdout) == (0, True), said.stderr
        until(lambda: not (idle.archive / "dists/.generations/trixie").exists(), "the end of the suite")
        until((idle.archive / "dists/other").exists, "the other suite")
        assert not (idle.archive / "dists/trixie").is_symlink()
        assert not (idle.archive / "dists/testing").is_symlink()
        assert versions(idle, tmp_path, "forky") == "1.0-2"
        assert idle.ctl("fsck", "--deep").stdout == ""
        idle.set("publish", grace="0s")
        assert idle.ctl("reload").returncode == 0
        pool = idle.archive / "pool/main/h/hello"
        until(lambda: not (pool / "hello_1.0-1_amd64.deb").exists(), "the end of its files")
        assert (pool / "hello_1.0-2_amd64.deb").exists()
        edit(idle, "[suites.other]", "[suites.other]\n[suites.trixie]")
        assert idle.ctl("reload").returncode == 0
        assert "dropped" in idle.ctl("history", "trixie").stdout
        assert versions(idle, tmp_path, "trixie") == ""
        assert idle.ctl("fsck", "--deep").stdout == ""
