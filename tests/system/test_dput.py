"""dput and dput-ng in each of their modes: they end with 0, and the upload is published."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import Home, ftp_server, put_server
from tests.support.instance import BIN, Instance
from tests.support.sshd import Sshd, sshd
from tests.support.uploads import Builder
from tests.system.test_clients import needs

Settings = dict[str, Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """What it finds in ``bin`` is what the archive's machine has in /usr/local/bin."""
    folder = tmp_path_factory.mktemp("sshd")
    (folder / "bin").mkdir()
    with sshd(folder / "sshd", f"SetEnv PATH={folder}/bin:/usr/bin:/bin\n") as one:
        yield one


@pytest.fixture
def home(tmp_path: Path, builder: Builder, server: Sshd) -> Home:
    made = Home(tmp_path / "home", builder.keys.home, server)
    made.environment["SSL_CERT_FILE"] = str(tmp_path / "server/certificate.pem")  # of https's server
    return made


@pytest.fixture
def patient(idle: Instance) -> Instance:
    """An instance with the settle time that is the default: dput logs in a second time, to set modes."""
    idle.set("incoming.default", settle="2s")
    idle.start()
    return idle


@contextlib.contextmanager
def local(instance: Instance, server: Sshd, work: Path) -> Iterator[Settings]:
    yield {"method": "local", "incoming": instance.incoming, "fqdn": "127.0.0.1", "login": "root"}


@contextlib.contextmanager
def scp(instance: Instance, server: Sshd, work: Path) -> Iterator[Settings]:
    yield {"method": "scp", "incoming": instance.incoming, "fqdn": "127.0.0.1", "login": "root"}


@contextlib.contextmanager
def rsync(instance: Instance, server: Sshd, work: Path) -> Iterator[Settings]:
    yield {"method": "rsync", "incoming": instance.incoming, "fqdn": "127.0.0.1", "login": "root"}


@contextlib.contextmanager
def sftp(instance: Instance, server: Sshd, work: Path) -> Iterator[Settings]:
    settings = {"method": "sftp", "incoming": instance.incoming, "fqdn": "127.0.0.1", "login": "root"}
    yield settings | {"port": server.port, "scp_compress": False}


@contextlib.contextmanager
def ftp(instance: Instance, server: Sshd, work: Path) -> Iterator[Settings]:
    with ftp_server(instance.incoming) as port:
        yield {"method": "ftp", "incoming": "/", "fqdn": f"127.0.0.1:{port}", "login": "anonymous"}


@contextlib.contextmanager
def http(instance: Instance, server: Sshd, work: Path) -> Iterator[Settings]:
    with put_server(instance.incoming, work) as port:
        yield {"method": "http", "incoming": "/incoming", "fqdn": f"127.0.0.1:{port}", "login": "anonymous"}


@contextlib.contextmanager
def https(instance: Instance, server: Sshd, work: Path) -> Iterator[Settings]:
    with put_server(instance.incoming, work, tls=True) as port:
        yield {"method": "https", "incoming": "/incoming", "fqdn": f"127.0.0.1:{port}", "login": "anonymous"}


Way = Callable[[Instance, Sshd, Path], contextlib.AbstractContextManager[Settings]]
by_name = {"ids": lambda way: way.__name__}


@needs("dput")
@pytest.mark.parametrize("way", [local, scp, rsync, ftp, http, https], **by_name)
def test_dput(patient: Instance, builder: Builder, home: Home, server: Sshd, tmp_path: Path, way: Way) -> None:
    upload = builder.upload("hello", "1.0-1", source="quilt", buildinfo=True)
    upload.file("*.deb").chmod(0o600)  # it means to mend that over there
    with way(patient, server, tmp_path / "server") as settings:
        done = home.dput("archive", upload.changes, settings=settings)
        assert done.returncode == 0, done.stdout + done.stderr
        patient.succeeded(upload.flat_name)
    assert list(patient.incoming.iterdir()) == []


@needs("dput")
@pytest.mark.parametrize("way", [local, scp, rsync], **by_name)
def test_dput_whose_dinstall_waits_until_it_is_published(
    patient: Instance, builder: Builder, home: Home, server: Sshd, tmp_path: Path, way: Way
) -> None:
    """``run_dinstall`` calls a ``dinstall -n NAME.changes`` over there; the one of docs/clients.md waits."""
    wait = f'exec {BIN}/incomingctl --config {patient.config} wait "$(basename "$2" .changes)" --timeout 600'
    dinstall = server.folder.parent / "bin/dinstall"
    dinstall.write_text(f"#!/bin/sh\n{wait}\n")
    dinstall.chmod(0o755)
    after = tmp_path / "after"
    more = {"run_dinstall": 1, "post_upload_command": f"cp {patient.root}/status/index.json {after}"}
    good, bad = builder.upload("hello", "1.0-1"), builder.upload("world", "1.0-1", distribution="nowhere")
    with way(patient, server, tmp_path / "server") as settings:
        done = home.dput("archive", good.changes, settings=settings | more)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (patient.status(good.flat_name) or {})["state_name"] == "SUCCEEDED"
        assert after.exists()
        refused = home.dput("archive", bad.changes, settings=settings | more)
    assert refused.returncode == 1
    assert "[unknown-distribution]" in refused.stdout


@needs("dput")
@pytest.mark.parametrize("way", [ftp, http], **by_name)
def test_dput_with_a_command_after_it(
    patient: Instance, builder: Builder, home: Home, server: Sshd, tmp_path: Path, way: Way
) -> None:
    after = tmp_path / "after"
    upload = builder.upload("hello", "1.0-1")
    with way(patient, server, tmp_path / "server") as settings:
        done = home.dput("archive", upload.changes, settings=settings | {"post_upload_command": f"touch {after}"})
        assert done.returncode == 0, done.stdout + done.stderr
        patient.succeeded(upload.flat_name)
    assert after.exists()


@pytest.mark.parametrize("way", [local, scp, sftp, ftp, http, https], **by_name)
def test_dput_ng(patient: Instance, builder: Builder, home: Home, server: Sshd, tmp_path: Path, way: Way) -> None:
    upload = builder.upload("hello", "1.0-1", source="quilt", buildinfo=True)
    with way(patient, server, tmp_path / "server") as settings:
        profile = {key: str(value) if key == "incoming" else value for key, value in settings.items()}
        done = home.dput_ng("dput", "archive", upload.changes, profile=profile | {"hooks": [], "allow_dcut": True})
        assert done.returncode == 0, done.stdout + done.stderr
        patient.succeeded(upload.flat_name)
    assert list(patient.incoming.iterdir()) == []
