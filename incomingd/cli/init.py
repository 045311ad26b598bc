"""``incomingctl init``: makes a whole instance under one folder.

The configuration is written last but for the empty archive itself: what a failure leaves has none, and init can be run
again. It ends with a first publish, so that apt clients find an empty, signed archive at once.

What is there already is used only if it is the caller's, or root's, and no one else can write it: gpg obeys a
gpg-agent.conf that it finds, and so the account that has put it there.
"""

import contextlib
import json
import os
import re
import shlex
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import click

from incomingd import fsio
from incomingd.cli.common import echo, json_option, print_json
from incomingd.cli.trust import trust_key, warn
from incomingd.config.access import foreign_owner, written_by_others
from incomingd.config.reader import load, parse
from incomingd.config.values import BadValueError, fingerprint
from incomingd.errors import ConfigError, Retry
from incomingd.pipeline import Pipeline
from incomingd.places import Places
from incomingd.publish.sign import Signer
from incomingd.verify.keyring import Keyring
from incomingd.verify.keys import Uploader

_TOML = """\
# An incomingd archive. docs/config.md has every setting; after a change: incomingd --check-config, then reload.
[archive]
root = "archive"                # serve this folder
origin = {name}
label = {name}
signing_keys = [{key}]

{suites}
[incoming.default]
path = "incoming"               # drop uploads here
settle = 2.0                    # seconds without change before an upload that was written in place is taken
signatures = "{signatures}"         # or "optional": unsigned is accepted, a bad signature never is

# Without any [[uploaders]] every trusted key may upload everything.
# [[uploaders]]
# key = "FINGERPRINT"
# name = "CI of team A"
# suites = ["{suite}"]
# sources = ["team-a-*"]
"""
#: Whose key is made in what is printed to be typed next.
_EXAMPLE = "ci@example.org"
#: So often a first publish is tried that fails by the machine's fault.
_TRIES = 3
_BARE = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_SUITE = """\
[suites.{table}]
components = {components}
architectures = {architectures}
"""


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--suite", "suites", multiple=True, default=["stable"], show_default=True, help="A suite; may be given again."
)
@click.option(
    "--component",
    "components",
    multiple=True,
    default=["main"],
    show_default=True,
    help="A component of each suite; may be given again.",
)
@click.option(
    "--arch",
    "architectures",
    multiple=True,
    default=["amd64", "arm64"],
    show_default=True,
    help="An architecture of each suite; may be given again.",
)
@click.option("--trust", "keyfiles", type=click.File("rb"), multiple=True, help="Public keys of uploaders.")
@click.option("--allow-unsigned", is_flag=True, help="Take unsigned uploads, too.")
@click.option("--signing-key", metavar="FPR", help="A secret key of your own keyring; without it one is made.")
@json_option
def init(
    folder: Path,
    suites: Sequence[str],
    components: Sequence[str],
    architectures: Sequence[str],
    keyfiles: Sequence[BinaryIO],
    allow_unsigned: bool,
    signing_key: str | None,
    as_json: bool,
) -> None:
    """Make a whole instance under DIR: configuration, signing key, folders, and an empty signed archive."""
    folder = folder.absolute()
    file = folder / "incomingd.toml"
    for there in (file, folder / "state" / "journal.db"):
        if there.exists():
            raise ConfigError([f"{folder} holds an instance already ({there.name}); name another folder"])

    def text(key: str) -> str:
        return _text(folder.name, key, suites, components, architectures, allow_unsigned)

    # Every fault of the arguments is told before anything is made.
    places = Places(parse(tomllib.loads(text("")), file))
    _check_existing(places, folder)
    _make_folders(places, folder)
    keyring = Keyring(places.uploaders_home)
    keyring.prepare()
    trusted = [key for keyfile in keyfiles for key in trust_key(keyring, keyfile)]
    fsio.write_durable(file, text(_signing_key(places, signing_key, folder.name)).encode())
    _publish_first(file)
    warn(trusted, load(file).archive.signing_keys)
    if as_json:
        print_json(_facts(places, file, trusted))
    else:
        _print_next_steps(places, file, suites[0], trusted)


def _publish_first(file: Path) -> None:
    """The empty archive. gpg's agent may fail once, while it writes a key that it was just given in a newer form."""
    for _ in range(_TRIES - 1):
        try:
            Pipeline(load(file)).run_once()
        except Retry:
            time.sleep(1)
        else:
            return
    Pipeline(load(file)).run_once()


def _text(
    name: str,
    key: str,
    suites: Sequence[str],
    components: Sequence[str],
    architectures: Sequence[str],
    allow_unsigned: bool,
) -> str:
    tables = (
        _SUITE.format(
            table=suite if _BARE.fullmatch(suite) else _quoted(suite),
            components=_list(components),
            architectures=_list(architectures),
        )
        for suite in dict.fromkeys(suites)
    )
    return _TOML.format(
        name=_quoted(name if name.isprintable() and name else "incomingd"),
        key=_quoted(key) if key else "",
        suites="\n".join(tables),
        suite=suites[0],
        signatures="optional" if allow_unsigned else "required",
    )


def _quoted(value: str) -> str:
    """A TOML basic string."""
    return json.dumps(value, ensure_ascii=False)


def _list(values: Sequence[str]) -> str:
    return f"[{', '.join(_quoted(value) for value in dict.fromkeys(values))}]"


def _check_existing(places: Places, folder: Path) -> None:
    """Raises ``ConfigError`` if something that the instance would use could be another account's work."""
    owners = {os.geteuid(), 0}
    for path in (folder, places.archive, places.status, *_inside(places.state)):
        with contextlib.suppress(FileNotFoundError):
            for look in (path.lstat, path.stat):  # a link, and what it leads to
                status = look()
                if why := foreign_owner(path, status, owners):
                    raise ConfigError([f"{why}; name a folder that is not there yet, or remove what is there"])
                if why := written_by_others(path, status):
                    raise ConfigError([f"{why}; name a folder that is not there yet, or: chmod go-w {path}"])


def _inside(folder: Path) -> Iterator[Path]:
    """``folder`` and all that is in it, behind no link."""
    yield folder
    for above, folders, files in os.walk(folder):
        yield from (Path(above, name) for name in (*folders, *files))


def _make_folders(places: Places, folder: Path) -> None:
    fsio.make_directories(folder)  # first: uploaders and web servers must get through it
    fsio.make_directories(places.state, 0o700)
    for path in (folder / "incoming", places.status, places.archive):
        fsio.make_directories(path)


def _signing_key(places: Places, wanted: str | None, name: str) -> str:
    signer = Signer(places.signing_home, ())
    try:
        if wanted is None:
            return signer.create_key(f"{name} archive signing key")
        return signer.adopt_key(fingerprint(wanted))
    except BadValueError as error:
        raise ConfigError([f"--signing-key: must be {error}"]) from error
    finally:
        signer.close()


def _facts(places: Places, file: Path, trusted: Sequence[Uploader]) -> dict[str, object]:
    return {
        "config": str(file),
        "incoming": [str(queue.path) for queue in places.config.queues],
        "status": str(places.status),
        "archive": str(places.archive),
        "signing_keys": list(load(file).archive.signing_keys),
        "trusted": [key.primary.fingerprint for key in trusted],
    }


def _print_next_steps(places: Places, file: Path, suite: str, trusted: Sequence[Uploader]) -> None:
    """What to type next, in order, for whoever has read nothing but this."""
    config, incoming = shlex.quote(str(file)), shlex.quote(str(places.config.queues[0].path))
    components = " ".join(places.config.suites[0].components)
    source = f"deb [signed-by={places.archive / 'archive-keyring.asc'}] file:{places.archive} {suite} {components}"
    echo(f"made {file}; uploads go into {places.config.queues[0].path}, {places.status} tells of them")
    if trusted:
        echo(f"may upload: {', '.join(map(str, trusted))}")
    echo("next, the daemon, which goes on running, and the others in another terminal:")
    echo(f"  incomingd --config {config}")
    if not trusted:
        echo(f"  gpg --batch --passphrase '' --quick-gen-key {_EXAMPLE} ed25519 sign never")
        echo(f"  gpg --armor --export {_EXAMPLE} | incomingctl --config {config} trust -")
    key = trusted[0].primary.fingerprint if trusted else _EXAMPLE
    echo(f"  incomingctl submit ./*.deb --to {incoming} --suite {suite} --key {key} --wait")
    echo(f"  echo {shlex.quote(source)} >/etc/apt/sources.list.d/incomingd.list")
    echo("  apt-get update")
