"""Two accounts with umask 077 and a daemon of a third that has no rights over their files, only default ACLs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.instance import until
from tests.support.packaged import INCOMING, UNIT, Packaged
from tests.support.uploads import Builder
from tests.system.test_systemd import builds, service, systemd

__all__ = ["builds", "service", "systemd"]  # fixtures

PAGE = Path(__file__).parents[2] / "docs/operators.md"
JOAN, MARK = "joan", "mark"
#: Ways that docs/operators.md says do, and one that it says does not.
WAYS = {
    "dput": "install -m 644 *.deb *.changes {incoming}",
    "flat": "cp *.deb {incoming}; cp *.changes {incoming}",
    "mkdir": "mkdir {incoming}/{name}; cp * {incoming}/{name}",
    "rsync": "rsync -rt --chmod=ug=rwX,o= ./ {incoming}/{name}/",
    "sftp": "printf 'mkdir {incoming}/.{name}\\nput * {incoming}/.{name}/\\nrename {incoming}/.{name} "
    "{incoming}/{name}\\n' | sftp -q -b - -D /usr/lib/openssh/sftp-server",
}


def snippet(start: str) -> str:
    """The indented line of docs/operators.md that begins so."""
    return next(line.strip() for line in PAGE.read_text().splitlines() if line.startswith(f"    {start}"))


@pytest.fixture
def plain(service: Packaged) -> Iterator[Packaged]:
    """Running without capabilities, and with the ACLs of docs/operators.md."""
    for name in (JOAN, MARK):
        if service.systemd.run("id", name, check=False).returncode:
            service.systemd.run("useradd", "--user-group", "--groups", "incomingd", name)
    service.drop_in("rights", "[Service]\nAmbientCapabilities=\nCapabilityBoundingSet=\n")
    service.systemd.write("/etc/tmpfiles.d/incomingd-acl.conf", snippet("a+ ") + "\n")
    made = service.systemd.run("systemd-tmpfiles", "--create", "incomingd-acl.conf", check=False)
    if made.returncode:
        pytest.skip(f"no ACLs here: {made.stderr.decode()}")
    service.start()
    yield service
    service.systemd.run("rm", "/etc/tmpfiles.d/incomingd-acl.conf")


def test_two_accounts_with_a_private_umask(plain: Packaged, builds: Builder) -> None:
    sent = []
    for user in (JOAN, MARK):
        for word, how in WAYS.items():
            upload = builds.upload(f"acl-{word}-{user}", "1.0-1")
            plain.send(upload, "umask 077; " + how.format(incoming=INCOMING, name=upload.name), user=user)
            sent.append(upload.flat_name if word in ("dput", "flat") else upload.name)
    for name in sent:
        plain.succeeded(name)
    until(lambda: not list(plain.path(INCOMING).iterdir()), "the clearing away")


def test_they_cannot_read_or_remove_what_the_other_sent(plain: Packaged, builds: Builder) -> None:
    upload = builds.upload("acl-secret", "1.0-1")
    plain.send(upload, f"umask 077; mkdir {INCOMING}/secret; cp *.deb {INCOMING}/secret", user=JOAN)
    for attempt in (f"cat {INCOMING}/secret/*.deb", f"mv {INCOMING}/secret {INCOMING}/mine", f"ls {INCOMING}/secret"):
        tried = plain.systemd.run("sh", "-c", attempt, user=MARK, groups="incomingd", check=False)
        assert tried.returncode != 0, attempt
    until(lambda: plain.status("secret").get("stage") == "receiving", "it to be seen")


def test_a_client_that_sends_modes_waits_and_health_says_why(plain: Packaged, builds: Builder) -> None:
    upload = builds.upload("acl-modes", "1.0-1")
    plain.send(upload, f"chmod 755 .; rsync -a ./ {INCOMING}/{upload.name}/", user=JOAN)

    def told() -> bool:
        return "has mode 0755" in str(plain.status(upload.name).get("log"))

    until(told, "the reason in its log")
    index = plain.path("/srv/incomingd/status/index.json")
    until(lambda: "cannot be taken: the directory" in index.read_text(), "the reason in health")
    plain.systemd.run("chmod", "-R", "ug=rwX,o=", f"{INCOMING}/{upload.name}", user=JOAN, groups="incomingd")
    plain.succeeded(upload.name)


def test_two_accounts_delay_theirs(plain: Packaged, builds: Builder) -> None:
    """The daemon makes the folders: with incoming's group, sticky bit and default ACL."""
    plain.configure("delayed = 3")
    plain.systemd.systemctl("reload", UNIT)
    folder = f"{INCOMING}/DELAYED/3-day"
    until(lambda: plain.systemd.run("test", "-d", folder, check=False).returncode == 0, "the folder")
    secret = builds.upload("acl-secret-late", "1.0-1")
    plain.send(secret, f"umask 077; cp *.deb {folder}", user=JOAN)
    tried = plain.systemd.run("sh", "-c", f"rm -f {folder}/*.deb", user=MARK, groups="incomingd", check=False)
    assert tried.returncode != 0
    for user in (JOAN, MARK):
        upload = builds.upload(f"acl-late-{user}", "1.0-1")
        plain.send(upload, "umask 077; " + WAYS["flat"].format(incoming=folder), user=user)
        until(lambda upload=upload: plain.status(upload.flat_name).get("due_at"), "the delay")
        until(lambda upload=upload: plain.status(upload.flat_name)["stage"] == "queued", "the check")
