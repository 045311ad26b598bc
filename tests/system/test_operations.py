"""What operators ask for: copies, removals and rollbacks, with the real apt as the witness."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.apt import Apt
from tests.support.instance import Instance, until
from tests.support.keys import Keys
from tests.support.uploads import Builder


@pytest.fixture
def idle(tmp_path: Path, keys: Keys, builder_key: str) -> Iterator[Instance]:
    options = ("--suite", "testing", "--suite", "stable")
    made = Instance(tmp_path / "instance", trust=[keys.public(builder_key)], options=options)
    yield made
    made.close()


def client(instance: Instance, root: Path, suite: str = "stable") -> Apt:
    return Apt(root / f"apt-{suite}", instance.archive.as_uri(), instance.keyring, suite=suite)


def publish(instance: Instance, builder: Builder, name: str, version: str, distribution: str = "testing") -> None:
    upload = builder.upload(name, version, source="native" if "-" not in version else "", distribution=distribution)
    instance.succeeded(upload.send_directory(instance.incoming))


def test_a_tested_package_is_copied_to_stable(instance: Instance, builder: Builder, tmp_path: Path) -> None:
    publish(instance, builder, "hello", "1.0")
    publish(instance, builder, "other", "1.0")
    done = instance.ctl("copy", "hello", "testing", "stable")
    assert done.returncode == 0, done.stderr
    assert "copy-hello-to-stable: SUCCEEDED: published in stable generation 2" in done.stdout
    apt = client(instance, tmp_path)
    apt.update()
    assert apt.packages() == {("hello", "1.0")}
    assert "hello_1.0.dsc" in apt.source("hello")
    assert "copy-hello-to-stable" in instance.ctl("history", "stable").stdout
    status = instance.succeeded("copy-hello-to-stable")
    assert status["published"]["files"] == [
        "pool/main/h/hello/hello_1.0_amd64.deb",
        "pool/main/h/hello/hello_1.0.dsc",
        "pool/main/h/hello/hello_1.0.tar.gz",
    ]
    assert instance.ctl("fsck").returncode == 0


def test_nothing_is_copied_over_something_newer(instance: Instance, builder: Builder) -> None:
    publish(instance, builder, "hello", "1.0-1", "testing")
    publish(instance, builder, "hello", "1.0-2", "stable")
    done = instance.ctl("copy", "hello=1.0-1", "testing", "stable")
    assert done.returncode == 1
    assert "[version-not-newer]" in done.stdout
    assert instance.failed("copy-hello-1.0-1-to-stable") == ["version-not-newer"]


def test_a_removed_package_can_be_brought_back_by_a_rollback(
    instance: Instance, builder: Builder, tmp_path: Path
) -> None:
    publish(instance, builder, "hello", "1.0-1", "stable")
    apt = client(instance, tmp_path)
    assert instance.ctl("remove", "hello", "stable").returncode == 0
    apt.update()
    assert apt.packages() == set()
    again = instance.ctl("remove", "hello", "stable")
    assert (again.returncode, "[not-in-suite]" in again.stdout) == (1, True)
    back = instance.ctl("rollback", "stable", "2", "--json")
    assert back.returncode == 0
    assert json.loads(back.stdout)[0]["published"]["suites"]["stable"]["generation"] == 4
    apt.update()
    assert (apt.install("hello") / "usr/share/doc/hello/README").exists()


def test_a_suite_cannot_go_back_to_a_generation_that_never_was(instance: Instance) -> None:
    done = instance.ctl("rollback", "stable", "99")
    assert done.returncode == 1
    assert "it is at generation 1" in done.stdout
    assert instance.failed("rollback-stable-to-99") == ["unknown-generation"]


def test_a_suite_cannot_go_back_to_files_that_were_cleaned_up(idle: Instance, builder: Builder) -> None:
    idle.set("publish", grace="0s")
    with idle:
        publish(idle, builder, "hello", "1.0-1", "stable")
        publish(idle, builder, "hello", "1.0-2", "stable")
        old = idle.archive / "pool/main/h/hello/hello_1.0-1_amd64.deb"
        until(lambda: not old.exists(), "the clean-up")
        done = idle.ctl("rollback", "stable", "2")
        assert done.returncode == 1
        assert idle.failed("rollback-stable-to-2") == ["pool-file-gone"]
        assert idle.ctl("fsck").returncode == 0


def test_a_request_waits_in_the_journal_for_the_next_daemon(idle: Instance, builder: Builder, tmp_path: Path) -> None:
    with idle:
        publish(idle, builder, "hello", "1.0-1")
    done = idle.ctl("copy", "hello", "testing", "stable")
    assert done.returncode == 3
    assert "no incomingd runs on this instance; the request waits" in done.stderr
    asked = idle.ctl("remove", "hello", "testing", "--no-wait")
    assert asked.returncode == 0
    with idle:
        idle.succeeded("copy-hello-to-stable")
        idle.succeeded("remove-hello-from-testing")
        apt = client(idle, tmp_path)
        apt.update()
        assert apt.packages() == {("hello", "1.0-1")}


def test_once_does_what_was_asked_for(idle: Instance, builder: Builder) -> None:
    with idle:
        publish(idle, builder, "hello", "1.0-1")
    idle.ctl("copy", "hello", "testing", "stable", "--no-wait")
    assert idle.run("incomingd", "--once").returncode == 0
    idle.succeeded("copy-hello-to-stable")


def test_what_is_no_suite_is_refused_at_once(idle: Instance) -> None:
    for words in (
        ("copy", "hello", "testing", "nowhere"),
        ("remove", "hello", "nowhere"),
        ("rollback", "nowhere", "1"),
    ):
        done = idle.ctl(*words)
        assert (done.returncode, done.stderr) == (
            2,
            "incomingctl: there is no suite nowhere; there are testing, stable\n",
        )


def test_a_second_daemon_is_refused(instance: Instance) -> None:
    second = instance.run("incomingd", "--once")
    assert second.returncode == 4
    assert "another incomingd runs on this instance" in second.stderr
