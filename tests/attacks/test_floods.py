"""One account floods intake; another one's upload is published all the same, and while it goes on."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.accounts import ALICE, MALLORY, Guarded, own, run_as
from tests.support.instance import until
from tests.support.keys import Keys
from tests.support.uploads import Builder, Upload


@pytest.fixture
def builder(work: Path, keys: Keys) -> Builder:
    return Builder(folder=work / "built", keys=keys, key=keys.make("Alice"))


@pytest.fixture
def instance(guarded: Callable[..., Guarded], keys: Keys, builder: Builder) -> Guarded:
    made = guarded([keys.public(builder.key)])
    made.set("service", scan_interval="200ms")
    return made


def send(uid: int, upload: Upload, incoming: Path, name: str) -> None:
    done = run_as(uid, f"cp -r {upload.folder} {incoming}/.{name} && mv -T {incoming}/.{name} {incoming}/{name}")
    assert done.returncode == 0, done.stderr


@contextmanager
def again_and_again(act: Callable[[], None]) -> Iterator[None]:
    """Do it in a thread of its own until the end."""
    done = threading.Event()

    def loop() -> None:
        while not done.wait(0.05):
            act()

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def peak(instance: Guarded) -> int:
    """Bytes of memory that the daemon has had at most."""
    assert instance.daemon is not None
    status = Path(f"/proc/{instance.daemon.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) << 10


def test_long_listings_that_are_touched_again_and_again(instance: Guarded, builder: Builder) -> None:
    """1 MiB of rows, hard-linked in a folder; and copies of it, in folder after folder."""
    row = " 00000000000000000000000000000000 1 devel optional package-%06d.deb\n"
    text = "Files:\n" + "".join(row % number for number in range(14_000))
    for folder in range(20):
        made = instance.incoming / f"m{folder}"
        made.mkdir()
        (made / "0.changes").write_text(text)
        for number in range(1, 51):
            os.link(made / "0.changes", made / f"{number}.changes")
        own(made, MALLORY)
    for number in range(20):
        (instance.incoming / f"flat{number}.changes").write_text(text)
        own(instance.incoming / f"flat{number}.changes", MALLORY)
    instance.start()

    def touch() -> None:
        for path in (*instance.incoming.glob("m*/0.changes"), *instance.incoming.glob("flat*.changes")):
            try:
                os.utime(path)
            except FileNotFoundError:
                continue

    with again_and_again(touch):
        for number in range(3):
            send(ALICE, builder.upload("hello", f"{number}.0-1"), instance.incoming, f"job-{number}")
            instance.succeeded(f"job-{number}")
    assert peak(instance) < 300 << 20


def test_more_uploads_than_an_account_may_have_on_its_way(instance: Guarded, builder: Builder) -> None:
    instance.set("limits", per_account=3)
    instance.hand_over()
    instance.start()
    assert instance.ctl("hold").returncode == 0
    uploads = [builder.upload("mallory", f"{number}.0-1", upload_name=f"m{number}") for number in range(6)]
    for upload in uploads:
        send(MALLORY, upload, instance.incoming, upload.name)
    stages = lambda: [(instance.status(f"m{number}") or {}).get("stage") for number in range(6)]  # noqa: E731
    until(lambda: sorted(map(str, stages())) == ["queued"] * 3 + ["receiving"] * 3, "the limit")
    held = [number for number, stage in enumerate(stages()) if stage == "receiving"]
    until(lambda: "[limits]" in instance.status(f"m{held[0]}")["log"][-1]["message"], "its log")  # type: ignore[index]
    instance.stop()
    instance.start()
    send(ALICE, builder.upload("hello"), instance.incoming, "alice")
    until(lambda: (instance.status("alice") or {}).get("stage") == "queued", "the queue")
    until(lambda: sorted(map(str, stages())) == ["queued"] * 3 + ["receiving"] * 3, "the limit after a restart")
    assert instance.ctl("release").returncode == 0
    instance.succeeded("alice")
    for number in range(6):
        assert instance.wait(f"m{number}")["stage"] != "abandoned"


def test_a_great_many_entries(instance: Guarded, builder: Builder) -> None:
    """Directories, listings of nothing and files of no upload, more than are read in one look or followed."""
    for number in range(9_000):
        (instance.incoming / f"m{number}").mkdir()
        os.chown(instance.incoming / f"m{number}", MALLORY, -1)
    for number in range(3_000):
        for name in (f"flat{number}.changes", f"stray{number}.deb"):
            (instance.incoming / name).write_text("Files:\n 0 1 a b missing.deb\n")
            os.chown(instance.incoming / name, MALLORY, -1)
    instance.start()
    send(ALICE, builder.upload("hello"), instance.incoming, "job")
    instance.succeeded("job")
    until(lambda: f"uid {MALLORY} has" in instance.health(), "that health tells of it")
    # Those of one account; what another has on its way may be among them for a moment.
    until(lambda: len(instance.index()["in_flight"]) <= 1000, "the index to list no more")
    assert peak(instance) < 300 << 20
