"""The keyring of those who may upload.

It is a gnupg home, kept by gpg, and beside it two files that are made from it after each change: ``uploaders.gpg``,
the public keys for gpgv, and ``uploaders.json``, what has to be known of each key and what gpgv does not ask: whether
it has expired, is revoked or disabled, and may sign. Checks read only these two. They are replaced by rename, the table
last; a key that is in one only counts as unknown.

Rules: a key or subkey has one owner. A file that has a key of another trusted key is refused whole. So is one with
anything that is not a key (:mod:`.openpgp`): gpg gets nothing else. That a primary key has bound a subkey does not show
that it is its own: gpgv refuses signatures by a subkey that has not signed for that itself (a back-signature). A
keyring of an earlier version may have keys with two owners: :attr:`KeyTable.shared` tells which.

Changes take a lock, so the daemon and the command line may meet here. No gpg-agent is started: public keys need none,
and its socket could not lie in a home with a long path. Fails with :class:`KeyringError` where a key file or a
fingerprint cannot be used, and with ``Retry`` where the disk or gpg itself is at fault.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from incomingd import codec, fsio
from incomingd.errors import Retry
from incomingd.model import plain
from incomingd.sandbox import limits
from incomingd.verify import openpgp
from incomingd.verify.keys import KeyTable, Shared, Uploader, listed

if TYPE_CHECKING:
    import gnupg

#: A key file is at most so large: Debian's keyring of all developers has 30 MiB.
MAX_FILE = 64 << 20
#: Seconds of processor time for gpg to look through a key file. Debian's keyring takes some 5.
_PROCESSOR = 60


class KeyringError(Exception):
    """A key file or fingerprint cannot be used; the message says why and what to do."""


class Keyring:
    """The uploaders' keyring in the gnupg home ``home``."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.public = home.with_name(home.name + ".gpg")
        self._table = home.with_name(home.name + ".json")
        self._loaded: tuple[tuple[int, int, int], KeyTable] | None = None

    @property
    def files(self) -> tuple[Path, Path]:
        """What a check reads."""
        return self.public, self._table

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
        keys = _only_keys(keys)
        with self._locked():
            new = listed(self._run("--import-options", "show-only", "--import", data=keys, fault=False))
            if not new:
                raise KeyringError("the file holds no OpenPGP public key; make one with: gpg --armor --export KEY")
            _refuse_shared(self._listed(), new)
            self._gpg().import_keys(keys)
            self._publish()
        table = self.load()
        found = dict.fromkeys(uploader.primary.fingerprint for uploader in new)
        known = [entry[0] for primary in found if (entry := table.find(primary, primary))]
        if len(known) < len(found):
            raise KeyringError("gpg does not import a key of the file: it has no valid user ID or self-signature")
        return known

    def untrust(self, fingerprint: str) -> None:
        """Forget a key, named by a full fingerprint. Raises :class:`KeyringError` where it is not trusted."""
        wanted = fingerprint.replace(" ", "").upper()
        with self._locked():
            table = self.load()
            found = table.find(wanted, wanted) or table.find(wanted)
            if found is None:
                raise KeyringError(
                    f'no trusted key has the fingerprint "{plain(fingerprint)}"; all 40 hex digits are needed'
                )
            shared = table.owners(wanted)
            if shared and found[0].primary.fingerprint != wanted:
                raise KeyringError(f"{shared}; name one of these two primary keys")
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
        uploaders = self._listed()
        # gpgv reads the whole keyring for each signature: without the signatures of others on it, it is far shorter.
        keys = self._run("--export-options", "export-minimal", "--export") if uploaders else b""
        table = codec.dumps(uploaders).encode()
        if not (fsio.holds(self.public, keys) and fsio.holds(self._table, table)):
            fsio.write_durable(self.public, keys, 0o600)
            fsio.write_durable(self._table, table, 0o600)

    def _listed(self) -> tuple[Uploader, ...]:
        """The keys in the home, the first that was trusted first."""
        return listed(self._run("--fixed-list-mode", "--list-keys"))

    def _run(self, *arguments: str, data: bytes = b"", fault: bool = True) -> bytes:
        """gpg's output. ``fault``: only the machine can make it fail. Else ``data`` can, and gpg has limited time."""
        command = ["gpg", "--homedir", str(self.home), "--batch", "--no-tty", "--quiet", "--no-autostart"]
        # Twice --with-fingerprint: those of the subkeys too, on every version of gpg.
        command += ["--with-colons", "--with-fingerprint", "--with-fingerprint", *arguments]
        environment = {**os.environ, "LC_ALL": "C"}
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment) as process:
            if not fault:
                limits.give_processor(process.pid, _PROCESSOR)
            output, errors = process.communicate(data)
        if not fault and process.returncode == -signal.SIGXCPU:
            raise KeyringError(f"gpg takes more than {_PROCESSOR} s to read the file; trust its keys one by one")
        if fault and process.returncode != 0:
            raise Retry(f"gpg fails on {self.home}: {errors.decode(errors='replace').strip()}")
        return output


def _only_keys(file: bytes) -> bytes:
    """The public keys of a file, without armor. Raises :class:`KeyringError` if anything else is in it."""
    if len(file) > MAX_FILE:
        raise KeyringError(f"the file has more than {MAX_FILE >> 20} MiB")
    try:
        packets = openpgp.key_packets(file)
    except openpgp.OpenPGPError as error:
        raise KeyringError(
            f"the file holds no OpenPGP public key: {error}; make one with: gpg --armor --export KEY"
        ) from error
    if any(packet.tag in (openpgp.Tag.SECRET_KEY, openpgp.Tag.SECRET_SUBKEY) for packet in packets):
        raise KeyringError("the file holds a secret key; export the public one with: gpg --armor --export KEY")
    return b"".join(packet.raw for packet in packets)


def _refuse_shared(trusted: Iterable[Uploader], new: Iterable[Uploader]) -> None:
    """Raise :class:`KeyringError` if a key of a file is another one's already, of the keyring or of the file itself."""
    owners: dict[str, Uploader] = {}
    for uploader in trusted:
        for key in uploader.keys:
            owners.setdefault(key.fingerprint, uploader)
    for uploader in new:
        for key in uploader.keys:
            owner = owners.setdefault(key.fingerprint, uploader)
            if owner.primary.fingerprint != uploader.primary.fingerprint:
                shared = Shared(fingerprint=key.fingerprint, owners=(owner, uploader))
                first = owner.primary.fingerprint
                raise KeyringError(
                    f"{shared}, and a key has one owner: nothing of the file was taken up. Ask both whose it is. If it "
                    f"does not belong to {first}, run incomingctl untrust {first} first"
                )
