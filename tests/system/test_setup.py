"""``incomingctl setup``: from an installed package to a package that apt installs, by one command."""

import contextlib
import os
import pty
import re
import select
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from incomingd.config.reader import load
from tests.support import packages
from tests.support.accounts import open_folder
from tests.support.instance import BIN, until
from tests.support.keys import Keys
from tests.support.packaged import CONFIG, UNIT, UPLOADER, Packaged
from tests.support.private_systemd import PROJECT, PrivateSystemd, UnavailableError
from tests.support.uploads import Builder

CTL = BIN / "incomingctl"


@pytest.fixture(scope="module")
def systemd() -> Iterator[PrivateSystemd]:
    try:
        booted = PrivateSystemd()
    except UnavailableError as reason:
        pytest.skip(str(reason))
    with booted:
        yield booted


@pytest.fixture
def installed(systemd: PrivateSystemd) -> Iterator[Packaged]:
    """As a package leaves it: never started, without a key."""
    yield (packaged := Packaged(systemd, None))
    print(packaged.show("ActiveState"), packaged.log())
    systemd.run("systemctl", "stop", UNIT, check=False)


def test_one_command_makes_a_service_of_it(installed: Packaged, keys: Keys, tmp_path: Path) -> None:
    key = keys.make("Operator Ada")
    public = keys.public(key).read_bytes()
    systemd = installed.systemd
    systemd.run("useradd", "--create-home", "ci", check=False)
    words = ("--suite", "bookworm", "--suite", "trixie", "--name", "Example", "--url", "http://apt.example.org")
    command = (CTL, "setup", "--yes", *words, "--trust", "-", "--uploader", "ci", "--web-server", "nginx")
    said = systemd.run(*command, data=public).stdout.decode()
    assert f"may upload: {key} (Operator Ada <operator.ada@example.org>)" in said
    assert f"{UNIT} runs" in said
    assert installed.show("ActiveState") == "active"
    assert systemd.run("systemctl", "is-enabled", UNIT, check=False).stdout.decode().strip() == "enabled"
    assert "incomingd" in systemd.run("id", "-nG", "ci").stdout.decode().split()
    config = load(installed.path(CONFIG))
    assert [suite.name for suite in config.suites] == ["bookworm", "trixie"]
    assert len(config.archive.signing_keys) == 1
    assert config.archive.origin == "Example"
    # It is the daemon's, and the comments of the packaged file are there.
    home = installed.path("/var/lib/incomingd/gnupg/signing/private-keys-v1.d")
    assert {file.stat().st_uid for file in home.iterdir()} == {installed.path("/var/lib/incomingd").stat().st_uid}
    assert (
        installed.config().count("#") == (PROJECT / "conf/incomingd.toml").read_text().count("#") - 5
    )  # what has a value now
    # An upload by that key is taken, from an account of the group.
    builder = Builder(folder=tmp_path / "built", keys=keys, key=key)
    installed.succeeded(installed.send(builder.upload("hello", distribution="trixie")))
    # The lines for clients.
    assert "curl -fsS http://apt.example.org/archive-keyring.asc -o /etc/apt/keyrings/example.asc" in said
    assert "deb [signed-by=/etc/apt/keyrings/example.asc] http://apt.example.org trixie main" in said
    assert f"--to ci@apt.example.org:/srv/incomingd/incoming --suite bookworm --key {key} --wait" in said
    assert "root /srv/incomingd/archive;" in installed.path("/etc/incomingd/nginx.conf").read_text()


def test_it_may_be_called_again(installed: Packaged) -> None:
    systemd = installed.systemd
    words = ("--yes", "--url", "https://apt.example.org", "--web-server", "none")
    systemd.run(CTL, "setup", *words, "--suite", "bookworm")
    first = load(installed.path(CONFIG))
    again = systemd.run(CTL, "setup", *words, "--suite", "bookworm", "--suite", "trixie").stdout.decode()
    second = load(installed.path(CONFIG))
    assert "making the archive's signing key" not in again
    assert second.archive.signing_keys == first.archive.signing_keys
    assert [suite.name for suite in second.suites] == ["bookworm", "trixie"]
    until(installed.path("/srv/incomingd/archive/dists/trixie/InRelease").exists, "the new suite's first generation")
    once_more = installed.config()
    systemd.run(CTL, "setup", *words)
    assert installed.config() == once_more


def test_a_wrong_answer_changes_nothing(installed: Packaged) -> None:
    before = installed.config()
    for wrong in (
        ("--url", "apt.example.org"),
        ("--suite", "../x"),
        ("--arch", "pdp11/45"),
        ("--uploader", "nobody-of-that-name"),
        ("--signing-key", "A" * 40),
    ):
        done = installed.systemd.run(CTL, "setup", "--yes", "--no-start", *wrong, check=False)
        assert done.returncode == 2, (wrong, done)
        assert b"Traceback" not in done.stderr
    assert installed.config() == before
    assert not installed.path("/etc/incomingd/incomingd.toml.old").exists()


def test_an_account_that_may_not_is_told_so(installed: Packaged) -> None:
    done = installed.systemd.run(CTL, "setup", "--yes", check=False, user=UPLOADER)
    assert done.returncode == 2
    assert b"run this as root" in done.stderr


@pytest.mark.parametrize("owner", ["root:root", "incomingd:root"])
def test_no_account_joins_a_group_of_roots(owner: str, installed: Packaged) -> None:
    """The state folder was made by root, so the group that accounts would join is root's."""
    systemd, before = installed.systemd, installed.config()
    systemd.run("useradd", "--create-home", "ci", check=False)
    systemd.run("chown", owner, "/var/lib/incomingd")
    try:
        done = systemd.run(CTL, "setup", "--yes", "--no-start", "--uploader", "ci", check=False)
    finally:
        systemd.run("chown", "incomingd:incomingd", "/var/lib/incomingd")
    assert done.returncode == 2, done
    assert b"no account joins root's group; give it to the daemon's account" in done.stderr
    assert "root" not in systemd.run("id", "-nG", "ci").stdout.decode().split()
    assert installed.config() == before


# -- the dialogue -----------------------------------------------------------------------------------------------------


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """The packaged configuration, for places of this test."""
    for name in ("incoming", "claims", "status", "archive", "state"):
        (tmp_path / name).mkdir(mode=0o700 if name in ("claims", "state") else 0o755)
    text = (PROJECT / "conf/incomingd.toml").read_text()
    text = text.replace("/var/lib/incomingd", f"{tmp_path}/state").replace("/srv/incomingd", str(tmp_path))
    (tmp_path / "incomingd.toml").write_text(text)
    return tmp_path


def dialogue(command: list[str | Path], answers: list[tuple[str, str]], **named: str) -> str:
    """Answer each question as it comes, on a terminal; all that was said."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, **named})
    os.close(theirs)
    said, until = "", time.monotonic() + 60
    todo = list(answers)
    while time.monotonic() < until:
        if select.select([ours], [], [], 0.2)[0]:
            try:
                said += os.read(ours, 4096).decode()
            except OSError:  # it has ended
                break
        if todo and todo[0][0] in said.rsplit("\n", 1)[-1] and said.rstrip(" ").endswith(":"):
            os.write(ours, f"{todo.pop(0)[1]}\n".encode())
    os.close(ours)
    assert process.wait(60) == 0, said
    assert todo == [], said
    return said


def test_it_asks_for_what_is_not_given(places: Path, keys: Keys, tmp_path: Path) -> None:
    key = keys.make("Operator Bob")
    said = dialogue(
        [CTL, "--config", places / "incomingd.toml", "setup"],
        [
            ("The archive's name", "Example"),
            ("Suites", "bookworm trixie"),
            ("Address for clients", "http://127.0.0.1"),
            ("Web server", "none"),
            ("Accounts that upload", ""),
            ("Components", "main contrib"),
            ("Architectures", "amd64"),
            ("File with an uploader's public key", str(keys.public(key))),
        ],
    )
    config = load(places / "incomingd.toml")
    assert [suite.name for suite in config.suites] == ["bookworm", "trixie"]
    assert {suite.components for suite in config.suites} == {("main", "contrib")}
    assert re.search(rf"may upload: {key}", said)
    # What it says is to be typed next does.
    deb = packages.binary(tmp_path, "hello", "1.0-1", "amd64")
    submit = [CTL, "submit", deb, "--to", places / "incoming", "--suite", "bookworm", "--key", key]
    subprocess.run(submit, check=True, env={**os.environ, "GNUPGHOME": str(keys.home)}, capture_output=True)
    subprocess.run([BIN / "incomingd", "--config", places / "incomingd.toml", "--once"], check=True)
    listed = subprocess.run(
        [CTL, "--config", places / "incomingd.toml", "list", "bookworm"], check=True, capture_output=True, text=True
    )
    assert "hello" in listed.stdout


_NGINX = """\
user root; daemon off; pid {work}/pid; error_log {work}/error.log; events {{}}
http {{
    access_log off; client_body_temp_path {work}/b; proxy_temp_path {work}/p; fastcgi_temp_path {work}/f;
    uwsgi_temp_path {work}/u; scgi_temp_path {work}/s;
    include /etc/nginx/mime.types; default_type application/octet-stream;
    include {snippet};
}}
"""
_APACHE = """\
ServerRoot /usr/lib/apache2
{modules}
ServerName 127.0.0.1
Listen 127.0.0.1:{port}
PidFile {work}/pid
ErrorLog {work}/error.log
User nobody
TypesConfig /dev/null
"""
_MODULES = ("mpm_event", "authz_core", "alias", "autoindex", "dir", "headers", "mime")


def serving(server: str, places: Path, work: Path, port: int) -> list[str | Path]:
    """The command that runs the real server with the snippet, on a port of this test's."""
    snippet, text = work / "snippet", (places / f"{server}.conf").read_text()
    for given, own in (
        ("listen 80;", f"listen 127.0.0.1:{port};"),
        ("    listen [::]:80;\n", ""),
        ("*:80>", f"127.0.0.1:{port}>"),
        ("http://127.0.0.1 ", f"http://127.0.0.1:{port} "),
    ):
        text = text.replace(given, own)
    assert str(port) in text
    snippet.write_text(text)
    if server == "nginx":
        (work / "nginx.conf").write_text(_NGINX.format(work=work, snippet=snippet))
        return ["/usr/sbin/nginx", "-p", work, "-e", work / "error.log", "-c", work / "nginx.conf"]
    if server == "apache":
        modules = "\n".join(f"LoadModule {name}_module modules/mod_{name}.so" for name in _MODULES)
        (work / "apache.conf").write_text(_APACHE.format(work=work, port=port, modules=modules) + text)
        return ["/usr/sbin/apache2", "-X", "-f", work / "apache.conf"]
    return ["caddy", "run", "--adapter", "caddyfile", "--config", snippet]


@pytest.mark.parametrize("server", ["nginx", "apache", "caddy"])
def test_the_snippets_of_web_servers(server: str, places: Path) -> None:
    """Each runs in the real server: what it lets caches keep, what it hides, and what a browser shows."""
    command = [CTL, "--config", places / "incomingd.toml", "setup", "--yes", "--url", "http://127.0.0.1"]
    subprocess.run([*command, "--web-server", server], check=True, stdin=subprocess.DEVNULL)
    subprocess.run([BIN / "incomingd", "--config", places / "incomingd.toml", "--once"], check=True)
    open_folder(places)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (work := places / "server").mkdir()
    home = {"HOME": str(work), "XDG_CONFIG_HOME": str(work), "XDG_DATA_HOME": str(work)}
    process = subprocess.Popen(
        serving(server, places, work, port), env={**os.environ, **home}, stderr=subprocess.DEVNULL
    )
    base = f"http://127.0.0.1:{port}"

    def get(path: str) -> tuple[int, str, str, bytes]:
        try:
            with urlopen(f"{base}/{path}", timeout=10) as answer:
                found = answer.headers
                return answer.status, found["Cache-Control"] or "", found.get_content_type(), answer.read()
        except HTTPError as error:
            return error.code, "", "", b""

    def answers() -> bool:
        with contextlib.suppress(OSError):
            return get("archive-keyring.asc")[0] == 200
        return False

    try:
        until(answers, "the web server")
        dists = places / "archive/dists/stable"
        for path in ("dists/stable/InRelease", "dists/stable/Release.gpg", "archive-keyring.asc"):
            status, cache, kind, data = get(path)
            assert (status, cache, kind) == (200, "no-cache", "text/plain"), path
            assert data == (places / "archive" / path).read_bytes()
        index = next((dists / "main/binary-amd64/by-hash/SHA256").iterdir())
        status, cache, _, data = get(f"dists/stable/main/binary-amd64/by-hash/SHA256/{index.name}")
        assert (status, data) == (200, index.read_bytes())
        assert "immutable" in cache
        assert get("dists/.generations/stable/1/InRelease")[0] == 404
        status, _, kind, listing = get("dists/")
        assert (status, kind) == (200, "text/html")
        assert b"stable" in listing
        assert b".generations" not in listing
    finally:
        process.terminate()
        process.wait(30)
