"""apt clients that update all the time, over http from a real nginx, while the archive changes under them.

``INCOMINGD_TEST_PUBLISHES`` is how many publishes they live through (40); ``pytest -s`` shows what they saw.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.apt import Apt
from tests.support.instance import Instance
from tests.support.nginx import nginx
from tests.support.uploads import Builder

PUBLISHES = int(os.environ.get("INCOMINGD_TEST_PUBLISHES", "40"))


class Reader:
    """A client that updates in a loop, in a thread of its own."""

    def __init__(self, apt: Apt, *options: str) -> None:
        self.apt = apt
        self.updates = 0
        self.errors: list[str] = []
        self._words = (*options, "update")

    @contextmanager
    def reading(self) -> Iterator[None]:
        stop = threading.Event()

        def loop() -> None:
            while not stop.is_set():
                try:
                    self.apt.run(*self._words)
                except AssertionError as error:
                    self.errors.append(str(error))
                self.updates += 1

        thread = threading.Thread(target=loop)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def test_no_update_ever_fails(instance: Instance, builder: Builder, tmp_path: Path) -> None:
    with nginx(instance.archive, tmp_path / "nginx") as address:
        usual = Reader(Apt(tmp_path / "usual", address, instance.keyring))
        # Such a client may get an index of one generation for the Release of another: how often is told, no more.
        by_name = Reader(Apt(tmp_path / "by-name", address, instance.keyring), "-o", "Acquire::By-Hash=no")
        with usual.reading(), by_name.reading():
            for number in range(PUBLISHES):
                instance.succeeded(builder.upload("hello", f"1.{number}").send_directory(instance.incoming))
        usual.apt.update()

    for what, reader in (("by hash", usual), ("by name", by_name)):
        print(f"{what}: {reader.updates} updates, {len(reader.errors)} errors, {PUBLISHES} publishes")
    assert usual.errors == []
    assert usual.apt.candidate("hello") == f"1.{PUBLISHES - 1}"
