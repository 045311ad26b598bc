"""docs/operators.md, typed on a machine of its own, which is installed as the page says.

Each test types all commands of its sections.
"""

import json
import os
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
from tests.support.sshd import free_port
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
    found: dict[str, object] = json.loads(machine.type("incomingctl status --json", check=False))["health"]
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
@pytest.mark.writes(PAGE, "One account and one rule for each team")
def test_a_team_has_an_account_and_a_rule(
    machine: Machine, typed: Commands, written: Commands, builder: Builder, keys: Keys
) -> None:
    key = keys.make("Team A")
    give(machine, "team-a.asc", keys, key)
    machine.type("deluser --remove-home team-a", check=False)
    machine.type(typed.take("adduser"))
    machine.type(typed.take("incomingctl trust"))
    text = written.take("[[uploaders]]")
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


@pytest.mark.types_table(PAGE, "Under systemd")
@pytest.mark.types_table(PAGE, "Health")
def test_what_systemd_does(machine: Machine, tabled: Commands, builder: Builder) -> None:
    machine.type("systemctl stop incomingd")
    machine.type(tabled.take("systemctl start"))
    assert "Status:" in machine.type(tabled.take("systemctl status"))
    machine.type(tabled.take("systemctl reload"))
    machine.type(tabled.take("systemctl stop"))
    assert "incomingd" in machine.type(tabled.take("journalctl"))
    assert "stopped" in machine.type("incomingctl status")
    machine.type("systemctl start incomingd")
    assert "state" in machine.type(tabled.take("incomingctl status") + " --json")
    machine.type("incomingctl hold")
    machine.type(tabled.find("systemctl reload"))
    machine.type(tabled.find("incomingctl release"))
    machine.type("systemctl stop incomingd")
    machine.type(tabled.find("systemctl start"))
    assert health(machine)["state"] == "ok"


@pytest.mark.types_table(PAGE, 'halted: "no usable signing key"')
def test_a_lost_key_is_brought_back(machine: Machine, tabled: Commands, builder: Builder) -> None:
    published(machine, builder.upload("hello", distribution="bookworm"))
    (keys_command, *_) = [text for text in pages.inline(PAGE, 'halted: "no usable signing key"') if "--homedir" in text]
    (key,) = signers(machine)

    def take(start: str) -> str:
        return tabled.take(start).replace("KEYS", keys_command).replace("FINGERPRINT", key)

    machine.type(f"{keys_command} --export-secret-keys --armor {key} >backup-of-the-key.asc")
    machine.type(f"{keys_command} --batch --yes --delete-secret-keys {key}")
    machine.type("systemctl reload incomingd")
    until(lambda: health(machine)["state"] == "halted", "the halt")
    machine.type(take("KEYS --import"))
    machine.type("systemctl reload incomingd")
    until(lambda: health(machine)["state"] == "ok", "the end of the halt")
    machine.type(take("KEYS --quick-set-expire"))
    machine.type("systemctl reload incomingd")
    published(machine, builder.upload("hello", "2.0-1", distribution="bookworm"))


@pytest.mark.writes(PAGE, "Release day")
def test_a_release_day(machine: Machine, written: Commands) -> None:
    machine.type("incomingctl setup --yes --suite bookworm --suite trixie --web-server none")
    machine.type(f"sed -i '/^suite = /d' {CONFIG}")
    for start in ("[suites.trixie]", "[suites.bookworm]"):
        header, line = written.take(start).strip().splitlines()
        machine.type(f"sed -i '/^{re.escape(header)}/a {line}' {CONFIG}")
    machine.type("incomingd --check-config")
    machine.type("systemctl reload incomingd")
    assert machine.path("/srv/incomingd/archive/dists/stable").readlink() == Path("trixie")


@pytest.mark.writes(PAGE, "Memory")
def test_the_limit_of_memory(machine: Machine, written: Commands) -> None:
    machine.systemd.write(f"/etc/systemd/system/{UNIT}.d/override.conf", written.take("[Service]"))
    machine.type("systemctl daemon-reload")
    assert machine.type(f"systemctl show --value --property MemoryMax {UNIT}").strip() == str(6 << 30)
    machine.type(f"rm /etc/systemd/system/{UNIT}.d/override.conf; systemctl daemon-reload")


@pytest.mark.writes(PAGE, "Accounts that upload")
def test_accounts_that_only_upload(machine: Machine, written: Commands, builder: Builder) -> None:
    machine.type("id team-s >/dev/null 2>&1 || adduser --ingroup incomingd --disabled-password --gecos '' team-s")
    machine.type("[ -e ~/.ssh/id_ed25519 ] || ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519")
    machine.reaches("root", "here", machine, "team-s")
    machine.type("ssh here true")
    machine.type("cat >>/etc/ssh/sshd_config", data=written.take("Match Group"))
    machine.type("systemctl kill --signal HUP --kill-who main sshd-of-the-test")
    until(lambda: "sftp" in machine.type("ssh here true 2>&1", check=False), "the new settings")
    upload = builder.upload("hello", distribution="bookworm")
    machine.systemd.run("sh", "-c", "rm -rf /srv/sent; mkdir /srv/sent; tar -x -C /srv/sent", data=tarred(upload))
    machine.type(f"sftp -b - here:{INCOMING}", data="put /srv/sent/*\n")
    machine.type(f"incomingctl wait {upload.flat_name} --timeout 60")

    machine.systemd.write("/etc/tmpfiles.d/incomingd-acl.conf", written.take("a+ "))
    machine.type("systemd-tmpfiles --create incomingd-acl.conf")
    assert "system.posix_acl_default" in os.listxattr(machine.path(INCOMING))


@pytest.mark.writes(PAGE, "Serving with nginx")
def test_serving_with_nginx(machine: Machine, written: Commands, builder: Builder) -> None:
    published(machine, builder.upload("hello", distribution="bookworm"))
    port = free_port()
    machine.type("mkdir -p /var/log/nginx /var/lib/nginx /etc/nginx/sites-enabled; rm -f /etc/nginx/sites-enabled/*")
    server = written.take("server {").replace("listen 80", f"listen 127.0.0.1:{port}")
    machine.systemd.write("/etc/nginx/sites-enabled/archive", server)
    machine.type("systemctl start nginx")
    machine.type("cat >>/etc/hosts", data="127.0.0.1 archive.example.org\n")
    source = written.take("Types: ").replace("archive.example.org", f"archive.example.org:{port}")
    key = machine.path("/srv/incomingd/archive/archive-keyring.asc").read_text()
    source = source.replace("Suites: stable", "Suites: bookworm")
    said = machine.apt_client(source, "archive.sources", key, "archive-keyring.asc")
    assert "hello" in said.split()
    machine.type("systemctl stop nginx")


@pytest.mark.writes("docs/config.md", "[[uploaders]]")
def test_a_rule_for_an_uploader(machine: Machine, written: Commands, builder_key: str) -> None:
    rule = written.take("[[uploaders]]").replace("…", builder_key).replace('"stable"', '"bookworm"')
    machine.type(f"cat >>{CONFIG}", data=f"\n{rule}")
    machine.type("incomingd --check-config")


@pytest.mark.types("docs/config.md", "Configuration reference")
def test_a_configuration_is_taken_up(machine: Machine, typed: Commands) -> None:
    machine.type(typed.take("incomingd --config").replace("FILE", CONFIG))
    machine.type(typed.take("systemctl reload"))
