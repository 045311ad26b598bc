"""Who signed a text, and the very bytes that were signed.

Rules: only what gpgv itself put out as signed is handed on. There is exactly one clear-signed block with one signature,
and nothing outside it but white space (RFC 4880 §7). gpgv's exit status and VALIDSIG alone are not enough: it calls
signatures by expired and revoked keys good, blocks that are cut off, SHA-1 and a date in 2099 (measured). So every
status keyword has to be known, and key, digest and date are held against our own table and clock.

What is wrong comes in two kinds: *faults* of the text or the signature, by which the text is worthless, and *doubts*
about who vouches for it. A .changes needs to be without both. A .dsc may be signed by anybody: the signed .changes
vouches for its digest.
"""

import os
import re
import signal
import subprocess
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from incomingd import rules
from incomingd.errors import Retry
from incomingd.model import Problem, plain
from incomingd.verify.keyring import Key, KeyTable

_BEGIN, _SIGNATURE, _END = (
    b"-----BEGIN PGP SIGNED MESSAGE-----",
    b"-----BEGIN PGP SIGNATURE-----",
    b"-----END PGP SIGNATURE-----",
)
#: The status keywords of a verification that found nothing to say against the signature (GnuPG's doc/DETAILS).
_HARMLESS = {
    *("NEWSIG", "KEY_CONSIDERED", "SIG_ID", "GOODSIG", "VALIDSIG", "VERIFICATION_COMPLIANCE_MODE"),
    *("PLAINTEXT", "PLAINTEXT_LENGTH", "NOTATION_NAME", "NOTATION_DATA", "NOTATION_FLAGS", "POLICY_URL"),
    *("EXPSIG", "SIGEXPIRED", "EXPKEYSIG", "KEYEXPIRED", "REVKEYSIG", "KEYREVOKED"),
}
#: In place of GOODSIG, where the signature fits and its time or its key's is over by gpgv's own clock and keyring.
_OVER = {"EXPSIG": rules.EXPIRED_SIGNATURE, "EXPKEYSIG": rules.EXPIRED_KEY, "REVKEYSIG": rules.REVOKED_KEY}
#: OpenPGP's numbers of digests that are broken (RFC 4880 §9.4).
_WEAK = {"1": "MD5", "2": "SHA-1", "3": "RIPEMD-160"}
#: ERRSIG's reason for a missing public key.
_NO_KEY = "9"
_FUTURE = timedelta(hours=24)
#: What a signed block may have before its text. gpg reads others too: with NotDashEscaped it takes text for signed that
#: other programs do not (RFC 4880 §7 has Hash alone).
_HASH = re.compile(rb"Hash: [A-Za-z0-9, -]+")
#: gpg signs and puts out the first 20,000 bytes of a line: what was sent would say more than is read.
_MAX_LINE = 19_000
#: A signature has some ten status lines.
_MAX_STATUS = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """What a signature came to. ``text`` is what gpgv put out, and None where there are faults.

    ``signed_by`` is the primary key's fingerprint, ``signing_key`` that of the key or subkey that signed; both are None
    where no trusted key did. ``made_at`` is when it says it was made.
    """

    text: bytes | None
    signed_by: str | None = None
    signing_key: str | None = None
    made_at: datetime | None = None
    faults: tuple[Problem, ...] = ()
    doubts: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verifier:
    """How signatures are verified: gpgv's keyring, what is known of its keys, and the time."""

    keyring: Path
    keys: KeyTable
    now: datetime

    def verify(self, data: bytes, file: str) -> Signed:
        """Verify a text that has some OpenPGP armor (:func:`is_signed`). Raises ``Retry`` where gpgv cannot run."""
        fault = _outer_form(data, file)
        if fault:
            return Signed(text=None, faults=(fault,))
        text, status = _gpgv(self.keyring, data)
        fault = _fault(status, file)
        if fault:
            return Signed(text=None, faults=(fault,))
        unknown = next((line for line in status if line[0] == "ERRSIG"), None)
        if unknown:
            key = unknown[7] if len(unknown) > 7 and unknown[7] != "-" else unknown[1]
            return Signed(text=text, doubts=(self._unknown(key, file),))
        signed = self._known(text, next(line for line in status if line[0] == "VALIDSIG"), file)
        over = next((line[0] for line in status if line[0] in _OVER), None)
        if over and not signed.doubts:
            return replace(signed, doubts=(_OVER[over].problem(f"gpg says {over}", file=file),))
        return signed

    def _unknown(self, key: str, file: str) -> Problem:
        # gpg leaves subkeys that have expired out of the keyring that it exports for gpgv.
        uploader, own = self.keys.find(key) or (None, None)
        if uploader and own:
            for one in (uploader.primary, own):
                if over := self._key_problem(one, signing=one is own, file=file):
                    return over
        return rules.UNKNOWN_KEY.problem(f"it is signed by the key {plain(key)}, which is not trusted", file=file)

    def _known(self, text: bytes, valid: list[str], file: str) -> Signed:
        """The verdict on a signature that is good: VALIDSIG's key, date, end, digest and primary key."""
        fingerprint, made, ends, digest, primary = valid[1], int(valid[3]), int(valid[4]), valid[8], valid[10]
        found = self.keys.find(fingerprint)
        # The keyring and the table are replaced one after the other: in between a key may be in one only.
        if found is None or found[0].primary.fingerprint != primary:
            return Signed(text=text, doubts=(self._unknown(fingerprint, file),))
        uploader, key = found
        doubts = [
            problem
            for one in dict.fromkeys((uploader.primary, key))
            if (problem := self._key_problem(one, signing=one is key, file=file))
        ]
        if digest in _WEAK:
            doubts.append(rules.WEAK_DIGEST.problem(f"the signature's digest is {_WEAK[digest]}", file=file))
        made_at = datetime.fromtimestamp(made, UTC)
        if made_at > self.now + _FUTURE:
            found_date = f"the signature is dated {made_at:%Y-%m-%d %H:%M} UTC, and it is {self.now:%Y-%m-%d %H:%M}"
            doubts.append(rules.FUTURE_SIGNATURE.problem(found_date, file=file))
        if ends and ends <= self.now.timestamp():
            end = datetime.fromtimestamp(ends, UTC)
            doubts.append(rules.EXPIRED_SIGNATURE.problem(f"the signature ended on {end:%Y-%m-%d}", file=file))
        return Signed(
            text=text,
            signed_by=uploader.primary.fingerprint,
            signing_key=key.fingerprint,
            made_at=made_at,
            doubts=tuple(doubts),
        )

    def _key_problem(self, key: Key, *, signing: bool, file: str) -> Problem | None:
        if key.revoked:
            return rules.REVOKED_KEY.problem(f"the key {key.fingerprint} is revoked or disabled", file=file)
        if key.expired(self.now):
            return rules.EXPIRED_KEY.problem(f"the key {key.fingerprint} expired on {key.expiry}", file=file)
        if signing and not key.signs:
            return rules.BAD_SIGNATURE.problem(f"the key {key.fingerprint} is not one for signing", file=file)
        return None


def is_signed(data: bytes) -> bool:
    """True where there is any OpenPGP armor in it."""
    return b"-----BEGIN PGP" in data


def too_old(made_at: datetime, now: datetime, max_age: float, file: str) -> Problem | None:
    """The problem of a signature older than ``max_age`` seconds; 0 allows any age."""
    if not max_age or (now - made_at).total_seconds() <= max_age:
        return None
    return rules.OLD_SIGNATURE.problem(
        f"the signature is of {made_at:%Y-%m-%d %H:%M} UTC, and {max_age / 86400:.3g} days are allowed", file=file
    )


def _outer_form(data: bytes, file: str) -> Problem | None:
    """What is wrong with the form of the one block, before gpgv sees it."""
    # gpgv leaves a NUL at the end of a line out of what it calls signed: what was sent would say more than is read.
    if b"\0" in data:
        return rules.CONTROL_CHARACTER.problem("it has a NUL", file=file)
    # White space is blank, tab and line ends: to gpg a form feed or a vertical tab is text.
    lines = [line.rstrip(b" \t\r") for line in data.split(b"\n")]
    armor = [line for line in lines if line.startswith((b"-----BEGIN ", b"-----END "))]
    if armor != [_BEGIN, _SIGNATURE, _END]:
        shown = ", ".join(plain(line[:60].decode("ascii", "replace")) for line in armor[:6])
        return rules.NOT_ONE_SIGNATURE.problem(
            f"its armor lines are {shown}; one signed block has BEGIN PGP SIGNED MESSAGE, BEGIN and END PGP SIGNATURE",
            file=file,
        )
    within = lines[lines.index(_BEGIN) + 1 :]
    head = within[: within.index(b"")] if b"" in within else within
    odd = next((line for line in head if not _HASH.fullmatch(line)), None)
    if odd is not None:
        shown = plain(odd[:60].decode("utf-8", "replace"))
        return rules.NOT_ONE_SIGNATURE.problem(
            f'the signed block begins with "{shown}", not with Hash lines', file=file
        )
    long = max(map(len, lines))
    if long > _MAX_LINE:
        return rules.TEXT_LIMIT.problem(f"a signed line has {long} bytes, and {_MAX_LINE} are allowed", file=file)
    for name, outside in (("before", lines[: lines.index(_BEGIN)]), ("after", lines[lines.index(_END) + 1 :])):
        text = next((line for line in outside if line), None)
        if text is not None:
            shown = plain(text[:60].decode("utf-8", "replace"))
            return rules.TEXT_OUTSIDE_SIGNATURE.problem(f'"{shown}" stands {name} the signed block', file=file)
    return None


def _fault(status: list[list[str]], file: str) -> Problem | None:
    """What gpgv's status says against the signature itself; a key that is not known is none."""
    words = [line[0] for line in status]
    errors = [line for line in status if line[0] == "ERRSIG"]
    if words.count("NEWSIG") > 1 or words.count("VALIDSIG") > 1 or len(errors) > 1:
        return rules.NOT_ONE_SIGNATURE.problem(f"gpg finds {words.count('NEWSIG')} signatures", file=file)
    for line in status:
        if line[0] == "BADSIG":
            return rules.BAD_SIGNATURE.problem(f"the signature by {plain(line[1])} does not fit the text", file=file)
        if line[0] == "ERRSIG" and line[6:7] != [_NO_KEY]:
            if line[3] in _WEAK:
                return rules.WEAK_DIGEST.problem(f"the signature's digest is {_WEAK[line[3]]}", file=file)
            return rules.BAD_SIGNATURE.problem(f"gpg cannot check it ({plain(' '.join(line))})", file=file)
    if errors:
        odd = set(words) - {"NEWSIG", "ERRSIG", "NO_PUBKEY", *("PLAINTEXT", "PLAINTEXT_LENGTH", "KEY_CONSIDERED")}
        if not odd and words.count("NEWSIG") == 1 and words.count("NO_PUBKEY") == 1:
            return None
    odd = set(words) - _HARMLESS
    if odd:
        return rules.BAD_SIGNATURE.problem(f"gpg says {', '.join(sorted(odd))}", file=file)
    fits = sum(words.count(word) for word in ("GOODSIG", *_OVER))
    counts = [words.count("NEWSIG"), fits, words.count("VALIDSIG")]
    if counts != [1, 1, 1]:
        return rules.BAD_SIGNATURE.problem(
            f"gpg finds {counts[0]} signatures, calls {counts[1]} good and {counts[2]} valid", file=file
        )
    if not _is_whole(next(line for line in status if line[0] == "VALIDSIG")):
        return rules.BAD_SIGNATURE.problem("gpg describes the signature in a way that is not known", file=file)
    return None


def _is_whole(valid: list[str]) -> bool:
    """VALIDSIG <key> <date> <made> <ends> <version> <reserved> <algorithm> <digest> <class> <primary key>."""
    # Classes 00 and 01 sign a document; all others sign keys (RFC 4880 §5.2.1).
    return len(valid) >= 11 and valid[3].isdecimal() and valid[4].isdecimal() and valid[9] in ("00", "01")


def _gpgv(keyring: Path, data: bytes) -> tuple[bytes, list[list[str]]]:
    """gpgv's output and status lines. The status goes to a file of its own, mixed with nothing."""
    _readable(keyring)
    status_fd = os.memfd_create("status")
    try:
        command = ["gpgv", "--homedir", str(keyring.parent), "--keyring", str(keyring)]
        command += ["--status-fd", str(status_fd), "--output", "-", "-"]
        environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
        done = subprocess.run(
            command, input=data, capture_output=True, pass_fds=[status_fd], env=environment, check=False
        )
        lines = os.pread(status_fd, _MAX_STATUS, 0).decode("utf-8", "replace").split("\n")
    except FileNotFoundError as error:
        raise Retry("gpgv is not installed; install Debian's package gpgv") from error
    finally:
        os.close(status_fd)
    if done.returncode in (-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP, -signal.SIGKILL):
        raise Retry(f"gpgv was ended by {signal.Signals(-done.returncode).name}")
    status = [line.split()[1:] for line in lines if line.startswith("[GNUPG:] ") and len(line.split()) > 1]
    # 1 is a bad signature, 2 an unknown key among others: each has its keyword. Without one nothing is believed.
    if done.returncode != 0 and not any(line[0] in ("BADSIG", "ERRSIG", *_OVER) for line in status):
        status.append([f"exit-status-{done.returncode}"])
    return done.stdout, status


def _readable(keyring: Path) -> None:
    try:
        with keyring.open("rb"):
            pass
    except OSError as error:
        raise Retry(
            f"{keyring}: {error.strerror}; incomingctl trust KEYFILE, or a restart of the daemon, writes it anew"
        ) from error
