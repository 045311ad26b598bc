"""root controls the queue of a daemon that is not root, and the daemon goes on with all that root has left."""

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
    foreign = systemd.run("find", "/var/lib/incomingd", "/srv/incomingd/status", "!", "-user", "incomingd").stdout
    assert foreign == b""
