"""A client that has read an InRelease finds each index of it by hash, however many publishes come in between."""

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from incomingd import fsio
from incomingd.config.reader import load
from incomingd.errors import Retry
from incomingd.journal.generations import Generations
from incomingd.pipeline import Pipeline
from incomingd.publish.publisher import Publisher
from tests.support import clocked
from tests.support.apt import Apt, served
from tests.support.instance import Instance, until
from tests.support.uploads import Builder

HOUR = 1 / 24
SECTION = "main/binary-amd64"


class Archive:
    """An instance whose clock the test moves, and what clients see of it."""

    def __init__(self, instance: Instance, ahead: Path, builder: Builder) -> None:
        self.instance = instance
        self._ahead = ahead
        self.builder = builder
        self._version = 0
        self.ahead(0.0)
        instance.prefix = (sys.executable, "-P", clocked.__file__, ahead)
        instance.set("incoming.default", watch="polling")
        instance.set("service", scan_interval="200ms")
        instance.set("publish", keep_generations=2)

    clock = property(lambda self: clocked.clock_of(self._ahead))
    dists = property(lambda self: self.instance.archive / "dists/stable")
    shared = property(lambda self: self.instance.archive / "dists/.generations/stable/by-hash")

    def ahead(self, days: float) -> None:
        """From now on the daemon's clock is so many days ahead."""
        new = self._ahead.with_suffix(".new")
        new.write_text(str(days))
        new.replace(self._ahead)

    def publish(self, count: int = 1) -> None:
        """Upload one version after the other, and wait for each."""
        for _ in range(count):
            self._version += 1
            upload = self.builder.upload("hello", f"1.0-{self._version}")
            self.instance.succeeded(upload.send_directory(self.instance.incoming))

    def listed(self) -> set[str]:
        """The indexes of the current Release that are stored, as a client asks for them by hash: below the suite."""
        names, digest = set(), ""
        for line in (self.dists / "InRelease").read_text().splitlines():
            if line in ("SHA256:", "SHA512:"):
                digest = line[:-1]
            elif digest and line.startswith(" "):
                value, _, path = line.split()
                if (self.dists / path).exists():
                    names.add(f"{path.rpartition('/')[0]}/by-hash/{digest}/{value}")
        return names

    def missing(self, names: set[str]) -> set[str]:
        """Which of them a client does not find, whole."""
        return {name for name in names if not self._is_there(name)}

    def _is_there(self, name: str) -> bool:
        path = self.dists / name
        digest = {"SHA256": hashlib.sha256, "SHA512": hashlib.sha512}[path.parent.name]
        try:
            return bool(digest(path.read_bytes()).hexdigest() == path.name)
        except FileNotFoundError:  # it may leave at any moment
            return False

    def clean(self) -> None:
        done = self.instance.ctl("fsck", "--deep")
        assert (done.returncode, done.stdout) == (0, "")

    def journal(self, *statements: str) -> None:
        """Change the journal of a daemon that is not running."""
        with contextlib.closing(sqlite3.connect(self.instance.state / "journal.db")) as db:
            for statement in statements:
                db.execute(statement)
            db.commit()


@pytest.fixture
def archive(idle: Instance, tmp_path: Path, builder: Builder) -> Archive:
    return Archive(idle, tmp_path / "days-ahead", builder)


def test_a_burst_of_publishes_takes_no_index_from_a_client(archive: Archive) -> None:
    with archive.instance:
        archive.publish()
        read = archive.listed()
        assert len(read) >= 4
        archive.publish(5)
        assert archive.missing(read) == set()
        with served(archive.instance.archive) as address:
            for name in read:
                with urllib.request.urlopen(f"{address}/dists/stable/{name}") as answer:
                    assert hashlib.sha256(answer.read()).hexdigest() == name.rpartition("/")[2]
        archive.clean()


def test_apt_that_read_an_old_release_finds_its_indexes(archive: Archive, tmp_path: Path) -> None:
    """As if the burst came between its two requests: the Release is that of before, all else is as it is now."""
    with archive.instance:
        archive.publish()
        old = {name: (archive.dists / name).read_bytes() for name in ("InRelease", "Release", "Release.gpg")}
        archive.publish(4)
    view = tmp_path / "view"
    shutil.copytree(archive.instance.archive, view, symlinks=True)
    current = (view / "dists/stable").resolve()
    for name, data in old.items():
        (current / name).unlink()
        (current / name).write_bytes(data)
    shutil.copytree(archive.instance.archive / "pool", view / "pool", dirs_exist_ok=True)
    with served(view) as address:
        apt = Apt(tmp_path / "apt", address, archive.instance.keyring)
        apt.update()
        assert apt.candidate("hello") == "1.0-1"


def test_a_mirror_has_them_too(archive: Archive, tmp_path: Path) -> None:
    """rsync copies links as they are: they must not lead out of what is copied."""
    with archive.instance:
        archive.publish()
        read = archive.listed()
        archive.publish(3)
    mirror = tmp_path / "mirror"
    subprocess.run(["rsync", "-aH", "--safe-links", f"{archive.instance.archive}/", mirror], check=True)
    shutil.rmtree(archive.instance.archive / "dists")
    for name in read:
        data = (mirror / "dists/stable" / name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == name.rpartition("/")[2]
    apt = Apt(tmp_path / "apt", mirror.as_uri(), archive.instance.keyring)
    apt.update()
    assert apt.candidate("hello") == "1.0-4"


def test_a_superseded_index_leaves_when_its_time_is_over_also_after_a_restart(archive: Archive) -> None:
    with archive.instance:
        archive.publish()
        read = archive.listed()
        archive.publish(3)
    archive.ahead(0.4 * HOUR)
    with archive.instance:
        assert archive.missing(read) == set()
        archive.ahead(1.1 * HOUR)
        archive.publish()  # so that there is something to tidy up after
        superseded = read - archive.listed()
        until(lambda: archive.missing(superseded) == superseded, "the end of the old indexes")
        assert archive.missing(archive.listed()) == set()
        archive.clean()


def test_the_newest_generations_are_kept_however_old(archive: Archive) -> None:
    with archive.instance:
        archive.publish()
        oldest = archive.listed()
        archive.publish()
        read = archive.listed()
        archive.ahead(30.0)
        archive.publish()
        until(lambda: archive.missing(oldest), "the end of the oldest generation")
        assert archive.missing(read) == set()


def test_a_grace_of_nothing_keeps_the_newest_generations_alone(archive: Archive) -> None:
    archive.instance.set("publish", index_grace="0s")
    with archive.instance:
        archive.publish()
        read = archive.listed()
        archive.ahead(0.01)
        archive.publish(2)
        until(lambda: archive.missing(read), "the end of the first generation")
        archive.clean()


def test_each_index_lies_under_every_digest_that_release_lists(archive: Archive, tmp_path: Path) -> None:
    with archive.instance:
        archive.publish()
    archive.instance.set("publish", sha512=True, index_grace="1h")
    asked: list[str] = []
    with archive.instance:
        archive.publish()
        read = archive.listed()
        assert {name.split("/")[-2] for name in read} == {"SHA256", "SHA512"}
        archive.publish(3)
        assert archive.missing(read) == set()
        apt = Apt(tmp_path / "apt", archive.instance.archive.as_uri(), archive.instance.keyring)
        asked += apt.run("-o", "Debug::Acquire::file=1", "update").splitlines()
        archive.ahead(2 * HOUR)
        archive.publish()
        superseded = read - archive.listed()
        until(lambda: archive.missing(superseded) == superseded, "the end of the old indexes")
        archive.clean()
    assert not [line for line in asked if line.startswith("Ign")]


def test_a_publish_makes_as_many_links_whatever_is_kept(
    idle: Instance, builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    link = os.link

    def counted(source: Path | str, target: Path, **more: Any) -> None:
        made.append(str(target))
        link(source, target, **more)

    monkeypatch.setattr(os, "link", counted)
    idle.set("incoming.default", watch="polling")
    idle.set("service", scan_interval="200ms")
    idle.set("publish", keep_generations=2)
    pipeline = Pipeline(load(idle.config))
    pipeline.start()
    counts = []
    try:
        for number in range(8):
            made.clear()
            idle.succeeded(builder.upload("hello", f"1.0-{number}").send_directory(idle.incoming))
            counts.append(len([target for target in made if "dists" in target]))
    finally:
        pipeline.stop()
    assert counts[0] > 0
    assert len(set(counts)) == 1


def test_pruning_goes_in_small_steps(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    archive.instance.set("publish", keep_generations=1)
    with archive.instance:
        archive.publish(4)
    monkeypatch.setattr("incomingd.publish.by_hash._PRUNE_AT_ONCE", 3)
    removed: list[int] = []
    tidy = Publisher.tidy

    def counted(publisher: Publisher) -> bool:
        before = len(list(archive.shared.rglob("*")))
        more = tidy(publisher)
        removed.append(before - len(list(archive.shared.rglob("*"))))
        return more

    monkeypatch.setattr(Publisher, "tidy", counted)
    archive.ahead(2 * HOUR)
    pipeline = Pipeline(load(archive.instance.config), clock=archive.clock)
    pipeline.start()
    try:
        until(lambda: removed and removed[-1] == 0, "the end of it")
    finally:
        pipeline.stop()
    assert max(removed) == 3
    assert sum(removed) >= 6
    assert archive.missing(archive.listed()) == set()


# -- what an interruption leaves ---------------------------------------------------------------------------------------


def test_a_commit_that_failed_leaves_nothing_behind(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = ["no space left", "no space left"]
    add = Generations.add

    def failing(self: Generations, *words: Any) -> None:
        add(self, *words)
        if planned and words[0].number > 1:
            raise Retry(planned.pop())

    monkeypatch.setattr(Generations, "add", failing)
    pipeline = Pipeline(load(archive.instance.config))
    pipeline.start()
    try:
        archive.publish()
    finally:
        pipeline.stop()
    assert not planned
    archive.clean()


def test_what_a_crash_left_stays_for_the_grace_time_and_then_leaves(archive: Archive) -> None:
    with archive.instance:
        archive.publish()
    data = b"perhaps some client was told of it"
    name = f"{SECTION}/SHA256/{hashlib.sha256(data).hexdigest()}"
    twin = archive.shared / SECTION / "SHA512" / hashlib.sha512(data).hexdigest()
    half = archive.shared / SECTION / "SHA256/.new-half.1"
    twin.parent.mkdir()
    (archive.shared / name).write_bytes(data)
    twin.hardlink_to(archive.shared / name)
    half.write_bytes(b"half")
    assert "the journal does not know it" in archive.instance.ctl("fsck").stdout
    with archive.instance:
        until(lambda: not half.exists(), "the start")
        archive.publish()
        assert (archive.shared / name).exists()
        assert twin.exists()
        archive.clean()
        archive.ahead(1.1 * HOUR)
        archive.publish()
        until(lambda: not (archive.shared / name).exists(), "the end of it")
        assert not twin.exists()
        assert not twin.parent.exists()


def test_the_time_begins_when_clients_see_the_next_generation(archive: Archive) -> None:
    """The power failed between a commit and its switch, and the machine came back an hour later."""
    archive.instance.set("publish", keep_generations=1)
    with archive.instance:
        archive.publish()
        read = archive.listed()
        before = archive.dists.readlink()
        archive.publish()
        after = archive.dists.readlink()
        superseded = read - archive.listed()
    fsio.switch(archive.dists, str(before))
    archive.ahead(1.1 * HOUR)
    with archive.instance:
        assert archive.dists.readlink() == after
        archive.publish()
        assert archive.missing(superseded) == set()
        archive.ahead(2.2 * HOUR)
        archive.publish()
        until(lambda: archive.missing(superseded) == superseded, "the end of the old indexes")


def test_after_an_older_journal_was_put_back_newer_indexes_stay_for_their_time(
    archive: Archive, tmp_path: Path
) -> None:
    with archive.instance:
        archive.publish(2)
    shutil.copytree(archive.instance.state, tmp_path / "backup")
    with archive.instance:
        archive.publish(3)
        read = archive.listed()
    shutil.rmtree(archive.instance.state)
    shutil.copytree(tmp_path / "backup", archive.instance.state)
    with archive.instance:
        assert archive.missing(read) == set()
        archive.publish()
        assert archive.missing(archive.listed()) == set()
        assert archive.missing(read) == set()
        archive.ahead(1.1 * HOUR)
        archive.publish()
        superseded = read - archive.listed()
        until(lambda: archive.missing(superseded) == superseded, "the end of the old indexes")


def test_indexes_that_a_restore_left_out_are_not_missed(archive: Archive) -> None:
    with archive.instance:
        archive.publish(3)
    shutil.rmtree(archive.instance.archive / "dists")
    with archive.instance:
        archive.clean()
        assert archive.missing(archive.listed()) == set()
        archive.publish()
        archive.clean()


def test_names_that_are_lost_come_back_with_a_start(archive: Archive) -> None:
    with archive.instance:
        archive.publish()
    shutil.rmtree(archive.shared)
    assert archive.instance.ctl("fsck").returncode == 1
    with archive.instance:
        assert archive.missing(archive.listed()) == set()
        archive.clean()


# -- an archive of the version before ----------------------------------------------------------------------------------


def as_before(archive: Archive) -> None:
    """Make it what the version before had: each generation with by-hash folders of its own, of all that is kept."""
    for generation in (archive.instance.archive / "dists/.generations/stable").glob("[0-9]*"):
        for link in list(generation.rglob("by-hash")):
            shared = link.resolve()
            link.unlink()
            (link / "SHA256").mkdir(parents=True)
            for file in (shared / "SHA256").iterdir():
                (link / "SHA256" / file.name).hardlink_to(file)
    shutil.rmtree(archive.shared)
    archive.journal("DELETE FROM kept_indexes")


def test_an_archive_of_the_version_before_goes_on(archive: Archive, tmp_path: Path) -> None:
    with archive.instance:
        archive.publish()
        read = archive.listed()
        archive.publish()
    as_before(archive)
    inode = (archive.dists / SECTION / "Packages.xz").stat().st_ino
    with archive.instance:
        assert archive.missing(archive.listed() | read) == set()
        archive.clean()
        # Nothing was written for it but names.
        assert (archive.dists / SECTION / "Packages.xz").stat().st_ino == inode
        assert not (archive.dists / SECTION / "by-hash").is_symlink()
        archive.publish()
        assert (archive.dists / SECTION / "by-hash").is_symlink()
        assert archive.missing(archive.listed() | read) == set()
        archive.clean()
        apt = Apt(tmp_path / "apt", archive.instance.archive.as_uri(), archive.instance.keyring)
        apt.update()
        assert apt.candidate("hello") == "1.0-3"
        assert archive.instance.ctl("rollback", "stable", "2").returncode == 0
        archive.ahead(1.1 * HOUR)
        archive.publish(2)
        superseded = read - archive.listed()
        until(lambda: archive.missing(superseded) == superseded, "the end of the old indexes")


# -- how much space they take ------------------------------------------------------------------------------------------


def allocated(folder: Path) -> int:
    files = {path.stat().st_ino: path.stat() for path in folder.rglob("*") if path.is_file()}
    return sum(max(one.st_blocks * 512, one.st_size) for one in files.values())


def test_disk_use_is_reported(archive: Archive) -> None:
    with archive.instance:
        archive.publish(5)
        pool = sum(path.stat().st_size for path in (archive.instance.archive / "pool").rglob("*.deb"))
        told = until(lambda: told_disk(archive, pool), "the report")
        assert told["indexes"] == allocated(archive.shared)
        # Of each generation that is older than the newest two the two forms of its one changed index.
        assert told["superseded_indexes"] == 4 * 2 * 4096
        assert told["index_space"] == 20 << 30
        assert told["free"] > 0
        assert told["journal"] > 0
        broken = archive.builder.upload("broken", "1.0-1")
        broken.changes.write_bytes(b"no .changes")
        assert archive.instance.failed(broken.send_directory(archive.instance.incoming))
        until(lambda: archive.instance.index()["health"]["disk"]["rejected"], "the sum of what was rejected", 120.0)
        shown = archive.instance.ctl("status").stdout
        assert "superseded indexes 32 KiB of 20 GiB" in shown
        assert json.loads(archive.instance.ctl("status", "--json").stdout)["health"]["disk"]["pool"] == pool


def told_disk(archive: Archive, pool: int) -> dict[str, int] | None:
    disk: dict[str, int] = archive.instance.index()["health"]["disk"]
    return disk if disk["pool"] == pool else None


def test_publishes_are_spaced_out_when_the_space_is_used_up(archive: Archive, builder: Builder) -> None:
    archive.instance.set("publish", keep_generations=1, index_space=1)
    with archive.instance:
        archive.publish()  # after a quiet time it need not wait; the space is used up with it
        read = archive.listed()
        names = [builder.upload(f"pkg{number}").send_directory(archive.instance.incoming) for number in range(3)]
        until(lambda: "index_space is used up" in str(archive.instance.index()["health"]), "the wait")
        until(lambda: all(stage(archive, name) == "queued" for name in names), "the checks")
        assert "superseded indexes use" in archive.instance.health()
        assert archive.instance.health().startswith("degraded: ")
        assert archive.missing(read) == set()
        archive.ahead(61 / 86400)
        ended = [archive.instance.succeeded(name) for name in names]
        # One publish for all of them.
        assert {one["published"]["suites"]["stable"]["generation"] for one in ended} == {3}
        assert archive.missing(read) == set()
        archive.ahead(1.1 * HOUR)
        archive.publish()
        archive.ahead(2.2 * HOUR)
        until(lambda: "superseded indexes use" not in archive.instance.health(), "room again")


def stage(archive: Archive, name: str) -> str:
    return str((archive.instance.status(name) or {}).get("stage"))


def test_after_a_quiet_time_no_upload_waits(archive: Archive) -> None:
    archive.instance.set("publish", keep_generations=1, index_space=1)
    with archive.instance:
        for minute in range(3):
            archive.ahead(minute * 61 / 86400)
            archive.publish()
