"""docs/clients.md, typed on machines of their own: the archive's, installed as docs/operators.md says, and clients'.

``test_client_table.py``, ``test_dput.py`` and ``test_delayed.py`` type the same tables in all their variants. Here each
client is one that a user has: another machine, another account, and settings in the files that the page names.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import client_docs, pages
from tests.support.apt import Apt, served
from tests.support.clients import DEVSCRIPTS, DPUT_NG, PASSWORD
from tests.support.installed import give, install, made, setup_command
from tests.support.instance import until
from tests.support.keys import Keys
from tests.support.machine import Machine
from tests.support.packaged import CONFIG, INCOMING, tarred
from tests.support.pages import Commands
from tests.support.private_systemd import PROJECT
from tests.support.sshd import free_port, listens
from tests.support.uploads import Builder, Upload

PAGE = "docs/clients.md"
HOST = "archive.example.org"
TYPED = "hello_1.0-1"


@pytest.fixture(scope="module")
def archive(keys: Keys, builder_key: str) -> Iterator[Machine]:
    """The archive's machine. ``upload`` and ``apt`` upload into it, also with delays."""
    with made() as machine:
        install(machine)
        machine.type("adduser --disabled-password --gecos '' ci")
        give(machine, "joan.asc", keys, builder_key)
        machine.type(setup_command())
        for account in ("upload", "apt"):
            machine.account(account)
            machine.type(f"usermod -aG incomingd {account}")
        signs(machine, "upload", keys, builder_key)
        for line in ("delayed = 15", 'scan_interval = "1s"'):  # delays are looked for at every scan
            machine.type(f"sed -i 's/^# {line.split()[0]} = .*/{line}/' {CONFIG}")
        machine.type("incomingctl reload")
        until(machine.path(f"{INCOMING}/DELAYED/5-day").is_dir, "the folders of delayed uploads")
        yield machine
        print(machine.type("incomingctl status; journalctl --unit incomingd --no-pager --lines 60", check=False))


def client(archive: Machine, keys: Keys, key: str) -> Machine:
    """A machine whose user ``joan`` has a signing key and can log in as ``upload``, and as ``apt`` at ``repo``."""
    if not DEVSCRIPTS.exists() or not DPUT_NG.exists():
        pytest.skip("devscripts or dput-ng is not unpacked")
    machine = made().__enter__()
    machine.account("joan")
    machine.type("cat >>/etc/hosts", data=f"127.0.0.1 {HOST}\n")
    machine.type(f"cp -a {DEVSCRIPTS}/usr/bin/debsign /usr/local/bin/")
    for name, account in ((HOST, "upload"), ("repo", "apt")):
        machine.reaches("joan", name, archive, account)
    # dput-ng's sftp reads the port from its profile, and then looks for the host's key under both.
    machine.type(f"sed -i 's/^{HOST} .*/&\\n[{HOST}]:{archive.port} &/; s/ {HOST} / /' ~/.ssh/known_hosts", user="joan")
    signs(machine, "joan", keys, key)
    # curl reads no ssh_config(5).
    own_key = "/home/joan/.ssh/id_ed25519"
    machine.type(
        "cat >~/.curlrc",
        user="joan",
        data=f'silent\nshow-error\nuser = "upload:"\nkey = "{own_key}"\npubkey = "{own_key}.pub"\n'
        f'connect-to = "{HOST}:22:127.0.0.1:{archive.port}"\n',
    )
    return machine


def signs(machine: Machine, user: str, keys: Keys, key: str) -> None:
    """Let that user have the secret key."""
    secret = keys.gpg("--armor", "--passphrase", "", "--export-secret-keys", key)
    machine.type("gpg --batch --quiet --import", user=user, data=secret.decode())


@pytest.fixture(scope="module")
def joan(archive: Machine, keys: Keys, builder_key: str) -> Iterator[Machine]:
    """A client's machine, with dput and incomingctl."""
    machine = client(archive, keys, builder_key)
    try:
        machine.type("python3 -m venv /opt/incomingd && /opt/incomingd/bin/pip install --quiet .")
        machine.type("ln -s /opt/incomingd/bin/incomingctl /usr/local/bin/")
        yield machine
    finally:
        machine.__exit__(None, None, None)


@pytest.fixture(scope="module")
def joan_ng(archive: Machine, keys: Keys, builder_key: str) -> Iterator[Machine]:
    """A client's machine with dput-ng, which takes dput's place."""
    machine = client(archive, keys, builder_key)
    try:
        machine.type(f"cp -a --remove-destination {DPUT_NG}/. /")
        yield machine
    finally:
        machine.__exit__(None, None, None)


Make = Callable[..., Upload]


@pytest.fixture(scope="module")
def count() -> Iterator[int]:
    """Versions, none of which is used twice."""
    return iter(range(2, 10_000))


@pytest.fixture
def make(count: Iterator[int], builder: Builder) -> Make:
    """Makes the next version of hello."""

    def upload(**options: str) -> Upload:
        return builder.upload("hello", f"{next(count)}.0-1", distribution="bookworm", **options)  # type: ignore[arg-type]

    return upload


def version(upload: Upload) -> str:
    """The upload's, as its file names have it: ``hello_7.0-1``."""
    return upload.changes.name.removesuffix("_amd64.changes")


def typing(command: str, upload: Upload) -> str:
    """The command for this upload."""
    return command.replace(TYPED, version(upload))


def put(machine: Machine, upload: Upload, folder: str, user: str) -> None:
    """Its files, as that user's."""
    into = f"cd ~{user}; mkdir -p {folder}; tar -x --no-same-owner -C {folder}"
    machine.systemd.run("runuser", "-u", user, "--", "sh", "-ec", into, data=tarred(upload))


def published(archive: Machine, upload: Upload, name: str = "") -> None:
    archive.type(f"incomingctl wait {name or upload.flat_name} --timeout 60")
    assert version(upload).partition("_")[2] in archive.type("incomingctl list bookworm")


def status(archive: Machine, upload: Upload, stage: str) -> dict[str, object]:
    """Its status when it has come to that stage."""

    def found() -> dict[str, object] | None:
        said = archive.type(f"cat /srv/incomingd/status/{upload.flat_name}.json", check=False)
        one: dict[str, object] = json.loads(said) if said else {}
        return one if one.get("stage") == stage else None

    one: dict[str, object] = until(found, f"{upload.flat_name} {stage}")
    return one


@pytest.mark.types(PAGE, "Sending uploads")
@pytest.mark.types_table(PAGE, "Clients")
def test_every_row_of_the_table(
    archive: Machine, joan: Machine, typed: Commands, tabled: Commands, make: Make, tmp_path: Path
) -> None:
    first = make()
    put(archive, first, "out", "upload")
    archive.type(f"mv out {INCOMING}/job-1234", user="upload")
    archive.type(typed.take("incomingctl wait"))
    published(archive, first, "job-1234")

    for number, row in enumerate(client_docs.table(), 100):
        if row.client.startswith("dput"):
            continue
        upload = make(source="quilt")
        for command in row.typed:
            if tabled.left and tabled.left[0].text == command:
                tabled.take(command)
        machine, user = (archive, "upload") if row.client == "mv" else (joan, "joan")
        put(machine, upload, "work" if machine is joan else "out", user)
        if machine is joan:
            joan.type(f"mkdir -p work/x; cd work/x; {typing(client_docs.making_out(), upload)}", user=user)
            joan.type("rm -rf out; mv work/x/out .; rm -r work", user=user)
        # A name's status is that of the last upload which had it, so each row has a name of its own.
        words = {"HOST": HOST, "IN": INCOMING, "job-7": f"job-{number}"}
        if row.name == "out":
            words["out"] = f"out-{number}"
            joan.type(f"mv out out-{number}", user="joan")
        lines = [_replaced(line, words) for line in row.typed]
        if row.client == "sftp":
            joan.type(f"sftp -b - {HOST}", user=user, data="\n".join(lines) + "\n")
        else:
            said = machine.type(" && ".join(lines), user=user)
            if row.client == "incomingctl":
                assert "SUCCEEDED" in said
        name = {"job-7": f"job-{number}", "out": f"out-{number}"}.get(row.name, upload.flat_name)
        if row.name != "printed":
            archive.type(f"incomingctl wait {name} --timeout 60")
        assert _lists(archive, version(upload)), row
        machine.type("rm -rf out*", user=user)

    folder = archive.path("/srv/incomingd/archive")
    with served(folder) as address:
        apt = Apt(tmp_path / "apt", address, folder / "archive-keyring.asc", suite="bookworm")
        apt.update()
        assert apt.candidate("hello") == version(upload).partition("_")[2]


def _replaced(line: str, words: dict[str, str]) -> str:
    return re.sub(rf"\b({'|'.join(words)})\b", lambda word: words[word[0]], line)


def _lists(archive: Machine, version: str) -> bool:
    return version.partition("_")[2] in archive.type("incomingctl list bookworm").split()


@pytest.mark.types(PAGE, "Old CI machines")
def test_the_one_file_client(archive: Machine, joan: Machine, typed: Commands, make: Make, builder_key: str) -> None:
    joan.type(typed.take("python3 -m"))
    joan.type("install -m 755 incomingctl-submit /home/joan/")
    upload = make()
    put(joan, upload, ".", "joan")
    joan.type("rm *.changes", user="joan")
    said = joan.type(f"KEY={builder_key}\n{typed.take('./incomingctl-submit')}", user="joan")
    assert "SUCCEEDED" in said
    assert _lists(archive, version(upload))
    joan.type("rm *.deb", user="joan")


def configure_dput(machine: Machine, user: str = "joan", **settings: str) -> None:
    """~/.dput.cf of the page, with other settings for some, and without those that are empty."""
    lines = client_docs.dput_settings() | {"fqdn": HOST} | settings
    text = "".join(f"{key} = {value}\n" for key, value in lines.items() if value)
    machine.type("cat >~/.dput.cf", user=user, data=f"[archive]\n{text}")


@pytest.mark.writes(PAGE, "dput")
@pytest.mark.types(PAGE, "ftp and http")
@pytest.mark.writes(PAGE, "ftp and http")
@pytest.mark.types_table(PAGE, "Commands before and after an upload")
def test_dput(
    archive: Machine, joan: Machine, typed: Commands, written: Commands, tabled: Commands, make: Make
) -> None:
    dput = "dput archive hello_1.0-1_amd64.changes"
    assert dput in pages.inline(PAGE, "dput")
    joan.type("cat >~/.dput.cf", user="joan", data=written.take("[archive]"))

    def sent(command: str = dput, machine: Machine = joan, user: str = "joan", answer: str = "") -> Upload:
        upload = make()
        put(machine, upload, ".", user)
        machine.type(typing(command, upload), user=user, data=answer)
        return upload

    published(archive, sent())
    configure_dput(joan, method="rsync")
    published(archive, sent())
    configure_dput(archive, "upload", method="local", fqdn="", login="")
    published(archive, sent(machine=archive, user="upload"))

    # Waiting over there: as in the settings, and this time only.
    archive.type("cat >/usr/local/bin/dinstall; chmod 755 /usr/local/bin/dinstall", data=written.take("#!/bin/sh"))
    (run_dinstall,) = (line for (line,) in client_docs.around("dput")[1:2])
    for settings, command in (({"run_dinstall": run_dinstall[-1]}, dput), ({}, tabled.take("dput -D"))):
        configure_dput(joan, **settings)
        assert _lists(archive, version(sent(command)))
    before_and_after = dict(line.split(" = ") for line in client_docs.around("dput")[0])
    configure_dput(joan, **before_and_after)
    published(archive, sent())
    joan.type("rm before after", user="joan")

    # The web, and what ssh has to know where dput logs in at a web server's port.
    port = free_port()
    web_host = written.take("Host ").replace("8080", str(port))
    location = written.take("location /incoming/")
    archive.type("mkdir -p /var/log/nginx /var/lib/nginx /etc/nginx/sites-enabled; rm -f /etc/nginx/sites-enabled/*")
    server = f"server {{ listen 127.0.0.1:{port};\n{location}}}\n"
    archive.systemd.write("/etc/nginx/sites-enabled/incoming", server)
    for command in typed:
        archive.type(command)
    joan.type("cat >~/.ssh/config.0", user="joan", data=web_host + archive_address(archive))
    joan.type("cat ~/.ssh/config.* >~/.ssh/config", user="joan")
    configure_dput(joan, method="http", fqdn=f"{HOST}:{port}", incoming="/incoming", run_dinstall="1")
    assert _lists(archive, version(sent()))

    # ftp, as the account that uploads.
    port = free_port()
    serve = f"{PROJECT}/.venv/bin/python -m pyftpdlib -i 127.0.0.1 -p {port} -w -d {INCOMING} -u upload -P {PASSWORD}"
    archive.type(f"systemd-run --unit=ftp --uid=upload --gid=incomingd -p UMask=022 {serve}")
    until(lambda: listens(port), "the ftp server")
    configure_dput(joan, method="ftp", fqdn=f"{HOST}:{port}", incoming="/")
    published(archive, sent(answer=f"{PASSWORD}\n"))
    archive.type("systemctl stop ftp nginx")


def archive_address(archive: Machine) -> str:
    """What ssh has to know of this machine's ports, in the block before."""
    return f"    Port {archive.port}\n    HostKeyAlias {HOST}\n"


@pytest.mark.types_table(PAGE, "Delayed uploads")
def test_delayed_uploads(archive: Machine, joan: Machine, joan_ng: Machine, tabled: Commands, make: Make) -> None:
    configure_dput_ng(joan_ng, archive)
    for row, (who, spans) in enumerate(client_docs.delayed()):
        machine = joan_ng if who.startswith("dput-ng") else joan
        if machine is joan:
            configure_dput(joan, **dict(span.split(" = ") for span in spans if " = " in span))
        upload = make()
        put(machine, upload, ".", "joan")
        machine.type(typing(tabled.take(spans[-1]), upload), user="joan")
        assert status(archive, upload, "queued")["due_at"], row
        archive.type(f"incomingctl cancel {upload.flat_name}")


def configure_dput_ng(machine: Machine, archive: Machine, **settings: object) -> None:
    """~/.dput.d/profiles/archive.json of the page, with other settings for some, and this machine's port."""
    profile = client_docs.dput_ng_profile() | {"port": archive.port} | settings
    machine.type(
        "mkdir -p ~/.dput.d/profiles; cat >~/.dput.d/profiles/archive.json", user="joan", data=json.dumps(profile)
    )


@pytest.mark.writes(PAGE, "dput-ng")
def test_dput_ng(archive: Machine, joan_ng: Machine, written: Commands, make: Make) -> None:
    dput = "dput archive hello_1.0-1_amd64.changes"
    assert dput in pages.inline(PAGE, "dput-ng")
    assert json.loads(written.take("{")) == client_docs.dput_ng_profile()
    for settings in (
        {},
        {"method": "scp"},
        json.loads(f"{{{client_docs.around('dput-ng')[0][0]}, {client_docs.around('dput-ng')[0][1]}}}"),
    ):
        configure_dput_ng(joan_ng, archive, **settings)
        upload = make()
        put(joan_ng, upload, ".", "joan")
        joan_ng.type(typing(dput, upload), user="joan")
        published(archive, upload)


@pytest.mark.types(PAGE, "Taking an upload back")
@pytest.mark.writes(PAGE, "Taking an upload back")
def test_an_upload_is_taken_back(
    archive: Machine,
    joan: Machine,
    joan_ng: Machine,
    typed: Commands,
    written: Commands,
    make: Make,
    builder: Builder,
    builder_key: str,
) -> None:
    configure_dput(joan, allow_dcut="1")
    more = [span for span in pages.inline(PAGE, "Taking an upload back") if span.startswith('"')]
    configure_dput_ng(joan_ng, archive, **json.loads(f"{{{', '.join(more)}}}"))
    export = typed.take("export")
    for command in typed:
        machine = joan_ng if "dput-ng" in command else joan
        upload = make()
        put(machine, upload, ".", "joan")
        machine.type(f"dput -e 3 archive {upload.changes.name}", user="joan")
        due = status(archive, upload, "queued")["due_at"]
        machine.type(f"{export}\n{typing(command, upload)}", user="joan")
        if "reschedule" in command:
            until(lambda: status(archive, upload, "queued")["due_at"] != due, "another day")  # noqa: B023
            archive.type(f"incomingctl cancel {upload.flat_name}")
        else:
            status(archive, upload, "cancelled")

    # By hand.
    archive.type("incomingctl hold")
    hello = make()
    world = builder.upload("world", "1.0-1", distribution="bookworm")
    job = builder.upload("job", "1.0-1", distribution="bookworm")
    put(joan, hello, ".", "joan")
    put(joan, world, "world", "joan")
    put(joan, job, "job-7", "joan")
    joan.type(f"scp {version(hello)}_* {HOST}:{INCOMING}; scp -rp job-7 {HOST}:{INCOMING}", user="joan")
    joan.type("cd world; dput -e 3 archive *.changes", user="joan")
    status(archive, hello, "queued")
    status(archive, world, "queued")
    until(lambda: '"queued"' in archive.type("cat /srv/incomingd/status/job-7.json", check=False), "job-7")
    text = typing(written.take("Commands:"), hello)
    joan.type(f"gpg --clearsign --local-user {builder_key} >joan.commands", user="joan", data=text)
    joan.type(f"scp joan.commands {HOST}:{INCOMING}", user="joan")
    archive.type("incomingctl wait joan --timeout 60")
    status(archive, hello, "cancelled")
    archive.type(f"incomingctl cancel {world.flat_name}; incomingctl release")
