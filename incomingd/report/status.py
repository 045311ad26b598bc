"""Status files: drawn from the journal, replaced atomically, and made anew at any time.

``NAME.json`` is the newest upload of that name, ``by-id/ID.json`` each one, ``index.json`` what is in flight, what
ended last, and the service's health. The form is fixed by the contract: ``schema`` 1. Nothing here is synced: after a
power cut :meth:`StatusFiles.rebuild` draws what is missing.
"""

import json
from collections.abc import Callable, Iterable
from typing import Any

from incomingd import codec, fsio
from incomingd.journal.uploads import Uploads
from incomingd.model import UPLOAD_NAME, Upload
from incomingd.places import Places
from incomingd.report.health import Health
from incomingd.states import Stage

#: How many ended uploads index.json lists.
_ENDED = 200
#: index.json is not an upload's; one that is called so has its by-id file only.
_RESERVED = {"index"}


def render(upload: Upload, position: int | None) -> dict[str, Any]:
    """One upload as the contract has it. ``position`` counts the uploads ahead of it while it is queued."""
    data = codec.plain_data(upload)
    return {
        "schema": 1,
        "name": upload.name,
        "id": upload.id,
        "queue": upload.queue,
        "state": int(upload.stage.state),
        "state_name": upload.stage.state.name,
        "stage": str(upload.stage),
        "position": position,
        **{key: data[key] for key in ("seen_at", "claimed_at", "started_at", "finished_at", "changes", "published")},
        **{key: data[key] for key in ("already_published", "warnings", "problems", "log")},
    }


class StatusFiles:
    """The status folder of one instance. Writing fails with ``OSError``."""

    def __init__(self, places: Places, uploads: Uploads, health: Callable[[], Health]) -> None:
        self._places = places
        self._uploads = uploads
        self._health = health
        self._positions: dict[int, int] = {}
        self._ended: dict[int, dict[str, Any]] = {}

    def prepare(self) -> None:
        """Make the folders, readable for all."""
        fsio.make_directories(self._places.status / "by-id", 0o755)

    def write(self, upload: Upload) -> None:
        """Write one upload's files."""
        self._write(upload, self._positions.get(upload.id) if upload.stage is Stage.QUEUED else None)

    def _write(self, upload: Upload, position: int | None) -> None:
        data = _encoded(render(upload, position))
        fsio.write_atomic(self._places.status_by_id(upload.id), data)
        if not UPLOAD_NAME.fullmatch(upload.name) or upload.name in _RESERVED:
            return
        newest = self._uploads.newest(upload.name)
        if newest is None or newest.id == upload.id:
            fsio.write_atomic(self._places.status_of(upload.name), data)

    def refresh_positions(self) -> None:
        """Write those queued uploads anew whose position has changed."""
        waiting = [upload for upload in self._uploads.open() if upload.sequence is not None]
        positions = {u.id: ahead for ahead, u in enumerate(waiting) if u.stage is Stage.QUEUED}
        changed = [upload_id for upload_id, ahead in positions.items() if self._positions.get(upload_id) != ahead]
        self._positions = positions
        for upload_id in changed:
            self.write(self._uploads.get(upload_id))

    def write_index(self) -> None:
        """Write index.json."""
        health = self._health()
        index = {
            "schema": 1,
            "health": codec.plain_data(health),
            "in_flight": [self._summary(upload) for upload in self._uploads.open()],
            "ended": self._last_ended(),
        }
        fsio.write_atomic(self._places.status_index, _encoded(index))

    def _last_ended(self) -> list[dict[str, Any]]:
        """What has ended stays as it is: each is drawn once (200 of them: 30 ms)."""
        last = self._uploads.ended(_ENDED)
        self._ended = {upload.id: self._ended.get(upload.id) or self._summary(upload) for upload in last}
        return list(self._ended.values())

    def _summary(self, upload: Upload) -> dict[str, Any]:
        shown = render(upload, self._positions.get(upload.id))
        del shown["log"], shown["schema"]
        return shown

    def rebuild(self) -> None:
        """Write all files of open uploads, and of those that ended last."""
        self.prepare()
        uploads: Iterable[Upload] = [*reversed(self._uploads.ended(_ENDED)), *self._uploads.open()]
        for upload in uploads:
            self.write(self._uploads.get(upload.id))
        self.write_index()


def _encoded(value: object) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode("utf-8", "surrogateescape")
