"""root lets somebody upload, and the daemon, which is not root, can read who that is."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.packaged import CONFIG, Packaged
from tests.support.private_systemd import PrivateSystemd, UnavailableError
from tests.support.uploads import Builder

CTL = (Path(sys.prefix) / "bin/incomingctl", "--config", CONFIG)


@pytest.fixture
def systemd() -> Iterator[PrivateSystemd]:
    try:
        booted = PrivateSystemd()
    except UnavailableError as reason:
        pytest.skip(str(reason))
    with booted:
        yield booted


def test_root_trusts_and_the_daemon_can_read_it(systemd: PrivateSystemd, builder: Builder) -> None:
    key = builder.keys.public(builder.key)
    service = Packaged(systemd, key)
    service.start()
    systemd.run(*CTL, "untrust", builder.key)
    assert service.ended(service.send(builder.upload("hello", "1.0-1")))["problems"][0]["code"] == "unknown-key"
    systemd.run(*CTL, "trust", "-", data=key.read_bytes())
    service.succeeded(service.send(builder.upload("hello", "1.0-2")))
    foreign = systemd.run("find", "/var/lib/incomingd", "!", "-user", "incomingd").stdout
    assert foreign == b""
