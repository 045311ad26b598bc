"""What a journal that was restored from a backup does not know: uploads that came after the backup and have status
files. Looks only.

No folder is read if index.json names no id that the journal does not know.
"""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from incomingd.model import Owner, plain
from incomingd.places import Places
from incomingd.states import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """An upload that only its status file knows. ``failed``: what that says holds still."""

    id: int
    name: str
    queue: str
    stage: str
    seen_at: datetime
    owner: Owner | None
    failed: bool


def unknown(places: Places, known: int) -> list[Unknown]:
    """The uploads with ids above ``known``, the highest that the journal has given. Raises ``OSError``."""
    index = _read(places.status_index)
    if index is not None and max(_listed(index), default=0) <= known:
        return []
    files = ((number, file) for file in (places.status / "by-id").glob("*.json") if (number := _number(file)) > known)
    return [one for number, file in sorted(files) if (one := _upload(number, _read(file) or {}))]


def _number(file: Path) -> int:
    return int(file.stem) if file.stem.isascii() and file.stem.isdecimal() else 0


def _listed(index: dict[str, Any]) -> Iterator[int]:
    for one in (*index.get("in_flight", ()), *index.get("ended", ())):
        with contextlib.suppress(TypeError, KeyError):
            if isinstance(one["id"], int):
                yield one["id"]


def _upload(number: int, found: dict[str, Any]) -> Unknown | None:
    """None if the file is not one of this program's."""
    with contextlib.suppress(KeyError, TypeError, ValueError):
        uploader = found["uploader"]
        account = uploader and uploader["account"]
        return Unknown(
            id=number,
            name=plain(found["name"]),
            queue=plain(found["queue"]),
            stage=plain(found["stage"]),
            seen_at=datetime.fromisoformat(found["seen_at"]),
            owner=Owner(uid=int(uploader["uid"]), account=account and plain(account)) if uploader else None,
            failed=found["state"] == int(State.FAILED),
        )
    return None


def _read(file: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(file.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None
