"""What is to be said of the archive's own keys before apt refuses what they sign. Pure.

apt 3 (Debian 13) verifies with sqv, by the policy of /usr/share/apt/default-sequoia.config: RSA of 2048 bits and more,
until 2030-02-01, and longer then; no DSA; and no signature by SHA-1, by which a key binds its names and subkeys, too.
apt 2.6 takes all of these.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from incomingd.model import ending

#: Algorithms of RFC 4880 (9.1, 9.4) by their numbers.
_RSA, _DSA, _SHA1 = {"1", "3"}, {"17"}, {"1", "2", "3"}
_LEAST_BITS, _LEAST_LATER, _LATER = 2048, 3072, datetime(2030, 2, 1, tzinfo=UTC)


@dataclass(slots=True)
class _Key:
    """A primary key or a subkey. ``digest`` is that of the newest signature that binds it, or one of its names."""

    algorithm: str
    bits: int
    expires: int
    signs: bool
    bound_at: int = -1
    digest: str = ""

    def fault(self, now: datetime) -> str:
        """What apt 3 has against it; empty if nothing."""
        if self.algorithm in _RSA and self.bits < (_LEAST_LATER if now >= _LATER else _LEAST_BITS):
            return f"is RSA of {self.bits} bits"
        if self.algorithm in _DSA:
            return "is a DSA key"
        return "is bound by a SHA-1 signature" if self.digest in _SHA1 else ""


@dataclass(slots=True)
class _Certificate:
    """``keys`` has the primary key first."""

    fingerprint: str = ""
    key_id: str = ""
    keys: list[_Key] = field(default_factory=list)

    def able(self, now: float) -> list[_Key]:
        """Those that sign now."""
        return [key for key in self.keys if key.signs and not 0 < key.expires <= now] or self.keys[:1]


def warnings(colons: bytes, home: object, now: datetime) -> Iterator[str]:
    """A sentence for each key of ``gpg --with-colons --fixed-list-mode --list-sigs`` that ends soon or is too weak.

    ``home`` is the gnupg home that it is in, for what to type.
    """
    for one in _certificates(colons.decode("utf-8", "replace").splitlines()):
        able, primary = one.able(now.timestamp()), one.keys[0]
        last = 0 if any(not key.expires for key in able) else max(key.expires for key in able)
        end = min(filter(None, (last, primary.expires)), default=0)
        if within := ending(end, now):
            day = datetime.fromtimestamp(end, UTC).date()
            yield (
                f"the archive's key {one.fingerprint} ends {within}, on {day}: apt refuses the archive from then on; "
                f"extend it (gpg --homedir {home} --quick-set-expire {one.fingerprint} 2y; with '*' at the end for its "
                "subkeys), reload, and give clients the new archive-keyring.asc"
            )
        fault = next(filter(None, (key.fault(now) for key in (primary, *able))), "")
        if not fault:
            continue
        if "SHA-1" in fault:
            remedy = (
                f"have it bound anew (gpg --homedir {home} --quick-set-expire {one.fingerprint} 2y; with '*' at the "
                "end for its subkeys), reload, and give clients the new archive-keyring.asc"
            )
        else:
            remedy = (
                f"make another one (gpg --homedir {home} --quick-gen-key NAME ed25519 sign never), name both in "
                "[archive] signing_keys, and take the old one out when clients have the new archive-keyring.asc"
            )
        yield f"the archive's key {one.fingerprint} {fault}, which apt 3 (Debian 13) refuses; {remedy}"


def _certificates(lines: Iterable[str]) -> list[_Certificate]:
    """GnuPG's doc/DETAILS has the fields, counted from 1."""
    found: list[_Certificate] = []
    for record in (line.split(":") for line in lines):
        if record[0] == "pub":
            found.append(_Certificate(key_id=record[4]))
        if record[0] in ("pub", "sub"):
            found[-1].keys.append(
                _Key(
                    algorithm=record[3],
                    bits=int(record[2] or 0),
                    expires=int(record[6] or 0),
                    # What a revoked or disabled key may do is of no interest.
                    signs="s" in record[11] and record[1] not in ("r", "i", "d"),
                )
            )
        elif record[0] == "fpr" and not found[-1].fingerprint:
            found[-1].fingerprint = record[9]
        elif record[0] == "sig" and record[4] == found[-1].key_id:
            _bind(found[-1].keys[-1], record)
    return found


def _bind(key: _Key, record: list[str]) -> None:
    """Field 6 is when it was made, 11 its class (10 to 13 bind a name, 18 a subkey), 16 its digest."""
    at = int(record[5] or 0)
    if record[10][:2] in ("10", "11", "12", "13", "18") and at >= key.bound_at:
        key.bound_at, key.digest = at, record[15] if len(record) > 15 else ""
