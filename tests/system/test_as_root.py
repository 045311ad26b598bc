"""root works on the instance of a daemon that is not root, and the daemon goes on with all that root has left."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.instance import until
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


def foreign(systemd: PrivateSystemd) -> bytes:
    """What the daemon's own folders hold that is not the daemon's."""
    return systemd.run("find", "/var/lib/incomingd", "/srv/incomingd/status", "!", "-user", "incomingd").stdout


def test_hold_cancel_retry_and_release_as_root(systemd: PrivateSystemd, builder: Builder) -> None:
    service = Packaged(systemd, builder.keys.public(builder.key))
    service.start()
    systemd.run(*CTL, "hold", "until", "the", "mirror", "is", "there")
    name = service.send(builder.upload("hello", "1.0-1"))
    until(lambda: service.status(name).get("stage") == "queued", "it to wait")
    assert "held: publishing is on hold" in service.show("StatusText")
    assert "until the mirror is there; incomingctl release ends it; 1 in the queue" in service.show("StatusText")
    systemd.run(*CTL, "cancel", name)
    assert service.status(name)["stage"] == "cancelled"
    systemd.run(*CTL, "retry", name)
    until(lambda: service.status(name).get("stage") == "queued", "it to wait again")
    service.stop()
    systemd.run(*CTL, "cancel", name)
    systemd.run(*CTL, "retry", name)
    systemd.run(*CTL, "release")
    service.start()
    until(lambda: service.status(name).get("stage") == "published", "it to be published")
    assert foreign(systemd) == b""


def test_root_trusts_and_the_daemon_can_read_it(systemd: PrivateSystemd, builder: Builder) -> None:
    key = builder.keys.public(builder.key)
    service = Packaged(systemd, key)
    service.start()
    systemd.run(*CTL, "untrust", builder.key)
    assert service.ended(service.send(builder.upload("hello", "1.0-1")))["problems"][0]["code"] == "unknown-key"
    systemd.run(*CTL, "trust", "-", data=key.read_bytes())
    service.succeeded(service.send(builder.upload("hello", "1.0-2")))
    assert foreign(systemd) == b""


def test_root_looks_and_asks_while_the_daemon_does_not_run(systemd: PrivateSystemd, builder: Builder) -> None:
    service = Packaged(systemd, builder.keys.public(builder.key))
    service.start()
    service.succeeded(service.send(builder.upload("hello", "1.0-1")))
    service.stop()
    for verb in ("list", "history", "queue", "fsck", "show hello", "remove --no-wait hello stable"):
        systemd.run(*CTL, *verb.split())
        assert foreign(systemd) == b"", verb
    service.start()
    until(lambda: systemd.run(*CTL, "list").stdout == b"", "the removal")
