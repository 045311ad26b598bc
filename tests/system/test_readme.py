"""README.md, typed on a machine of its own: an archive is set up, a CI job uploads, and a real apt installs."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.apt import Apt, served
from tests.support.clients import DEVSCRIPTS
from tests.support.instance import until
from tests.support.machine import Machine
from tests.support.pages import Commands, commands
from tests.support.private_systemd import UnavailableError

#: A source without debhelper, which not every machine has.
_DEBIAN = {
    "control": """\
Source: hello
Section: utils
Priority: optional
Maintainer: CI <ci@example.org>
Standards-Version: 4.6.2
Rules-Requires-Root: no

Package: hello
Architecture: any
Description: made for a test
 It says so.
""",
    "changelog": """\
hello (2.10-3) bookworm; urgency=medium

  * Built.

 -- CI <ci@example.org>  Mon, 05 Jan 2026 08:00:00 +0000
""",
    "rules": """\
#!/usr/bin/make -f
build build-arch build-indep clean binary-indep:
binary binary-arch:
\tinstall -d debian/tmp/usr/share/hello debian/tmp/DEBIAN
\techo hello >debian/tmp/usr/share/hello/text
\tdpkg-gencontrol
\tdpkg-deb --root-owner-group --build debian/tmp ..
""",
    "source/format": "3.0 (quilt)\n",
}


@pytest.fixture
def machine() -> Iterator[Machine]:
    if not DEVSCRIPTS.exists():
        pytest.skip("devscripts is not unpacked")
    try:
        made = Machine()
    except UnavailableError as reason:
        pytest.skip(str(reason))
    with made:
        yield made


@pytest.mark.types("README.md", "Set up an archive")
@pytest.mark.writes("README.md", "Set up an archive")
@pytest.mark.types("README.md", "Upload from a CI job")
def test_from_a_checkout_to_a_package_that_apt_installs(
    machine: Machine, typed: Commands, written: Commands, tmp_path: Path
) -> None:
    for start in (
        "apt-get install",
        "python3 -m venv",
        "ln -s",
        "adduser",
        "install -d",
        "runuser -u apt -- incomingctl",
    ):
        said = machine.type(typed.take(start))
    assert "incomingd --config /srv/apt/incomingd.toml" in said
    # It keeps running, so it needs a terminal of its own.
    daemon = typed.take("runuser -u apt -- incomingd").partition("#")[0]
    machine.type(f"nohup {daemon} >/var/log/daemon 2>&1 &")
    index = machine.path("/srv/apt/status/index.json")
    until(lambda: index.exists() and '"doing": "waiting for uploads"' in index.read_text(), "the daemon")

    # The CI job, with its own account and key, and with what its system sets.
    machine.account("ci")
    machine.reaches("ci", "repo", machine, "apt")
    machine.type("gpg --batch --passphrase '' --quick-gen-key ci@example.org ed25519 sign never", user="ci")
    machine.type("mkdir -p hello-2.10/debian/source", user="ci")
    for name, text in _DEBIAN.items():
        machine.type(f"cat >hello-2.10/debian/{name}", user="ci", data=text)
    machine.type(
        "chmod +x hello-2.10/debian/rules; tar --exclude debian -czf hello_2.10.orig.tar.gz hello-2.10", user="ci"
    )
    said = machine.type("\n".join(["KEY=ci@example.org ID=7", *typed]), user="ci", folder="/home/ci/hello-2.10")
    assert "job-7: SUCCEEDED" in said

    archive = machine.path("/srv/apt/archive")
    with served(archive) as address:
        apt = Apt(tmp_path / "apt", address, archive / "archive-keyring.asc", suite="bookworm")
        apt.update()
        assert (apt.install("hello") / "usr/share/hello/text").read_text() == "hello\n"
        assert "hello_2.10.orig.tar.gz" in apt.source("hello")

        # As a client's machine has it.
        key = (archive / "archive-keyring.asc").read_text()
        line = written.take("deb [").replace("https://apt.example.org", address.rstrip("/"))
        assert "hello" in machine.apt_client(line, "example.list", key, "example.asc").split()


@pytest.mark.writes("README.md", "Configure")
def test_the_configuration_that_is_shown(machine: Machine, written: Commands) -> None:
    for command in commands("README.md", "Set up an archive"):
        if not command.text.startswith("runuser -u apt -- incomingd"):
            machine.type(command.text)
    machine.type("adduser --disabled-password --gecos '' ci")
    (key,) = re.findall(r'^signing_keys = \["(\w+)"\]', machine.type("cat /srv/apt/incomingd.toml"), re.MULTILINE)
    machine.type("cat >/srv/apt/incomingd.toml", data=written.take("[archive]").replace("FINGERPRINT", key))
    machine.type("runuser -u apt -- incomingd --config /srv/apt/incomingd.toml --check-config")
