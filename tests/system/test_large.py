"""Large packages: they cost neither memory nor needless reading, and hold nobody else's check up."""

import contextlib
import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import packages
from tests.support.instance import Instance, until
from tests.support.processes import bytes_read, family, memory
from tests.support.uploads import Builder, Upload

MIB = 1 << 20
SIZE = 100 * MIB


def large(builder: Builder, content: str, compression: str) -> Upload:
    folder = builder.folder / "large"
    folder.mkdir(parents=True)
    deb = packages.binary(folder, "large", "1.0-1", content=content, compression=compression)
    return builder.sign(folder, [deb])


@contextmanager
def most_memory(pid: int) -> Iterator[list[int]]:
    """The most memory that is seen of a process and its descendants until the end of the block: the one item."""
    most, stop = [memory(pid)], threading.Event()

    def look() -> None:
        while not stop.wait(0.01):
            most[0] = max(most[0], memory(pid))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield most
    finally:
        stop.set()
        thread.join()


# What is compressed has to be unpacked once, to see that it can be.
@pytest.mark.parametrize(("compression", "times"), [("none", 1), ("zstd", 2)])
def test_read_once_and_never_held_whole(instance: Instance, builder: Builder, compression: str, times: int) -> None:
    assert instance.daemon
    daemon = instance.daemon.pid
    instance.succeeded(builder.upload("hello", "1.0-1").send_directory(instance.incoming))
    upload = large(builder, random.Random(1).randbytes(SIZE // 2).hex(), compression)
    size = upload.file("*.deb").stat().st_size
    read, held = bytes_read(daemon), memory(daemon)
    with most_memory(daemon) as most:
        instance.succeeded(upload.send_directory(instance.incoming))
    assert bytes_read(daemon) - read < times * size + 20 * MIB
    # Room for a second worker, and less than half of the file.
    assert most[0] - held < 40 * MIB


def test_small_uploads_are_checked_meanwhile(idle: Instance, builder: Builder) -> None:
    idle.set("service", workers=2)
    idle.start()
    assert idle.daemon
    daemon = idle.daemon.pid
    slow = large(builder, "0" * (4 * SIZE), "gzip").send_directory(idle.incoming)
    reader = until(lambda: who_reads(daemon, "large_1.0-1_amd64.deb"), "a look into the package")
    os.kill(reader, signal.SIGSTOP)  # now it takes as long as the test likes
    try:
        small = builder.upload("small", "1.0-1").send_directory(idle.incoming)
        until(lambda: (idle.status(small) or {}).get("stage") == "queued", "the small upload's check")
        assert (idle.status(slow) or {})["stage"] == "checking"
    finally:
        os.kill(reader, signal.SIGCONT)
    # The order is that of the arrivals all the same.
    assert idle.succeeded(slow)["finished_at"] <= idle.succeeded(small)["finished_at"]


def who_reads(daemon: int, name: str) -> int | None:
    """The worker that has the file open."""
    for pid in family(daemon)[1:]:
        with contextlib.suppress(OSError):  # closed meanwhile, or ended
            if any(descriptor.readlink().name == name for descriptor in Path(f"/proc/{pid}/fd").iterdir()):
                return pid
    return None
