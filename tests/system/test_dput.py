"""dput and dput-ng in each of their modes: they end with 0, and the upload is published."""

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.client_docs import Row, around, dinstall, rows
from tests.support.clients import PASSWORD, Home, ftp_server, put_server
from tests.support.instance import BIN, Instance
from tests.support.sshd import Sshd, sshd
from tests.support.uploads import Builder
from tests.system.test_clients import needs

Settings = dict[str, Any]

#: What docs/clients.md has dput and dput-ng run before and after an upload; a row more is one without a test.
COMMANDS, DINSTALL, DINSTALL_OPTION = around("dput")
NG_COMMANDS, NG_HOOKS = around("dput-ng")


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
def over_ssh(instance: Instance, server: Sshd, work: Path, login: str) -> Iterator[Settings]:
    """What is of one machine: the rest is what docs/clients.md has. dput-ng's sftp does not read ssh's settings."""
    yield {"incoming": instance.incoming, "fqdn": "127.0.0.1", "login": "root", "port": server.port}


@contextlib.contextmanager
def over_ftp(instance: Instance, server: Sshd, work: Path, login: str) -> Iterator[Settings]:
    with ftp_server(instance.incoming, login) as port:
        yield {"incoming": "/", "fqdn": f"127.0.0.1:{port}", "login": login}


@contextlib.contextmanager
def over_http(instance: Instance, server: Sshd, work: Path, login: str) -> Iterator[Settings]:
    with put_server(instance.incoming, work) as port:
        yield {"incoming": "/incoming", "fqdn": f"127.0.0.1:{port}", "login": login}


@contextlib.contextmanager
def over_https(instance: Instance, server: Sshd, work: Path, login: str) -> Iterator[Settings]:
    with put_server(instance.incoming, work, tls=True) as port:
        yield {"incoming": "/incoming", "fqdn": f"127.0.0.1:{port}", "login": login}


Way = Callable[[Instance, Sshd, Path, str], contextlib.AbstractContextManager[Settings]]
WAYS: dict[str, Way] = {
    **dict.fromkeys(("local", "scp", "rsync", "sftp"), over_ssh),
    "ftp": over_ftp,
    "http": over_http,
    "https": over_https,
}


@contextlib.contextmanager
def sending(
    row: Row, instance: Instance, server: Sshd, tmp_path: Path, *, login: str = "anonymous"
) -> Iterator[Settings]:
    """The settings of a row, where its server runs; ``login`` is for ftp and the web, ssh is root's."""
    with WAYS[row.mode](instance, server, tmp_path / "server", login) as settings:
        method = re.search(r"method\W+(\w+)", row.typed[0])
        assert method, row
        yield settings | {"method": method[1]}


@needs("dput")
@pytest.mark.parametrize("row", rows("dput"), ids=str)
def test_dput(patient: Instance, builder: Builder, home: Home, server: Sshd, tmp_path: Path, row: Row) -> None:
    upload = builder.upload("hello", "1.0-1", source="quilt", buildinfo=True)
    upload.file("*.deb").chmod(0o600)  # it means to mend that over there
    with sending(row, patient, server, tmp_path) as settings:
        done = home.dput("archive", upload.changes, settings=settings)
        assert done.returncode == 0, done.stdout + done.stderr
        patient.succeeded(upload.flat_name)
    assert list(patient.incoming.iterdir()) == []


@needs("dput")
@pytest.mark.parametrize("row", rows("dput"), ids=str)
def test_dput_with_commands_around_it(
    patient: Instance, builder: Builder, home: Home, server: Sshd, tmp_path: Path, row: Row
) -> None:
    upload = builder.upload("hello", "1.0-1")
    more = dict(line.split(" = ") for line in COMMANDS)
    with sending(row, patient, server, tmp_path) as settings:
        done = home.dput("archive", upload.changes, settings=settings | more)
        assert done.returncode == 0, done.stdout + done.stderr
        patient.succeeded(upload.flat_name)
    assert (home.folder / "before").exists()
    assert (home.folder / "after").exists()


@needs("dput")
@pytest.mark.parametrize("row", rows("dput"), ids=str)
def test_dput_whose_dinstall_waits_until_it_is_published(
    patient: Instance, builder: Builder, home: Home, server: Sshd, tmp_path: Path, row: Row
) -> None:
    """``run_dinstall`` calls a ``dinstall -n NAME.changes`` over there; the one of docs/clients.md waits."""
    there = server.folder.parent / "bin/dinstall"
    there.write_text(dinstall().replace("incomingctl", f"{BIN}/incomingctl --config {patient.config}"))
    there.chmod(0o755)
    after = tmp_path / "after"
    more = dict(line.split(" = ") for line in DINSTALL)
    command = {"post_upload_command": f"cp {patient.root}/status/index.json {after}"}
    (option,) = (word for line in DINSTALL_OPTION for word in line.split() if word.startswith("-"))
    good, bad = builder.upload("hello", "1.0-1"), builder.upload("world", "1.0-1", distribution="nowhere")
    with sending(row, patient, server, tmp_path, login="root") as settings:
        home.knows(settings["fqdn"], "127.0.0.1")
        answer = f"{PASSWORD}\n"  # ftp asks
        done = home.dput("archive", good.changes, settings=settings | more | command, answer=answer)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (patient.status(good.flat_name) or {})["state_name"] == "SUCCEEDED"
        assert after.exists()
        refused = home.dput(option, "archive", bad.changes, settings=settings | command, answer=answer)
    assert refused.returncode == 1
    assert "[unknown-distribution]" in refused.stdout


@pytest.mark.parametrize("row", rows("dput-ng"), ids=str)
def test_dput_ng(patient: Instance, builder: Builder, home: Home, server: Sshd, tmp_path: Path, row: Row) -> None:
    upload = builder.upload("hello", "1.0-1", source="quilt", buildinfo=True)
    with sending(row, patient, server, tmp_path) as settings:
        profile = {key: str(value) if key == "incoming" else value for key, value in settings.items()}
        done = home.dput_ng("dput", "archive", upload.changes, profile=profile)
        assert done.returncode == 0, done.stdout + done.stderr
        patient.succeeded(upload.flat_name)
    assert list(patient.incoming.iterdir()) == []


@pytest.mark.parametrize("row", rows("dput-ng"), ids=str)
def test_dput_ng_with_commands_and_hooks_around_it(
    patient: Instance, builder: Builder, home: Home, server: Sshd, tmp_path: Path, row: Row
) -> None:
    """``-D`` it knows, for the sake of those who type it, and does nothing."""
    upload = builder.upload("hello", "1.0-1")
    more = json.loads(f"{{{', '.join((*NG_COMMANDS, *NG_HOOKS))}}}")
    (hook,) = more["hooks"]
    home.dput_ng_hook(hook, f'print("{hook} is called")')
    with sending(row, patient, server, tmp_path) as settings:
        profile = settings | more | {"incoming": str(settings["incoming"])}
        done = home.dput_ng("dput", "-D", "archive", upload.changes, profile=profile)
        assert done.returncode == 0, done.stdout + done.stderr
        patient.succeeded(upload.flat_name)
    assert (home.folder / "before").exists()
    assert (home.folder / "after").exists()
    assert done.stdout.count(f"{hook} is called") == 2, done.stdout
