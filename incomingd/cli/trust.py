"""``incomingctl trust`` and ``untrust``: who may upload. Both change the uploaders' keyring, which the daemon reads
anew at the next check."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import BinaryIO

import click

from incomingd.cli.common import FAILED, Instance, echo, json_option, needs_instance, print_json
from incomingd.verify.keyring import MAX_FILE, Keyring, KeyringError
from incomingd.verify.keys import Uploader


def trust_key(keyring: Keyring, file: BinaryIO) -> list[Uploader]:
    """Take up a key file. Raises ``click.ClickException`` where it cannot be used."""
    try:
        return keyring.trust(file.read(MAX_FILE + 1))
    except KeyringError as error:
        raise click.ClickException(f"{file.name}: {error}") from error


@click.command()
@click.argument("keyfile", type=click.File("rb"))
@json_option
@needs_instance
def trust(instance: Instance, keyfile: BinaryIO, as_json: bool) -> None:
    """Let the owners of the public keys in KEYFILE upload (- reads standard input).

    The file is what `gpg --armor --export KEY` prints. Which sources and suites a key may upload is for the
    [[uploaders]] tables of the configuration; without any, every trusted key may upload everything.
    """
    instance.become_owner()
    found = trust_key(Keyring(instance.places.uploaders_home), keyfile)
    warn(found, instance.config.archive.signing_keys)
    if as_json:
        print_json([as_data(key) for key in found])
        return
    for key in found:
        echo(f"trusted: {key.primary.fingerprint} {', '.join(key.names)}")


def as_data(key: Uploader) -> dict[str, object]:
    """For ``--json``; ``fault``: why no upload that it signs is taken now, empty if there is no reason."""
    fault = key.fault(datetime.now(UTC))
    return {"fingerprint": key.primary.fingerprint, "names": list(key.names), "fault": fault}


def warn(trusted: Iterable[Uploader], signing_keys: Iterable[str]) -> None:
    """Say on standard error which of the keys are good for no upload, or are better not used for any."""
    own = frozenset(signing_keys)
    for key in trusted:
        for note in _notes(key, own):
            echo(f"warning: {key.primary.fingerprint}: {note}", err=True)


def _notes(uploader: Uploader, signing_keys: frozenset[str]) -> Iterator[str]:
    if fault := uploader.fault(datetime.now(UTC)):
        yield f"{fault}, so no upload that it signs is taken; have it extended or replaced, and trust it again"
    if any(key.fingerprint in signing_keys for key in uploader.keys):
        yield (
            "it is the archive's own signing key, and may upload too from now on; use another key for uploads: every "
            "machine that uploads would have the key that clients trust"
        )


@click.command()
@click.argument("fingerprint", metavar="FPR")
@json_option
@needs_instance
@click.pass_context
def untrust(ctx: click.Context, instance: Instance, fingerprint: str, as_json: bool) -> None:
    """Trust the key with the full fingerprint FPR no longer. What it uploaded stays."""
    instance.become_owner()
    try:
        Keyring(instance.places.uploaders_home).untrust(fingerprint)
    except KeyringError as error:
        echo(f"incomingctl: {error}", err=True)
        ctx.exit(FAILED)
    if as_json:
        print_json({"fingerprint": fingerprint.replace(" ", "").upper()})
    else:
        echo(f"no longer trusted: {fingerprint}")
