"""The one-file client on a real Debian 11: .ci/old_client.sh makes the machine, and runs this. ./test does not."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from incomingd.client.bundle import bundle
from tests.support import packages
from tests.support.instance import Instance
from tests.support.keys import Keys

MACHINE = Path(os.environ["INCOMINGD_DEBIAN_11"])


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder of that machine, under the name that it has in there."""
    folder = MACHINE / "srv/incomingd-test"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    yield folder
    shutil.rmtree(folder)


def inside(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", "chroot", MACHINE),
            *("env", "-i", "HOME=/srv/incomingd-test", "PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8", *command),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_it_sends_signs_and_waits(shared: Path) -> None:
    assert inside("python3", "--version").stdout.startswith("Python 3.9.")
    (shared / "incomingctl-submit").write_bytes(bundle())
    (shared / "incomingctl-submit").chmod(0o755)
    packages.binary(shared, "hello", "1.0-1", "amd64")
    with Keys() as keys:
        key = keys.make()
        secret = keys.gpg("--export-secret-keys", key)
        (shared / "secret.gpg").write_bytes(secret)
        instance = Instance(shared / "instance", trust=[keys.public(key)])
    with instance:
        imported = inside("gpg", "--batch", "--import", "/srv/incomingd-test/secret.gpg")
        assert imported.returncode == 0, imported.stderr
        # Where the daemon is told of: outside, under a longer name; in there the incoming folder is this one.
        sent = inside(
            "/srv/incomingd-test/incomingctl-submit",
            *("/srv/incomingd-test/hello_1.0-1_amd64.deb", "--to", "/srv/incomingd-test/instance/incoming"),
            *("--suite", "stable", "--key", key, "--wait", "--timeout", "60"),
        )
        assert sent.returncode == 0, sent.stdout + sent.stderr
        assert "SUCCEEDED: published in stable generation" in sent.stdout
    instance.close()
