"""Moving from reprepro and from aptly, as docs/moving.md says, with real repositories of both."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import packages
from tests.support.apt import Apt, served
from tests.support.instance import Instance
from tests.support.keys import Keys
from tests.support.uploads import Builder

WANTED = {("hello", "2.0-1"), ("common", "1.0")}


def needs(tool: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not shutil.which(tool), reason=f"{tool} is not installed")


def run(*command: str | Path, **environment: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **environment})
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """What is in the old repository."""
    folder = tmp_path / "old"
    folder.mkdir()
    packages.binary(folder, "hello", "2.0-1")
    packages.binary(folder, "common", "1.0", "all")
    packages.source(folder, "hello", "2.0-1", form="quilt")
    return folder


@pytest.fixture
def reprepro(tmp_path: Path, built: Path, keys: Keys, builder_key: str) -> Path:
    root = tmp_path / "reprepro"
    (root / "conf").mkdir(parents=True)
    (root / "conf/distributions").write_text(
        f"Codename: bookworm\nArchitectures: amd64 source\nComponents: main\nSignWith: {builder_key}\n"
    )
    call = ("reprepro", "--gnupghome", keys.home, "-b", root)
    for deb in built.glob("*.deb"):
        run(*call, "includedeb", "bookworm", deb)
    run(*call, "includedsc", "bookworm", next(built.glob("*.dsc")))
    return root


@pytest.fixture
def aptly(tmp_path: Path, built: Path, keys: Keys, builder_key: str) -> Path:
    root = tmp_path / "aptly"
    root.mkdir()
    config = root / "aptly.conf"
    config.write_text(json.dumps({"rootDir": str(root), "gpgProvider": "gpg"}))
    call = ("aptly", f"-config={config}")
    run(*call, "repo", "create", "ours", GNUPGHOME=str(keys.home))
    run(*call, "repo", "add", "ours", built, GNUPGHOME=str(keys.home))
    publish = ("publish", "repo", "-batch", "-distribution=bookworm", f"-gpg-key={builder_key}", "ours")
    run(*call, "-architectures=amd64,source", *publish, GNUPGHOME=str(keys.home))
    return root / "public"


def has_all(instance: Instance, tmp_path: Path) -> None:
    apt = Apt(tmp_path / "apt", instance.archive.as_uri(), instance.keyring)
    apt.update()
    assert apt.packages() == WANTED
    assert (apt.install("hello") / "usr/share/doc/hello/README").exists()
    assert "hello-2.0" in apt.source("hello")
    assert instance.ctl("fsck", "--deep").returncode == 0


def from_repo(instance: Instance, base: str | Path, keyring: Path, *words: str) -> subprocess.CompletedProcess[str]:
    where = ("--from-repo", str(base), "--from-suite", "bookworm", "--keyring", str(keyring))
    return instance.ctl("import", "--suite", "stable", *where, *words)


@needs("reprepro")
def test_from_reprepro_on_this_machine(
    instance: Instance, reprepro: Path, keys: Keys, builder_key: str, tmp_path: Path
) -> None:
    done = from_repo(instance, reprepro, keys.public(builder_key))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "published 3 packages in stable generation 2" in done.stdout
    has_all(instance, tmp_path)


@needs("aptly")
def test_from_aptly_over_http(instance: Instance, aptly: Path, keys: Keys, builder_key: str, tmp_path: Path) -> None:
    with served(aptly) as address:
        done = from_repo(instance, address, keys.public(builder_key))
    assert done.returncode == 0, done.stdout + done.stderr
    has_all(instance, tmp_path)


@needs("reprepro")
def test_the_new_one_goes_on_where_the_old_one_stood(
    instance: Instance, builder: Builder, reprepro: Path, keys: Keys, builder_key: str, tmp_path: Path
) -> None:
    assert from_repo(instance, reprepro, keys.public(builder_key)).returncode == 0
    old = builder.upload("hello", "1.0-1")
    assert instance.failed(old.send_directory(instance.incoming)) == ["version-not-newer"]
    new = builder.upload("hello", "2.0-2")
    instance.succeeded(new.send_directory(instance.incoming))
    apt = Apt(tmp_path / "apt", instance.archive.as_uri(), instance.keyring)
    apt.update()
    assert apt.candidate("hello") == "2.0-2"


@needs("reprepro")
def test_what_nobody_trusted_has_signed_is_not_taken(
    instance: Instance, reprepro: Path, keys: Keys, builder_key: str
) -> None:
    stranger = from_repo(instance, reprepro, keys.public(keys.make("Somebody Else")))
    assert stranger.returncode == 2
    assert "is not trusted" in stranger.stderr
    pool = next((reprepro / "pool").rglob("hello_*.deb"))
    pool.write_bytes(packages.binary(reprepro, "hello", "2.0-1", content="other").read_bytes())
    changed = from_repo(instance, reprepro, keys.public(builder_key))
    assert changed.returncode == 1
    assert "[checksum-mismatch]" in changed.stdout
    inrelease = reprepro / "dists/bookworm/InRelease"
    inrelease.write_bytes(inrelease.read_bytes().replace(b"Codename: bookworm", b"Codename: trixie"))
    assert from_repo(instance, reprepro, keys.public(builder_key)).returncode == 2
    assert instance.ctl("list", "stable").stdout == ""
