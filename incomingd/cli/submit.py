"""``incomingctl submit``: sends an upload from a CI job, and waits until it is published.

It needs no configuration and no rights here but to read the files, and only sshd on the other side: the status is read
from there as it was sent.
"""

import hashlib
import json
import re
import signal
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from incomingd.cli import called
from incomingd.cli.carrier import Carrier, CarrierError, NotSentError, carrier
from incomingd.cli.edge import TERMINATED, echo, json_option, print_json, under_way
from incomingd.cli.parcel import Parcel, Signer, pack
from incomingd.cli.polled import INDEX, account, stopped_by
from incomingd.cli.wait import Waiting
from incomingd.model import UPLOAD_NAME

#: Seconds between two looks at index.json, and the time for which a host may be out of reach while it is waited for.
_INDEX_EVERY, _OUT_OF_REACH = 2.0, 60.0
#: Seconds after which a status folder without any status is taken for the wrong one.
_NO_STATUS = 30.0
_LONGEST_STEM = 150


@click.command()
@click.argument("given", metavar="FILE… | DIR", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--to", required=True, metavar="PATH|[USER@]HOST:PATH", help="The incoming folder.")
@click.option("--suite", help="Where packages without a .changes are to go.")
@click.option("--key", metavar="FPR", help="Sign what is not signed yet with this key of your keyring.")
@click.option("--name", help="The upload's name; without it one is made up that no other has.")
@click.option(
    "-o", "options", multiple=True, metavar="OPTION=VALUE", help="For ssh, as its own -o; may be given again."
)
@click.option("--wait", "waits", is_flag=True, help="Follow the upload to its end, and exit as wait does.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Stop waiting after so many seconds.")
@click.option("--status", "status_folder", metavar="PATH", help="The status folder there; default: TO/../status.")
@json_option
@click.pass_context
def submit(
    ctx: click.Context,
    given: Sequence[Path],
    to: str,
    suite: str | None,
    key: str | None,
    name: str | None,
    options: Sequence[str],
    waits: bool,
    timeout: float | None,
    status_folder: str | None,
    as_json: bool,
) -> None:
    """Send packages to an incoming folder, here or on another machine.

    Give a .changes (what it lists goes with it), a directory with one, or packages and .dsc alone: these get a .changes
    for --suite. Over ssh it is sent by rsync if both sides have it, else by sftp or scp.

    Exits with 5 if the upload could not be sent, and with --wait as wait does.
    """
    if name is not None and not UPLOAD_NAME.fullmatch(name):
        raise click.UsageError("--name must be a letter or digit, then at most 199 letters, digits and . _ + ~ -")
    if name == INDEX:
        raise click.UsageError(f"--name must not be {INDEX}: {INDEX}.json in the status folder is no upload's")
    # A CI job that is cancelled gets this: what was being sent must not be left behind there.
    signal.signal(signal.SIGTERM, _terminated)
    with tempfile.TemporaryDirectory(prefix="incomingctl-") as folder, carrier(to, options) as way:
        parcel = pack(given, suite, Signer(key) if key else None, Path(folder))
        name = name or _unique(parcel.stem)
        afar = _Afar(way, status_folder or way.status_folder(), _digests(parcel))
        try:
            if waits:
                afar.pass_over(name)
            _send(way, parcel, name, to, quiet=as_json)
        except CarrierError as error:
            raise NotSentError(error.message) from error
        if not waits:
            if as_json:
                print_json({"name": name, "files": [file.name for file in parcel.files]})
            return
        waiting = Waiting(afar, [name], quiet=as_json)
        try:
            code = waiting.run(timeout)
        except (KeyboardInterrupt, SystemExit):
            echo(
                f"incomingctl: {name} was sent, and goes its way; to follow it there: incomingctl wait {name}", err=True
            )
            raise
        if as_json:
            print_json(waiting.found)
        ctx.exit(code)


def _terminated(number: int, frame: object) -> NoReturn:
    raise SystemExit(TERMINATED)


def _unique(stem: str) -> str:
    """A name that tells people what it is, and that no other upload has."""
    plain = re.sub(r"[^A-Za-z0-9._+~-]", "-", stem)[:_LONGEST_STEM]
    return f"{plain}-{uuid.uuid4().hex[:12]}"


def _send(way: Carrier, parcel: Parcel, name: str, to: str, *, quiet: bool) -> None:
    count = len(parcel.files)
    what = f"{count} file{'' if count == 1 else 's'}, {parcel.size / 1e6:.1f} MB"
    with under_way(quiet=quiet) as show:
        show([f"sending {what} to {to}"])
        way.send(parcel.files, name)
    if not quiet:
        echo(f"{name}: sent to {to} ({what})")


def _digests(parcel: Parcel) -> frozenset[str]:
    """The SHA-256 of each .changes."""
    changes = (file for file in parcel.files if file.suffix == ".changes")
    return frozenset(hashlib.sha256(file.read_bytes()).hexdigest() for file in changes)


class _Afar:
    """The status files as a carrier reads them. A host that cannot be reached for a while is waited for.

    ``digests`` are those of the .changes that were sent: a status that names others is another upload's.
    """

    def __init__(self, way: Carrier, folder: str, digests: frozenset[str]) -> None:
        self._way = way
        self._folder = folder
        self._digests = digests
        self._older = 0
        self._seen = False
        self._index: dict[str, Any] | None = None
        self._index_at = float("-inf")
        self._lost_at: float | None = None
        self._nothing_since: float | None = None

    def pass_over(self, name: str) -> None:
        """What NAME.json says now is of an older upload."""
        found = self._read(f"{name}.json")
        self._older = found["id"] if found else 0

    def upload(self, name: str) -> dict[str, Any] | None:
        """The upload, from NAME.json; or, once that was seen, by its id."""
        number = called.number(name)
        found = self._read(f"{name}.json" if number is None else f"by-id/{number}.json")
        if found is not None and found["id"] <= self._older:
            found = None
        if found is not None:
            self._check_ours(found)
        self._seen = self._seen or found is not None
        return found

    def _check_ours(self, found: dict[str, Any]) -> None:
        # Before it is checked, and by an older daemon, no digest is told.
        told = {one.get("sha256") for one in found["changes"]} - {None, ""}
        if not told <= self._digests:
            raise CarrierError(
                f"{found['name']}: it was sent, and {self._folder}/{found['name']}.json is the status of another "
                f"upload, #{found['id']} of {account(found)}: the name is taken; send it again under another --name"
            )

    def is_others(self, upload: dict[str, Any]) -> bool:
        """The account there is not known here; :meth:`upload` has compared the content."""
        return False

    def look(self, name: str) -> tuple[bool, dict[str, Any] | None]:
        """The upload, and whether its status is not there yet."""
        found = self.upload(name)
        return found is None, found

    def halted(self) -> str | None:
        """As index.json has it."""
        return stopped_by(self._service(), "halted")

    def held(self) -> str | None:
        """As index.json has it."""
        return stopped_by(self._service(), "held")

    def _service(self) -> dict[str, Any] | None:
        if time.monotonic() >= self._index_at + _INDEX_EVERY:
            self._index, self._index_at = self._read("index.json"), time.monotonic()
            self._doubt_folder()
        return self._index

    def _doubt_folder(self) -> None:
        """Every instance has an index.json: without one it would be waited for in vain."""
        if self._index is not None or self._seen or self._lost_at is not None:
            self._nothing_since = None
            return
        now = time.monotonic()
        self._nothing_since = now if self._nothing_since is None else self._nothing_since
        if now - self._nothing_since > _NO_STATUS:
            raise CarrierError(
                f"it was sent, and {self._folder} has no index.json, or it cannot be read there; "
                "name the status folder with --status"
            )

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            data = self._way.read(f"{self._folder}/{name}")
        except CarrierError:
            now = time.monotonic()
            self._lost_at = now if self._lost_at is None else self._lost_at
            if now - self._lost_at > _OUT_OF_REACH:
                raise
            return None
        self._lost_at = None
        try:
            value = None if data is None else json.loads(data)
        except ValueError as error:
            raise CarrierError(f"{self._folder}/{name} is not a status file of incomingd: {error}") from error
        return value if isinstance(value, dict) else None
