"""The ways in which people send uploads, and the real apt as the witness that each has arrived."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.apt import Apt, served
from tests.support.instance import Instance, until
from tests.support.sshd import Sshd, sshd
from tests.support.uploads import Builder


def needs(tool: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not shutil.which(tool), reason=f"{tool} is not installed")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("sshd") / "sshd") as one:
        yield one


@pytest.fixture
def apt(instance: Instance, tmp_path: Path) -> Iterator[Apt]:
    with served(instance.archive) as address:
        yield Apt(tmp_path / "apt", address, instance.keyring)


def run(*command: str | Path, **options: object) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr


def test_mv_of_a_directory(instance: Instance, builder: Builder, apt: Apt) -> None:
    upload = builder.upload("hello", "1.0-1", architectures=("amd64", "arm64"))
    run("mv", upload.folder, instance.incoming / "job-1234")
    found = instance.succeeded("job-1234")
    assert found["stage"] == "published"
    assert found["changes"][0]["signed_by"] == builder.key
    apt.update()
    assert apt.download("hello") == ["hello_1.0-1_amd64.deb"]
    assert (apt.install("hello") / "usr/share/doc/hello/README").read_text() == "hello 1.0-1\n"


def test_wait_ends_when_apt_can_have_it(instance: Instance, builder: Builder, apt: Apt) -> None:
    good, bad = builder.upload("hello", "1.0-1"), builder.upload("unsigned", "1.0-1", key=None)
    good.send_directory(instance.incoming)
    bad.send_directory(instance.incoming)
    done = instance.ctl("wait", good.name, "--timeout", "60")
    assert done.returncode == 0, done.stdout + done.stderr
    apt.update()
    assert apt.candidate("hello") == "1.0-1"
    refused = instance.ctl("wait", good.name, bad.name, "--timeout", "60")
    assert refused.returncode == 1
    assert "unsigned" in refused.stdout


def test_apt_that_looked_a_moment_ago_sees_what_has_come_since(instance: Instance, builder: Builder, apt: Apt) -> None:
    """HTTP tells new from old by whole seconds, and publishing takes less than one."""
    uploads = [builder.upload("hello", f"1.0-{number}") for number in range(1, 6)]
    for number, upload in enumerate(uploads, 1):
        instance.succeeded(upload.send_directory(instance.incoming))
        apt.update()
        assert apt.candidate("hello") == f"1.0-{number}"


@pytest.mark.parametrize("name", [b"notes.txt", b"build log.txt", b"\xc3\x9cbersicht.txt", b"\xff\n.deb", b"a:b.deb"])
def test_a_file_that_no_changes_lists_is_left_out(instance: Instance, builder: Builder, name: bytes) -> None:
    """Whatever it is called: a build leaves logs beside its packages."""
    upload = builder.upload("hello", "1.0-1")
    (upload.folder / os.fsdecode(name)).write_text("something")
    found = instance.succeeded(upload.send_directory(instance.incoming))
    assert [warning["code"] for warning in found["warnings"]] == ["unlisted-file"]
    assert found["warnings"][0]["file"].isprintable()
    assert found["published"]["files"] == ["pool/main/h/hello/hello_1.0-1_amd64.deb"]
    until(lambda: not list(instance.state.glob("claims/*/*")), "nothing of it is left")


def test_the_same_upload_again_is_no_failure(instance: Instance, builder: Builder) -> None:
    upload = builder.upload("hello", "1.0", source="native")
    first = instance.succeeded(upload.send_directory(instance.incoming, "job-1"))
    again = instance.succeeded(upload.send_directory(instance.incoming, "job-2"))
    assert not first["already_published"]
    assert again["already_published"]


def test_other_bytes_under_the_same_name(instance: Instance, builder: Builder) -> None:
    instance.succeeded(builder.upload("hello", "1.0-1").send_directory(instance.incoming))
    other = builder.upload("hello", "1.0-1", content="something else", upload_name="job-2")
    refused = other.send_directory(instance.incoming)
    assert "pool-conflict" in instance.failed(refused)
    said = next(one for one in (instance.status(refused) or {})["problems"] if one["code"] == "pool-conflict")
    assert "from upload #" in said["message"]


def test_an_older_version(instance: Instance, builder: Builder) -> None:
    instance.succeeded(builder.upload("hello", "2.0-1").send_directory(instance.incoming))
    assert "version-not-newer" in instance.failed(builder.upload("hello", "1.0-1").send_directory(instance.incoming))
