"""``incomingctl setup``: gets an installed service ready: key, suites, the first uploader, the web server, the start.

Rules:

* What is not given by options is asked for on a terminal; elsewhere, and with ``--yes``, the default counts.
* Every answer is checked before anything is changed. Each step may be done twice: a key that is there stays, and so do
  suites that are configured.
* The configuration is changed line by line (:mod:`incomingd.config.edit`) and counts only if it has no error; the old
  one stays beside it as ``incomingd.toml.old``.
* Keys are made by the owner of the state folder: the daemon could not read what root makes.
* Root obeys only a configuration that no other account can change: it says whose group accounts join, and what is
  written where. No account is added to root's group.
"""

import grp
import importlib.resources
import json
import os
import pwd
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import click

from incomingd import fsio
from incomingd.cli.common import FAILED, Instance, echo, needs_instance
from incomingd.cli.trust import trust_key, warn
from incomingd.config import Config
from incomingd.config.access import changeable
from incomingd.config.edit import header, renamed, with_table, with_value
from incomingd.config.reader import parse
from incomingd.config.values import BadValueError, fingerprint
from incomingd.errors import ConfigError
from incomingd.model import plain
from incomingd.places import Places
from incomingd.publish.sign import Signer
from incomingd.verify.keyring import Keyring

_UNIT = "incomingd.service"
_SERVERS = ("nginx", "apache", "caddy")
#: Where each server's snippet is put into force, as Debian's packages have it.
_ENABLE = {
    "nginx": "ln -sf {file} /etc/nginx/sites-enabled/incomingd.conf && systemctl reload nginx",
    "apache": "a2enmod -q headers && ln -sf {file} /etc/apache2/sites-enabled/incomingd.conf && "
    "systemctl reload apache2",
    "caddy": "echo 'import {file}' >>/etc/caddy/Caddyfile && systemctl reload caddy",
}
_PROGRAMS = {"nginx": "nginx", "apache": "apache2", "caddy": "caddy"}
_SLUG = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answers:
    """What is to be set up. ``server`` is empty for none; ``accounts`` may upload over ssh."""

    name: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    architectures: tuple[str, ...]
    url: str
    server: str
    accounts: tuple[str, ...]


@click.command()
@click.option("--name", metavar="NAME", help="What the archive is called: its Origin and Label.")
@click.option("--suite", "suites", multiple=True, metavar="SUITE", help="A suite; may be given again.")
@click.option("--component", "components", multiple=True, metavar="COMPONENT", help="A component of each suite.")
@click.option("--arch", "architectures", multiple=True, metavar="ARCH", help="An architecture of each suite.")
@click.option("--url", metavar="URL", help="Where clients will find the archive: https://apt.example.org.")
@click.option("--signing-key", metavar="FPR", help="A secret key of your own keyring; without it one is made.")
@click.option("--trust", "keyfiles", type=click.File("rb"), multiple=True, help="Public keys of uploaders.")
@click.option("--uploader", "accounts", multiple=True, metavar="ACCOUNT", help="An account that uploads by ssh.")
@click.option("--web-server", "server", type=click.Choice([*_SERVERS, "none"]), help="Whose snippet is written.")
@click.option("--yes", is_flag=True, help="Ask nothing: what is not given is as it is, or as its default.")
@click.option("--no-start", is_flag=True, help="Do not start or reload the service.")
@needs_instance
@click.pass_context
def setup(
    ctx: click.Context,
    instance: Instance,
    name: str | None,
    suites: Sequence[str],
    components: Sequence[str],
    architectures: Sequence[str],
    url: str | None,
    signing_key: str | None,
    keyfiles: Sequence[BinaryIO],
    accounts: Sequence[str],
    server: str | None,
    yes: bool,
    no_start: bool,
) -> None:
    """Get an installed service ready: a signing key, suites, who may upload, the web server; then start it.

    Asks for what is not given. It may be called again: what is there stays, and what is new is added. It ends with the
    lines that clients and CI jobs need.
    """
    file = instance.file
    _check_file(file)
    config = instance.config
    ask = _Dialogue(asks=sys.stdin.isatty() and not yes)
    answers = _asked(ask, config, name, suites, components, architectures, url, server, accounts)
    group = _joined_group(instance.places) if answers.accounts else ""
    trusted = list(keyfiles)
    if not trusted and not _uploaders(instance) and (path := ask.file("File with an uploader's public key")):
        trusted = [path.open("rb")]
    text = file.read_text(encoding="utf-8")
    fresh = not instance.places.journal.exists()
    changed = _edited(text, config, answers, fresh=fresh)
    parse(tomllib.loads(changed), file)  # every error is told before anything is made
    keys = config.archive.signing_keys or (_signing_key(instance.places, signing_key, answers.name),)
    changed = with_value(changed, "[archive]", "signing_keys", keys)
    config = parse(tomllib.loads(changed), file)
    _write(file, text, changed)
    for line in _trust(Places(config), trusted):
        echo(line)
    for account in answers.accounts:
        _join(account, group)
    snippet = _write_snippet(file.parent, config, answers)
    started = no_start or _start(file)
    _tell(config, answers, snippet, _uploaders(instance))
    if not started:
        ctx.exit(FAILED)


# -- what is asked ----------------------------------------------------------------------------------------------------


class _Dialogue:
    """Asks on the terminal, or answers with the default."""

    def __init__(self, *, asks: bool) -> None:
        self._asks = asks

    def text(self, question: str, default: str) -> str:
        """One line."""
        return str(click.prompt(question, default=default)) if self._asks else default

    def words(self, question: str, given: Sequence[str], default: Sequence[str]) -> tuple[str, ...]:
        """Several words, without those that come twice."""
        found = given or self.text(f"{question} (blanks between them)", " ".join(default)).split()
        return tuple(dict.fromkeys(found))

    def file(self, question: str) -> Path | None:
        """A file that is there, or none."""
        if not self._asks:
            return None
        found = click.prompt(f"{question} (none: -)", default="-")
        if found == "-":
            return None
        path = Path(found).expanduser()
        if not path.is_file():
            raise ConfigError([f"{path}: there is no such file; gpg --armor --export KEY >FILE makes it"])
        return path


def _asked(
    ask: _Dialogue,
    config: Config,
    name: str | None,
    suites: Sequence[str],
    components: Sequence[str],
    architectures: Sequence[str],
    url: str | None,
    server: str | None,
    accounts: Sequence[str],
) -> _Answers:
    first = config.suites[0]
    known = [suite.name for suite in config.suites]
    origin = name or ask.text("The archive's name (Origin)", config.archive.origin)
    wanted = ask.words("Suites", suites, known)
    url = (url or ask.text("Address for clients", f"http://{socket.getfqdn()}")).rstrip("/")
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise ConfigError([f"--url: {plain(url)} is not http:// or https:// with a host"])
    found = next((one for one in _SERVERS if shutil.which(_PROGRAMS[one], path=_path())), "none")
    server = server or ask.text(f"Web server ({', '.join(_SERVERS)} or none)", found)
    if server not in (*_SERVERS, "none"):
        raise ConfigError([f"{plain(server)}: the web server is one of {', '.join(_SERVERS)}, none"])
    joining = ask.words("Accounts that upload by ssh", accounts, ())
    for account in joining:
        try:
            pwd.getpwnam(account)
        except KeyError as error:
            raise ConfigError(
                [f"{plain(account)}: there is no such account; make it: adduser {plain(account)}"]
            ) from error
    return _Answers(
        name=origin,
        suites=wanted,
        components=ask.words("Components", components, first.components),
        architectures=ask.words("Architectures", architectures, first.binary_architectures),
        url=url,
        server="" if server == "none" else server,
        accounts=joining,
    )


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


# -- the configuration ------------------------------------------------------------------------------------------------


def _edited(text: str, config: Config, answers: _Answers, *, fresh: bool) -> str:
    """The configuration with what was answered. A suite that nothing was published in gives its table to the first."""
    known = [suite.name for suite in config.suites]
    new = [name for name in answers.suites if name not in known]
    if fresh and new and len(known) == 1 and known[0] not in answers.suites:
        text = renamed(text, header("suites", known[0]), header("suites", new[0]))
        text = renamed(text, f"# {header('suites', known[0], 'checks')}", f"# {header('suites', new[0], 'checks')}")
        known = new[:1]
    for name in new:
        text = with_table(text, header("suites", name), header("suites", known[-1]))
        known.append(name)
    for name in answers.suites:
        table = header("suites", name)
        text = with_value(text, table, "components", answers.components)
        text = with_value(text, table, "architectures", answers.architectures)
    if answers.name != config.archive.origin:
        text = with_value(text, "[archive]", "origin", answers.name)
        text = with_value(text, "[archive]", "label", answers.name)
    return text


def _check_file(file: Path) -> None:
    """Raises ``ConfigError`` if the caller may not change ``file``, or if root calls and other accounts may."""
    if os.geteuid() != 0:
        if not os.access(file, os.W_OK):
            raise ConfigError([f"{file} cannot be written by you; run this as root"])
        return
    try:
        why = changeable(file, [0])
    except OSError as error:
        raise ConfigError([f"{file} cannot be looked at: {error.strerror}"]) from error
    if why:
        raise ConfigError(
            [
                f"{plain(file.absolute())}: root does not set up what another account could change: {why}; run this as "
                "the account that it belongs to, or give the file and the folders above it to root"
            ]
        )


def _write(file: Path, before: str, after: str) -> None:
    if after == before:
        return
    status = file.stat()
    old = file.with_name(f"{file.name}.old")
    for path, text in ((old, before), (file, after)):
        fsio.write_durable(path, text.encode(), status.st_mode & 0o777, owner=(status.st_uid, status.st_gid))
    echo(f"wrote {file}; what it was before is in {old}")


# -- keys and accounts ------------------------------------------------------------------------------------------------


def _signing_key(places: Places, wanted: str | None, name: str) -> str:
    if wanted is not None:
        try:
            wanted = fingerprint(wanted)
        except BadValueError as error:
            raise ConfigError([f"--signing-key: must be {error}"]) from error
        # Out of the caller's keyring, into the daemon's.
        command = ["gpg", "--batch", "--no-tty", "--quiet", "--export-secret-keys", wanted]
        secret = subprocess.run(command, capture_output=True, check=False)
        if secret.returncode or not secret.stdout:
            raise ConfigError([f"your keyring gives no secret key {wanted}; see gpg --list-secret-keys"])
        return str(
            _as_owner(places.state, lambda: _with_signer(places, lambda one: one.import_key(wanted, secret.stdout)))
        )
    echo("making the archive's signing key")
    return str(
        _as_owner(places.state, lambda: _with_signer(places, lambda one: one.create_key(f"{name} archive signing key")))
    )


def _with_signer(places: Places, act: Callable[[Signer], str]) -> str:
    signer = Signer(places.signing_home, ())
    try:
        return act(signer)
    finally:
        signer.close()


def _trust(places: Places, keyfiles: Sequence[BinaryIO]) -> list[str]:
    """Take up key files; what to say of them."""
    if not keyfiles:
        return []

    def act() -> list[str]:
        keyring = Keyring(places.uploaders_home)
        keyring.prepare()
        found = [key for keyfile in keyfiles for key in trust_key(keyring, keyfile)]
        warn(found, places.config.archive.signing_keys)
        return [f"may upload: {key}" for key in found]

    return list(_as_owner(places.state, act))


def _uploaders(instance: Instance) -> list[str]:
    """The fingerprints of those who may upload."""

    def act() -> list[str]:
        return [one.primary.fingerprint for one in Keyring(instance.places.uploaders_home).load().uploaders]

    return list(_as_owner(instance.places.state, act))


def _as_owner(folder: Path, act: Callable[[], Any]) -> Any:
    """What ``act`` returns, as JSON has it, done in a process of the folder's owner."""
    if not folder.is_dir():
        raise ConfigError([_no_state(folder)])
    if os.geteuid() != 0 or folder.stat().st_uid == 0:
        return act()
    ours, theirs = os.pipe()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.close(ours)
            fsio.become_owner(folder)
            os.environ["HOME"] = str(folder)
            os.write(theirs, json.dumps({"value": act()}).encode())
            code = 0
        except click.ClickException as error:
            os.write(theirs, json.dumps({"error": error.format_message()}).encode())
        except Exception as error:  # noqa: BLE001  # told by the parent, as what it would have raised itself
            os.write(theirs, json.dumps({"error": str(error)}).encode())
        finally:
            os._exit(code)
    os.close(theirs)
    with os.fdopen(ours, "rb") as answer:
        data = answer.read()
    os.waitpid(pid, 0)
    told = json.loads(data or b'{"error": "the process that was to do it ended"}')
    if "error" in told:
        raise click.ClickException(told["error"])
    return told["value"]


def _no_state(folder: Path) -> str:
    return f"{folder}: there is no such folder; systemd-tmpfiles --create incomingd.conf makes it"


def _joined_group(places: Places) -> str:
    """The group of those that may write into incoming: that of the state folder. Raises ``ConfigError`` if it gives
    rights to more than that."""
    try:
        status = places.state.stat()
    except FileNotFoundError as error:
        raise ConfigError([_no_state(places.state)]) from error
    if 0 in (status.st_uid, status.st_gid):
        found = "account" if status.st_uid == 0 else "group"
        raise ConfigError(
            [
                f"--uploader: {places.state} belongs to root's {found}, and no account joins root's group; give it to "
                f"the daemon's account and group: chown -R incomingd:incomingd {shlex.quote(str(places.state))}"
            ]
        )
    name = _group_name(status.st_gid)
    if not name:
        raise ConfigError(
            [
                f"--uploader: {places.state} belongs to the group {status.st_gid}, which has no name; make it: "
                f"groupadd --gid {status.st_gid} incomingd"
            ]
        )
    return name


def _group_name(gid: int) -> str:
    """Empty if the group has none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return ""


def _join(account: str, name: str) -> None:
    """Have the account in the group that may write into incoming."""
    group = grp.getgrnam(name)
    if account in group.gr_mem or pwd.getpwnam(account).pw_gid == group.gr_gid or account == "root":
        return
    subprocess.run(["usermod", "-a", "-G", name, account], check=True)
    echo(f"{account} is in the group {name} from its next login on, and may upload")


# -- web server and start ---------------------------------------------------------------------------------------------


def _write_snippet(folder: Path, config: Config, answers: _Answers) -> Path | None:
    if not answers.server:
        return None
    text = importlib.resources.files("incomingd.cli").joinpath(f"web/{answers.server}.conf").read_text(encoding="utf-8")
    host = urlsplit(answers.url).hostname or ""
    text = text.replace("@NAME@", host).replace("@ARCHIVE@", str(config.archive.root))
    file = folder / f"{answers.server}.conf"
    fsio.write_durable(file, text.encode())
    return file


def _start(file: Path) -> bool:
    """Start or reload the service, if this is the one that systemd has; True unless that fails."""
    if not Path("/run/systemd/system").is_dir() or os.geteuid() != 0:
        echo(f"next: incomingd --config {shlex.quote(str(file))}")
        return True
    unit = subprocess.run(["systemctl", "cat", _UNIT], capture_output=True, text=True, check=False)
    if unit.returncode or str(file) not in unit.stdout:
        echo(f"{_UNIT} does not run with {file}; next: incomingd --config {shlex.quote(str(file))}")
        return True
    active = subprocess.run(["systemctl", "is-active", "--quiet", _UNIT], check=False).returncode == 0
    for command in [["reload"]] if active else [["enable", "--quiet"], ["restart"]]:
        done = subprocess.run(["systemctl", *command, _UNIT], check=False)
        if done.returncode:
            echo(f"incomingctl: systemctl {command[0]} {_UNIT} failed; see: journalctl -u incomingd -n 50", err=True)
            return False
    echo(f"{_UNIT} runs; see: incomingctl status")
    return True


def _tell(config: Config, answers: _Answers, snippet: Path | None, keys: Sequence[str]) -> None:
    """The lines to copy."""
    name = _SLUG.sub("-", answers.name.lower()).strip("-") or "incomingd"
    ring, list_file = f"/etc/apt/keyrings/{name}.asc", f"/etc/apt/sources.list.d/{name}.list"
    if snippet is not None:
        echo("")
        echo(f"To serve it with {answers.server} as {urlsplit(answers.url).hostname} (as root):")
        echo(f"  {_ENABLE[answers.server].format(file=snippet)}")
    echo("")
    echo("On each client (as root):")
    echo(f"  install -d /etc/apt/keyrings && curl -fsS {answers.url}/archive-keyring.asc -o {ring}")
    for suite in answers.suites:
        source = f"deb [signed-by={ring}] {answers.url} {suite} {' '.join(answers.components)}"
        echo(f"  echo {shlex.quote(source)} >>{list_file}")
    echo("  apt-get update")
    echo("")
    if not keys:
        echo("Who may upload, before anyone can (KEYFILE: gpg --armor --export KEY):")
        echo("  incomingctl trust KEYFILE")
    incoming = config.queues[0].path
    account = answers.accounts[0] if answers.accounts else "ACCOUNT"
    host = urlsplit(answers.url).hostname
    echo("In a CI job:")
    echo(
        f"  incomingctl submit ./*.deb --to {account}@{host}:{incoming} --suite {answers.suites[0]} "
        f"--key {keys[0] if keys else 'KEY'} --wait"
    )
    if not answers.accounts:
        status = config.service.state.stat()
        group = "" if 0 in (status.st_uid, status.st_gid) else _group_name(status.st_gid)
        if group:
            echo(f"ACCOUNT is one of the group {group}: incomingctl setup --uploader ACCOUNT")
        else:
            echo(f"ACCOUNT is one that may write into {incoming}")
