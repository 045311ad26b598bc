"""Long descriptions in an index of their own, where that is asked for; apt finds each by its digest."""

import gzip
from pathlib import Path

import pytest

from tests.support.apt import Apt
from tests.support.instance import Instance, until
from tests.support.uploads import Builder

LONG = "it says so\n At length, and with an ü.\n .\n Twice."


def client(instance: Instance, root: Path, language: str = "en") -> Apt:
    apt = Apt(root, f"file://{instance.archive}", instance.keyring)
    conf = root / "apt.conf"
    conf.write_text(conf.read_text().replace('Acquire::Languages "none"', f'Acquire::Languages "{language}"'))
    apt.update()
    return apt


def described(apt: Apt, package: str) -> str:
    """The description that apt shows, without its name."""
    shown = apt.run("show", package, tool="apt-cache")
    return shown[shown.index("Description") :].partition(": ")[2].split("\nDescription-md5")[0].strip()


@pytest.fixture
def instance(idle: Instance) -> Instance:
    idle.set("publish", translations=True)
    idle.start()
    return idle


def translations(instance: Instance) -> str:
    file = instance.archive / "dists/stable/main/i18n/Translation-en.gz"
    return gzip.decompress(file.read_bytes()).decode()


def test_apt_shows_them_and_who_wants_none_does_without(instance: Instance, builder: Builder, tmp_path: Path) -> None:
    fields = {"Description": LONG, "Tag": "made::test"}
    instance.succeeded(
        builder.upload(fields=fields, architectures=("amd64", "arm64")).send_directory(instance.incoming)
    )
    assert described(client(instance, tmp_path / "en"), "hello") == LONG
    assert described(client(instance, tmp_path / "none", "none"), "hello") == "it says so"


def test_each_description_is_there_once_and_as_long_as_something_has_it(
    instance: Instance, builder: Builder, tmp_path: Path
) -> None:
    def send(version: str, text: str, *architectures: str) -> None:
        upload = builder.upload(version=version, fields={"Description": text}, architectures=architectures)
        instance.succeeded(upload.send_directory(instance.incoming))
        assert instance.ctl("fsck", "--deep").returncode == 0

    send("1.0-1", "one\n The first.", "amd64", "arm64")
    assert translations(instance).count("Package: hello\n") == 1
    send("1.0-2", "two\n The second.", "amd64")
    assert translations(instance).count("Package: hello\n") == 2, "arm64 has the first one still"
    assert described(client(instance, tmp_path / "apt"), "hello") == "two\n The second."
    send("1.0-3", "three\n The third.", "amd64", "arm64")
    assert translations(instance).count("Package: hello\n") == 1
    assert "Description-en: three\n The third.\n" in translations(instance)


def test_the_setting_can_come_and_go(idle: Instance, builder: Builder, tmp_path: Path) -> None:
    idle.start()
    idle.succeeded(builder.upload(fields={"Description": LONG}).send_directory(idle.incoming))
    for number, wanted in enumerate((True, False)):
        idle.set("publish", translations=wanted)
        idle.reload()
        until(lambda count=number: idle.log().count("(new settings)") == count + 1, "the new generation")
        assert idle.ctl("fsck", "--deep").returncode == 0
        assert (idle.archive / "dists/stable/main/i18n/Translation-en.xz").exists() == wanted
        assert described(client(idle, tmp_path / f"apt-{number}"), "hello") == LONG


def test_an_import_brings_them_too(instance: Instance, builder: Builder, tmp_path: Path) -> None:
    upload = builder.upload(fields={"Description": LONG})
    done = instance.ctl("import", "--suite", "stable", upload.file("*.deb"))
    assert done.returncode == 0, done.stderr
    assert described(client(instance, tmp_path / "apt"), "hello") == LONG
    assert instance.ctl("fsck", "--deep").returncode == 0
