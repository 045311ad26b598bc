"""Uploads that are in their own way: nothing else waits for them, and they end."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import clocked, lease
from tests.support.accounts import ALICE, MALLORY, Guarded, become, run_as
from tests.support.instance import until
from tests.support.keys import Keys
from tests.support.uploads import Builder, Upload


@pytest.fixture
def builder(keys: Keys, work: Path) -> Builder:
    return Builder(folder=work / "built", keys=keys, key=keys.make("Alice"))


@pytest.fixture
def instance(guarded: Callable[..., Guarded], builder: Builder, work: Path) -> Guarded:
    """Running with the clock that the file ``days`` of ``work`` moves."""
    (work / "days").write_text("0")
    made = guarded([builder.keys.public(builder.key)])
    made.set("service", scan_interval="0.3s")
    made.prefix = (*made.prefix, sys.executable, "-P", clocked.__file__, work / "days")
    made.start()
    return made


@pytest.fixture
def hold() -> Iterator[Callable[[Path], None]]:
    """Has Mallory hold a write lease on a file until the end of the test."""
    held: list[subprocess.Popen[str]] = []

    def take(file: Path) -> None:
        command = [*become(MALLORY), sys.executable, lease.__file__, str(file)]
        held.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert held[-1].stdout is not None
        assert held[-1].stdout.readline() == "held\n"

    yield take
    for one in held:
        one.kill()
        one.communicate()


def send(upload: Upload, instance: Guarded, uid: int, before: Callable[[Path], None] = lambda _: None) -> str:
    """As a directory that is renamed in, after something was done with it."""
    hidden = instance.incoming / f".{upload.name}"
    run_as(uid, f"cp -r {upload.folder} {hidden}")
    before(hidden)
    moved = run_as(uid, f"mv -T {hidden} {instance.incoming}/{upload.name}")
    assert moved.returncode == 0, moved.stderr
    return upload.name


@pytest.mark.parametrize("leased", ["*.changes", "*.deb"])
def test_a_write_lease_that_is_taken_again_and_again(
    instance: Guarded, builder: Builder, work: Path, hold: Callable[[Path], None], leased: str
) -> None:
    """Of a .changes, before anyone is authorised; of what it lists, after that."""
    upload = builder.upload("held", "1.0-1")
    evil = send(upload, instance, MALLORY, lambda folder: hold(next(folder.glob(leased))))
    until(lambda: "stands aside" in str(instance.status(evil)), "its standing aside")
    for name in ("hello", "held-not"):
        instance.succeeded(send(builder.upload(name, "1.0-1"), instance, ALICE))
    instance.succeeded(send(builder.upload("held", "1.0-2", upload_name="newer"), instance, ALICE))
    assert instance.health() == "ok: "
    found = instance.status(evil)
    assert found is not None
    assert (found["state_name"], found["position"]) in (("PENDING", None), ("RUNNING", None))
    (work / "days").write_text("0.01")  # a quarter of an hour
    assert instance.failed(evil) == ["file-busy"]
    claims = instance.state / "claims"
    until(lambda: not any(claims.rglob("*.deb")), "its being cleared away")
    instance.succeeded(send(builder.upload("last", "1.0-1"), instance, ALICE))


def test_a_lease_that_ends_costs_nothing(instance: Guarded, builder: Builder, hold: Callable[[Path], None]) -> None:
    """As an honest file server may hold one for a moment."""
    upload = builder.upload("hello", "1.0-1")
    name = send(upload, instance, MALLORY, lambda folder: hold(next(folder.glob("*.deb"))))
    until(lambda: "stands aside" in str(instance.status(name)), "its standing aside")
    for process in children_that_hold():
        os.kill(process, 9)
    instance.succeeded(name)


def children_that_hold() -> list[int]:
    """The processes of this one that hold a lease."""
    found = []
    for task in Path("/proc/self/task").glob("*/children"):
        for child in task.read_text().split():
            if lease.__file__ in Path(f"/proc/{child}/cmdline").read_text():
                found.append(int(child))
    return found
