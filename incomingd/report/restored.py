"""What a journal that was restored from a backup does not know: status files of uploads that came after the backup.

Rules:

* Such an upload did not happen, as far as the archive is concerned: its status says FAILED (``journal-restored``), also
  if it was SUCCEEDED, since the restored archive does not list it. One that had FAILED stays as it is.
* Its id is not given again: scripts may still ask for it.
* No folder is read if index.json names no id that the journal does not know.
"""

import contextlib
import json
import logging
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from incomingd import codec, fsio, rules
from incomingd.model import UPLOAD_NAME, printable
from incomingd.places import Places
from incomingd.states import Stage

log = logging.getLogger(__name__)


def mark(places: Places, known: int, now: datetime) -> int:
    """Mark the status files of ids above ``known``, the highest that the journal has given; the highest id of all.

    May be done twice. Raises ``OSError``.
    """
    listed = list(_listed(places.status_index))
    if places.status_index.exists() and max(listed, default=0) <= known:
        return known
    by_id = places.status / "by-id"
    unknown = sorted(number for file in by_id.glob("*.json") if (number := _number(file)) > known)
    for number in unknown:
        _mark(places, number, now)
    if unknown:
        log.warning(
            "the journal was restored: %d uploads that came after the backup, up to #%d, are not known to it; their "
            "status files say so, and they have to be sent again",
            len(unknown),
            unknown[-1],
        )
    return max([known, *listed, *unknown])


def _number(file: Path) -> int:
    return int(file.stem) if file.stem.isdecimal() else 0


def _listed(index: Path) -> Iterator[int]:
    found = _read(index) or {}
    for one in (*found.get("in_flight", ()), *found.get("ended", ())):
        with contextlib.suppress(TypeError, KeyError):
            if isinstance(one["id"], int):
                yield one["id"]


def _mark(places: Places, number: int, now: datetime) -> None:
    """One upload, and ``NAME.json`` if that is still about it."""
    own = places.status_by_id(number)
    found = _read(own)
    if found is None or found.get("state") == int(Stage.REJECTED.state):
        return
    problem = rules.JOURNAL_RESTORED.problem(f"it was {printable(str(found.get('stage')))} before that")
    at = codec.timestamp(now)
    lines = found.get("log") if isinstance(found.get("log"), list) else []
    found |= {
        "state": int(Stage.REJECTED.state),
        "state_name": Stage.REJECTED.state.name,
        "stage": str(Stage.REJECTED),
        "position": None,
        "finished_at": at,
        "published": None,
        "problems": [codec.plain_data(problem)],
        "log": [*(lines or []), {"at": at, "message": f"failed: {problem.message}"}],
    }
    data = f"{json.dumps(found, ensure_ascii=False, indent=1)}\n".encode("utf-8", "surrogateescape")
    fsio.write_atomic(own, data)
    name = found.get("name")
    if isinstance(name, str) and UPLOAD_NAME.fullmatch(name):
        newest = places.status_of(name)
        if (_read(newest) or {}).get("id") == number:
            fsio.write_atomic(newest, data)


def _read(file: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(file.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None
