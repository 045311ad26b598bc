"""Waiting for uploads to end, by what status files say.

Once an upload was seen it is followed by its id: NAME.json may tell of another one later.
"""

from __future__ import annotations

import json
import time
from typing import Any, Callable, Dict, FrozenSet, Iterable, List, Optional, Protocol, Sequence, Tuple

from incomingd.client.errors import FAILED, HALTED, TIMED_OUT, TransportError
from incomingd.client.transport import Transport

#: ``state`` of a status file.
SUCCEEDED, UPLOAD_FAILED = 2, 3
#: Seconds between two looks: short at first, since an upload takes some 100 ms.
_SOONEST, _LATEST = 0.02, 0.5
#: Seconds that a halted service is given to take and check what has just been sent: whatever is wrong with it is told
#: all the same, and who asks learns where it waits.
_CHECKED_WITHIN = 2.0
#: Seconds between two looks at index.json, and the time for which a host may be out of reach while it is waited for.
_INDEX_EVERY, _OUT_OF_REACH = 2.0, 60.0
#: Seconds after which a status folder without any status is taken for the wrong one.
_NO_STATUS = 30.0
#: What is told of the service's health beside an upload.
_REASONS = 3

#: A status file, as JSON has it.
Status = Dict[str, Any]


class Source(Protocol):
    """Where status files are read."""

    def upload(self, name: str) -> Optional[Status]:
        """The newest upload of that name, or the one with that id if ``name`` is ``#ID``."""

    def look(self, name: str) -> Tuple[bool, Optional[Status]]:
        """The newest upload of that name, and whether a newer one lies in an incoming folder that has no status yet."""

    def halted(self) -> Optional[str]:
        """Why nothing is published, if the service is halted."""

    def hindrances(self) -> List[str]:
        """What the service has to say of itself: a halt, a hold, a full disk; a line each."""

    def is_others(self, upload: Status) -> bool:
        """True if another account than the caller has sent it, as far as that can be told."""


class Screen(Protocol):
    """Where people are told."""

    def show(self, lines: Iterable[str]) -> None:
        """What is being waited for; in place of what was shown before."""

    def ended(self, upload: Status, *, others: bool) -> None:
        """An upload has ended; ``others``: another account has sent it."""

    def error(self, line: str) -> None:
        """Why the program ends."""

    def due(self, at: str) -> str:
        """A time of a status file, for people."""


class Waiting:
    """The uploads that are waited for; ``over`` holds what ended, in that order, ``under_way`` what has not.

    ``near`` says of a name that no upload has, as the end of a line, which one may be meant.
    """

    def __init__(
        self, source: Source, names: Sequence[str], screen: Screen, near: Callable[[str], str] = lambda _: ""
    ) -> None:
        self.source = source
        self.open: Dict[str, Optional[int]] = dict.fromkeys(names)  # each with its id, once it was seen
        self.over: List[Status] = []
        self.under_way: List[Status] = []
        self._screen = screen
        self._near = near

    @property
    def found(self) -> List[Status]:
        """The status of each upload that is known, those first that have ended."""
        return [*self.over, *self.under_way]

    def run(self, timeout: Optional[float]) -> int:
        """Wait; the exit status. Raises :class:`TransportError`."""
        began = time.monotonic()
        pause, until = _SOONEST, None if timeout is None else began + timeout
        while True:
            lines, ended = self._look()
            if ended:
                self._screen.show(())
            for upload in ended:
                self._screen.ended(upload, others=self.source.is_others(upload))
            if not self.open:
                return FAILED if any(upload["state"] == UPLOAD_FAILED for upload in self.over) else 0
            halted, hindrances, now = self.source.halted(), self.source.hindrances(), time.monotonic()
            late = until is not None and now >= until
            if halted and (late or self._all_queued() or now >= began + _CHECKED_WITHIN):
                return self._give_up(lines, f"the service is halted: {halted}", HALTED)
            if late:
                return self._give_up([*lines, *hindrances], f"not ended after {timeout:g} s", TIMED_OUT)
            self._screen.show([*lines, *hindrances])
            time.sleep(pause if until is None else max(0.0, min(pause, until - time.monotonic())))
            pause = min(pause * 1.2, _LATEST)

    def _all_queued(self) -> bool:
        return len(self.under_way) == len(self.open) and all(one["stage"] == "queued" for one in self.under_way)

    def _look(self) -> Tuple[List[str], List[Status]]:
        """One line for each upload that has not ended; and those that now have."""
        lines: List[str] = []
        ended: List[Status] = []
        self.under_way = []
        for name, number in list(self.open.items()):
            waits, upload = self.source.look(name) if number is None else (False, self.source.upload(f"#{number}"))
            if waits:
                lines.append(f"{name}: has not been taken yet")
            elif upload is None:
                lines.append(f"{name}: unknown so far; nothing of that name is in incoming{self._near(name)}")
            elif upload["finished_at"] is None:
                if not self.source.is_others(upload):  # else the caller's own may come yet
                    self.open[name] = upload["id"]
                lines.append(self._line(upload))
                self.under_way.append(upload)
            else:
                del self.open[name]
                ended.append(upload)
        self.over += ended
        return lines, ended

    def _line(self, upload: Status) -> str:
        ahead = upload["position"]
        where = f", {ahead} ahead of it" if ahead else ""
        # A status file of before there were any has no such field.
        due = f", due {self._screen.due(upload['due_at'])}" if upload.get("due_at") else ""
        last = f": {upload['log'][-1]['message']}" if upload["log"] else ""
        return f"{upload['name']}: {upload['state_name']}, {upload['stage']}{where}{due}{last}"

    def _give_up(self, lines: Sequence[str], why: str, code: int) -> int:
        self._screen.show(())
        for line in lines:
            self._screen.error(line)
        self._screen.error(f"incomingctl: {why}")
        return code


class Remote:
    """The status files as a transport reads them. A host that cannot be reached for a while is waited for.

    ``digests`` are those of the .changes that were sent: a status that names others is another upload's.
    """

    def __init__(self, way: Transport, folder: str, digests: FrozenSet[str]) -> None:
        self._way = way
        self._folder = folder
        self._digests = digests
        self._older = 0
        self._seen = False
        self._index: Optional[Status] = None
        self._index_at = float("-inf")
        self._lost_at: Optional[float] = None
        self._nothing_since: Optional[float] = None

    def pass_over(self, name: str) -> None:
        """What NAME.json says now is of an older upload."""
        found = self._read(f"{name}.json")
        self._older = found["id"] if found else 0

    def upload(self, name: str) -> Optional[Status]:
        """The upload, from NAME.json; or, once that was seen, by its id."""
        found = self._read(f"by-id/{name[1:]}.json" if name.startswith("#") else f"{name}.json")
        if found is not None and found["id"] <= self._older:
            found = None
        if found is not None:
            self._check_ours(found)
        self._seen = self._seen or found is not None
        return found

    def _check_ours(self, found: Status) -> None:
        # Before it is checked, and by an older daemon, no digest is told.
        told = {one.get("sha256") for one in found["changes"]} - {None, ""}
        if not told <= self._digests:
            raise TransportError(
                f"{found['name']}: it was sent, and {self._folder}/{found['name']}.json is the status of another "
                f"upload, #{found['id']} of {account(found)}: the name is taken; send it again under another --name"
            )

    def is_others(self, upload: Status) -> bool:
        """The account there is not known here; :meth:`upload` has compared the content."""
        return False

    def look(self, name: str) -> Tuple[bool, Optional[Status]]:
        """The upload, and whether its status is not there yet."""
        found = self.upload(name)
        return found is None, found

    def halted(self) -> Optional[str]:
        """As index.json has it."""
        return stopped_by(self._service(), "halted")

    def hindrances(self) -> List[str]:
        """As index.json has them."""
        return hindrances_of(self._service())

    def _service(self) -> Optional[Status]:
        if time.monotonic() >= self._index_at + _INDEX_EVERY:
            self._index, self._index_at = self._read("index.json"), time.monotonic()
            self._doubt_folder()
        return self._index

    def _doubt_folder(self) -> None:
        """Every instance has an index.json: without one it would be waited for in vain."""
        if self._index is not None or self._seen or self._lost_at is not None:
            self._nothing_since = None
            return
        now = time.monotonic()
        self._nothing_since = now if self._nothing_since is None else self._nothing_since
        if now - self._nothing_since > _NO_STATUS:
            raise TransportError(
                f"it was sent, and {self._folder} has no index.json, or it cannot be read there; "
                "name the status folder with --status"
            )

    def _read(self, name: str) -> Optional[Status]:
        try:
            data = self._way.read(f"{self._folder}/{name}")
        except TransportError:
            now = time.monotonic()
            self._lost_at = now if self._lost_at is None else self._lost_at
            if now - self._lost_at > _OUT_OF_REACH:
                raise
            return None
        self._lost_at = None
        try:
            value = None if data is None else json.loads(data.decode("utf-8", "replace"))
        except ValueError as error:
            raise TransportError(f"{self._folder}/{name} is not a status file of incomingd: {error}") from error
        return value if isinstance(value, dict) else None


# -- what a status says -----------------------------------------------------------------------------------------------


def stopped_by(index: Optional[Status], state: str) -> Optional[str]:
    """The first reason that index.json gives, if the service is in that state."""
    health = (index or {}).get("health", {})
    return str((health.get("reasons") or [f"it is {state}"])[0]) if health.get("state") == state else None


def hindrances_of(index: Optional[Status]) -> List[str]:
    """Why uploads may be slow or not go on at all, a line each: what the service's health says, if it is not well."""
    health = (index or {}).get("health", {})
    state, reasons = health.get("state", "ok"), list(health.get("reasons") or [])
    if state == "stopped":
        return ["the service is stopped: no daemon runs"]
    return [] if state == "ok" else [f"the service is {state}: {reason}" for reason in reasons[:_REASONS] or [state]]


def account(upload: Status) -> str:
    """Who has sent it, for people."""
    uploader = upload.get("uploader")  # a status file of before owners were kept has no such field
    if uploader is None:
        return "an unknown account"
    return str(uploader["account"] or f"uid {uploader['uid']}")


def problem_lines(upload: Status) -> List[str]:
    """One line for each problem: the file, the code and the message."""
    return [
        f"{problem['file'] + ': ' if problem['file'] else ''}{problem['message']} [{problem['code']}]"
        for problem in upload["problems"]
    ]
