"""The archive's own keys: makes, checks, uses and exports them. The only place that signs.

Rules: every configured key signs every Release, so that a key can be rotated. gpg never asks anybody anything and has
:data:`_PATIENCE` seconds. What it put out counts only where it says that each key has made a signature: it leaves out a
key that it cannot use and goes on with the others.

What is wrong with a key is a :class:`Halt`, which names the key and the remedy; what is wrong with the machine (no
memory, a full disk, an agent that is gone, no answer in time) is a :class:`Retry`. Where gpg fails for a reason that is
not known here, the keys are looked at: if nothing is wrong with them, it was the machine.
"""

import os
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

from incomingd import fsio
from incomingd.errors import Halt, Retry
from incomingd.model import plain
from incomingd.publish import archive_keys

#: gpg's agent listens in its home, and this is the longest of its sockets' names; sun_path of unix(7) holds 108 bytes,
#: and the agent leaves one free beside the final NUL.
_LONGEST_HOME = 106 - len("/S.gpg-agent.browser")
#: Seconds for one call of gpg; it takes some 10 ms.
_PATIENCE = 30.0
#: No settings of the home, no trust database (the configured fingerprints are the trust), no question: a passphrase
#: that the agent does not have already is an error.
_OPTIONS = (
    *("--no-options", "--batch", "--no-tty", "--quiet", "--status-fd", "2", "--pinentry-mode", "error"),
    *("--trust-model", "always", "--no-auto-check-trustdb"),
)
#: gpg-error.h: bad passphrase, no pinentry, cancelled, no passphrase; no question can be asked here.
_NEEDS_PASSPHRASE = {11, 85, 99, 177}
#: What gpg says, besides that there is no secret key, where there is no telling.
_NO_AGENT = ("No agent running", "can't connect to the agent")


@dataclass(frozen=True, slots=True)
class Signatures:
    """A signed Release: InRelease is the text itself, clear-signed; Release.gpg is apart from it. Both are armored."""

    inrelease: bytes
    release_gpg: bytes


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one call of gpg came to."""

    code: int
    output: bytes
    status: tuple[tuple[str, ...], ...]
    said: str

    def count(self, keyword: str) -> int:
        return sum(words[0] == keyword for words in self.status)

    @property
    def error(self) -> int | None:
        """The code of gpg-error.h, without its source, of what failed."""
        codes = [int(words[-1]) & 0xFFFF for words in self.status if words[0] == "FAILURE" and words[-1].isdigit()]
        return codes[-1] if codes else None


class Signer:
    """The signing keys of one archive, in the gnupg home ``home``; ``keys`` are full fingerprints.

    Any thread may use it. It starts gpg's agent where none runs; :meth:`close` ends that.
    """

    def __init__(self, home: Path, keys: Sequence[str]) -> None:
        self._home = home.absolute()
        self._keys = tuple(keys)
        self._lock = threading.Lock()
        self._short: Path | None = None
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="sign")

    def create_key(self, name: str) -> str:
        """Make an ed25519 key that only signs, without passphrase and without end; its fingerprint.

        ``name`` becomes its user id. Raises :class:`Halt` where gpg makes none, and :class:`Retry`.
        """
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        make = ["--passphrase", "", "--yes", "--quick-gen-key", "--", name, "ed25519", "sign", "never"]
        answer = self._gpg(make)
        made = [words[2] for words in answer.status if words[0] == "KEY_CREATED" and len(words) > 2]
        if answer.code or not made:
            raise Halt(f"{self._home}: gpg made no key; it said: {_last_line(answer.said)}")
        return made[0]

    def adopt_key(self, fingerprint: str) -> str:
        """Take over a secret key from the keyring of whoever runs this; its fingerprint.

        Raises :class:`Halt` where that has none such, or gives it away only for a passphrase.
        """
        command = ["gpg", "--batch", "--no-tty", "--quiet", "--pinentry-mode", "error", "--export-secret-keys"]
        secret = subprocess.run([*command, fingerprint], capture_output=True, timeout=_PATIENCE, check=False)
        if secret.returncode or not secret.stdout:
            raise Halt(
                f"your keyring has no secret key {fingerprint} ({_last_line(secret.stderr.decode(errors='replace'))}); "
                "see gpg --list-secret-keys, or let a key be made"
            )
        return self.import_key(fingerprint, secret.stdout)

    def import_key(self, fingerprint: str, secret: bytes) -> str:
        """Take over a secret key; its fingerprint. Raises :class:`Halt` if gpg does not, and :class:`Retry`."""
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        answer = self._gpg(["--import"], secret)
        if answer.code:
            raise Halt(f"{self._home}: gpg does not import {fingerprint}; it said: {_last_line(answer.said)}")
        return fingerprint

    def usable(self) -> None:
        """Raise :class:`Halt` where not every configured key can sign now; :class:`Retry` where that cannot be told."""
        if not self._keys:
            raise Halt(
                "no usable signing key: [archive] signing_keys is empty; name the fingerprint of a key whose secret "
                f"half is in {self._home}"
            )
        self.sign(b"A test, never published.\n")

    def sign(self, release: bytes) -> Signatures:
        """Sign the text of a Release both ways, with every key. Raises :class:`Halt` and :class:`Retry`."""
        # gpg waits for its agent half of the time: both at once take hardly longer than one.
        apart = self._beside.submit(self._signed, "--detach-sign", release)
        inrelease = self._signed("--clear-sign", release)
        return Signatures(inrelease=inrelease, release_gpg=apart.result())

    def warnings(self, now: datetime) -> tuple[str, ...]:
        """A sentence for each key that ends soon, or that newer versions of apt refuse; nothing if gpg does not say."""
        try:
            answer = self._gpg(["--with-colons", "--fixed-list-mode", "--list-sigs", *self._keys])
        except (Halt, Retry):  # the next signature tells of it
            return ()
        return tuple(archive_keys.warnings(answer.output, self._home, now))

    def export(self, armor: bool) -> bytes:
        """The public keys, for the clients' Signed-By."""
        form = ["--armor"] if armor else []
        answer = self._gpg([*form, "--export-options", "export-minimal", "--export", *self._keys])
        if answer.code or not answer.output or answer.count("EXPORTED") != len(self._keys):
            self._fail(answer)
        return answer.output

    def close(self) -> None:
        """End the agent."""
        self._beside.shutdown()
        if self._home.is_dir():
            self._gpgconf("--kill", "gpg-agent")
        with self._lock:
            if self._short is not None:
                fsio.remove_tree(self._short)
                self._short = None

    # -- gpg ----------------------------------------------------------------------------------------------------------

    def _signed(self, way: str, text: bytes) -> bytes:
        users = [word for key in self._keys for word in ("--local-user", key)]
        answer = self._gpg(["--digest-algo", "SHA512", *users, "--armor", way], text)
        if answer.code or not answer.output or answer.count("SIG_CREATED") != len(self._keys):
            self._fail(answer)
        return answer.output

    def _fail(self, answer: _Answer) -> None:
        """Say whose fault it was that gpg did not do all that it should."""
        faults = list(self._faults())
        if answer.error in _NEEDS_PASSPHRASE:
            faults.append(
                "a key has a passphrase, and nobody is here to give it; take it off (gpg --homedir "
                f"{self._home} --edit-key KEY passwd), or use a key without one"
            )
        if faults:
            raise Halt(f"no usable signing key: {'; '.join(faults)}; then reload")
        said = f"gpg ended with {answer.code} and said: {_last_line(answer.said)}"
        raise Retry(f"the archive cannot be signed now: {said}")

    def _faults(self) -> Iterable[str]:
        """What is wrong with each key, as far as it shows without using it. Raises :class:`Retry`."""
        if not self._home.is_dir():
            yield f"there is no gnupg home {self._home}; make a key there and name it in [archive] signing_keys"
            return
        for key in self._keys:
            answer = self._gpg(["--with-colons", "--list-secret-keys", key])
            if any(words in answer.said for words in _NO_AGENT):
                raise Retry(f"gpg cannot reach its agent: {_last_line(answer.said)}")
            found = [line.split(":") for line in answer.output.decode(errors="replace").splitlines()]
            fault = _fault(next((fields for fields in found if fields[0] == "sec"), None), self._home, key)
            if fault:
                yield f"{key} {fault}"

    def _gpg(self, arguments: Sequence[str], data: bytes = b"") -> _Answer:
        command = ["gpg", "--homedir", str(self._reachable_home()), *_OPTIONS, *arguments]
        environment = {**os.environ, "LC_ALL": "C.UTF-8"}
        try:
            done = subprocess.run(
                command, input=data, capture_output=True, timeout=_PATIENCE, env=environment, check=False
            )
        except FileNotFoundError as error:
            raise Halt("gpg is not installed; install Debian's package gnupg") from error
        except subprocess.TimeoutExpired as error:
            self._forget_agent()
            raise Retry(f"gpg did not answer within {_PATIENCE:.0f} s") from error
        except OSError as error:
            raise Retry(f"gpg cannot be run now: {error.strerror}") from error
        lines = done.stderr.decode(errors="replace").splitlines()
        return _Answer(
            code=done.returncode,
            output=done.stdout,
            status=tuple(tuple(line.split()[1:]) for line in lines if line.startswith("[GNUPG:] ")),
            said="\n".join(line for line in lines if not line.startswith("[GNUPG:] ")),
        )

    def _forget_agent(self) -> None:
        """Let the next try start a new agent: one whose socket is gone ends by itself, also where it answers nobody."""
        socket = self._gpgconf("--list-dirs", "agent-socket").strip()
        if socket:
            fsio.remove(Path(socket))

    def _gpgconf(self, *arguments: str) -> str:
        """What gpgconf prints; nothing where it does not end well."""
        command = ["gpgconf", "--homedir", str(self._reachable_home()), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, timeout=_PATIENCE, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return unquote(os.fsdecode(done.stdout))  # it escapes as URLs do

    def _reachable_home(self) -> Path:
        """The home, or a short way to it where the agent's sockets would have too long a name."""
        if len(os.fsencode(self._home)) <= _LONGEST_HOME:
            return self._home
        with self._lock:
            if self._short is None or not self._short.is_dir():
                self._short = _short_folder()
                fsio.switch(self._short / "home", str(self._home))
            return self._short / "home"


def _short_folder() -> Path:
    """A folder of our own with a short name."""
    places = [os.environ.get("RUNTIME_DIRECTORY", ""), os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir()]
    for place in [*places, "/tmp"]:  # noqa: S108  # mkdtemp(3) makes a folder of its own there, mode 0700
        if place and len(os.fsencode(place)) < _LONGEST_HOME - len("/incomingd-12345678/home"):
            try:
                return Path(tempfile.mkdtemp(prefix="incomingd-", dir=place))
            except OSError:
                continue
    raise Retry(f"no folder with a short name can be made in any of {', '.join(p for p in places if p)}, /tmp")


def _fault(secret: list[str] | None, home: Path, key: str) -> str | None:
    """What one ``sec`` record of gpg's ``--with-colons`` (doc/DETAILS) says against signing."""
    if secret is None or secret[14] == "#":
        return (
            f"has no secret half in {home}; import it (gpg --homedir {home} --import FILE), or correct "
            "[archive] signing_keys"
        )
    if secret[1] == "e":
        on = datetime.fromtimestamp(int(secret[6]), UTC).date() if secret[6].isdigit() else "an unknown day"
        return f"expired on {on}; extend it (gpg --homedir {home} --quick-set-expire {key} 2y), or name another"
    if secret[1] == "r":
        return "is revoked; name another in [archive] signing_keys"
    if "S" not in secret[11]:
        return "is not made for signing; name another in [archive] signing_keys"
    return None


def _last_line(said: str) -> str:
    return plain(said.splitlines()[-1]) if said else "nothing"
