"""Several queues, each with rules of its own, on file systems of their own; and what nobody comes for."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import packages
from tests.support.instance import Instance, until
from tests.support.uploads import Builder


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system than everything else."""
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system here")
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        yield Path(folder)


@pytest.fixture
def nightly(idle: Instance, memory: Path) -> Path:
    """The incoming folder of a second queue, on the other file system: nightly builds, unsigned, for one suite."""
    incoming = memory / "incoming"
    incoming.mkdir()
    idle.set("suites.nightly", architectures=["amd64"])
    idle.set(
        "incoming.nightly",
        path=str(incoming),
        claims=str(memory / "claims"),
        settle="0.3s",
        signatures="optional",
        allow_bare_debs=True,
        suites=["nightly"],
        default_suite="nightly",
    )
    idle.set("incoming.default", suites=["stable"])
    idle.start()
    return incoming


def suite(instance: Instance, name: str) -> list[str]:
    return [one["name"] for one in json.loads(instance.ctl("list", name, "--json").stdout)]


def test_two_queues_and_one_pipeline(idle: Instance, nightly: Path, builder: Builder) -> None:
    signed = builder.upload("hello", "1.0-1").send_directory(idle.incoming, "job")
    idle.succeeded(signed)
    unsigned = builder.upload("daily", "1.0", distribution="nightly", key=None).send_directory(nightly)
    idle.succeeded(unsigned)
    bare = nightly / "bare"
    bare.mkdir()
    packages.binary(bare, "alone", "1.0", "amd64")
    idle.succeeded("bare")
    assert suite(idle, "stable") == ["hello"]
    assert suite(idle, "nightly") == ["alone", "daily"]
    sequences = [one["claimed_at"] for one in map(idle.status, ("job", unsigned, "bare")) if one]
    assert sequences == sorted(sequences)
    assert not list((nightly.parent / "claims").iterdir())
    assert idle.health() == "ok: "


def test_each_queue_has_its_own_rules(idle: Instance, nightly: Path, builder: Builder) -> None:
    here = builder.upload("hello", "1.0-1", key=None).send_directory(idle.incoming)
    assert idle.failed(here) == ["unsigned"]
    wrong = builder.upload("world", "1.0-1").send_directory(nightly)
    assert idle.failed(wrong) == ["suite-not-here"]
    found = idle.status(wrong)
    assert found
    assert "it is for stable, and [incoming.nightly] takes uploads for nightly" in found["problems"][0]["message"]


def test_the_same_name_in_both(idle: Instance, nightly: Path, builder: Builder) -> None:
    first = builder.upload("hello", "1.0-1").send_directory(idle.incoming, "job")
    old = idle.succeeded(first)
    builder.upload("daily", "1.0", distribution="nightly").send_directory(nightly, "job")
    until(lambda: (idle.status("job") or {})["id"] != old["id"], "the second one")
    new = idle.succeeded("job")
    assert (old["queue"], new["queue"]) == ("default", "nightly")


def test_cancel_and_retry_across_file_systems(idle: Instance, nightly: Path, builder: Builder) -> None:
    upload = builder.upload("daily", "1.0", distribution="nightly")
    shutil.copytree(upload.folder, nightly / ".job")
    (nightly / ".job" / "daily_1.0_amd64.deb").rename(nightly / "late.deb")
    shutil.copytree(nightly / ".job", nightly / "job")
    until(lambda: idle.status("job"), "it to be seen")
    assert idle.ctl("cancel", "job").returncode == 0
    old = idle.status("job")
    assert old
    assert old["stage"] == "cancelled"
    kept = idle.state / "rejected" / str(old["id"])
    until(lambda: kept.is_dir() and not list((nightly.parent / "claims").iterdir()), "its files to be kept")
    shutil.copy(nightly / "late.deb", kept / "daily_1.0_amd64.deb")
    assert idle.ctl("retry", "job").returncode == 0
    until(lambda: (idle.status("job") or {}).get("stage") == "published", "it to be published")
    assert not kept.exists()
    assert suite(idle, "nightly") == ["daily"]


def test_a_second_file_system_without_claims_of_its_own_is_told_of(
    idle: Instance, memory: Path, builder: Builder
) -> None:
    (memory / "incoming").mkdir()
    idle.set("incoming.nightly", path=str(memory / "incoming"))
    idle.start()
    until(lambda: "on different file systems" in idle.health(), "the fault")
    assert idle.health().startswith("degraded")
    idle.succeeded(builder.upload("hello", "1.0-1").send_directory(idle.incoming))


def test_strays_are_told_of_and_then_removed(idle: Instance, builder: Builder) -> None:
    idle.set("service", scan_interval="200ms")
    idle.set("incoming.default", stray_after="3s")
    idle.start()
    upload = builder.upload("hello", "1.0-1")
    (idle.incoming / "core.1234").write_text("nobody's\n")
    (idle.incoming / ".being-written").write_text("somebody's\n")
    # A file of an upload that is not whole yet is no stray.
    shutil.copy(upload.changes, idle.incoming)
    until(lambda: "core.1234" in idle.health(), "the stray to be told of")
    assert "unchanged for 3 s they are removed" in idle.health()
    until(lambda: not (idle.incoming / "core.1234").exists(), "its removal")
    until(lambda: idle.health() == "ok: ", "health without it")
    assert "core.1234: removed from" in idle.log()
    assert sorted(one.name for one in idle.incoming.iterdir()) == [".being-written", upload.changes.name]
    shutil.copy(upload.file("*.deb"), idle.incoming)
    idle.succeeded(upload.flat_name)


def test_strays_stay_where_that_is_asked_for(idle: Instance, builder: Builder) -> None:
    idle.set("service", scan_interval="100ms")
    idle.set("incoming.default", stray_after="0s")
    idle.start()
    (idle.incoming / "core.1234").write_text("nobody's\n")
    idle.succeeded(builder.upload("hello", "1.0-1").send_directory(idle.incoming))
    assert (idle.incoming / "core.1234").exists()


@pytest.mark.parametrize("how", ["renamed in", "written in place"])
def test_a_tree_ten_deep_is_refused_and_stops_nobody(instance: Instance, builder: Builder, how: str) -> None:
    """Nor is it an upload, however deep it holds one."""
    tree, upload = builder.upload("tree", "1.0-1"), builder.upload("hello", "1.0-1")
    deepest = tree.folder.joinpath(*"abcdefghij")
    shutil.copytree(upload.folder, deepest)
    shutil.copytree(upload.folder, instance.incoming / "deep" / "a/b/c/d/e/f/g/h/i/j")
    if how == "renamed in":
        tree.send_directory(instance.incoming)
    else:
        shutil.copytree(tree.folder, instance.incoming / tree.name)
    assert instance.failed(tree.name) == ["not-regular-file"]
    problem = (instance.status(tree.name) or {})["problems"][0]
    assert problem["file"] == "a"
    instance.succeeded(upload.send_directory(instance.incoming))
    assert (instance.status("deep") or {})["stage"] == "receiving"
    assert instance.ctl("cancel", "deep").returncode == 0
    until(lambda: list(instance.incoming.iterdir()) == [], "the clearing away")


def test_a_lone_package_says_at_once_what_to_type(idle: Instance, builder: Builder) -> None:
    idle.start()
    upload = builder.upload("hello")
    [deb] = upload.folder.glob("*.deb")
    shutil.copy(deb, idle.incoming)
    until(lambda: (idle.status(deb.name) or {}).get("state") == 0, "its status")
    words = f"incomingctl submit {deb.name} --suite SUITE --key KEY --to {idle.incoming}"
    until(lambda: words in str(idle.status(deb.name)), "the line to type")
    assert words in idle.ctl("status", deb.name).stdout
    until(lambda: words in idle.health(), "health to tell")
    assert words in idle.log()
    # Its .changes may still come.
    idle.succeeded(upload.send_flat(idle.incoming))
    until(lambda: (idle.status(deb.name) or {})["stage"] == "cancelled", "the end of what was no upload")
