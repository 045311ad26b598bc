"""What a repository's signed Release says, and whether it is the one that was asked for.

Rules:

* It is signed by a key of the keyring that the operator names, as strictly as an upload; of several signatures one is
  enough.
* Its Suite or its Codename is the suite that was asked for: a server can answer for ``stable`` with the Release of
  ``unstable``, which the same key has signed.
* Its Date is not more than a day ahead, and its Valid-Until is not over: a server can answer with an old one for ever.
"""

import io
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

from incomingd.errors import ConfigError
from incomingd.importing.index import EntryError, Listed, listed, stanzas
from incomingd.model import plain
from incomingd.verify.keyring import Keyring, KeyringError
from incomingd.verify.signature import Verifier

_FIELDS = ("suite", "codename", "date", "valid-until", "components", "acquire-by-hash", "sha256")
_AHEAD = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The Release that is asked for: ``name`` is its Suite or Codename."""

    name: str
    keyring: Path
    now: datetime
    ignore_valid_until: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A Release that was asked for: when it was made, its components, and the indexes that it lists, by name."""

    date: datetime
    components: tuple[str, ...]
    indexes: dict[str, Listed]
    by_hash: bool


def verify(data: bytes, wanted: Wanted) -> Release:
    """The Release in the InRelease ``data``. Raises ``ConfigError``."""
    with tempfile.TemporaryDirectory(prefix="incomingd-") as folder:
        keys = Keyring(Path(folder) / "keys")
        try:
            keys.trust(wanted.keyring.read_bytes())
        except KeyringError as error:
            raise ConfigError([f"{wanted.keyring}: {error}"]) from error
        signed = Verifier(keyring=keys.public, keys=keys.load(), now=wanted.now).verify_any(data, "InRelease")
    if signed.text is None or signed.doubts:
        raise ConfigError(f"InRelease: {problem.message}" for problem in (*signed.faults, *signed.doubts))
    return read(signed.text, wanted)


def read(text: bytes, wanted: Wanted) -> Release:
    """The Release in a text that was verified. Raises ``ConfigError``."""
    found = list(stanzas(io.BytesIO(text), _FIELDS))
    if len(found) != 1 or found[0].fault:
        said = found[0].fault if len(found) == 1 else f"it has {len(found)} stanzas, not one"
        raise ConfigError([f"its Release cannot be read: {said}"])
    fields = {name: found[0].get(name) for name in _FIELDS}
    faults = [*_suite_faults(fields, wanted.name), *_date_faults(fields, wanted)]
    try:
        rows = listed(fields["sha256"])
    except EntryError as error:
        raise ConfigError([*faults, f"its Release cannot be read: {error}"]) from error
    indexes: dict[str, Listed] = {}
    for row in rows:
        if indexes.setdefault(row.path, row) != row:
            faults.append(f"its Release lists {plain(row.path)} twice, with other digests")
    if not rows:
        faults.append("its Release lists no SHA256")
    if faults:
        raise ConfigError(faults)
    return Release(
        date=_parsed(fields["date"]) or wanted.now,
        components=tuple(fields["components"].split()),
        indexes=indexes,
        by_hash=fields["acquire-by-hash"].lower() == "yes",
    )


def _suite_faults(fields: dict[str, str], name: str) -> list[str]:
    """``stable/updates`` is the folder of a suite that is called stable, as apt has it."""
    wanted = {name, name.rpartition("/")[0] or name}
    said = [fields[field] for field in ("suite", "codename")]
    if wanted & set(said) or (not name and not any(said)):
        return []
    return [
        f'its Release is that of Suite "{plain(said[0])}" and Codename "{plain(said[1])}", and "{plain(name)}" was '
        "asked for; either the server answers with another suite's Release, or the suite calls itself by another name "
        "than its folder: if you know that it does, give that name with --release-name"
    ]


def _date_faults(fields: dict[str, str], wanted: Wanted) -> list[str]:
    date, until = _parsed(fields["date"]), _parsed(fields["valid-until"])
    faults = []
    if date is None:
        faults.append(f'the Date of its Release is "{plain(fields["date"])}", which is no date')
    elif date > wanted.now + _AHEAD:
        faults.append(f"its Release is dated {date:%Y-%m-%d %H:%M} UTC, and it is {_time(wanted)}; is the clock right?")
    if fields["valid-until"] and not wanted.ignore_valid_until:
        if until is None:
            faults.append(f'the Valid-Until of its Release is "{plain(fields["valid-until"])}", which is no date')
        elif until < wanted.now:
            faults.append(
                f"its Release was valid until {until:%Y-%m-%d %H:%M} UTC, and it is {_time(wanted)}; the repository is "
                "not kept up, or the server answers with an old copy: --ignore-valid-until takes it all the same"
            )
    return faults


def _time(wanted: Wanted) -> str:
    return f"{wanted.now:%Y-%m-%d %H:%M}"


def _parsed(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
        return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)
    except (ValueError, TypeError, OverflowError, IndexError, AttributeError):
        return None
