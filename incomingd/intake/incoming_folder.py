"""One incoming directory, or one for delayed uploads in it: which uploads wait there, and what is due for them now.

Rules:

* Every upload that the scan finds gets a journal row (stage ``receiving``) immediately, so that scripts can poll it.
  After a restart, existing rows are matched by kind and name and never duplicated.
* All uploads that are ready get their sequence numbers in one transaction, in the order in which they became ready.
  Then each is renamed. An upload whose rename fails returns to ``receiving`` and does not block the others.
* An upload that disappears before it is taken was withdrawn: stage ``cancelled``. If the incoming directory itself is
  another one than before (unmounted, or made again), uploads count as withdrawn only after ``abandon_after``, since
  the directory may come back.

Faults are sentences for people. A fault of one directory does not stop the others. :class:`~incomingd.errors.Retry`
from the journal is passed on, and the next scan continues from what the journal then says.
"""

import contextlib
import errno
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from incomingd import fsio, rules
from incomingd.config import QueueConfig
from incomingd.errors import Retry
from incomingd.intake import claim, delayed, probe, scan
from incomingd.intake.accounts import Failures, Room, TimeBudget, in_turn
from incomingd.intake.folder_faults import FolderFaults
from incomingd.intake.listing import Listings
from incomingd.intake.ownership import shown
from incomingd.intake.readiness import ScanTime
from incomingd.intake.scan import Key, Survey
from incomingd.intake.scan_events import NewEvents, ScanEvents
from incomingd.intake.sweep import Sweep, followed
from incomingd.intake.waiting import ROOM_PAUSE, TRY_AGAIN, Waiting
from incomingd.intake.watch import Watch
from incomingd.journal.uploads import StaleMoveError, Uploads
from incomingd.model import Owner, Upload, UploadKind, plain
from incomingd.places import Places
from incomingd.states import Stage

log = logging.getLogger(__name__)

#: New uploads registered, and uploads taken, in one look; the next look follows at once.
_AT_ONCE = 500
#: Seconds for which health tells of a name that had to be renamed.
_TOLD_FOR = 3600.0
#: Names that were renamed in and are remembered until they are registered.
_MOST_HELD = 100_000
#: Seconds until what changed under a look is looked at again.
_SOON = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderContext:
    """What every incoming folder needs: the journal's uploads, pending events, the clock, and who is to be told.

    ``on_taking`` is told before uploads are renamed away, ``on_claimed`` of each that was, and ``on_ended`` of one that
    was only put aside.
    """

    uploads: Uploads
    scan_events: ScanEvents
    clock: Callable[[], datetime]
    on_change: Callable[[Upload], None]
    on_taking: Callable[[Sequence[Upload]], None]
    on_claimed: Callable[[Upload], None]
    on_ended: Callable[[Upload], None]
    listings: Listings = field(default_factory=Listings)
    budget: TimeBudget = field(default_factory=TimeBudget)
    failures: Failures = field(default_factory=Failures)


class IncomingFolder:
    """The incoming directory of one queue, or one of its folders (:meth:`QueueConfig.folders`)."""

    def __init__(self, queue: QueueConfig, places: Places, context: FolderContext) -> None:
        self.queue = queue
        self.faults: tuple[str, ...] = ()
        self.settling = False
        self._places = places
        self._context = context
        self._waiting: dict[Key, Waiting] | None = None
        self._unfinished: list[Waiting] = []
        self._arrivals = 0
        self._held: list[str] = []  # renamed in, but more than one look takes on
        self._identity: tuple[int, int] | None = None
        self._area_fault = ""
        self._probe_at = float("-inf")
        self._beyond: list[str] = []  # accounts that have more here than is followed
        self._renamed: list[str] = []  # names of other accounts, in place of a folder for delayed uploads
        self._renamed_at = float("-inf")
        self._sweep = Sweep()
        self._folder_faults = FolderFaults()
        self._watch: Watch | None = None

    def configure(self, queue: QueueConfig, places: Places) -> None:
        """Take up new settings. The path is the same; another path is another folder."""
        restart = self._watch is not None and queue.watch != self.queue.watch
        self.queue, self._places = queue, places
        self._identity = None  # the claims area is probed anew
        if restart:
            self.stop_watching()
            self.start_watching()

    def start_watching(self) -> None:
        """Set the watch; where it cannot be set now, later looks try again.

        Directories for delayed uploads have none, a thread or two for each of sixteen: nobody waits for the moment in
        which what waits for days is taken, and the periodic scan finds it.
        """
        if self.queue.delay is not None:
            return
        root = claim.root_of(self.queue)
        self._watch = Watch(self.queue, root, self._context.scan_events)
        try:
            with fsio.directory(root) as fd:
                self._watch.tend(_identity(fd), time.monotonic())
        except OSError:
            return  # the look says what is wrong with the directory

    def stop_watching(self) -> None:
        """End the watch."""
        if self._watch is not None:
            self._watch.stop()
            self._watch = None

    def close(self) -> None:
        """Nobody looks here any more. A folder for delayed uploads would look like an upload then."""
        self.stop_watching()
        if self.queue.delay is not None:
            delayed.remove(self.queue)

    def look(self, scan_time: ScanTime) -> float:
        """One look; the monotonic time when the next one is of use."""
        if self._waiting is None:
            self._waiting = self._from_journal()
        faults: list[str] = []
        try:
            due = self._look(scan_time, self._waiting, faults)
        except Retry:
            self._waiting = None
            raise
        except StaleMoveError:
            known, self._waiting = self._waiting, self._from_journal()
            if not self._cancelled(one.upload for one in known.values()):
                raise
            return self.look(scan_time)
        if self._watch is not None and self._watch.fault:
            faults.append(self._watch.fault)
        for fault in faults:
            if fault not in self.faults:
                log.warning("%s", fault)
        self.faults = tuple(faults)
        return due

    def _cancelled(self, uploads: Iterable[Upload]) -> bool:
        """True where an operator has cancelled one of them meanwhile."""
        now = self._context.uploads.many(upload.id for upload in uploads)
        return any(upload.stage is Stage.CANCELLED for upload in now)

    def _from_journal(self) -> dict[Key, Waiting]:
        here = (self.queue.name, self.queue.delay)
        mine = [u for u in self._context.uploads.open() if u.stage is Stage.RECEIVING and (u.queue, u.delay) == here]
        return {(upload.kind, upload.name): Waiting(upload=upload, file_name="") for upload in mine}

    def _look(self, scan_time: ScanTime, waiting: dict[Key, Waiting], faults: list[str]) -> float:
        self._finish_claims(waiting, scan_time)
        try:
            with self._opened(scan_time) as fd:
                return self._look_in(fd, scan_time, waiting, faults)
        except OSError as error:
            self._identity, self.settling = None, False
            if self._watch is not None:
                self._watch.tend(None, scan_time.monotonic)
            faults.append(
                f"{self.queue.path} cannot be read: {error.strerror or error}; nothing comes in through "
                f"[incoming.{self.queue.name}] until it is a directory that the daemon can read"
            )
            return scan_time.monotonic + TRY_AGAIN

    @contextlib.contextmanager
    def _opened(self, scan_time: ScanTime) -> Iterator[int]:
        if self.queue.delay is not None and (renamed := delayed.prepare(self.queue)):
            self._renamed, self._renamed_at = renamed, scan_time.monotonic
        with claim.opened(self.queue) as fd:
            yield fd

    def _look_in(self, fd: int, scan_time: ScanTime, waiting: dict[Key, Waiting], faults: list[str]) -> float:
        now, identity = scan_time.monotonic, _identity(fd)
        fresh = self._watch is None or self._watch.tend(identity, now)
        self._check_area(identity, now)
        # The folders for delayed uploads have no watch: what was heard of the queue is all of its incoming directory's.
        new_events = self._context.scan_events.take(self.queue.name) if self.queue.delay is None else NewEvents()
        found = self._folder_faults.with_lone(self._read(fd, waiting, new_events), waiting.values())
        if found.complete:
            self._withdraw(fd, found, waiting, identity, now)
        new = found.uploads.keys() - waiting.keys()
        self._folder_faults.note_arrivals(
            {found.uploads[key] for key in new}, new_events.names, now, announced=not fresh
        )
        more = self._meet(fd, found, waiting, identity, new_events, now)
        room = self._room(waiting, now)
        ready = self._examine(fd, scan_time, waiting, room)
        replaced = [one for one in waiting.values() if one.replaced]
        self._end_replaced(replaced, waiting, "was replaced by another one of the same name")
        if self._area_fault:
            faults.append(self._area_fault)
            for one in ready:
                one.hold(self._area_fault, now)
        else:
            for one in ready[_AT_ONCE:]:
                one.due = now
            self._take(fd, self._within(room, ready[:_AT_ONCE], now), waiting, scan_time)
        self._tell(fd, waiting, now)
        if found.complete:
            self._folder_faults.note_strays(fd, found, waiting.values(), scan_time, self.queue)
            self._folder_faults.note_lone(fd, scan_time, self.queue)
            self._folder_faults.note_left(fd, found, scan_time, self.queue)
            self._remove_strays(fd, scan_time)
        faults += self._folder_faults.sentences(self.queue, waiting.values(), now)
        if found.complete:
            self._beyond = _beyond(found, self.queue)
        faults += self._beyond
        if now - self._renamed_at < _TOLD_FOR:
            faults += self._renamed
        self.settling = any(one.settling for one in waiting.values()) or not found.complete
        if not found.complete or replaced:
            return now + _SOON
        if more or len(ready) > _AT_ONCE:
            return now
        return min((one.due for one in waiting.values()), default=float("inf"))

    def _read(self, fd: int, waiting: dict[Key, Waiting], new_events: NewEvents) -> Survey:
        announced = dict.fromkeys((*self._held, *new_events.renamed_in, *new_events.names))
        return self._sweep.step(
            fd,
            {key: one.upload.uid for key, one in waiting.items()},
            announced,
            followed(self._places.config.limits),
            delayed=self.queue.delay is None and self.queue.delayed > 0,
        )

    def _remove_strays(self, fd: int, scan_time: ScanTime) -> None:
        for name in self._folder_faults.overdue(fd, scan_time, self.queue):
            try:
                if claim.remove_stray(self._places, self.queue, fd, name):
                    log.warning("%s: removed from %s, where it belonged to no upload", plain(name), self.queue.path)
            except OSError as error:
                log.warning("%s: cannot be removed: %s", plain(name), error.strerror)

    def _check_area(self, identity: tuple[int, int], now: float) -> None:
        # What is in incoming is on its file system, and that one is probed.
        if self.queue.delay is None and (identity != self._identity or (self._area_fault and now >= self._probe_at)):
            self._area_fault = probe.area_fault(self._places, self.queue)
            self._probe_at = now + TRY_AGAIN
        self._identity = identity

    # -- coming and going ---------------------------------------------------------------------------------------------

    def _withdraw(
        self, fd: int, found: Survey, waiting: dict[Key, Waiting], identity: tuple[int, int], now: float
    ) -> None:
        gone = []
        for key in waiting.keys() - found.uploads.keys():
            one = waiting[key]
            if found.steps > 1 and one.home == identity and os.access(one.file_name, os.F_OK, dir_fd=fd):
                continue  # it came behind the place to which it had been read, or was given another name meanwhile
            one.settling = False
            one.gone_since = now if one.gone_since is None else one.gone_since
            moved = one.home is not None and one.home != identity
            one.due = one.gone_since + self.queue.abandon_after if moved else now
            if one.due <= now:
                gone.append(key)
        if not gone:
            return
        # What an operator has cancelled was taken out of here, and has ended.
        still = self._context.uploads.many(waiting[key].upload.id for key in gone)
        with self._context.uploads.together():
            ended = [
                self._cancel(upload, self._withdrawn(upload)) for upload in still if upload.stage is Stage.RECEIVING
            ]
        for key in gone:
            del waiting[key]
        for upload in ended:
            self._context.on_change(upload)

    def _withdrawn(self, upload: Upload) -> str:
        if upload.kind is UploadKind.LONE:
            return f"{plain(upload.name)} was removed from {self.queue.path}, or is a file of another upload by now"
        return f"{plain(upload.name)} was removed from {self.queue.path}, or renamed, before it was taken"

    def _cancel(self, upload: Upload, found: str) -> Upload:
        problem = rules.UPLOAD_WITHDRAWN.problem(found)
        log.info("%s: withdrawn: %s", plain(upload), found)
        ended = self._context.uploads.reject(
            upload, [problem], self._context.clock(), "withdrawn", target=Stage.CANCELLED
        )
        self._context.failures.note(ended)  # it leaves as much as one that fails
        return ended

    def _meet(
        self,
        fd: int,
        found: Survey,
        waiting: dict[Key, Waiting],
        identity: tuple[int, int],
        new_events: NewEvents,
        now: float,
    ) -> bool:
        """Give everyone who is new a row, and note who was renamed in; True if there are more than that in one look."""
        renamed_in = dict.fromkeys((*self._held, *new_events.renamed_in))
        order = {name: number for number, name in enumerate(renamed_in, self._arrivals)}
        self._arrivals += len(order)
        by_order = sorted(
            found.uploads.keys() - waiting.keys(), key=lambda key: order.get(found.uploads[key], float("inf"))
        )
        new = in_turn(by_order, found.accounts.get)
        may_come = [key for key in new if self._context.failures.wait(found.accounts.get(key), now) == 0]
        met = self._register(fd, found, may_come[:_AT_ONCE])
        waiting.update(met)
        for key, file_name in found.uploads.items():
            one = waiting.get(key)
            if one is None:
                continue
            if one.gone_since is not None:  # it has come back, with the directory that it was in
                one.gone_since, one.due = None, float("-inf")
            one.file_name, one.home = file_name, identity
            if key[0] is UploadKind.DIRECTORY and file_name in order:
                one.arrival, one.due = order[file_name], float("-inf")
        come = set(may_come[:_AT_ONCE])
        postponed = {found.uploads[key] for key in new if key not in come} | found.beyond_renamed
        met_names = {one.file_name for one in waiting.values()} if not found.complete else set()
        self._held = [n for n in order if n in postponed or not (found.complete or n in met_names)][:_MOST_HELD]
        for one in met.values():
            if one.arrival is None:  # the others are told of in a moment, when they have been taken
                self._context.on_change(one.upload)
        return len(may_come) > _AT_ONCE

    def _register(self, fd: int, found: Survey, keys: list[Key]) -> dict[Key, Waiting]:
        owners = {key: owner for key in keys if (owner := _owner(fd, found.uploads[key]))}
        if not owners:
            return {}
        at = self._context.clock()
        with self._context.uploads.together():
            seen = [
                self._context.uploads.see(
                    name, self.queue.name, kind, at, "seen", delay=self.queue.delay, owner=owners[kind, name]
                )
                for kind, name in owners
            ]
        return {(upload.kind, upload.name): Waiting(upload=upload, file_name="") for upload in seen}

    # -- looking and taking -------------------------------------------------------------------------------------------

    def _room(self, waiting: dict[Key, Waiting], now: float) -> Room:
        """What each account may still have on its way; read only if something is due."""
        is_due = any(one.due <= now for one in waiting.values())
        return Room(self._places.config.limits, self._context.uploads.in_flight() if is_due else {})

    def _examine(self, fd: int, scan_time: ScanTime, waiting: dict[Key, Waiting], room: Room) -> list[Waiting]:
        """Those that are to be taken now: accounts in turn, each one's in the order in which they became ready."""
        now, budget = scan_time.monotonic, self._context.budget
        some = [one for one in waiting.values() if one.due <= now and one.gone_since is None]
        # Those that wait for room come before what their accounts have sent since.
        limited = [one for one in waiting.values() if one.due > now and one.limited_since is not None] if some else []
        due = [*some, *limited]
        ready = []
        for one in in_turn(sorted(due, key=lambda one: (one.due, one.order())), _account):
            uid = one.upload.uid
            if one.limited_since is not None and room.close_if_full(uid, one.size):
                one.due = now + ROOM_PAUSE
                continue
            if pause := max(budget.wait(uid, now), self._context.failures.wait(uid, now)):
                one.due = now + pause
                continue
            with budget.spent(uid, now):
                if self._is_ready(one, fd, scan_time):
                    ready.append(one)
        return in_turn(sorted(ready, key=Waiting.order), _account)

    def _is_ready(self, one: Waiting, fd: int, scan_time: ScanTime) -> bool:
        try:
            ready = one.is_ready(fd, scan_time, self.queue, self._context.listings)
            return ready and not one.replaced
        except (FileNotFoundError, NotADirectoryError):
            one.due = scan_time.monotonic + _SOON
        except OSError as error:
            one.returned(error.strerror or str(error), scan_time.monotonic)
        return False

    def _within(self, room: Room, ready: list[Waiting], now: float) -> list[Waiting]:
        """Those whose accounts have room for them. The others wait, and say so."""
        within = []
        for one in ready:
            if room.close_if_full(one.upload.uid, one.size):
                one.limit(room.reason(one.upload.uid), now)
            else:
                room.take(one.upload.uid, one.size)
                within.append(one)
        return within

    def _take(self, fd: int, ready: list[Waiting], waiting: dict[Key, Waiting], scan_time: ScanTime) -> None:
        # Whose an upload is counts from now on: what has that name and another owner is not taken for it.
        found = [(one, owner) for one in ready if (owner := _owner(fd, one.file_name))]
        owned = [(one, owner) for one, owner in found if one.upload.uid in (None, owner.uid)]
        others = [one for one, owner in found if one.upload.uid not in (None, owner.uid)]
        self._end_replaced(others, waiting, "was replaced by an upload of another account")
        if not owned:
            return
        at = self._context.clock()
        with self._context.uploads.together():
            claimed = [
                self._context.uploads.claim(
                    one.upload,
                    at,
                    one.members,
                    "claimed",
                    due_at=self._due(one.upload, at),
                    owner=owner,
                    size=one.size,
                )
                for one, owner in owned
            ]
        ready = [one for one, _ in owned]
        for one, upload in zip(ready, claimed, strict=True):
            one.upload = upload
            del waiting[one.key]
        # Who looks for a directory and does not find it any more must not be left with the status of an older upload.
        self._context.on_taking(claimed)
        self._unfinished = ready
        self._finish_claims(waiting, scan_time)

    def _end_replaced(self, replaced: list[Waiting], waiting: dict[Key, Waiting], how: str) -> None:
        """Under these names is another upload by now. The next look meets it as a new one."""
        for one in replaced:
            del waiting[one.key]
            self._context.on_change(self._cancel(one.upload, f"{plain(one.file_name)} {how}, before it was taken"))

    def _due(self, upload: Upload, at: datetime) -> datetime | None:
        """When an upload that is taken now is due. Commands are obeyed at once, wherever they are put."""
        if self.queue.delay is None or upload.kind is UploadKind.COMMANDS:
            return None
        return at + timedelta(days=self.queue.delay)

    def _finish_claims(self, waiting: dict[Key, Waiting], scan_time: ScanTime) -> None:
        """The renames that the journal has; one that fails stays in the list until it is told what became of it."""
        if not self._unfinished:
            return
        # A file is shared with other uploads of the same owner only: what another account lists keeps nothing here.
        listed = Counter(shared for one in (*waiting.values(), *self._unfinished) for shared in _listed(one))
        while self._unfinished:
            one = self._unfinished[0]
            listed.subtract(_listed(one))
            elsewhere = {name for uid, name in _listed(one) if listed[uid, name] > 0}
            try:
                self._finish_claim(one, waiting, scan_time, elsewhere)
            except StaleMoveError:
                if not self._cancelled([one.upload]):
                    raise
            self._unfinished.pop(0)

    def _finish_claim(
        self, one: Waiting, waiting: dict[Key, Waiting], scan_time: ScanTime, listed_elsewhere: set[str]
    ) -> None:
        try:
            claim.move_to_claims(self._places, one.upload, self.queue, one.members, lambda: listed_elsewhere)
        except FileNotFoundError:
            self._context.on_change(self._cancel(one.upload, self._withdrawn(one.upload)))
        except OSError as error:
            if error.errno == errno.EXDEV:
                self._identity = None  # probe anew: something was mounted here
            self._put_back(one, error.strerror or str(error), waiting, scan_time)
        else:
            self._taken(one)

    def _taken(self, one: Waiting) -> None:
        if one.problem is None:
            log.info("%s: claimed", plain(one.upload))
            self._context.on_claimed(one.upload)
            return
        log.info("%s: abandoned: %s", plain(one.upload), one.problem.message)
        ended = self._context.uploads.reject(
            one.upload, [one.problem], self._context.clock(), "abandoned", target=Stage.ABANDONED
        )
        self._context.on_ended(ended)

    def _put_back(self, one: Waiting, reason: str, waiting: dict[Key, Waiting], scan_time: ScanTime) -> None:
        one.returned(reason, scan_time.monotonic)
        one.told = one.refused
        one.upload = self._context.uploads.unclaim(one.upload, self._context.clock(), one.refused)
        waiting[one.key] = one
        self._context.on_change(one.upload)

    def _tell(self, fd: int, waiting: dict[Key, Waiting], now: float) -> None:
        """Write into each upload's own log what holds it up."""
        for one in waiting.values():
            if one.seen and one.seen.absent and not one.told and one.is_stale(now):
                directories = (
                    other.file_name
                    for other in waiting.values()
                    if other.upload.kind is UploadKind.DIRECTORY and other.upload.uid == one.upload.uid
                )
                with contextlib.suppress(OSError):  # gone meanwhile
                    one.beside = scan.beside(fd, one.upload.kind, one.file_name, one.seen.absent, directories)
        news = [(one, text) for one in waiting.values() if one.gone_since is None and (text := one.news(now))]
        if not news:
            return
        with self._context.uploads.together():
            for one, text in news:
                self._context.uploads.log(one.upload.id, self._context.clock(), text)
        for one, text in news:
            if one.stuck(now):
                log.warning("%s: %s", plain(one.upload), text)
            self._context.on_change(self._context.uploads.get(one.upload.id))


def _listed(one: Waiting) -> list[tuple[int | None, str]]:
    """The files that a flat upload lists, with its owner."""
    return [(one.upload.uid, name) for name in (one.members or ())[1:]]


def _beyond(found: Survey, queue: QueueConfig) -> list[str]:
    return [
        f"{shown(uid)} has {count} more uploads in {queue.path} than are followed; they have no status until others of "
        "that account have gone"
        for uid, count in sorted(found.beyond.items())
    ]


def _account(one: Waiting) -> int | None:
    return one.upload.uid


def _owner(fd: int, file_name: str) -> Owner | None:
    """None where it has gone since it was seen: the next look meets what is there then."""
    try:
        return scan.owner(fd, file_name)
    except OSError:
        return None


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino
