"""Real gpg keys, in a home of their own."""

import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

#: Where keys that are over by now were in force, for ``--faked-system-time``.
LONG_AGO = "20200101T000000"


class Keys:
    """A gnupg home: secret keys to sign with, and their public halves as files. Use it as a context.

    The home lies directly below the temporary folder: the path of the agent's socket must be short.
    """

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="incomingd-keys-"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        subprocess.run(["gpgconf", "--homedir", self.home, "--kill", "all"], capture_output=True, check=False)
        shutil.rmtree(self.home, ignore_errors=True)

    def gpg(self, *arguments: str | Path, data: bytes = b"") -> bytes:
        """What gpg puts out; it must end well."""
        command = ["gpg", "--homedir", self.home, "--batch", "--quiet", "--pinentry-mode", "loopback", *arguments]
        done = subprocess.run(command, input=data, capture_output=True)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout

    def make(
        self, name: str = "Builder", *, expires: str = "never", options: tuple[str, ...] = (), usage: str = "sign"
    ) -> str:
        """An ed25519 key, which signs unless ``usage`` says otherwise; its fingerprint."""
        user = f"{name} <{name.lower().replace(' ', '.')}@example.org>"
        said = self.gpg(
            *options, *("--status-fd", "1", "--passphrase", "", "--quick-gen-key", user, "ed25519", usage, expires)
        )
        created = next(line for line in said.decode().splitlines() if " KEY_CREATED " in line)
        return created.split()[-1]

    def make_expired(self, name: str = "Expired") -> str:
        """A key whose time was over long ago; sign with ``at=LONG_AGO``."""
        return self.make(name, expires="seconds=86400", options=("--faked-system-time", LONG_AGO))

    def make_revoked(self, name: str = "Revoked") -> tuple[str, bytes]:
        """A key and its revocation, which :meth:`revoke` takes up: a revoked key signs nothing more."""
        key = self.make(name)
        certificate = (self.home / "openpgp-revocs.d" / f"{key}.rev").read_bytes()
        return key, certificate.replace(b":-----BEGIN", b"-----BEGIN")

    def revoke(self, certificate: bytes) -> None:
        """Take up a revocation."""
        self.gpg("--import", data=certificate)

    def add_subkey(self, key: str, *, expires: str = "never") -> str:
        """A subkey that signs; its fingerprint. gpg then signs with it, unless told otherwise."""
        self.gpg("--passphrase", "", "--quick-add-key", key, "ed25519", "sign", expires)
        listed = self.gpg("--with-colons", "--with-subkey-fingerprint", "--list-keys", key).decode().splitlines()
        return [line.split(":")[9] for line in listed if line.startswith("fpr:")][-1]

    def sign(self, text: bytes | str, key: str, *options: str, at: str = "") -> bytes:
        """``text``, clear-signed. ``at``: the time that gpg is to believe in."""
        time = ("--faked-system-time", at) if at else ()
        data = text.encode() if isinstance(text, str) else text
        return self.gpg(*time, *options, "--local-user", key, "--clearsign", "--output", "-", data=data)

    def public(self, *keys: str) -> Path:
        """A file with the public halves, for ``incomingctl trust``."""
        file = self.home / f"{'-'.join(key[-8:] for key in keys) or 'all'}.asc"
        file.write_bytes(self.gpg("--armor", "--export", *keys))
        return file
