"""Packages without a .changes, for builds that make nothing else: only where a queue allows it."""

import shutil
from pathlib import Path

import pytest

from tests.support import packages
from tests.support.instance import Instance, until
from tests.support.uploads import Builder


@pytest.fixture
def lenient(idle: Instance) -> Instance:
    """An instance whose one queue takes bare packages, running."""
    idle.set("incoming.default", allow_bare_debs=True, default_suite="stable", signatures="optional")
    idle.start()
    return idle


def bare(builder: Builder, *names: str, version: str = "1.0-1") -> Path:
    """A folder with these packages and nothing else."""
    folder = builder.folder / "-".join(names)
    folder.mkdir(parents=True)
    for name in names:
        packages.binary(folder, name, version, "amd64")
    return folder


def test_packages_alone_are_an_upload(lenient: Instance, builder: Builder) -> None:
    shutil.copytree(bare(builder, "hello", "world"), lenient.incoming / ".job")
    (lenient.incoming / ".job" / "notes.txt").write_text("not published\n")
    (lenient.incoming / ".job").rename(lenient.incoming / "job")
    found = lenient.succeeded("job")
    assert [one["source"] for one in found["changes"]] == ["hello", "world"]
    assert {one["distribution"] for one in found["changes"]} == {"stable"}
    assert {one["signed_by"] for one in found["changes"]} == {None}
    assert found["published"]["files"] == [
        "pool/main/h/hello/hello_1.0-1_amd64.deb",
        "pool/main/w/world/world_1.0-1_amd64.deb",
    ]
    assert [one["file"] for one in found["warnings"]] == ["notes.txt"]


def test_packages_written_in_place(lenient: Instance, builder: Builder) -> None:
    folder = bare(builder, "hello", "world")
    (lenient.incoming / "job").mkdir()
    with (lenient.incoming / "job" / "hello_1.0-1_amd64.deb").open("wb") as file:
        file.write((folder / "hello_1.0-1_amd64.deb").read_bytes())
        (lenient.incoming / "job" / ".world_1.0-1_amd64.deb.4Xk2").write_bytes(b"rsync is at it")
    until(lambda: lenient.status("job"), "it to be seen")
    shutil.copy(folder / "world_1.0-1_amd64.deb", lenient.incoming / "job")
    (lenient.incoming / "job" / ".world_1.0-1_amd64.deb.4Xk2").unlink()
    assert len(lenient.succeeded("job")["published"]["files"]) == 2


def test_the_same_again_and_other_bytes(lenient: Instance, builder: Builder) -> None:
    folder = bare(builder, "hello")
    for name in ("first", "again"):
        shutil.copytree(folder, lenient.incoming / name)
        found = lenient.succeeded(name)
    assert found["already_published"]
    other = builder.folder / "other"
    other.mkdir()
    packages.binary(other, "hello", "1.0-1", "amd64", content="something else")
    shutil.copytree(other, lenient.incoming / "other")
    assert lenient.failed("other") == ["pool-conflict"]


def test_what_is_wrong_with_them_is_told(lenient: Instance, builder: Builder) -> None:
    folder = bare(builder, "hello")
    packages.binary(folder, "exotic", "1.0", "riscv64")
    (folder / "broken_1.0_amd64.deb").write_bytes(b"!<arch>\nbut no more")
    (folder / "hello_1.0-1_amd64.deb").rename(folder / "hello_1.0-2_amd64.deb")
    shutil.copytree(folder, lenient.incoming / "job")
    assert sorted(lenient.failed("job")) == ["bad-deb", "unknown-architecture"]
    assert [one["code"] for one in (lenient.status("job") or {})["warnings"]] == ["deb-file-name"]


def test_a_changes_beside_them_counts(lenient: Instance, builder: Builder) -> None:
    upload = builder.upload("hello", "1.0-1")
    packages.binary(upload.folder, "stray", "1.0", "amd64")
    found = lenient.succeeded(upload.send_directory(lenient.incoming))
    assert [one["file"] for one in found["changes"]] == ["hello_1.0-1_amd64.changes"]
    assert [one["file"] for one in found["warnings"]] == ["stray_1.0_amd64.deb"]


def test_without_the_setting_they_are_refused(instance: Instance, builder: Builder) -> None:
    shutil.copytree(bare(builder, "hello"), instance.incoming / ".job")
    (instance.incoming / ".job").rename(instance.incoming / "job")
    assert instance.failed("job") == ["no-changes"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"default_suite": "stable"}, "there is no signature"),
        ({"signatures": "optional"}, "allow_bare_debs needs it"),
        ({"signatures": "optional", "default_suite": "nowhere"}, 'is "nowhere"; must be a suite: stable'),
    ],
    ids=["signatures", "no suite", "unknown suite"],
)
def test_contradictions_are_errors(idle: Instance, settings: dict[str, str], said: str) -> None:
    idle.set("incoming.default", allow_bare_debs=True, **settings)
    found = idle.run("incomingd", "--check-config")
    assert found.returncode == 2
    assert "[incoming.default]" in found.stderr
    assert said in found.stderr
