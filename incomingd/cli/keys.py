"""``incomingctl keys``: who may upload, until when, and what."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from incomingd.cli.common import Instance, echo, json_option, needs_instance, print_json, print_table
from incomingd.cli.terminal import bad
from incomingd.config import UploaderRule
from incomingd.rights import rights_of
from incomingd.verify.keyring import Keyring
from incomingd.verify.keys import Uploader


@click.command()
@json_option
@needs_instance
def keys(instance: Instance, as_json: bool) -> None:
    """List the keys that are trusted for uploads: until when, and what each may upload.

    A key whose uploads are refused now is named with the reason.
    """
    instance.become_owner()
    found = Keyring(instance.places.uploaders_home).load().uploaders
    table, now = instance.config.uploaders, datetime.now(UTC)
    if as_json:
        print_json([_as_data(uploader, table, now) for uploader in found])
        return
    print_table(
        ("KEY", "UNTIL", "MAY UPLOAD", "NAME"),
        (
            (
                uploader.primary.fingerprint,
                bad(uploader.fault(now)) or uploader.expiry(now),
                "; ".join(_allowed(uploader, table)),
                ", ".join(uploader.names),
            )
            for uploader in found
        ),
    )
    if not found:
        echo("no key is trusted yet; incomingctl trust KEYFILE takes one up")


def _allowed(uploader: Uploader, table: Sequence[UploaderRule]) -> Iterator[str]:
    """What the table of uploaders lets the key upload, a phrase for each rule."""
    if not table:
        yield "everything"
        return
    mine = list(_rules(uploader, table))
    if not mine:
        yield "nothing: no [[uploaders]] names it"
    for rule in mine:
        words = [f"{', '.join(rule.sources)} to {', '.join(rule.suites)}"]
        words += [f"components {', '.join(rule.components)}"] if rule.components != ("*",) else []
        words += [f"binaries {', '.join(rule.binaries)}"] if rule.binaries else []
        words += ["no sources"] if rule.binaries_only else []
        words += ["essential too"] if rule.essential else []
        yield ", ".join(words)


def _rules(uploader: Uploader, table: Sequence[UploaderRule]) -> Iterator[UploaderRule]:
    """The rules that count for one of its keys."""
    found = (rule for key in uploader.keys for rule in rights_of(table, key.fingerprint).rules)
    yield from dict.fromkeys(found)


def _as_data(uploader: Uploader, table: Sequence[UploaderRule], now: datetime) -> dict[str, Any]:
    """``expires``: a date, or null. ``may_upload``: a phrase for each rule."""
    expiry = uploader.expiry(now)
    return {
        "fingerprint": uploader.primary.fingerprint,
        "names": list(uploader.names),
        "expires": None if expiry == "never" else expiry,
        "fault": uploader.fault(now),
        "may_upload": list(_allowed(uploader, table)),
    }
