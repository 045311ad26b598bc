"""Who signed a text, and the very bytes that were signed.

Rules: only what gpgv itself put out as signed is handed on, and gpgv gets nothing but one block with one signature
(:mod:`.clearsigned`). Its exit status and VALIDSIG alone are not enough: it calls signatures by expired and revoked
keys good, SHA-1 and a date in 2099 (measured). So every status keyword has to be known, and key, digest and date are
held against our own table and clock.

What is wrong comes in two kinds: *faults* of the text or the signature, by which the text is worthless, and *doubts*
about who vouches for it. A .changes needs to be without both. A .dsc may be signed by anybody: the signed .changes
vouches for its digest.
"""

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from incomingd import rules
from incomingd.model import Problem, plain
from incomingd.verify import gpgv
from incomingd.verify.clearsigned import signed_blocks
from incomingd.verify.keys import Key, KeyTable

#: What a signer may add to a signature: notations, a policy, a key server. It says nothing against the signature; a
#: critical notation that gpg does not know makes a BADSIG.
_REMARKS = {"NOTATION_NAME", "NOTATION_DATA", "NOTATION_FLAGS", "POLICY_URL", "SIG_SUBPACKET"}
#: The status keywords of a verification that found nothing to say against the signature (GnuPG's doc/DETAILS).
_HARMLESS = {
    *("NEWSIG", "KEY_CONSIDERED", "SIG_ID", "GOODSIG", "VALIDSIG", "VERIFICATION_COMPLIANCE_MODE"),
    *("PLAINTEXT", "PLAINTEXT_LENGTH"),
    *("EXPSIG", "SIGEXPIRED", "EXPKEYSIG", "KEYEXPIRED", "REVKEYSIG", "KEYREVOKED"),
    *_REMARKS,
}
#: Those of one by a key that is not known.
_UNKNOWN = {"NEWSIG", "ERRSIG", "NO_PUBKEY", "PLAINTEXT", "PLAINTEXT_LENGTH", "KEY_CONSIDERED", *_REMARKS}
#: In place of GOODSIG, where the signature fits and its time or its key's is over by gpgv's own clock and keyring.
_OVER = {"EXPSIG": rules.EXPIRED_SIGNATURE, "EXPKEYSIG": rules.EXPIRED_KEY, "REVKEYSIG": rules.REVOKED_KEY}
#: OpenPGP's numbers of digests that are broken (RFC 4880 §9.4).
_WEAK = {"1": "MD5", "2": "SHA-1", "3": "RIPEMD-160"}
#: ERRSIG's reasons: a missing public key; and what has no number of its own, such as a missing back-signature.
_NO_KEY, _OTHER = "9", "1"
_FUTURE = timedelta(hours=24)
#: Of one Release; Debian's has four.
_MAX_SIGNATURES = 16


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

    @property
    def identity(self) -> str:
        """What a replay is known by: a digest of the signer, the time of the signature and the signed text.

        The file around the text does not count, since anyone can write it in another way: blanks at line ends, empty
        lines at both ends, armor. The same text signed again is another one. Without a signature it is the text alone.
        """
        lines = [line.rstrip() for line in (self.text or b"").split(b"\n")]
        made = f"{self.made_at.timestamp():.0f}" if self.made_at else ""
        head = f"{self.signed_by or ''}\n{made}\n".encode()
        return hashlib.sha256(head + b"\n".join(lines).strip(b"\n")).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verifier:
    """How signatures are verified: gpgv's keyring, what is known of its keys, and the time."""

    keyring: Path
    keys: KeyTable
    now: datetime

    def verify(self, data: bytes, file: str) -> Signed:
        """Verify a text that has some OpenPGP armor (:func:`is_signed`). Raises ``Retry`` where gpgv cannot run."""
        blocks, fault = signed_blocks(data, file, 1)
        return Signed(text=None, faults=(fault,)) if fault else self._verify(blocks[0], file)

    def verify_any(self, data: bytes, file: str) -> Signed:
        """As :meth:`verify`, of a text that several keys may have signed: one good signature by a trusted key suffices.

        A Release has several while its archive changes keys. Each is verified alone.
        """
        blocks, fault = signed_blocks(data, file, _MAX_SIGNATURES)
        if fault:
            return Signed(text=None, faults=(fault,))
        found = []
        for block in blocks:
            found.append(self._verify(block, file))
            if not found[-1].faults and not found[-1].doubts:
                return found[-1]
        return next((one for one in found if one.signed_by), found[0])

    def _verify(self, block: bytes, file: str) -> Signed:
        text, status = gpgv.run(self.keyring, block)
        fault = _fault(status, file)
        error = next((line for line in status if line[0] == "ERRSIG"), None)
        if fault:
            return Signed(text=None, faults=((error and self._by_key(error, file)) or fault,))
        if error:
            return Signed(text=text, doubts=(self._unknown(_key_of(error), file),))
        signed = self._known(text, next(line for line in status if line[0] == "VALIDSIG"), file)
        over = next((line[0] for line in status if line[0] in _OVER), None)
        if over and not signed.doubts:
            return replace(signed, doubts=(_OVER[over].problem(f"gpg says {over}", file=file),))
        return signed

    def _by_key(self, error: list[str], file: str) -> Problem | None:
        """Why gpg cannot check a signature, if it is for the key that should have made it."""
        key = _key_of(error)
        if shared := self.keys.owners(key):
            return rules.KEY_OF_TWO_OWNERS.problem(str(shared), file=file)
        found = self.keys.find(key)
        if found and error[6:7] == [_OTHER] and key != found[0].primary.fingerprint:
            return rules.BAD_SIGNATURE.problem(
                f"gpg does not accept the subkey {key} of {found[0].primary.fingerprint}: its back-signature is bad or "
                "missing (gpg --edit-key KEY cross-certify), or it belongs to another key",
                file=file,
            )
        return None

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
        # gpg has seen to it that the primary key has bound the other, and the other the primary key.
        found = self.keys.find(fingerprint, primary)
        # The keyring and the table are replaced one after the other: in between a key may be in one only.
        if found is None:
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


def _fault(status: list[list[str]], file: str) -> Problem | None:
    """What gpgv's status says against the signature itself; a key that is not known is none."""
    words = [line[0] for line in status]
    errors = [line for line in status if line[0] == "ERRSIG"]
    if gpgv.OVERDUE in words:
        found = f"gpgv takes more than {gpgv.PROCESSOR} s of processor time for its signature"
        return rules.CHECK_TIMEOUT.problem(found, file=file)
    if words.count("NEWSIG") > 1 or words.count("VALIDSIG") > 1 or len(errors) > 1:
        return rules.NOT_ONE_SIGNATURE.problem(f"gpg finds {words.count('NEWSIG')} signatures", file=file)
    for line in status:
        if line[0] == "BADSIG":
            return rules.BAD_SIGNATURE.problem(
                f"gpg calls the signature by {plain(line[1])} bad: it is not one of this text, or it has a critical "
                "notation that gpg does not know",
                file=file,
            )
        if line[0] == "ERRSIG" and line[6:7] != [_NO_KEY]:
            if line[3] in _WEAK:
                return rules.WEAK_DIGEST.problem(f"the signature's digest is {_WEAK[line[3]]}", file=file)
            return rules.BAD_SIGNATURE.problem(f"gpg cannot check it ({plain(' '.join(line))})", file=file)
    if errors and not set(words) - _UNKNOWN and words.count("NEWSIG") == 1 and words.count("NO_PUBKEY") == 1:
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


def _key_of(error: list[str]) -> str:
    """ERRSIG <key id> <algorithm> <digest> <class> <time> <reason> <fingerprint>: the fingerprint, if it is known."""
    return error[7] if len(error) > 7 and error[7] != "-" else error[1]


def _is_whole(valid: list[str]) -> bool:
    """VALIDSIG <key> <date> <made> <ends> <version> <reserved> <algorithm> <digest> <class> <primary key>."""
    # Classes 00 and 01 sign a document; all others sign keys (RFC 4880 §5.2.1).
    return len(valid) >= 11 and valid[3].isdecimal() and valid[4].isdecimal() and valid[9] in ("00", "01")
