"""The other ways in which the clients of docs/clients.md send, each with the real one over a real sshd."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.instance import Instance
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


@needs("dput")
@needs("rsync")
def test_dput_over_rsync(idle: Instance, builder: Builder, server: Sshd, tmp_path: Path) -> None:
    """It sets modes over a second ssh connection; the settle time that is the default is longer than that takes."""
    idle.set("incoming.default", settle="2s")
    idle.start()
    upload = builder.upload("hello", "1.0-1")
    shell = tmp_path / "bin/ssh"
    shell.parent.mkdir()
    shell.write_text(f'#!/bin/sh\nexec /usr/bin/ssh {" ".join(server.options)} "$@"\n')
    shell.chmod(0o755)
    config = tmp_path / "dput.cf"
    config.write_text(
        f"[ours]\nfqdn = 127.0.0.1\nlogin = root\nincoming = {idle.incoming}\nmethod = rsync\n"
        "run_dinstall = 0\nallow_unsigned_uploads = 0\n"
    )
    environment = {"PATH": f"{shell.parent}:/usr/bin:/bin", "HOME": str(tmp_path), "GNUPGHOME": str(builder.keys.home)}
    run("dput", "--config", config, "ours", upload.changes, env=environment)
    idle.succeeded(upload.flat_name)
