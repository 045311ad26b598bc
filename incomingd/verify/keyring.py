"""The keyring of those who may upload.

It is a gnupg home, kept by gpg, and beside it two files that are made from it after each change: ``uploaders.gpg``,
the public keys for gpgv, and ``uploaders.json``, what has to be known of each key and what gpgv does not ask: whether
it has expired, is revoked or disabled. The daemon reads only these two. They are replaced by rename, the table last; a
key that is in one only counts as unknown.
"""

import contextlib
import fcntl
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import gnupg

from incomingd import codec, fsio
from incomingd.errors import Retry


class KeyringError(Exception):
    """A key file or fingerprint cannot be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A primary key or a subkey. ``expires`` is seconds since the epoch, 0 for never; ``revoked`` is also disabled."""

    fingerprint: str
    expires: int
    revoked: bool

    def expired(self, now: datetime) -> bool:
        """True where its time is over."""
        return bool(self.expires) and self.expires <= now.timestamp()


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
        self._home = home
        self.public = home.with_name(home.name + ".gpg")
        self._table = home.with_name(home.name + ".json")

    def load(self) -> KeyTable:
        """The table as it is now; empty where nobody is trusted yet."""
        try:
            return KeyTable(codec.loads(self._table.read_bytes(), tuple[Uploader, ...]))
        except FileNotFoundError:
            return KeyTable(())
        except OSError as error:
            raise Retry(f"{self._table}: cannot be read: {error.strerror}") from error

    def prepare(self) -> None:
        """Make what is missing: an empty keyring."""
        with self._locked():
            if not self._table.exists():
                self._publish()

    def trust(self, armored_or_binary: bytes) -> list[Uploader]:
        """Take up the public keys of a file; those that it held. Raises :class:`KeyringError`."""
        if b"PRIVATE KEY BLOCK" in armored_or_binary:
            raise KeyringError("the file holds a secret key; export the public one with: gpg --armor --export")
        with self._locked():
            result = self._gpg().import_keys(armored_or_binary)
            found = list(dict.fromkeys(fingerprint for fingerprint in result.fingerprints if fingerprint))
            if result.sec_imported or result.sec_read:
                for fingerprint in found:
                    self._gpg().delete_keys(fingerprint, secret=True, expect_passphrase=False)
            if not found:
                raise KeyringError("the file holds no OpenPGP public key; export one with: gpg --armor --export")
            self._publish()
        known = {uploader.primary.fingerprint: uploader for uploader in self.load().uploaders}
        return [known[fingerprint] for fingerprint in found if fingerprint in known]

    def untrust(self, fingerprint: str) -> None:
        """Forget a key, named by a full fingerprint. Raises :class:`KeyringError` where it is not trusted."""
        with self._locked():
            found = self.load().find(fingerprint)
            if found is None:
                raise KeyringError(f"no trusted key has the fingerprint {fingerprint}; see: incomingctl trust --list")
            result = self._gpg().delete_keys(found[0].primary.fingerprint)
            if result.status != "ok":
                raise KeyringError(f"gpg cannot delete {fingerprint}: {result.status}")
            self._publish()

    def _gpg(self) -> gnupg.GPG:
        return gnupg.GPG(gnupghome=str(self._home), options=["--no-autostart"])

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        fsio.make_directories(self._home, 0o700)
        with (self._home / "incomingd.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _publish(self) -> None:
        uploaders = _listed(self._run("--with-colons", "--fixed-list-mode", "--fingerprint", "--list-keys"))
        keys = self._run("--export") if uploaders else b""
        fsio.write_durable(self.public, keys, 0o600)
        fsio.write_durable(self._table, codec.dumps(uploaders).encode(), 0o600)

    def _run(self, *arguments: str) -> bytes:
        command = ["gpg", "--homedir", str(self._home), "--batch", "--no-tty", "--quiet", "--no-autostart"]
        # --with-subkey-fingerprint: the fingerprints of subkeys too, on every version of gpg.
        command += ["--with-subkey-fingerprint", *arguments]
        environment = {**os.environ, "LC_ALL": "C"}
        done = subprocess.run(command, capture_output=True, env=environment, check=False)
        if done.returncode != 0:
            raise KeyringError(f"gpg failed on {self._home}: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout


def _listed(colons: bytes) -> tuple[Uploader, ...]:
    """The keys of ``gpg --with-colons --list-keys`` (GnuPG's doc/DETAILS)."""
    uploaders: list[Uploader] = []
    keys: list[Key] = []
    names: list[str] = []
    pending: list[str] | None = None

    def finish() -> None:
        if keys:
            uploaders.append(Uploader(primary=keys[0], subkeys=tuple(keys[1:]), names=tuple(names)))
        keys.clear()
        names.clear()

    for line in colons.decode("utf-8", "replace").splitlines():
        fields = line.split(":")
        if fields[0] in ("pub", "sub"):
            if fields[0] == "pub":
                finish()
            pending = fields
        elif fields[0] == "fpr" and pending is not None:
            # Field 2 is the validity (r revoked, i invalid); a D among the capabilities of field 12 is disabled.
            revoked = pending[1] in ("r", "i", "d") or "D" in pending[11]
            keys.append(Key(fingerprint=fields[9], expires=int(pending[6] or 0), revoked=revoked))
            pending = None
        elif fields[0] == "uid":
            names.append(fields[9])
    finish()
    return tuple(uploaders)


def expiry(key: Key) -> str:
    """When a key expires, for people."""
    return datetime.fromtimestamp(key.expires, UTC).date().isoformat() if key.expires else "never"
