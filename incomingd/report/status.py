"""Status files: drawn from the journal, replaced atomically, and made anew at any time.

``NAME.json`` is the newest upload of that name that is not nameless, ``by-id/ID.json`` each one, ``index.json`` what is
in flight, what ended last, and the service's health. The form is fixed by the contract: ``schema`` 1. Nothing here is
synced: after a power cut :meth:`StatusFiles.note_all` has drawn what is missing.

Rules:

* Whoever moves an upload only notes it, from any thread. One thread draws what the journal says of all that is noted
  (:meth:`StatusFiles.draw`) and then writes it (:meth:`StatusFiles.write`): a file may be late, it is never wrong, and
  moves that follow each other quickly are written once.
* What cannot be written stays noted, and holds up no other upload's file.
* The files of uploads that ended long ago are removed, some at a time, as the journal names them: no folder is read.
"""

import json
import threading
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from incomingd import codec, fsio
from incomingd.errors import Retry
from incomingd.journal.uploads import Uploads
from incomingd.model import UPLOAD_NAME, Upload, printable
from incomingd.places import Places
from incomingd.report.health import Health
from incomingd.states import Stage

#: How many ended uploads index.json lists.
_ENDED = 200
#: index.json is not an upload's; one that is called so has its by-id file only.
_RESERVED = {"index"}
_json = json.JSONEncoder(ensure_ascii=False).encode


def render(upload: Upload, position: int | None) -> dict[str, Any]:
    """One upload as the contract has it. ``position`` counts the uploads ahead of it while it is queued."""
    return {key: _printable(value) for key, value in _facts(upload, position).items()}


def _facts(upload: Upload, position: int | None) -> dict[str, Any]:
    """As :func:`render`, with texts as they came."""
    data = codec.plain_data(upload)
    return {
        "schema": 1,
        "name": upload.name,
        "id": upload.id,
        "queue": upload.queue,
        "uploader": None if upload.uid is None else {"uid": upload.uid, "account": upload.account},
        "state": int(upload.stage.state),
        "state_name": upload.stage.state.name,
        "stage": str(upload.stage),
        "position": position,
        **{key: data[key] for key in ("seen_at", "claimed_at", "due_at", "started_at", "finished_at")},
        **{key: data[key] for key in ("changes", "published", "already_published")},
        **({"superseded_by": upload.superseded_by} if upload.superseded_by else {}),
        **{key: data[key] for key in ("warnings", "problems", "log")},
    }


def _told(value: Any) -> str:
    """JSON with all its texts printable. Nearly all are: what JSON itself has escaped is looked at closer."""
    text = _json(value)
    return text if text.isprintable() and "\\" not in text else _json(_printable(value))


def _printable(value: Any) -> Any:
    """Data for JSON with all its texts printable: scripts print them, and pages show them, as they stand."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [_printable(one) for one in value]
    if isinstance(value, dict):
        return {printable(key): _printable(one) for key, one in value.items()}
    return value


class StatusFiles:
    """The status folder of one instance. Any thread may note; one thread draws and writes."""

    def __init__(self, places: Places, uploads: Uploads, health: Callable[[], Health]) -> None:
        self._places = places
        self._uploads = uploads
        self._health = health
        self._expiry = uploads.expiry
        self._removed_to: datetime | None = None  # what ended until then has no files any more
        self._lock = threading.Lock()
        self._noted: set[int] = set()
        self._noted_now: set[int] = set()
        self._positions: dict[int, int] = {}  # as they are
        self._told: dict[int, int] = {}  # as they were written
        self._drawn: list[tuple[Upload, bool]] = []  # to be written, each with whether it is the newest of its name
        self._line: list[tuple[int, Stage]] = []  # every open upload
        self._last: list[int] = []  # those that ended last
        self._entries: dict[int, tuple[Stage, str]] = {}  # each one's entry in index.json
        self._named: set[int] = set()  # those whose NAME.json was written

    def prepare(self) -> None:
        """Make the folders, readable for all."""
        fsio.make_directories(self._places.status / "by-id", 0o755)
        self._removed_to = self._expiry.reached()

    def hides(self, upload: Upload) -> bool:
        """True if there is a status file of its name, and it may be another upload's. Any thread may ask."""
        if upload.id in self._named or UPLOAD_NAME.fullmatch(upload.name) is None:
            return False
        return self._places.status_of(upload.name).exists()

    # -- noting -------------------------------------------------------------------------------------------------------

    def note(self, *upload_ids: int, now: bool = False) -> None:
        """These have news; ``now``: somebody waits for it."""
        with self._lock:
            (self._noted_now if now else self._noted).update(upload_ids)

    def note_all(self) -> None:
        """Every open upload, and those that ended last, are to be written anew."""
        self.note(*self._uploads.last_ended(_ENDED), *(upload.id for upload in self._uploads.open()))

    def note_positions(self) -> None:
        """Those queued uploads are to be written anew whose position is not the one that was written."""
        self.note(*(number for number, ahead in self._positions.items() if self._told.get(number) != ahead))

    def is_busy(self) -> bool:
        """True where an upload is on its way that is not delayed. Raises ``Retry``."""
        return self._uploads.is_busy()

    # -- drawing ------------------------------------------------------------------------------------------------------

    def look_at_line(self) -> None:
        """Read from the journal who is on the way. Raises ``Retry``."""
        line = self._uploads.line()
        self._line = [(one.id, one.stage) for one in line]
        self._positions = {
            one.id: ahead for ahead, one in enumerate(line) if one.stage is Stage.QUEUED and not one.passed_over
        }

    def draw(self, *, everything: bool, published: bool) -> None:
        """Read from the journal how those stand that are noted for now, or all that are noted. Raises ``Retry``.

        Where ``published`` is False, those that the journal has as published stay noted: clients cannot see them yet.
        """
        noted = self._take_noted(everything=everything)
        if not noted:
            return
        try:
            shown, hidden = _split(self._uploads.many(noted), published=published)
            newest = self._uploads.newest_ids({upload.name for upload in shown})
        except Retry:
            self.note(*noted)
            raise
        self.note(*(upload.id for upload in hidden))
        if any(one.stage is Stage.QUEUED and not one.delayed and one.id not in self._positions for one in shown):
            self.look_at_line()
        self._drawn += [(upload, newest[upload.name] == upload.id) for upload in shown]

    def _take_noted(self, *, everything: bool) -> set[int]:
        with self._lock:
            noted, self._noted_now = self._noted_now, set()
            if everything:
                noted |= self._noted
                self._noted = set()
            else:
                self._noted -= noted
        return noted

    def note_index(self) -> None:
        """Read from the journal what index.json lists, and note whoever is not in it as they stand now."""
        self._last = self._uploads.last_ended(_ENDED)
        wanted = {**dict(self._line), **dict.fromkeys(self._last)}
        self._named &= wanted.keys()
        self._entries = {number: entry for number, entry in self._entries.items() if number in wanted}
        listed = {number: stage for number, (stage, _) in self._entries.items()}
        self.note(*(number for number, stage in self._line if listed.get(number) is not stage))
        self.note(*(number for number in self._last if number not in listed or not listed[number].ended))

    # -- writing ------------------------------------------------------------------------------------------------------

    def write(self) -> None:
        """Write what was drawn. Raises the first ``OSError`` after all the others were tried."""
        drawn, self._drawn = self._drawn, []
        failures: list[OSError] = []
        for upload, is_newest in drawn:
            try:
                self._write(upload, is_newest)
            except OSError as error:
                self.note(upload.id)
                failures.append(error)
        self._told = {number: ahead for number, ahead in self._told.items() if number in self._positions}
        if failures:
            raise failures[0]

    def _write(self, upload: Upload, is_newest: bool) -> None:
        position = self._positions.get(upload.id) if upload.stage is Stage.QUEUED and not upload.delayed else None
        members = {key: _told(value) for key, value in _facts(upload, position).items()}
        self._entries[upload.id] = (upload.stage, _entry(members))
        if self._removed_to and upload.finished_at and upload.finished_at <= self._removed_to:
            return  # index.json may list it still
        own, data = self._places.status_by_id(upload.id), _object(members)
        if is_newest and _has_file(upload.name):
            fsio.write_twice(own, self._places.status_of(upload.name), data)
            self._named.add(upload.id)
        else:
            fsio.write_atomic(own, data)
        if position is not None:
            self._told[upload.id] = position

    def remove_old(self, before: datetime, limit: int) -> bool:
        """Remove the files of some that ended before that; True if there may be more. Raises ``OSError`` and ``Retry``.

        The caller writes nothing meanwhile: a newer upload of the name may be seen at any moment, and its file comes
        after this.
        """
        old = self._expiry.next(before, limit)
        for one in old:
            fsio.remove(self._places.status_by_id(one.id))
            if one.newest and _has_file(one.name):
                fsio.remove(self._places.status_of(one.name))
        if old:
            self._removed_to = old[-1].finished_at
            self._expiry.done(old[-1])
        return len(old) == limit

    def write_index(self) -> None:
        """Write index.json: the lists as they were drawn, the health of this moment. Raises ``OSError``."""
        in_flight = (self._entries[number][1] for number, _ in self._line if number in self._entries)
        ended = (self._entries[number] for number in self._last if number in self._entries)
        index = {
            "schema": "1",
            "health": _told(codec.plain_data(self._health())),
            "in_flight": _lines(in_flight),
            "ended": _lines(entry for stage, entry in ended if stage.ended),
        }
        fsio.write_atomic(self._places.status_index, _object(index))


def _has_file(name: str) -> bool:
    return UPLOAD_NAME.fullmatch(name) is not None and name not in _RESERVED


def _split(uploads: Iterable[Upload], *, published: bool) -> tuple[list[Upload], list[Upload]]:
    """Those that may be told, and those that may not yet."""
    parts: tuple[list[Upload], list[Upload]] = ([], [])
    for upload in uploads:
        parts[upload.stage is Stage.PUBLISHED and not published].append(upload)
    return parts


def _object(members: dict[str, str]) -> bytes:
    """One line for each key. The json module's own indents are made by its slow half: ten times the time."""
    text = ",\n".join(f' "{key}": {value}' for key, value in members.items())
    return f"{{\n{text}\n}}\n".encode("utf-8", "surrogateescape")


def _entry(members: dict[str, str]) -> str:
    text = ", ".join(f'"{key}": {value}' for key, value in members.items() if key not in ("schema", "log"))
    return f"{{{text}}}"


def _lines(items: Iterable[str]) -> str:
    text = ",\n  ".join(items)
    return f"[\n  {text}\n ]" if text else "[]"
