"""``incomingctl trust`` and ``untrust``: who may upload. Both change the uploaders' keyring, which the daemon reads
anew at the next check."""

from typing import BinaryIO

import click

from incomingd.cli.edge import FAILED, Instance, json_option, needs_instance, print_json
from incomingd.verify.keyring import Keyring, KeyringError, Uploader


def trust_key(keyring: Keyring, file: BinaryIO) -> list[Uploader]:
    """Take up a key file. Raises ``click.ClickException`` where it cannot be used."""
    try:
        return keyring.trust(file.read())
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
    if as_json:
        print_json([{"fingerprint": key.primary.fingerprint, "names": list(key.names)} for key in found])
        return
    for key in found:
        click.echo(f"trusted: {key.primary.fingerprint} {', '.join(key.names)}")


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
        click.echo(f"incomingctl: {error}", err=True)
        ctx.exit(FAILED)
    if as_json:
        print_json({"fingerprint": fingerprint.replace(" ", "").upper()})
    else:
        click.echo(f"no longer trusted: {fingerprint}")
