"""A machine on which incomingd is installed and set up by the commands of docs/operators.md."""

import pytest

from tests.support import pages
from tests.support.keys import Keys
from tests.support.machine import Machine
from tests.support.packaged import UNIT
from tests.support.private_systemd import UnavailableError

PAGE = "docs/operators.md"
#: The commands of Install that come before setup.
PROGRAMS = 9


def made() -> Machine:
    try:
        return Machine()
    except UnavailableError as reason:
        pytest.skip(str(reason))


def install(machine: Machine) -> list[str]:
    """Type the first block of Install; what was typed."""
    block = [command.text for command in pages.commands(PAGE, "Install")[:PROGRAMS]]
    assert block[-1] == "systemctl daemon-reload"
    for command in block:
        machine.type(command)
    machine.show_programs()
    return block


def clean(machine: Machine) -> None:
    """Back to what the first block of Install leaves."""
    machine.type(f"systemctl stop {UNIT}", check=False)
    machine.type(f"systemctl reset-failed {UNIT}", check=False)
    machine.type("rm -rf /srv/incomingd /var/lib/incomingd /etc/incomingd")
    for command in pages.commands(PAGE, "Install")[:PROGRAMS]:
        if command.text.startswith(("systemd-", "install -m 644 conf/incomingd.toml")):
            machine.type(command.text)


def give(machine: Machine, name: str, keys: Keys, key: str) -> None:
    """A public key, as a file in the folder where commands are typed."""
    machine.type(f"cat >{name}", data=keys.public(key).read_text())


def setup_command() -> str:
    """How the page sets up what is installed. It reads ``joan.asc`` and needs the account ``ci``."""
    return pages.Commands(pages.commands(PAGE, "Install")[PROGRAMS:]).take("incomingctl setup")
