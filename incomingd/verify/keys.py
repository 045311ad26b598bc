"""The keys of those who may upload: what has to be known of each, and whose it is. Values only."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from incomingd.model import plain

_ESCAPED = re.compile(r"\\x([0-9a-f]{2})", re.ASCII)


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

    @property
    def keys(self) -> tuple[Key, ...]:
        """All of its keys, the primary one first."""
        return (self.primary, *self.subkeys)

    def __str__(self) -> str:
        return f"{self.primary.fingerprint} ({plain(', '.join(self.names) or 'without a name')})"

    def ends(self, now: datetime) -> int:
        """When the last of its keys that sign now ends, in seconds since the epoch; 0 for never."""
        able = [key for key in self.keys if key.signs and not key.revoked and not key.expired(now)] or [self.primary]
        last = 0 if any(not key.expires for key in able) else max(key.expires for key in able)
        return min(filter(None, (last, self.primary.expires)), default=0)

    def expiry(self, now: datetime) -> str:
        """The day on which it expires, for people."""
        end = self.ends(now)
        return datetime.fromtimestamp(end, UTC).date().isoformat() if end else "never"

    def fault(self, now: datetime) -> str:
        """Why no upload that it signs would be taken; empty if there is no reason."""
        if self.primary.revoked:
            return "it is revoked or disabled"
        if self.primary.expired(now):
            return f"it expired on {self.primary.expiry}"
        able = [key for key in self.keys if key.signs]
        if not able:
            return "none of its keys is one for signing"
        if all(key.revoked or key.expired(now) for key in able):
            return "each of its keys for signing is revoked or expired"
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """A key or subkey with more than one owner."""

    fingerprint: str
    owners: tuple[Uploader, ...]

    def __str__(self) -> str:
        return f"the key {self.fingerprint} belongs to {' and to '.join(map(str, self.owners))}"


class KeyTable:
    """What has to be known of the trusted keys, by the fingerprint of the primary key or of a subkey."""

    def __init__(self, uploaders: tuple[Uploader, ...]) -> None:
        self.uploaders = uploaders
        self._by_fingerprint: dict[str, dict[str, tuple[Uploader, Key]]] = {}
        for uploader in uploaders:
            for key in uploader.keys:
                owners = self._by_fingerprint.setdefault(key.fingerprint, {})
                owners[uploader.primary.fingerprint] = (uploader, key)

    def find(self, fingerprint: str, primary: str = "") -> tuple[Uploader, Key] | None:
        """The uploader and the very key that has that fingerprint.

        If it has several owners: the one with that ``primary`` key, or else the first that was trusted.
        """
        owners = self._by_fingerprint.get(fingerprint, {})
        return owners.get(primary) if primary else next(iter(owners.values()), None)

    def owners(self, fingerprint: str) -> Shared | None:
        """All owners of the key with that fingerprint, if there are several."""
        owners = tuple(uploader for uploader, _ in self._by_fingerprint.get(fingerprint, {}).values())
        return Shared(fingerprint=fingerprint, owners=owners) if len(owners) > 1 else None

    @cached_property
    def shared(self) -> tuple[Shared, ...]:
        """The keys that have several owners: uploads that they sign may be refused until only one is trusted."""
        return tuple(found for fingerprint in self._by_fingerprint if (found := self.owners(fingerprint)))


def listed(colons: bytes) -> tuple[Uploader, ...]:
    """The keys of ``gpg --with-colons`` (GnuPG's doc/DETAILS)."""
    uploaders: list[Uploader] = []
    keys: list[Key] = []
    names: list[str] = []
    pending: list[str] = []

    def finish() -> None:
        if keys:
            uploaders.append(Uploader(primary=keys[0], subkeys=tuple(keys[1:]), names=tuple(names)))
        keys.clear()
        names.clear()

    for record in (line.split(":") for line in colons.decode("utf-8", "replace").split("\n")):
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
