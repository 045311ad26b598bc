"""The archive's own keys: makes, checks, uses and exports them. The only place that signs.

Rules: every configured key signs every Release, so that a key can be rotated. gpg never asks anybody anything: a key
with a passphrase is no usable key here. What is wrong with a key is a :class:`Halt`; what is wrong with the machine (no
memory, no agent, a full disk, no answer in time) is a :class:`Retry`.
"""

import os
import shutil
import subprocess
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import gnupg

from incomingd.errors import Halt, Retry

#: gpg's agent listens in its home; sun_path of unix(7) holds 108 bytes, and S.gpg-agent.browser is the longest name.
_LONGEST_HOME = 107 - len("/S.gpg-agent.browser")
#: Seconds for one call of gpg; it takes some 20 ms.
_PATIENCE = 60
#: Words of gpg's that say that the machine is at fault, not the key.
_ENVIRONMENT = ("No space left", "Out of memory", "Cannot allocate", "can't connect to", "No agent running", "Too many")


@dataclass(frozen=True, slots=True)
class Signatures:
    """A signed Release: InRelease is the text itself, clear-signed; Release.gpg is apart from it."""

    inrelease: bytes
    release_gpg: bytes


class Signer:
    """The signing keys of one archive, in the gnupg home ``home``; ``keys`` are full fingerprints."""

    def __init__(self, home: Path, keys: tuple[str, ...]) -> None:
        self._home = home
        self._keys = keys
        self._lock = threading.Lock()
        self._short: Path | None = None
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="sign")

    def create_key(self, name: str) -> str:
        """Make an ed25519 key without passphrase and without end; its fingerprint."""
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        gpg = gnupg.GPG(gnupghome=str(self._reachable_home()))
        wanted = {"key_type": "eddsa", "key_curve": "ed25519", "key_usage": "sign", "expire_date": "0"}
        made = gpg.gen_key(gpg.gen_key_input(name_real=name, name_email="", no_protection=True, **wanted))
        if not made.fingerprint:
            raise Halt(f"{self._home}: gpg made no key: {made.stderr}")
        return str(made.fingerprint)

    def usable(self) -> None:
        """Raise :class:`Halt` where not every configured key can sign now."""
        if not self._keys:
            raise Halt("no usable signing key: [archive] signing_keys is empty; name the key in it")
        missing = [key for key in self._keys if not self._has_secret(key)]
        if missing:
            raise Halt(
                f"no usable signing key: {self._home} has no secret key {', '.join(missing)}; import it there "
                "(gpg --homedir … --import), or correct [archive] signing_keys, and reload"
            )
        self.sign(b"Test: this is never published\n")

    def _has_secret(self, key: str) -> bool:
        if not self._home.is_dir():
            return False
        listed = self._run(["--with-colons", "--list-secret-keys", key], b"", check=False)
        return b"\nfpr:" in b"\n" + listed and key.encode() in listed

    def sign(self, release: bytes) -> Signatures:
        """Sign the text of a Release both ways, with every key."""
        users = [word for key in self._keys for word in ("--local-user", key)]
        # Two processes side by side: each waits for the agent most of the time.
        apart = self._threads.submit(self._run, [*users, "--armor", "--detach-sign"], release)
        inrelease = self._run([*users, "--armor", "--clear-sign"], release)
        return Signatures(inrelease=inrelease, release_gpg=apart.result())

    def export(self, armor: bool) -> bytes:
        """The public keys."""
        return self._run(
            [*(["--armor"] if armor else []), "--export-options", "export-minimal", "--export", *self._keys]
        )

    def _run(self, arguments: list[str], data: bytes = b"", *, check: bool = True) -> bytes:
        quiet = ["--batch", "--no-tty", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
        # gpg would take a short word for a key; the fingerprints here are whole.
        command = ["gpg", "--homedir", str(self._reachable_home()), *quiet, "--digest-algo", "SHA512", *arguments]
        environment = {**os.environ, "LC_ALL": "C"}
        try:
            done = subprocess.run(
                command, input=data, capture_output=True, timeout=_PATIENCE, env=environment, check=False
            )
        except FileNotFoundError as error:
            raise Halt("gpg is not installed; install Debian's package gnupg") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Retry(f"gpg cannot be used now: {error}") from error
        if check and (done.returncode != 0 or not done.stdout):
            self._failed(done.stderr.decode(errors="replace").strip())
        return done.stdout

    def _failed(self, said: str) -> None:
        last = said.splitlines()[-1] if said else "nothing"
        if any(word in said for word in _ENVIRONMENT):
            raise Retry(f"gpg cannot sign now; it said: {last}")
        raise Halt(f"no usable signing key among {', '.join(self._keys)} in {self._home}; gpg said: {last}")

    def _reachable_home(self) -> Path:
        """The home, or a short name for it where the agent's socket would have too long a one."""
        if len(os.fsencode(self._home)) <= _LONGEST_HOME:
            return self._home
        with self._lock:
            if self._short is None:
                self._short = Path(tempfile.mkdtemp(prefix="incomingd-"))
                (self._short / "home").symlink_to(self._home)
            return self._short / "home"

    def close(self) -> None:
        """End the agent that gpg started."""
        self._threads.shutdown()
        if self._home.is_dir() and shutil.which("gpgconf"):
            command = ["gpgconf", "--homedir", str(self._reachable_home()), "--kill", "gpg-agent"]
            subprocess.run(command, capture_output=True, timeout=_PATIENCE, check=False)
        if self._short is not None:
            shutil.rmtree(self._short, ignore_errors=True)
            self._short = None
