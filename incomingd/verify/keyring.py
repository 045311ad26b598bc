"""The keyring of those who may upload.

It is a gnupg home, kept by gpg, and beside it two files that are made from it after each change: ``uploaders.gpg``,
the public keys for gpgv, and ``uploaders.json``, what has to be known of each key and what gpgv does not ask: whether
it has expired, is revoked or disabled, and may sign. Checks read only these two. They are replaced by rename, the table
last; a key that is in one only counts as unknown.

Changes take a lock, so the daemon and the command line may meet here. No gpg-agent is started: public keys need none,
and its socket could not lie in a home with a long path. Fails with :class:`KeyringError` where a key file or a
fingerprint cannot be used, and with ``Retry`` where the disk or gpg itself is at fault.
"""

import contextlib
import fcntl
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from incomingd import codec, fsio
from incomingd.errors import Retry
from incomingd.model import plain

if TYPE_CHECKING:
    import gnupg

_ESCAPED = re.compile(r"\\x([0-9a-f]{2})", re.ASCII)


class KeyringError(Exception):
    """A key file or fingerprint cannot be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A primary key or a subkey. ``expires`` is seconds since the epoch, 0 for never; ``revoked`` is also disabled."""

    fingerprint: str
    expires: int
    revoked: bool
    signs: bool

    def expired(self, now: datetime) -> bool:
        """True where its time is over."""
        return bool(self.expires) and self.expires <= now.timestamp()

    @property
    def expiry(self) -> str:
        """The day on which it expires, for people."""
        return datetime.fromtimestamp(self.expires, UTC).date().isoformat() if self.expires else "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploader:
    """One trusted key with its subkeys and the names on it."""

    primary: Key
    subkeys: tuple[Key, ...]
    names: tuple[str, ...]


class KeyTable:
    """What has to be known of the trusted keys, by the fingerprint of the primary key or of a subkey."""

    def __init__(self, uploaders: tuple[Uploader, ...]) -> None:
        self.uploaders = uploaders
        self._by_fingerprint = {
            key.fingerprint: (uploader, key) for uploader in uploaders for key in (uploader.primary, *uploader.subkeys)
        }

    def find(self, fingerprint: str) -> tuple[Uploader, Key] | None:
        """The uploader and the very key that has that fingerprint."""
        return self._by_fingerprint.get(fingerprint)


class Keyring:
    """The uploaders' keyring in the gnupg home ``home``."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.public = home.with_name(home.name + ".gpg")
        self._table = home.with_name(home.name + ".json")
        self._loaded: tuple[tuple[int, int, int], KeyTable] | None = None

    def load(self) -> KeyTable:
        """The table as it is now, read anew only where it was replaced; empty where nobody is trusted yet."""
        try:
            with self._table.open("rb") as file:
                status = os.fstat(file.fileno())
                stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
                if self._loaded is None or self._loaded[0] != stamp:
                    self._loaded = (stamp, KeyTable(codec.loads(file.read(), tuple[Uploader, ...])))
                return self._loaded[1]
        except FileNotFoundError:
            return KeyTable(())
        except OSError as error:
            raise Retry(f"{self._table}: cannot be read: {error.strerror}") from error
        except codec.CodecError as error:
            raise Retry(f"{self._table}: is damaged; incomingctl trust KEYFILE writes it anew ({error})") from error

    def prepare(self) -> None:
        """Make what is missing, and take up what an operator changed in the home with gpg itself (disable, revoke)."""
        with self._locked():
            self._publish()

    def trust(self, keys: bytes) -> list[Uploader]:
        """Take up the public keys of a file, armored or binary; return them. Raises :class:`KeyringError`."""
        with self._locked():
            records = self._records(self._run("--import-options", "show-only", "--import", data=keys, fault=False))
            if {"sec", "ssb"} & {record[0] for record in records}:
                raise KeyringError("the file holds a secret key; export the public one with: gpg --armor --export KEY")
            found = [uploader.primary.fingerprint for uploader in _uploaders(records)]
            if not found:
                raise KeyringError("the file holds no OpenPGP public key; make one with: gpg --armor --export KEY")
            self._gpg().import_keys(keys)
            self._publish()
        table = self.load()
        known = [entry[0] for fingerprint in found if (entry := table.find(fingerprint))]
        if len(known) < len(found):
            raise KeyringError("gpg does not import a key of the file: it has no valid user ID or self-signature")
        return known

    def untrust(self, fingerprint: str) -> None:
        """Forget a key, named by a full fingerprint. Raises :class:`KeyringError` where it is not trusted."""
        wanted = fingerprint.replace(" ", "").upper()
        with self._locked():
            found = self.load().find(wanted)
            if found is None:
                raise KeyringError(
                    f'no trusted key has the fingerprint "{plain(fingerprint)}"; all 40 hex digits are needed'
                )
            result = self._gpg().delete_keys(found[0].primary.fingerprint)
            if result.status != "ok":
                raise KeyringError(f"gpg cannot delete {wanted}: {result.status}")
            self._publish()

    def _gpg(self) -> "gnupg.GPG":
        # Only those who change the keyring need it; the check workers start faster without.
        import gnupg

        return gnupg.GPG(gnupghome=str(self.home), options=["--no-autostart"])

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            fsio.make_directories(self.home, 0o700)
            with (self.home / "incomingd.lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise Retry(f"{self.home}: {error.strerror or error}") from error

    def _publish(self) -> None:
        uploaders = _uploaders(self._records(self._run("--fixed-list-mode", "--list-keys")))
        # gpgv reads the whole keyring for each signature: without the signatures of others on it, it is far shorter.
        keys = self._run("--export-options", "export-minimal", "--export") if uploaders else b""
        table = codec.dumps(uploaders).encode()
        if not (fsio.holds(self.public, keys) and fsio.holds(self._table, table)):
            fsio.write_durable(self.public, keys, 0o600)
            fsio.write_durable(self._table, table, 0o600)

    def _records(self, colons: bytes) -> list[list[str]]:
        """The records of ``gpg --with-colons`` (GnuPG's doc/DETAILS)."""
        return [line.split(":") for line in colons.decode("utf-8", "replace").split("\n")]

    def _run(self, *arguments: str, data: bytes = b"", fault: bool = True) -> bytes:
        command = ["gpg", "--homedir", str(self.home), "--batch", "--no-tty", "--quiet", "--no-autostart"]
        # Twice --with-fingerprint: those of the subkeys too, on every version of gpg.
        command += ["--with-colons", "--with-fingerprint", "--with-fingerprint", *arguments]
        environment = {**os.environ, "LC_ALL": "C"}
        done = subprocess.run(command, input=data, capture_output=True, env=environment, check=False)
        if fault and done.returncode != 0:
            raise Retry(f"gpg fails on {self.home}: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout


def _uploaders(records: list[list[str]]) -> tuple[Uploader, ...]:
    uploaders: list[Uploader] = []
    keys: list[Key] = []
    names: list[str] = []
    pending: list[str] = []

    def finish() -> None:
        if keys:
            uploaders.append(Uploader(primary=keys[0], subkeys=tuple(keys[1:]), names=tuple(names)))
        keys.clear()
        names.clear()

    for record in records:
        if record[0] == "pub":
            finish()
        if record[0] in ("pub", "sub"):
            pending = record
        elif record[0] == "fpr" and pending:
            keys.append(_key(pending, record[9]))
            pending = []
        elif record[0] == "uid":
            names.append(_ESCAPED.sub(lambda match: chr(int(match[1], 16)), record[9]))
    finish()
    return tuple(uploaders)


def _key(record: list[str], fingerprint: str) -> Key:
    """One key. Field 2 is its validity (r revoked, i invalid, d disabled), field 12 what it can do (D: disabled)."""
    return Key(
        fingerprint=fingerprint,
        expires=int(record[6] or 0),
        revoked=record[1] in ("r", "i", "d") or "D" in record[11],
        signs="s" in record[11],
    )
