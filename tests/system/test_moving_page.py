"""docs/moving.md, typed on a machine that has the repositories of reprepro and aptly, and incomingd beside them."""

import json
import re
import shutil
from collections.abc import Iterator

import pytest

from tests.support.apt import served
from tests.support.installed import install, made
from tests.support.instance import until
from tests.support.keys import Keys
from tests.support.machine import Machine
from tests.support.packaged import tarred
from tests.support.pages import Commands
from tests.support.uploads import Builder, Upload

PAGE = "docs/moving.md"
_OLD = "Old archive <old@example.org>"


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    for tool in ("reprepro", "aptly"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")
    with made() as one:
        install(one)
        one.type(f"gpg --batch --passphrase '' --quick-gen-key '{_OLD}' ed25519 sign never")
        one.type("adduser --disabled-password --gecos '' joan")
        yield one


@pytest.fixture(scope="module")
def old_key(machine: Machine) -> str:
    listed = machine.type("gpg --with-colons --list-keys old@example.org")
    return str(re.findall(r"^fpr:+(\w+):", listed, re.MULTILINE)[0])


@pytest.fixture(scope="module")
def built(machine: Machine, keys: Keys, builder_key: str, tmp_path_factory: pytest.TempPathFactory) -> Upload:
    """What is in the old repositories, and in /srv/built."""
    old = Builder(folder=tmp_path_factory.mktemp("old"), keys=keys, key=builder_key)
    upload = old.upload("hello", "2.0-1", source="quilt", distribution="bookworm")
    machine.type("mkdir /srv/built")
    machine.systemd.run("tar", "-x", "--no-same-owner", "-C", "/srv/built", data=tarred(upload))
    return upload


@pytest.fixture
def reprepro(machine: Machine, built: Upload, old_key: str) -> None:
    """/srv/reprepro, with two suites; hello is in the first."""
    text = "\n".join(
        f"Codename: {suite}\nArchitectures: amd64 arm64 source\nComponents: main contrib\nSignWith: {old_key}\n"
        for suite in ("bookworm", "trixie")
    )
    machine.type("rm -rf /srv/reprepro; mkdir -p /srv/reprepro/conf")
    machine.systemd.write("/srv/reprepro/conf/distributions", text)
    machine.type("reprepro includedeb bookworm /srv/built/*.deb", folder="/srv/reprepro")
    machine.type("reprepro includedsc bookworm /srv/built/*.dsc", folder="/srv/reprepro")


@pytest.fixture
def aptly(machine: Machine, built: Upload, old_key: str) -> None:
    """/srv/aptly, with two repositories; hello is in the first, which is published."""
    machine.type("rm -rf /srv/aptly")
    machine.systemd.write("/root/.aptly.conf", json.dumps({"rootDir": "/srv/aptly", "gpgProvider": "gpg"}))
    for repository in ("bookworm", "trixie"):  # "repo include" takes the .changes' Distribution
        machine.type(f"aptly repo create -distribution=bookworm {repository}")
    machine.type("aptly repo add bookworm /srv/built")
    machine.type(f"aptly publish repo -batch -architectures=amd64,source -gpg-key={old_key} bookworm")


@pytest.mark.types(PAGE, "Before")
@pytest.mark.types(PAGE, "From a published repository")
@pytest.mark.types(PAGE, "From a folder")
def test_both_are_moved(machine: Machine, typed: Commands, reprepro: None, aptly: None, old_key: str) -> None:
    machine.type(typed.take("incomingctl setup"))
    # The account of somebody who has no service.
    machine.type(typed.take("incomingctl init"), user="joan")
    daemon = typed.take("incomingd").partition("#")[0]
    machine.type(f"nohup {daemon} >daemon.log 2>&1 & echo $! >daemon.pid", user="joan")
    status = machine.path("/home/joan/instance/status/index.json")
    until(lambda: status.exists() and "waiting for uploads" in status.read_text(), "the daemon")
    export = typed.take("export")

    commands = {"service": ("root", ""), "instance": ("joan", f"cd; {export}; cd /tmp; ")}
    public = machine.type("gpg --armor --export old@example.org")
    machine.type("gpg --batch --import", user="joan", data=public)
    lines = list(typed)
    assert lines[-1].endswith("/srv/reprepro/pool")
    with served(machine.path("/srv/reprepro")) as address:
        for user, first in commands.values():
            for line in lines:
                here = line.replace("FINGERPRINT-OF-THE-OLD-KEY", old_key).replace("https://apt.example.org/", address)
                machine.type(first + here, user=user)
            listed = machine.type(f"{first}incomingctl list stable", user=user)
            assert "hello" in listed
            assert "2.0-1" in listed
    machine.type("kill $(cat daemon.pid)", user="joan")


@pytest.mark.types_table(PAGE, "What differs afterwards")
def test_the_same_with_each_tool(
    machine: Machine, tabled: Commands, reprepro: None, aptly: None, built: Upload, builder: Builder, old_key: str
) -> None:
    machine.type("incomingctl setup --yes --suite stable --suite testing")
    first = json.loads(machine.type("incomingctl history stable --json"))
    machine.type("incomingctl import --suite stable /srv/built")
    new = builder.upload("hello", "2.0-2", distribution="bookworm")
    machine.type("mkdir -p /srv/new")
    machine.systemd.run("tar", "-x", "--no-same-owner", "-C", "/srv/new", data=tarred(new))
    public = builder.keys.public(builder.key).read_text()
    for keyring in ("pubring.kbx", "trustedkeys.gpg"):  # reprepro's and aptly's
        machine.type(f"gpg --batch --no-default-keyring --keyring {keyring} --import", data=public)
    machine.type("aptly snapshot create before from repo bookworm; aptly snapshot create after from repo bookworm")
    machine.type(f"aptly publish snapshot -batch -distribution=trixie -gpg-key={old_key} before")
    found = re.findall(r'"generation": (\d+)', json.dumps(first))
    values = {
        "reprepro": {"SUITE": "bookworm", "FROM": "bookworm", "TO": "trixie"},
        "aptly": {"SUITE": "bookworm", "REPO": "bookworm", "FROM": "bookworm", "TO": "trixie", "SNAPSHOT": "after"},
        "incomingctl": {"SUITE": "stable", "FROM": "stable", "TO": "testing", "GENERATION": max(found, key=int)},
    }
    for command in tabled:
        tool = command.partition(" ")[0]
        here = values[tool] | {"NAME": "hello", "FILE.changes": f"/srv/new/{new.changes.name}"}
        if "publish switch" in command:  # what is published from snapshots, which a repository is not
            here["SUITE"] = "trixie"
        machine.type(typing(command, here), folder="/srv/reprepro" if tool == "reprepro" else "")


def typing(command: str, here: dict[str, str]) -> str:
    """The command, with what stands here for its words in capitals."""
    return re.sub(rf"(?<![\w.])({'|'.join(map(re.escape, here))})\b", lambda word: here[word[0]], command)
