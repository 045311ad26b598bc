"""The other ways in which the clients of docs/clients.md send, each with the real one over a real sshd."""

import os
import random
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.instance import Instance, until
from tests.support.sshd import Sshd
from tests.support.uploads import Builder
from tests.system.test_clients import needs, run, server

__all__ = ["server"]  # the fixture

RSYNC = (
    ("-r",),
    ("-a", "--inplace"),
    ("-a", "--delay-updates"),
    ("-a", "--partial"),
    ("-rt", "--chmod=ug=rwX,o="),
)


@needs("rsync")
@pytest.mark.parametrize("options", RSYNC, ids=" ".join)
def test_rsync_of_a_directory(instance: Instance, builder: Builder, server: Sshd, options: Sequence[str]) -> None:
    upload = builder.upload("hello", "1.0-1")
    shell = " ".join(["ssh", *server.options])
    run("rsync", *options, "-e", shell, f"{upload.folder}/", f"root@127.0.0.1:{instance.incoming}/job-7/")
    instance.succeeded("job-7")


@needs("rsync")
def test_rsync_of_files(instance: Instance, builder: Builder, server: Sshd) -> None:
    upload = builder.upload("hello", "1.0-1")
    run("rsync", "-e", " ".join(["ssh", *server.options]), *upload.files, f"root@127.0.0.1:{instance.incoming}/")
    instance.succeeded(upload.flat_name)


@needs("scp")
@pytest.mark.parametrize("way", ["-O", "-s"], ids=["scp", "sftp"])
def test_scp_of_files(instance: Instance, builder: Builder, server: Sshd, way: str) -> None:
    upload = builder.upload("hello", "1.0-1")
    run("scp", way, "-q", *server.options, *upload.files, f"root@127.0.0.1:{instance.incoming}/")
    instance.succeeded(upload.flat_name)


@needs("sftp")
def test_sftp_of_a_directory(instance: Instance, builder: Builder, server: Sshd) -> None:
    upload = builder.upload("hello", "1.0-1")
    run(
        *("sftp", *server.options, "-b", "-", "root@127.0.0.1"),
        input=f"put -r {upload.folder} {instance.incoming}/job-7\n",
    )
    instance.succeeded("job-7")


@needs("sftp")
def test_sftp_of_files(instance: Instance, builder: Builder, server: Sshd) -> None:
    upload = builder.upload("hello", "1.0-1")
    batch = "".join(f"put {file} {instance.incoming}/\n" for file in upload.files)
    run("sftp", *server.options, "-b", "-", "root@127.0.0.1", input=batch)
    instance.succeeded(upload.flat_name)


@needs("curl")
def test_curl_over_sftp_renamed(instance: Instance, builder: Builder, server: Sshd, tmp_path: Path) -> None:
    upload = builder.upload("hello", "1.0-1")
    (tmp_path / ".ssh").mkdir()
    shutil.copy(server.folder / "known_hosts", tmp_path / ".ssh")
    hidden, name = instance.incoming / ".job-7", instance.incoming / "job-7"
    files = f"{{{','.join(str(file) for file in upload.files)}}}"
    key = server.settings["IdentityFile"]
    curl = ("curl", "-sS", "--key", key, "--pubkey", f"{key}.pub")
    address = f"sftp://root@127.0.0.1:{server.port}"
    home = {**os.environ, "HOME": str(tmp_path)}
    run(*curl, "--ftp-create-dirs", "-T", files, f"{address}{hidden}/", env=home)
    run(*curl, "-Q", f"rename {hidden} {name}", f"{address}{instance.incoming}/", env=home)
    instance.succeeded("job-7")


@needs("rsync")
@pytest.mark.parametrize("option", ["--partial", "--inplace"])
def test_an_rsync_that_is_interrupted_and_resumed(
    instance: Instance, builder: Builder, server: Sshd, option: str
) -> None:
    """What came of the .deb lies under its own name then, and the .changes may be there before it."""
    upload = builder.upload("hello", "1.0-1", content=random.Random(1).randbytes(1 << 20).hex())
    deb, there = upload.file("*.deb"), instance.incoming / "job-7"
    shell = " ".join(["ssh", *server.options])
    command = ["rsync", "-a", option, "-e", shell, f"{upload.folder}/", f"root@127.0.0.1:{there}/"]
    first = subprocess.Popen([*command, "--bwlimit=256"], stderr=subprocess.DEVNULL)
    until(lambda: any(file.stat().st_size > 100_000 for file in there.glob("*hello*.deb*")), "a part of it")
    first.terminate()
    assert first.wait() != 0
    until((there / deb.name).exists, "the part under the name of the whole")
    assert (there / deb.name).stat().st_size < deb.stat().st_size
    assert instance.status("job-7")["stage"] == "receiving"  # type: ignore[index]
    run(*command)
    assert instance.succeeded("job-7")["warnings"] == []
