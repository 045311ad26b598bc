"""docs/operators.md, typed on a machine of its own, which is installed as the page says.

Each test types all commands of its sections.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import pages
from tests.support.apt import Apt, served
from tests.support.installed import PAGE, PROGRAMS, clean, give, install, made, setup_command
from tests.support.instance import until
from tests.support.keys import Keys
from tests.support.machine import CHECKOUT, Machine
from tests.support.packaged import CONFIG, INCOMING, UNIT, tarred
from tests.support.pages import Commands
from tests.support.uploads import Builder, Upload


@pytest.fixture(scope="module")
def fresh() -> Iterator[Machine]:
    """The programs are installed, and nothing is set up."""
    with made() as machine:
        install(machine)
        machine.type("adduser --disabled-password --gecos '' ci")
        yield machine


@pytest.fixture
def machine(fresh: Machine, keys: Keys, builder_key: str) -> Iterator[Machine]:
    """Set up anew by the page's own command, and running."""
    clean(fresh)
    give(fresh, "joan.asc", keys, builder_key)
    fresh.type(setup_command())
    yield fresh
    print(fresh.type(f"journalctl --unit {UNIT} --no-pager --lines 30", check=False))


def send(machine: Machine, upload: Upload, user: str = "ci") -> str:
    """Upload as that account; the upload's name."""
    name = upload.name
    copy = f"cp -r . {INCOMING}/.{name}; mv -T {INCOMING}/.{name} {INCOMING}/{name}"
    into = f"set -e; cd $(mktemp -d); tar -x --no-same-owner; {copy}"
    machine.systemd.run("runuser", "-u", user, "--", "sh", "-c", into, data=tarred(upload))
    return name


def published(machine: Machine, upload: Upload) -> str:
    name = send(machine, upload)
    machine.type(f"incomingctl wait {name} --timeout 60")
    return name


def queued(machine: Machine, name: str) -> None:
    """Wait until it has been checked and waits to be published."""
    until(lambda: '"stage": "queued"' in machine.type(f"incomingctl status {name} --json", check=False), "the queue")


def health(machine: Machine) -> dict[str, object]:
    found: dict[str, object] = json.loads(machine.type("incomingctl status --json"))["health"]
    return found


def signers(machine: Machine) -> list[str]:
    """The keys of which the Release has a good signature, by the keyring that clients get."""
    said = machine.type(
        "gpg --batch --yes --dearmor --output /tmp/keyring.gpg </srv/incomingd/archive/archive-keyring.asc && "
        "gpgv --status-fd 1 --keyring /tmp/keyring.gpg /srv/incomingd/archive/dists/bookworm/InRelease 2>/dev/null",
        check=False,  # the Release comes before the keyring
    )
    return re.findall(r"VALIDSIG (\w+)", said)


def apt_installs_hello(machine: Machine, folder: Path, suite: str = "bookworm") -> None:
    archive = machine.path("/srv/incomingd/archive")
    with served(archive) as address:
        apt = Apt(folder, address, archive / "archive-keyring.asc", suite=suite)
        apt.update()
        assert (apt.install("hello") / "usr/share/doc/hello").exists()


@pytest.mark.types(PAGE, "Install")
def test_installed_and_set_up_both_ways(
    fresh: Machine, typed: Commands, keys: Keys, builder: Builder, builder_key: str, tmp_path: Path
) -> None:
    for _ in range(PROGRAMS):  # by the fixture
        typed.take("")
    clean(fresh)
    give(fresh, "joan.asc", keys, builder_key)
    said = fresh.type(typed.take("incomingctl setup"))
    assert "deb [signed-by=/etc/apt/keyrings/example.asc] http://apt.example.org bookworm main" in said
    published(fresh, builder.upload("hello", distribution="bookworm"))
    apt_installs_hello(fresh, tmp_path / "apt")
    assert health(fresh)["state"] == "ok"

    # The same by hand.
    clean(fresh)
    fresh.type(typed.take("runuser -u incomingd -- gpg"))
    listed = fresh.type(typed.take("runuser -u incomingd -- gpg"))
    (key,) = re.findall(r"^ +([0-9A-F]{40})$", listed, re.MULTILINE)
    edit = rf's/^# signing_keys = .*/signing_keys = ["{key}"]/; s/^\[suites.stable\]/[suites.bookworm]/'
    fresh.systemd.write("/usr/local/bin/editor", f"#!/bin/sh\nexec sed -i '{edit}' \"$1\"\n")
    fresh.type("chmod 755 /usr/local/bin/editor")
    for start in ("editor", "incomingd --check-config", "incomingctl trust", "systemctl enable --now"):
        fresh.type(typed.take(start))
    assert "ok: waiting for uploads" in fresh.type(typed.take("incomingctl status"))
    published(fresh, builder.upload("hello", distribution="bookworm", upload_name="again"))
    apt_installs_hello(fresh, tmp_path / "apt-by-hand")

    # A machine has no fish, and no zsh, until somebody installs them.
    fresh.type("rm -rf /usr/share/fish /usr/share/zsh/vendor-completions")
    for command in typed:
        fresh.type(command)
    assert fresh.path("/usr/share/fish/vendor_completions.d/incomingctl.fish").is_file()


@pytest.mark.types(PAGE, "Health")
@pytest.mark.types(PAGE, "What to do when")
@pytest.mark.types(PAGE, 'degraded: the disk is full ("No space left", "database or disk is full")')
@pytest.mark.types(PAGE, "died, killed, power cut")
@pytest.mark.types(PAGE, "An upload hangs")
def test_what_is_typed_at_night(machine: Machine, typed: Commands, builder: Builder, keys: Keys) -> None:
    published(machine, builder.upload("hello", distribution="bookworm"))
    refused = send(machine, builder.upload("world", distribution="bookworm", key=keys.make("Stranger at night")))
    machine.type(f"incomingctl wait {refused} --timeout 60", check=False)
    assert machine.type(typed.take("incomingctl status --json")).strip() == "true"
    assert machine.type(typed.take("systemctl is-active")).strip() == "active"
    assert "ok" in machine.type(typed.take("incomingctl status"))
    assert "Status:" in machine.type(typed.take("systemctl status"))
    assert refused in machine.type(typed.take("journalctl -u incomingd"))
    machine.type(typed.take("df"))
    assert machine.type(typed.take("du")).count("\n") == 3
    machine.type(typed.take("rm -r"))
    machine.type(typed.take("incomingctl fsck"))
    machine.type(typed.take("incomingctl fsck --deep"))
    assert (
        "REJECTED" in machine.type(typed.take("incomingctl status NAME").replace("NAME", refused), check=False).upper()
    )


@pytest.mark.types(PAGE, "Holding publishing")
def test_publishing_is_held(machine: Machine, typed: Commands, builder: Builder) -> None:
    machine.type(typed.take("incomingctl hold"))
    name = send(machine, builder.upload("hello", distribution="bookworm"))
    queued(machine, name)
    assert name in machine.type(typed.take("incomingctl queue"))
    machine.type(typed.take("incomingctl cancel").replace("NAME", name))
    machine.type(typed.take("incomingctl release"))
    machine.type(typed.take("incomingctl retry").replace("NAME", name))
    machine.type(f"incomingctl wait {name} --timeout 60")


@pytest.mark.types(PAGE, "Uploaders' keys")
def test_uploaders_keys(machine: Machine, typed: Commands, builder_key: str) -> None:
    assert builder_key in machine.type(typed.take("incomingctl trust"))
    assert builder_key in machine.type(typed.take("incomingctl keys"))
    machine.type(typed.take("incomingctl untrust").replace("FINGERPRINT", builder_key))
    assert builder_key not in machine.type("incomingctl keys")


def test_the_signing_key_is_changed(machine: Machine, builder: Builder, tmp_path: Path) -> None:
    """Section Signing keys has its commands in its text."""
    first, reload, *rest = [text for text in pages.inline(PAGE, "Signing keys") if " " in text]
    last, export = rest
    published(machine, builder.upload("hello", distribution="bookworm"))
    (old,) = signers(machine)
    make, show = [command.text for command in pages.commands(PAGE, "Install") if "--homedir" in command.text]
    machine.type(make)
    (new,) = set(re.findall(r"^ +([0-9A-F]{40})$", machine.type(show), re.MULTILINE)) - {old}
    for line, wanted in ((first, {old, new}), (last, {new})):
        keys_line = line.replace("OLD", old).replace("NEW", new)
        machine.type(f"sed -i 's/^signing_keys = .*/{keys_line}/' {CONFIG}")
        machine.type(reload)
        until(lambda wanted=wanted: set(signers(machine)) == wanted, "a Release by the new keys")
    assert "BEGIN PGP PRIVATE KEY BLOCK" in machine.type(export.replace("FINGERPRINT", new))
    apt_installs_hello(machine, tmp_path / "apt")


@pytest.mark.types(PAGE, "One account and one rule for each team")
def test_a_team_has_an_account_and_a_rule(machine: Machine, typed: Commands, builder: Builder, keys: Keys) -> None:
    key = keys.make("Team A")
    give(machine, "team-a.asc", keys, key)
    machine.type("deluser --remove-home team-a", check=False)
    machine.type(typed.take("adduser"))
    machine.type(typed.take("incomingctl trust"))
    text = pages.block(PAGE, "One account and one rule for each team", "[[uploaders]]")
    machine.type(f"cat >>{CONFIG}", data="\n" + text.replace("FINGERPRINT", key).replace('"stable"', '"bookworm"'))
    machine.type(typed.take("incomingd --check-config"))
    name = send(machine, builder.upload("team-a-tool", distribution="bookworm", key=key), user="team-a")
    machine.type(f"incomingctl wait {name} --timeout 60")
    other = send(machine, builder.upload("libc6", distribution="bookworm", key=key), user="team-a")
    assert "not-allowed" in machine.type(f"incomingctl wait {other} --timeout 60 2>&1", check=False)


@pytest.mark.types(PAGE, "Somebody has published a name that is not theirs")
def test_a_name_is_given_back(machine: Machine, typed: Commands, builder: Builder, builder_key: str) -> None:
    machine.type("incomingctl setup --yes --suite bookworm --suite trixie --web-server none")
    name = published(machine, builder.upload("hello", distribution="bookworm"))
    right = builder.upload("hello-right", "2.0", binaries=["hello"], distribution="trixie", source="native")
    published(machine, right)
    assert name in machine.type(typed.take("incomingctl history").replace("NAME", "hello"))
    assert f"signed by {builder_key}" in machine.type(typed.take("incomingctl show").replace("NAME", "hello"))
    machine.type(typed.take("incomingctl remove").replace("SOURCE", "hello").replace("SUITE", "bookworm"))
    copy = typed.take("incomingctl copy").replace("SOURCE", "hello-right")
    machine.type(copy.replace("OTHER-SUITE", "trixie").replace("SUITE", "bookworm"))
    assert "2.0" in machine.type("incomingctl list bookworm")


@pytest.mark.types(PAGE, "Accounts that upload")
def test_accounts_that_upload(machine: Machine, typed: Commands, builder: Builder) -> None:
    machine.type("deluser --remove-home team-a", check=False)
    machine.type("id joan >/dev/null 2>&1 || adduser --disabled-password --gecos '' joan")
    for start in ("adduser", "usermod"):
        machine.type(typed.take(start))
    for user in ("team-a", "joan"):
        name = send(machine, builder.upload(f"by-{user}", distribution="bookworm"), user=user)
        machine.type(f"incomingctl wait {name} --timeout 60")
    machine.systemd.run(
        "sh",
        "-c",
        f"cd {CHECKOUT} && rm -rf build && mkdir build && tar -x --no-same-owner -C build && chown joan build/*.deb",
        data=tarred(builder.upload("several", distribution="bookworm")),
    )
    machine.type(typed.take("rsync"))
    machine.type("incomingctl wait job-7 --timeout 60")


@pytest.mark.types(PAGE, "Backup and restore")
def test_backup_and_restore(machine: Machine, typed: Commands, builder: Builder, tmp_path: Path) -> None:
    published(machine, builder.upload("hello", distribution="bookworm"))
    machine.type("[ -e ~/.ssh/id_ed25519 ] || ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519")
    with made() as backup:
        machine.reaches("root", "backup", backup, "root")
        while not (command := typed.take("")).endswith("backup:/incomingd/pool/"):
            machine.type(command)
        machine.type(command)
        published(machine, builder.upload("lost", distribution="bookworm"))
        machine.type("systemctl stop incomingd; rm -rf /etc/incomingd /var/lib/incomingd/* /srv/incomingd/archive/*")
        while typed.left[1:]:
            machine.type(typed.take(""))
        said = machine.type(typed.take("incomingctl fsck --deep"), check=False)
    assert "lost" not in machine.type("incomingctl list bookworm")
    assert "fault" not in said or "does not know it" in said
    apt_installs_hello(machine, tmp_path / "apt")


@pytest.mark.types(PAGE, "Moving to another machine")
def test_moving_to_another_machine(machine: Machine, typed: Commands, builder: Builder, tmp_path: Path) -> None:
    published(machine, builder.upload("hello", distribution="bookworm"))
    machine.type("[ -e ~/.ssh/id_ed25519 ] || ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519")
    with made() as new:
        new.type("adduser --system --group other-account-first")  # so that the numbers of accounts differ
        install(new)
        machine.reaches("root", "new", new, "root")
        for command in typed:
            (new if "on the new one" in command else machine).type(command)
        apt_installs_hello(new, tmp_path / "apt")
        new.type("adduser --ingroup incomingd --disabled-password --gecos '' ci")
        published(new, builder.upload("hello", "2.0-1", distribution="bookworm"))
        assert health(new)["state"] == "ok"


@pytest.mark.types(PAGE, "Upgrading")
def test_upgrading(machine: Machine, typed: Commands, builder: Builder) -> None:
    machine.type("rm -rf /var/lib/incomingd.before")
    for command in typed:
        machine.type(command)
    published(machine, builder.upload("hello", distribution="bookworm"))


@pytest.mark.types("docs/config.md", "Configuration reference")
def test_a_configuration_is_taken_up(machine: Machine, typed: Commands) -> None:
    machine.type(typed.take("incomingd --config").replace("FILE", CONFIG))
    machine.type(typed.take("systemctl reload"))
