"""Bulk imports, as operators run them, with the real apt as the witness."""

import contextlib
import gzip
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.make import make_tree
from tests.support import packages
from tests.support.apt import Apt
from tests.support.instance import BIN, Instance, until
from tests.support.keys import Keys
from tests.support.uploads import Builder


@pytest.fixture
def idle(tmp_path: Path, keys: Keys, builder_key: str) -> Iterator[Instance]:
    """An instance of several components."""
    options = [word for name in ("main", "contrib", "non-free") for word in ("--component", name)]
    made = Instance(tmp_path / "instance", trust=[keys.public(builder_key)], options=options)
    yield made
    made.close()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Somebody's folder of packages."""
    folder = tmp_path / "tree"
    folder.mkdir()
    return folder


def client(instance: Instance, root: Path, components: str = "main") -> Apt:
    apt = Apt(root / "apt", instance.archive.as_uri(), instance.keyring, components=components)
    apt.update()
    return apt


def import_tree(instance: Instance, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return instance.ctl("import", "--suite", "stable", *words)


def test_a_tree_of_packages_and_sources_is_published_at_once(instance: Instance, tree: Path, tmp_path: Path) -> None:
    packages.binary(tree, "hello", "2.0-1")
    packages.binary(tree, "common", "1.0", "all")
    (tree / "deeper").mkdir()
    packages.source(tree / "deeper", "hello", "2.0-1", form="quilt")
    packages.binary(tree / "deeper", "driver", "3.0", fields={"Section": "contrib/net"})
    done = import_tree(instance, tree)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCEEDED: published 4 packages in stable generation 2" in done.stdout
    assert "read 4 of 4 packages" in done.stderr
    apt = client(instance, tmp_path, "main contrib")
    assert apt.packages() == {("hello", "2.0-1"), ("common", "1.0"), ("driver", "3.0")}
    assert (apt.install("hello") / "usr/share/doc/hello/README").exists()
    assert "hello-2.0" in apt.source("hello")
    assert (instance.archive / "pool/contrib/d/driver/driver_3.0_amd64.deb").exists()
    assert instance.ctl("fsck", "--deep").returncode == 0
    until(lambda: list((instance.state / "imports").iterdir()) == [], "the end of what was staged")
    assert sorted(file.name for file in tree.rglob("*") if file.is_file())[0] == "common_1.0_all.deb"
    assert "import-into-stable" in instance.ctl("show", "hello").stdout


def test_nothing_is_changed_where_one_package_is_bad(instance: Instance, tree: Path) -> None:
    packages.binary(tree, "hello", "2.0-1")
    packages.binary(tree, "armed", "1.0", "armhf")
    (tree / "broken_1.0_amd64.deb").write_bytes(b"!<arch>\nno")
    shutil.copy(tree / "hello_2.0-1_amd64.deb", tree / "other_2.0-1_amd64.deb")
    done = import_tree(instance, tree)
    assert done.returncode == 1
    for code in ("[unknown-architecture]", "[bad-deb]"):
        assert code in done.stdout
    assert "warning: its control file makes it hello_2.0-1_amd64.deb" in done.stderr
    assert "2 of 4 packages cannot be imported; nothing was changed" in done.stderr
    assert instance.ctl("list", "stable").stdout == ""
    for bad in ("armed_1.0_armhf.deb", "broken_1.0_amd64.deb", "other_2.0-1_amd64.deb"):
        (tree / bad).unlink()
    again = import_tree(instance, tree)
    assert again.returncode == 0
    assert "1 of 1 packages were read before" in again.stderr


def test_what_the_suite_has_is_not_overwritten(instance: Instance, builder: Builder, tree: Path) -> None:
    for name, version in (("hello", "2.0-1"), ("same", "1.0-1"), ("equal", "1.0-1")):
        upload = builder.upload(name, version)
        instance.succeeded(upload.send_directory(instance.incoming))
    packages.binary(tree, "hello", "1.0-1")
    packages.binary(tree, "same", "1.0-1", content="other")
    shutil.copy(builder.folder / "equal-1.0-1/equal_1.0-1_amd64.deb", tree)
    packages.binary(tree, "fresh", "1.0-1")
    before = instance.ctl("list", "stable").stdout
    done = import_tree(instance, tree, "--json")
    assert done.returncode == 1
    name = done.stdout.split('"name": "')[1].split('"')[0]
    assert sorted(instance.failed(name)) == ["pool-conflict", "version-not-newer"]
    assert instance.ctl("list", "stable").stdout == before
    (tree / "same_1.0-1_amd64.deb").unlink()
    assert import_tree(instance, tree, "--newest").returncode == 0
    listed = instance.ctl("list", "stable").stdout
    assert "hello" in listed
    assert "1.0-1" not in next(line for line in listed.splitlines() if "hello" in line)
    assert "fresh" in listed


def test_of_several_versions_the_newest_is_taken_where_one_says_so(
    instance: Instance, tree: Path, tmp_path: Path
) -> None:
    for version in ("1.9-1", "1.10-1", "1:0.1-1"):
        packages.binary(tree, "hello", version)
    done = import_tree(instance, tree)
    assert done.returncode == 1
    assert done.stdout.count("[version-not-newer]") == 2
    assert import_tree(instance, tree, "--newest").returncode == 0
    assert client(instance, tmp_path).packages() == {("hello", "1:0.1-1")}
    assert len(list((instance.archive / "pool").rglob("*.deb"))) == 1


def test_the_same_import_again_changes_nothing(instance: Instance, tree: Path) -> None:
    packages.binary(tree, "hello", "1.0-1")
    assert import_tree(instance, tree).returncode == 0
    again = import_tree(instance, tree)
    assert again.returncode == 0
    assert "already published, as it is in stable generation 2" in again.stdout


def test_newer_packages_take_the_place_of_older_ones(
    instance: Instance, builder: Builder, tree: Path, tmp_path: Path
) -> None:
    for name in ("hello", "other"):
        instance.succeeded(builder.upload(name, "1.0-1").send_directory(instance.incoming))
    packages.binary(tree, "hello", "2.0-1", fields={"Section": "contrib/utils"})
    assert import_tree(instance, tree).returncode == 0
    apt = client(instance, tmp_path, "main contrib")
    assert apt.packages() == {("hello", "2.0-1"), ("other", "1.0-1")}
    assert (
        "1.0-1 → 2.0-1" in instance.ctl("history", "stable").stdout
        or "2.0-1 is new" in instance.ctl("history", "stable").stdout
    )
    assert instance.ctl("rollback", "stable", "3").returncode == 0
    apt.update()
    assert apt.packages() == {("hello", "1.0-1"), ("other", "1.0-1")}


def test_a_component_with_a_slash_is_one_component(
    idle: Instance, builder: Builder, tree: Path, tmp_path: Path
) -> None:
    """What leaves one component for another leaves it, and a udeb has no part in that."""
    idle.set("suites.stable", components=["main", "updates/main", "updates/extra"], architectures=["amd64"])
    idle.start()
    section = {"Section": "updates/main/net"}
    idle.succeeded(builder.upload("hello", "1.0-1", fields=section).send_directory(idle.incoming))
    udeb = packages.binary(tree, "hello", "0.9-1")
    udeb.rename(udeb.with_suffix(".udeb"))
    packages.binary(tree, "hello", "2.0-1")
    assert import_tree(idle, "--component", "updates/extra", tree).returncode == 0
    apt = client(idle, tmp_path, "main updates/main updates/extra")
    assert apt.packages() == {("hello", "2.0-1")}
    listed = idle.ctl("list", "stable").stdout
    assert "updates/extra" in listed
    assert "updates/main" not in listed
    assert idle.ctl("fsck", "--deep").returncode == 0


def test_one_component_for_all_and_files_that_are_linked(instance: Instance, tree: Path) -> None:
    deb = packages.binary(tree, "hello", "1.0-1")
    assert import_tree(instance, "--component", "non-free", "--link", deb).returncode == 0
    published = instance.archive / "pool/non-free/h/hello/hello_1.0-1_amd64.deb"
    assert published.samefile(deb)


def test_an_import_that_was_killed_goes_on_where_it_stood(instance: Instance, tmp_path: Path) -> None:
    many = make_tree(tmp_path / "many", 6000)
    command = [BIN / "incomingctl", "--config", instance.config, "import", "--suite", "stable", many]
    with (tmp_path / "said").open("w") as said:
        first = subprocess.Popen(command, stderr=said)
        staged = instance.state / "imports"
        until(lambda: any(staged.glob("import-*/files/*/4/*")), "the fifth thousand")
        first.send_signal(signal.SIGKILL)
        first.wait()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "of 6000 packages were read before" in done.stderr
    assert "published 6000 packages in stable generation 2" in done.stdout
    with gzip.open(instance.archive / "dists/stable/main/binary-amd64/Packages.gz", "rt") as index:
        assert sum(line.startswith("Package:") for line in index) == 6000
    assert instance.ctl("fsck").returncode == 0


def test_an_import_waits_for_the_next_daemon_and_survives_its_end(idle: Instance, tree: Path, tmp_path: Path) -> None:
    with idle:
        pass
    packages.binary(tree, "hello", "1.0-1")
    done = import_tree(idle, tree)
    assert done.returncode == 3
    again = import_tree(idle, tree, "--no-wait")
    assert again.returncode == 0
    with idle:
        until(lambda: "hello" in idle.ctl("list", "stable").stdout, "the import")
        assert client(idle, tmp_path).packages() == {("hello", "1.0-1")}


def test_words_that_make_no_sense_are_refused(instance: Instance, tree: Path) -> None:
    for words, said in (
        ((tree / "nowhere",), "there is no such file or folder"),
        (("--component", "extra", tree), "stable has no component extra; it has main, contrib, non-free"),
    ):
        done = import_tree(instance, *words)
        assert done.returncode == 2, done.stderr
        assert said in done.stderr
    empty = import_tree(instance, tree)
    assert (empty.returncode, "there is no .deb and no .dsc" in empty.stderr) == (1, True)


def test_what_was_read_and_is_gone_is_told(idle: Instance, tree: Path) -> None:
    with idle:
        pass
    packages.binary(tree, "hello", "1.0-1")
    asked = import_tree(idle, tree, "--no-wait").stdout.partition(":")[0]
    shutil.rmtree(idle.state / "imports" / asked)
    with idle:
        assert idle.failed(asked) == ["import-gone"]
        assert import_tree(idle, tree).returncode == 0


def test_a_source_needs_all_of_its_files(instance: Instance, tree: Path, tmp_path: Path) -> None:
    orig = next(file for file in packages.source(tree, "hello", "2.0-1", form="quilt") if ".orig." in file.name)
    away = orig.rename(tmp_path / orig.name)
    done = import_tree(instance, tree)
    assert done.returncode == 1
    assert "[missing-orig]" in done.stdout
    away.rename(orig)
    assert import_tree(instance, tree).returncode == 0
    # The next version shares it, and it is in the archive now.
    later = tmp_path / "later"
    later.mkdir()
    shutil.copy(orig, later)
    for file in packages.source(later, "hello", "2.0-2", form="quilt"):
        if ".orig." in file.name:
            file.unlink()
    assert import_tree(instance, later).returncode == 0
    assert "hello_2.0.orig.tar.gz" in client(instance, tmp_path).source("hello", unpack=False)


def test_a_suite_that_wants_sources_gets_no_binary_without(instance: Instance, tree: Path) -> None:
    instance.set("suites.stable.checks", require_source=True)
    instance.reload()
    packages.binary(tree, "hello", "2.0-1")
    until(lambda: "taken up" in instance.log() or "in force" in instance.log(), "the reload")
    done = import_tree(instance, tree)
    assert (done.returncode, "[missing-source]" in done.stdout) == (1, True)
    packages.source(tree, "hello", "2.0-1", form="quilt")
    assert import_tree(instance, tree).returncode == 0


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE files SET staged = '../../../gnupg/uploaders/' || staged",
        "UPDATE files SET staged = '/etc/passwd'",
        "UPDATE files SET path = 'pool/../../state/journal.db'",
        "UPDATE files SET path = 'dists/stable/InRelease'",
        "CREATE TRIGGER more AFTER INSERT ON chosen BEGIN DELETE FROM files; END",
    ],
)
def test_what_no_import_notes_is_not_obeyed(idle: Instance, tree: Path, change: str) -> None:
    with idle:
        pass
    packages.binary(tree, "hello", "1.0-1")
    asked = import_tree(idle, tree, "--no-wait").stdout.partition(":")[0]
    with contextlib.closing(sqlite3.connect(idle.state / "imports" / asked / "packages.db")) as database:
        database.execute("CREATE TABLE IF NOT EXISTS chosen (item INTEGER PRIMARY KEY) STRICT")
        database.execute(change)
        database.commit()
    with idle:
        assert idle.failed(asked) == ["import-gone"]
    assert not list((idle.archive / "pool").rglob("*.deb"))


def test_what_was_read_and_is_damaged_is_told(idle: Instance, tree: Path) -> None:
    with idle:
        pass
    packages.binary(tree, "hello", "1.0-1")
    asked = import_tree(idle, tree, "--no-wait").stdout.partition(":")[0]
    staged = idle.state / "imports" / asked / "packages.db"
    staged.write_bytes(b"this is no database" + staged.read_bytes()[19:])
    with idle:
        assert idle.failed(asked) == ["import-gone"]


def test_a_repository_may_be_signed_by_several_keys(
    instance: Instance, builder: Builder, keys: Keys, tmp_path: Path
) -> None:
    """As while it changes its key: one that is trusted is enough."""
    instance.succeeded(builder.upload("hello", "1.0-1").send_directory(instance.incoming))
    old, new, other = keys.make("Old"), keys.make("New"), keys.make("Other")
    shutil.copytree(instance.archive, tmp_path / "theirs")
    release = tmp_path / "theirs/dists/stable/InRelease"
    signers = [word for key in (old, new) for word in ("--local-user", key)]
    release.write_bytes(keys.gpg(*signers, "--clearsign", data=release.with_name("Release").read_bytes()))
    words = ("import", "--suite", "stable", "--from-repo", tmp_path / "theirs", "--from-suite", "stable", "--keyring")
    assert instance.ctl(*words, keys.public(other)).returncode != 0
    for key in (old, new):
        done = instance.ctl(*words, keys.public(key))
        assert done.returncode == 0, done.stderr
