"""``incomingctl submit`` as a CI job calls it: here and over a real sshd, with and without rsync, shell, .changes."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.apt import Apt, served
from tests.support.instance import BIN, PATIENCE, Instance, until
from tests.support.keys import Keys
from tests.support.sshd import Sshd, sshd
from tests.support.terminal import on_terminal
from tests.support.uploads import Builder, Upload


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("sshd") / "sshd") as one:
        yield one


@pytest.fixture(scope="module")
def bare_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """One with a shell and no rsync."""
    with sshd(tmp_path_factory.mktemp("sshd") / "sshd", _without_rsync(tmp_path_factory)) as one:
        yield one


@pytest.fixture(scope="module")
def old_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """One with a shell, no rsync and no sftp: what is left is scp's own protocol."""
    with sshd(tmp_path_factory.mktemp("sshd") / "sshd", _without_rsync(tmp_path_factory), sftp=False) as one:
        yield one


def _without_rsync(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = only("mkdir", "chmod", "mv", "cat", "rm", "scp", folder=tmp_path_factory.mktemp("programs") / "bin")
    return f"SetEnv PATH={folder}\n"


def submit(*words: str | Path, **environment: str | Path) -> subprocess.CompletedProcess[str]:
    """``incomingctl submit`` in a job that knows nothing of any instance."""
    clean = {key: value for key, value in os.environ.items() if key != "INCOMINGD_CONFIG"}
    return subprocess.run(
        [BIN / "incomingctl", "submit", *words],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=clean | {key: str(value) for key, value in environment.items()},
        cwd="/",
    )


def done(*words: str | Path, **environment: str | Path) -> str:
    found = submit(*words, **environment)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def over(server: Sshd) -> list[str]:
    return [word for key, value in server.settings.items() for word in ("-o", f"{key}={value}")]


def bare(upload: Upload) -> Path:
    """Its folder without the .changes: what a build leaves that only makes packages."""
    upload.changes.unlink()
    return upload.folder


# -- what is sent -----------------------------------------------------------------------------------------------------


def test_a_changes_takes_what_it_lists_along(instance: Instance, builder: Builder) -> None:
    upload = builder.upload("hello", "1.0-1", source="quilt", buildinfo=True)
    (upload.folder / "build.log").write_text("not sent\n")
    said = done(upload.changes, "--to", instance.incoming, "--wait", "--timeout", "60")
    assert "SUCCEEDED" in said
    name = said.partition(":")[0]
    found = instance.status(name)
    assert found
    assert name.startswith("hello_1.0-1_amd64-")
    assert found["warnings"] == []
    assert len(found["published"]["files"]) == 4


def test_a_directory_with_a_changes(instance: Instance, builder: Builder) -> None:
    upload = builder.upload("hello", "1.0-1")
    assert "SUCCEEDED" in done(upload.folder, "--to", instance.incoming, "--name", "job-7", "--wait")
    assert instance.succeeded("job-7")


def test_bare_packages_get_a_signed_changes(instance: Instance, builder: Builder, tmp_path: Path) -> None:
    folder = bare(builder.upload("hello", "1.0-1", source="quilt", binaries=["hello", "libhello1"]))
    before = sorted(file.name for file in folder.iterdir())
    words = ("--to", instance.incoming, "--suite", "stable", "--key", builder.key, "--wait")
    said = done(folder, *words, GNUPGHOME=builder.keys.home)
    found = instance.status(said.partition(":")[0])
    assert found
    (changes,) = found["changes"]
    assert changes["signed_by"] == builder.key
    assert changes["architectures"] == ["source", "amd64"]
    assert sorted(file.name for file in folder.iterdir()) == before
    with served(instance.archive) as address:
        apt = Apt(tmp_path / "apt", address, instance.keyring)
        apt.update()
        assert apt.download("libhello1") == ["libhello1_1.0-1_amd64.deb"]
        assert "hello_1.0-1.debian.tar.xz" in apt.source("hello")


def test_packages_of_two_sources_are_one_upload(instance: Instance, builder: Builder) -> None:
    packages = [
        bare(builder.upload("hello", "1.0-1")) / "hello_1.0-1_amd64.deb",
        bare(builder.upload("world", "1:2.0-1")) / "world_2.0-1_amd64.deb",
    ]
    words = ("--to", instance.incoming, "--suite", "stable", "--key", builder.key, "--wait", "--json")
    (found,) = json.loads(done(*packages, *words, GNUPGHOME=builder.keys.home))
    assert [(one["source"], one["version"]) for one in found["changes"]] == [("hello", "1.0-1"), ("world", "1:2.0-1")]


def test_a_package_is_sent_under_the_name_that_its_control_file_gives_it(
    instance: Instance, builder: Builder, tmp_path: Path
) -> None:
    given = bare(builder.upload("hello", "1:1.0-1")).glob("*.deb")
    odd = tmp_path / "Hello World-linux.deb"
    shutil.copy(next(given), odd)
    words = ("--to", instance.incoming, "--suite", "stable", "--key", builder.key, "--wait", "--json")
    (found,) = json.loads(done(odd, *words, GNUPGHOME=builder.keys.home))
    assert found["published"]["files"] == ["pool/main/h/hello/hello_1.0-1_amd64.deb"]
    assert [file.name for file in tmp_path.glob("*.deb")] == ["Hello World-linux.deb"]


def sent_changes(idle: Instance, builder: Builder, fields: dict[str, str | None], **environment: str | Path) -> str:
    """The .changes that was written for a package with these fields, without its signature."""
    folder = bare(builder.upload("hello", "1.0-1", fields=fields, edit=lambda _: "Not: used\n"))
    words = ("--to", idle.incoming, "--suite", "stable", "--name", "job")
    done(folder, *words, *(("--key", builder.key) if "GNUPGHOME" in environment else ()), **environment)
    (changes,) = (idle.incoming / "job").glob("*.changes")
    return changes.read_text()


@pytest.mark.parametrize("section", [None, "two words"])
def test_a_package_without_a_section_or_priority_gets_the_default(
    idle: Instance, builder: Builder, section: str | None
) -> None:
    text = sent_changes(idle, builder, {"Section": section, "Priority": None})
    assert " misc optional hello_1.0-1_amd64.deb" in text


def test_the_keys_user_id_is_the_maintainer_if_the_package_has_no_address(idle: Instance, builder: Builder) -> None:
    text = sent_changes(idle, builder, {"Maintainer": "Team (no address)"}, GNUPGHOME=builder.keys.home)
    (user,) = [line.split(":")[9] for line in _listed(builder) if line.startswith("uid:")]
    assert f"\nMaintainer: {user}\n" in text
    assert f"\nChanged-By: {user}\n" in text


def test_without_a_key_the_maintainer_is_the_senders_address(idle: Instance, builder: Builder) -> None:
    named = {"DEBEMAIL": "ci@example.org", "DEBFULLNAME": "CI"}
    assert "\nMaintainer: CI <ci@example.org>\n" in sent_changes(idle, builder, {"Maintainer": "unset"}, **named)


def _listed(builder: Builder) -> list[str]:
    return builder.keys.gpg("--with-colons", "--list-keys", builder.key).decode().splitlines()


def test_an_unsigned_changes_is_signed_on_the_way(instance: Instance, builder: Builder) -> None:
    upload = builder.upload("hello", "1.0-1", key=None)
    unsigned = upload.changes.read_bytes()
    refused = submit(upload.changes, "--to", instance.incoming, "--wait")
    assert refused.returncode == 1
    assert "[unsigned]" in refused.stdout
    done(upload.changes, "--to", instance.incoming, "--key", builder.key, "--wait", GNUPGHOME=builder.keys.home)
    assert upload.changes.read_bytes() == unsigned


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["."], 2, "name the suite"),
        (["hello_1.0-1_amd64.deb", "--suite", "stable", "--name", "index"], 2, "must not be index"),
        (["hello_1.0-1_amd64.deb", "--suite", "stable", "--name", "a b"], 2, "must be a letter or digit"),
        (["hello_1.0-1_amd64.deb", "--suite", "stable", "--key", "0" * 40], 1, "gpg cannot sign"),
        (["notes.txt"], 1, "is none of .changes"),
        (["broken.deb", "--suite", "stable"], 1, "no Debian package that dpkg-deb can read"),
    ],
)
def test_what_cannot_be_sent(idle: Instance, builder: Builder, words: list[str], code: int, said: str) -> None:
    folder = bare(builder.upload("hello", "1.0-1"))
    (folder / "notes.txt").write_text("no package\n")
    (folder / "broken.deb").write_text("no package\n")
    if words == ["."]:
        (folder / "broken.deb").unlink()
    found = submit(
        *(folder / word if (folder / word).exists() else word for word in words),
        "--to",
        idle.incoming,
        GNUPGHOME=builder.keys.home,
    )
    assert found.returncode == code
    assert said in found.stderr
    assert list(idle.incoming.iterdir()) == []


def test_a_changes_whose_file_is_missing(idle: Instance, builder: Builder) -> None:
    upload = builder.upload("hello", "1.0-1")
    upload.file("*.deb").unlink()
    found = submit(upload.changes, "--to", idle.incoming)
    assert found.returncode == 1
    assert "hello_1.0-1_amd64.deb, which is not beside it" in found.stderr


def test_two_changes_that_share_an_orig(instance: Instance, builder: Builder) -> None:
    first = builder.upload("hello", "1.0-1", source="quilt")
    second = builder.upload("world", "1.0-1", source="quilt")
    orig = first.file("hello_1.0.orig.tar.*")
    shared = second.folder / orig.name
    shutil.copy(orig, shared)
    builder.sign(second.folder, [file for file in second.files if file != second.changes])
    found = submit(first.changes, second.changes, "--to", instance.incoming, "--name", "both")
    assert found.returncode == 0, found.stderr
    shared.write_bytes(b"other bytes")
    refused = submit(first.changes, second.changes, "--to", instance.incoming)
    assert refused.returncode == 1
    assert "same name and other content" in refused.stderr


@pytest.mark.skipif(not shutil.which("dput"), reason="dput is not installed")
def test_dput_takes_what_was_written_for_bare_packages(idle: Instance, builder: Builder, tmp_path: Path) -> None:
    folder = bare(builder.upload("hello", "1:1.0-1", source="quilt", architectures=["amd64", "arm64"]))
    words = ("--to", idle.incoming, "--suite", "stable", "--key", builder.key, "--name", "job")
    done(folder, *words, GNUPGHOME=builder.keys.home)
    (changes,) = (idle.incoming / "job").glob("*.changes")
    assert changes.name == "hello_1.0-1_amd64.changes"
    config = tmp_path / "dput.cf"
    config.write_text(
        f"[ours]\nmethod = local\nincoming = {tmp_path}\nallow_unsigned_uploads = 0\nrun_dinstall = 0\n"
        "post_upload_command =\n"
    )
    checked = subprocess.run(
        ["dput", "--check-only", "--config", config, "ours", changes],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "GNUPGHOME": str(builder.keys.home)},
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "Valid signature" in checked.stdout + checked.stderr


# -- waiting ----------------------------------------------------------------------------------------------------------


def test_an_older_upload_of_that_name_is_not_taken_for_this_one(instance: Instance, builder: Builder) -> None:
    first = builder.upload("hello", "1.0-1", key=None)
    assert submit(first.folder, "--to", instance.incoming, "--name", "job", "--wait").returncode == 1
    second = builder.upload("hello", "1.0-2")
    assert "SUCCEEDED" in done(second.folder, "--to", instance.incoming, "--name", "job", "--wait")


def test_no_daemon_in_time(idle: Instance, builder: Builder) -> None:
    upload = builder.upload("hello", "1.0-1")
    found = submit(upload.folder, "--to", idle.incoming, "--wait", "--timeout", "0.2")
    assert found.returncode == 3
    assert "has not been taken yet" in found.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"])
def test_whoever_stops_waiting_is_told_that_it_goes_on(
    idle: Instance, builder: Builder, number: signal.Signals, code: int
) -> None:
    upload = builder.upload("hello", "1.0-1")
    words = [upload.folder, "--to", idle.incoming, "--name", "job", "--wait"]
    job = subprocess.Popen([BIN / "incomingctl", "submit", *words], stderr=subprocess.PIPE, text=True)
    until((idle.incoming / "job").exists, "its sending")
    time.sleep(0.5)
    job.send_signal(number)
    _, said = job.communicate(timeout=PATIENCE)
    assert job.returncode == code
    assert "job was sent, and goes its way" in said
    assert (idle.incoming / "job").exists()


def test_a_halted_service(instance: Instance, builder: Builder) -> None:
    instance.set("archive", signing_keys=["0" * 40])
    instance.reload()
    until(lambda: instance.health().startswith("halted"), "the halt")
    upload = builder.upload("hello", "1.0-1")
    waits = submit(upload.folder, "--to", instance.incoming, "--name", "job", "--wait")
    assert waits.returncode == 4
    assert "job: RUNNING, queued" in waits.stderr
    assert "no usable signing key" in waits.stderr
    bad = builder.upload("bad", "1.0-1", key=None)
    refused = submit(bad.folder, "--to", instance.incoming, "--wait")
    assert refused.returncode == 1, refused.stderr
    assert "[unsigned]" in refused.stdout


# -- over ssh ---------------------------------------------------------------------------------------------------------


def only(*programs: str, folder: Path) -> Path:
    """A folder for PATH with these programs and no others."""
    folder.mkdir()
    for program in programs:
        found = shutil.which(program)
        if found is None:
            pytest.skip(f"{program} is not installed")
        (folder / program).symlink_to(found)
    return folder


#: The server's fixture, and the programs that the job has.
WAYS = {
    "rsync": ("server", ("ssh", "rsync")),
    "no rsync here": ("server", ("ssh", "sftp", "scp")),
    "no rsync there": ("bare_server", ("ssh", "rsync", "sftp", "scp")),
    "no sftp here": ("server", ("ssh", "scp")),
    "no sftp there": ("old_server", ("ssh", "rsync", "sftp", "scp")),
}


@pytest.fixture(params=WAYS.values(), ids=WAYS)
def over_ssh(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[list[str], Path]:
    """The options for one of the servers, and a PATH for one of the jobs."""
    name, programs = request.param
    return over(request.getfixturevalue(name)), only(*programs, folder=tmp_path / "bin")


def test_over_ssh(instance: Instance, builder: Builder, over_ssh: tuple[list[str], Path]) -> None:
    options, path = over_ssh
    upload = builder.upload("hello", "1.0-1", source="quilt")
    upload.file("*.deb").chmod(0o600)
    where = f"root@[127.0.0.1]:{instance.incoming}"  # as an IPv6 address is written
    said = done(upload.changes, "--to", where, *options, "--wait", "--timeout", "60", PATH=path)
    assert "SUCCEEDED" in said
    assert list(instance.incoming.iterdir()) == []


def test_a_path_with_blanks_and_quotes(builder: Builder, over_ssh: tuple[list[str], Path], tmp_path: Path) -> None:
    options, path = over_ssh
    odd = tmp_path / 'it\'s "odd" [1] $HOME'
    odd.mkdir()
    upload = builder.upload("hello", "1.0-1")
    upload.changes.chmod(0o600)
    done(upload.changes, "--to", f"root@127.0.0.1:{odd}", "--name", "job", *options, PATH=path)
    assert {file.name: file.stat().st_mode & 0o777 for file in (odd / "job").iterdir()} == {
        file.name: 0o644 for file in upload.files
    }


def test_what_fails_over_ssh_leaves_nothing(
    idle: Instance, builder: Builder, over_ssh: tuple[list[str], Path], tmp_path: Path
) -> None:
    options, path = over_ssh
    upload = builder.upload("hello", "1.0-1")
    (idle.incoming / "job").mkdir()
    (idle.incoming / "job" / "in the way").touch()
    words = (upload.changes, "--name", "job", *options)
    found = submit(*words, "--to", f"root@127.0.0.1:{idle.incoming}", PATH=path)
    assert found.returncode == 5
    assert "job" in found.stderr
    assert [one.name for one in idle.incoming.iterdir()] == ["job"]
    nowhere = submit(*words, "--to", f"root@127.0.0.1:{tmp_path}/nowhere/incoming", PATH=path)
    assert nowhere.returncode == 5
    assert "No such file" in nowhere.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_job_that_is_stopped_while_it_sends_leaves_nothing(
    idle: Instance, builder: Builder, server: Sshd, number: signal.Signals, tmp_path: Path
) -> None:
    """As runners do it, and whoever types ^C: nobody else would ever remove what is hidden there."""
    path = only("ssh", folder=tmp_path / "bin")
    slow = path / "rsync"
    slow.write_text('#!/bin/sh\nexec /usr/bin/rsync --bwlimit=100 "$@"\n')
    slow.chmod(0o755)
    upload = builder.upload("hello", "1.0-1", content=random.Random(1).randbytes(1 << 20).hex())
    words = [upload.changes, "--to", f"root@127.0.0.1:{idle.incoming}", *over(server)]
    environment = os.environ | {"PATH": f"{path}:/usr/bin:/bin", "TMPDIR": str(tmp_path)}
    job = subprocess.Popen([BIN / "incomingctl", "submit", *words], env=environment)
    until(lambda: any(idle.incoming.glob(".hello*/.hello*deb*")), "a part of it")
    job.send_signal(number)
    assert job.wait(PATIENCE) > 1
    assert list(idle.incoming.iterdir()) == []
    assert not list(tmp_path.glob("incomingctl-*"))


def test_over_ssh_with_an_account_that_may_do_nothing_but_sftp(
    instance: Instance, builder: Builder, tmp_path: Path
) -> None:
    """As docs/operators.md sets it up. Of two uploads with one name it has to tell which is its own."""
    with sshd(tmp_path / "sshd", "ForceCommand internal-sftp\n") as restricted:
        for version, key, code in (("1.0-1", None, 1), ("1.0-2", builder.key, 0)):
            upload = builder.upload("hello", version, key=key)
            words = ("--to", f"root@127.0.0.1:{instance.incoming}", "--name", "job", *over(restricted))
            found = submit(upload.changes, *words, "--wait", "--timeout", "60")
            assert found.returncode == code, found.stdout + found.stderr


def test_over_ssh_with_an_account_that_sees_its_folder_alone(
    builder: Builder, keys: Keys, builder_key: str, tmp_path: Path
) -> None:
    """sshd changes root only to a folder that nobody but root can write, nor what leads to it."""
    with (
        tempfile.TemporaryDirectory(dir="/run", prefix="incomingd-test-") as folder,
        Instance(Path(folder) / "instance", trust=[keys.public(builder_key)]),
        sshd(tmp_path / "sshd", f"ForceCommand internal-sftp\nChrootDirectory {folder}/instance\n") as confined,
    ):
        upload = builder.upload("hello", "1.0-1")
        said = done(upload.changes, "--to", "root@127.0.0.1:/incoming", *over(confined), "--wait", "--timeout", "60")
        assert "SUCCEEDED" in said


def test_a_host_that_is_not_there(builder: Builder, server: Sshd) -> None:
    upload = builder.upload("hello", "1.0-1")
    found = submit(upload.changes, "--to", "root@127.0.0.1:/srv", "-o", "Port=1", *over(server))
    assert found.returncode == 5
    assert "127.0.0.1 cannot be reached" in found.stderr


@pytest.mark.parametrize("remote", [False, True], ids=["here", "by rsync"])
def test_a_bar_shows_how_far_sending_has_come(remote: bool, idle: Instance, server: Sshd, tmp_path: Path) -> None:
    large = tmp_path / "large.dsc"
    large.write_bytes(b"Source: large\nVersion: 1\nArchitecture: all\nFiles:\n 00 1 large.tar\n")
    with (tmp_path / "large.tar").open("wb") as tar:
        tar.truncate(200 << 20)
    to = f"root@127.0.0.1:{idle.incoming}" if remote else str(idle.incoming)
    options = over(server) if remote else []
    words = ("--to", to, "--suite", "stable", "--name", "large", *options)
    shown = on_terminal(BIN / "incomingctl", "submit", large, *words)
    assert shown.code == 0, shown.text
    percents = [int(found) for found in re.findall(r"\[#*-*\] +(\d+)%  [0-9.]+ MB/s", shown.text)]
    assert len(percents) > 1
    assert percents == sorted(percents)
    assert "large: sent to" in shown.text
