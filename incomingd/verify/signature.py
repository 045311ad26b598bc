"""Who signed a text, and the very bytes that were signed.

Rules: only what gpgv itself put out as signed is handed on. There is exactly one clear-signed block with one signature,
and nothing outside it but white space (RFC 4880 §7). gpgv's exit status and VALIDSIG alone are not enough: it calls
signatures by expired and revoked keys good, blocks that are cut off, and SHA-1 (measured); so every status keyword has
to be known, and the key is held against our own table. An unknown keyword is a failure.
"""

import os
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from incomingd import rules
from incomingd.errors import Retry
from incomingd.model import Problem
from incomingd.verify.keyring import KeyTable

_BEGIN, _SIGNATURE, _END = (
    b"-----BEGIN PGP SIGNED MESSAGE-----",
    b"-----BEGIN PGP SIGNATURE-----",
    b"-----END PGP SIGNATURE-----",
)
_HARMLESS = {
    *("NEWSIG", "KEY_CONSIDERED", "SIG_ID", "GOODSIG", "VALIDSIG", "VERIFICATION_COMPLIANCE_MODE"),
    *("PLAINTEXT", "PLAINTEXT_LENGTH", "NOTATION_NAME", "NOTATION_DATA", "NOTATION_FLAGS", "POLICY_URL"),
}
#: OpenPGP's numbers of digests that are broken (RFC 4880 §9.4).
_WEAK = {"1": "MD5", "2": "SHA-1", "3": "RIPEMD-160"}
_FUTURE = timedelta(hours=24)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """What a signature came to. ``text`` is there where the bytes are vouched for, or unsigned as allowed.

    ``signed_by`` is the primary key's fingerprint, ``signing_key`` that of the key or subkey that signed.
    """

    text: bytes | None
    signed_by: str | None = None
    signing_key: str | None = None
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verifier:
    """How signatures are verified: the keys, the time, and the oldest signature allowed in seconds (0: any)."""

    keyring: Path
    keys: KeyTable
    now: datetime
    max_age: float

    def verify(self, data: bytes, file: str) -> Signed:
        """Verify a text that has to be signed."""
        if not is_signed(data):
            return Signed(text=None, problems=(rules.UNSIGNED.problem("it carries no signature", file=file),))
        shape = _shape(data)
        if shape:
            return Signed(text=None, problems=(rules.NOT_ONE_SIGNATURE.problem(shape, file=file),))
        text, status = _gpgv(self.keyring, data)
        problem = _first_fault(status, file)
        if problem:
            return Signed(text=None, problems=(problem,))
        return self._judge(text, status, file)

    def _judge(self, text: bytes, status: list[list[str]], file: str) -> Signed:
        valid = next(words for words in status if words[0] == "VALIDSIG")
        found = self.keys.find(valid[1])
        if found is None:
            unknown = rules.UNKNOWN_KEY.problem(f"it is signed by the key {valid[1]}, which is not trusted", file=file)
            return Signed(text=None, problems=(unknown,))
        uploader, key = found
        problems = []
        for one in dict.fromkeys((uploader.primary, key)):
            if one.revoked:
                problems.append(
                    rules.REVOKED_KEY.problem(f"the key {one.fingerprint} is revoked or disabled", file=file)
                )
            elif one.expired(self.now):
                at = datetime.fromtimestamp(one.expires, UTC).date()
                problems.append(rules.EXPIRED_KEY.problem(f"the key {one.fingerprint} expired on {at}", file=file))
        if valid[8] in _WEAK:
            problems.append(rules.WEAK_DIGEST.problem(f"the signature uses {_WEAK[valid[8]]}", file=file))
        problems += self._age(int(valid[3]), file)
        return Signed(
            text=None if problems else text,
            signed_by=uploader.primary.fingerprint,
            signing_key=key.fingerprint,
            problems=tuple(problems),
        )

    def _age(self, made: int, file: str) -> list[Problem]:
        at = datetime.fromtimestamp(made, UTC)
        if at > self.now + _FUTURE:
            return [rules.FUTURE_SIGNATURE.problem(f"the signature is dated {at:%Y-%m-%d %H:%M} UTC", file=file)]
        if self.max_age and (self.now - at).total_seconds() > self.max_age:
            days = self.max_age / 86400
            return [
                rules.OLD_SIGNATURE.problem(
                    f"the signature is of {at:%Y-%m-%d}; allowed are {days:.0f} days", file=file
                )
            ]
        return []


def is_signed(data: bytes) -> bool:
    """True where there is any OpenPGP armor in it."""
    return b"-----BEGIN PGP" in data


def _shape(data: bytes) -> str:
    """What is wrong with the form of the one block; empty where nothing is."""
    lines = [line.rstrip() for line in data.split(b"\n")]
    body = [line for line in lines if line]
    armor = [line for line in lines if line.startswith((b"-----BEGIN ", b"-----END "))]
    if armor != [_BEGIN, _SIGNATURE, _END]:
        return f"there are {len(armor)} armor lines, where one signed block has three"
    if body[0] != _BEGIN:
        return "there is text before the signed block"
    if body[-1] != _END:
        return "there is text after the signed block"
    return ""


def _first_fault(status: list[list[str]], file: str) -> Problem | None:
    words = [line[0] for line in status]
    for line in status:
        if line[0] in ("ERRSIG", "NO_PUBKEY"):
            if line[0] == "NO_PUBKEY" or line[6:7] == ["9"]:
                key = line[8] if line[0] == "ERRSIG" and len(line) > 8 and line[8] != "-" else line[1]
                return rules.UNKNOWN_KEY.problem(f"it is signed by the key {key}, which is not trusted", file=file)
            return rules.BAD_SIGNATURE.problem(f"gpg cannot check the signature ({' '.join(line)})", file=file)
        if line[0] == "BADSIG":
            return rules.BAD_SIGNATURE.problem(f"the signature by {line[1]} does not fit the text", file=file)
        if line[0] not in _HARMLESS:
            return rules.BAD_SIGNATURE.problem(f"gpg says {line[0]}, and a good signature has no such word", file=file)
    counts = [words.count(word) for word in ("NEWSIG", "GOODSIG", "VALIDSIG")]
    if counts != [1, 1, 1]:
        return rules.NOT_ONE_SIGNATURE.problem(
            f"gpg finds {counts[0]} signatures, {counts[2]} of them valid", file=file
        )
    return None


def _gpgv(keyring: Path, data: bytes) -> tuple[bytes, list[list[str]]]:
    """gpgv's output and status lines. The status goes to a file of its own, mixed with nothing."""
    status_fd = os.memfd_create("status")
    try:
        command = ["gpgv", "--homedir", str(keyring.parent), "--keyring", str(keyring)]
        command += ["--status-fd", str(status_fd), "--output", "-", "-"]
        environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"}
        done = subprocess.run(
            command, input=data, capture_output=True, pass_fds=[status_fd], env=environment, check=False
        )
        os.lseek(status_fd, 0, os.SEEK_SET)
        with open(status_fd, "rb", closefd=False) as reader:
            lines = reader.read().decode("utf-8", "replace").splitlines()
    except FileNotFoundError as error:
        raise Retry("gpgv is not installed; install Debian's package gpgv") from error
    finally:
        os.close(status_fd)
    status = [line.split()[1:] for line in lines if line.startswith("[GNUPG:] ") and len(line.split()) > 1]
    if done.returncode != 0 and not any(line[0] in ("BADSIG", "ERRSIG", "NODATA", "UNEXPECTED") for line in status):
        status.append(["FAILURE", f"exit-{done.returncode}"])
    return done.stdout, status
