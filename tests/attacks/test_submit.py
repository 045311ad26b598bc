"""An operator submits what lies in another account's folder, or what another account has built."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import packages
from tests.support.accounts import DAEMON, MALLORY, Guarded
from tests.support.instance import BIN, PATIENCE
from tests.support.keys import Keys
from tests.support.sshd import sshd

CHANGES = "Format: 1.8\nSource: x\nVersion: 1.0\nFiles:\n {digest} 11 misc optional x_1.0.tar.gz\n"


@pytest.mark.parametrize("linked", ["x_1.0.tar.gz", "x_1.0_source.changes"])
def test_a_link_of_that_account_sends_no_file_of_the_operators(
    linked: str, guarded: Callable[..., Guarded], work: Path
) -> None:
    instance = guarded()
    secret, folder = work / "secret", work / "mallorys"
    secret.write_text("TOP SECRET\n")
    secret.chmod(0o600)
    folder.mkdir()
    (folder / "x_1.0.tar.gz").write_text("TOP SECRET\n")
    (folder / "x_1.0_source.changes").write_text(CHANGES.format(digest="0" * 32))
    (folder / linked).unlink()
    (folder / linked).symlink_to(secret)
    for path in (folder, *folder.iterdir()):
        os.chown(path, MALLORY, DAEMON, follow_symlinks=False)
    sent = instance.ctl("submit", "--to", str(instance.incoming), str(folder))
    assert sent.returncode != 0
    assert f"{linked}: is a link that uid {MALLORY} has made" in sent.stderr
    assert "SECRET" not in sent.stderr
    assert list(instance.incoming.iterdir()) == []


def test_links_of_ones_own_are_followed(guarded: Callable[..., Guarded], work: Path) -> None:
    instance = guarded()
    (work / "tarball").write_text("some source\n"[:11])
    folder = work / "mine"
    folder.mkdir()
    (folder / "x_1.0.tar.gz").symlink_to(work / "tarball")
    (folder / "x_1.0_source.changes").write_text(CHANGES.format(digest="0" * 32))
    assert instance.ctl("submit", "--to", str(instance.incoming), str(folder)).returncode == 0


Submit = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(params=["incomingctl submit", "incomingctl-submit"])
def submit(request: pytest.FixtureRequest, work: Path) -> Submit:
    """Both programs, in a folder of their own, with a folder for temporary files that is empty."""
    program = work / "program/incomingctl-submit"
    for folder in ("program", "cwd", "tmp"):
        (work / folder).mkdir()
    subprocess.run([sys.executable, "-m", "incomingd.client.bundle", program], check=True)
    one_file = request.param == "incomingctl-submit"
    command = ["/usr/bin/python3", "-I", str(program)] if one_file else [str(BIN / "incomingctl"), "submit"]

    def run(*words: str | Path, **environment: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *words],
            cwd=work / "cwd",
            env={**os.environ, "TMPDIR": str(work / "tmp"), **{key: str(value) for key, value in environment.items()}},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    return run


def refused(sent: subprocess.CompletedProcess[str], why: str, work: Path) -> None:
    """Nothing is sent, nothing is written elsewhere, and it is said in one line."""
    assert sent.returncode == 1, sent.stdout + sent.stderr
    assert why in sent.stderr
    assert len(sent.stderr.splitlines()) == 1, sent.stderr
    for folder in ("tmp", "cwd", "incoming"):
        assert list((work / folder).iterdir()) == []


@pytest.fixture
def built(work: Path) -> Path:
    (work / "incoming").mkdir()
    (work / "built").mkdir()
    return work / "built"


@pytest.mark.parametrize("name", ["../x", "../../x", "/tmp/x", "x/y"])
def test_a_name_of_a_source_does_not_lead_out_of_the_folder(name: str, submit: Submit, built: Path, work: Path) -> None:
    deb = packages.binary(built, "hello", "1.0", source=name)
    refused(submit(deb, "--suite", "stable", "--to", work / "incoming"), "which is no file name", work)


def test_a_name_of_a_package_does_not_lead_out_of_the_folder(submit: Submit, built: Path, work: Path) -> None:
    deb = packages.binary(built, "hello", "1.0", fields={"Architecture": "../../x"})
    refused(submit(deb, "--suite", "stable", "--to", work / "incoming"), "which is no file name", work)


def test_versions_that_differ_in_their_epoch_alone_do_not_replace_each_other(
    submit: Submit, built: Path, work: Path
) -> None:
    """Both .changes would be hello_1.0_amd64.changes."""
    debs = [
        packages.binary(built, "one", "1.0", source="hello"),
        packages.binary(built, "two", "1:1.0", source="hello"),
    ]
    why = "two versions of hello that are given differ in nothing but their epoch; send them apart"
    refused(submit(*debs, "--suite", "stable", "--to", work / "incoming"), why, work)


def test_two_changes_of_one_name_are_not_signed_into_one_file(
    submit: Submit, built: Path, work: Path, keys: Keys
) -> None:
    given = []
    for content in ("one", "two"):
        (folder := built / content).mkdir()
        (folder / f"{content}.tar.gz").write_text(f"some {content}\n")
        given.append(folder / "x_1.0_source.changes")
        text = CHANGES.format(digest="0" * 32).replace("x_1.0.tar.gz", f"{content}.tar.gz")
        given[-1].write_text(text)
    sent = submit(*given, "--key", keys.make(), "--to", work / "incoming", GNUPGHOME=keys.home)
    refused(sent, "two files of that name are to be signed; send them apart", work)


@pytest.mark.parametrize("kind", ["changes", "listed", "buildinfo", "dsc"])
def test_a_file_whose_name_no_upload_can_have_is_not_sent(kind: str, submit: Submit, built: Path, work: Path) -> None:
    """One with a newline would be two lines of a .changes, and of what sftp is told."""
    to = ("--to", work / "incoming")
    row = " 00000000000000000000000000000000 11 misc optional "
    if kind == "buildinfo":
        packages.binary(built, "x", "1.0")
        (built / "x_1.0_a\n!touch ran\n.buildinfo").write_text("Format: 1.0\n")
        sent = submit(built, "--suite", "stable", *to)
    elif kind == "dsc":
        packages.binary(built, "x", "1.0")
        (built / "x_1.0\n!touch ran\n.dsc").write_text(
            "Source: x\nVersion: 1.0\nArchitecture: any\nFiles:\n 00 11 x_1.0.tar.gz\n"
        )
        (built / "x_1.0.tar.gz").write_text("some source\n"[:11])
        sent = submit(built, "--suite", "stable", *to)
    elif kind == "listed":
        (built / "-x.tar.gz").write_text("some source\n"[:11])
        (built / "x.changes").write_text(f"Source: x\nFiles:\n{row}-x.tar.gz\n")
        sent = submit(built / "x.changes", *to)
    else:
        (built / "x.tar.gz").write_text("some source\n"[:11])
        (built / "x\n!touch ran\n.changes").write_text(f"Source: x\nFiles:\n{row}x.tar.gz\n")
        sent = submit(built, *to)
    refused(sent, "its name is not one that an upload's file can have", work)


def test_a_newline_in_the_name_of_a_folder_begins_no_command_of_sftp(submit: Submit, work: Path) -> None:
    """In sftp's batch "!" runs a command on this side."""
    (work / "incoming").mkdir()
    folder = work / 'built"\n!touch ran\n'
    folder.mkdir()
    deb = packages.binary(folder, "hello", "1.0")
    with sshd(work / "sshd", "ForceCommand internal-sftp\n") as restricted:
        sent = submit(deb, "--suite", "stable", "--to", f"root@127.0.0.1:{work}/incoming", *restricted.options[2:])
    assert sent.returncode == 5, sent.stdout + sent.stderr
    assert "has a character that sftp cannot be given" in sent.stderr
    assert list((work / "cwd").iterdir()) == []
    assert list((work / "incoming").iterdir()) == []


@pytest.mark.parametrize("where", ["the folder", "on the way"])
def test_a_folder_behind_a_link_of_that_account_is_not_sent(
    where: str, submit: Submit, built: Path, work: Path
) -> None:
    """The operator means what that account has built; the link leads to what the operator has not published yet."""
    (built / "out").mkdir()
    packages.binary(built / "out", "secret", "1.0")
    link = work / "link"
    link.symlink_to(built if where == "on the way" else built / "out")
    os.chown(link, MALLORY, DAEMON, follow_symlinks=False)
    given = link / "out" if where == "on the way" else link
    sent = submit(given, "--suite", "stable", "--to", work / "incoming")
    refused(sent, f"{link}: is a link that uid {MALLORY} has made to a file of another account", work)
    os.chown(link, 0, 0, follow_symlinks=False)
    assert submit(given, "--suite", "stable", "--to", work / "incoming").returncode == 0


@pytest.mark.parametrize("name", ["x_1.0_source.changes", "x_1.0.dsc", "x_1.0_amd64.deb", "x_1.0_amd64.buildinfo"])
@pytest.mark.parametrize("given", ["file", "folder"])
def test_what_is_no_file_is_not_waited_for(name: str, given: str, submit: Submit, built: Path, work: Path) -> None:
    os.mkfifo(built / name)
    words = () if name.endswith(".changes") else ("--suite", "stable")
    sent = submit(built if given == "folder" else built / name, *words, "--to", work / "incoming")
    refused(sent, f"{built / name}: is not a regular file", work)
