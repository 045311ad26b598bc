"""One upload that has not been taken: what is known of it from look to look, and what is due for it now.

Looks at the disk through :mod:`.scan` and decides through :mod:`.readiness`. Fails with ``OSError`` where the upload
vanishes, or is replaced by something else, while it is looked at: the next look meets what is there then.
"""

from dataclasses import dataclass, field, replace

from incomingd import rules
from incomingd.config import QueueConfig
from incomingd.intake import scan
from incomingd.intake.claim import refusal
from incomingd.intake.listing import Listings
from incomingd.intake.readiness import Action, LastChange, ScanTime, decide
from incomingd.intake.scan import Key, Observation
from incomingd.model import UPLOAD_NAME, Problem, Upload, UploadKind, plain

#: Seconds between two tries to take what could not be taken.
TRY_AGAIN = 5.0
#: Names of a flat upload that are remembered while it waits: with a thousand uploads, some 40 MB.
_NAMES_KEPT = 300
#: Seconds between two looks whether an account has room for what waits.
ROOM_PAUSE = 0.25
#: Seconds between two looks whether a writer has closed its file.
_WRITER_PAUSE = 0.5
#: After so many seconds without a change an incomplete upload's log says what it waits for.
TELL_AFTER = 10.0


@dataclass(slots=True, kw_only=True)
class Waiting:
    """An upload that waits in incoming. Times are monotonic seconds.

    ``home`` is the device and inode of the incoming directory that it was seen in; ``arrival`` numbers those that were
    renamed in, in their order; ``refused`` says why it itself could not be taken, ``held`` why nothing can be, or
    nothing of its account, which is so since ``limited_since``. ``size`` is that of its files when it was ready.
    ``replaced``: a flat upload's .changes is another one by now; ``beside`` says where a file that it lacks lies.
    """

    upload: Upload
    file_name: str
    home: tuple[int, int] | None = None
    arrival: int | None = None
    due: float = float("-inf")
    gone_since: float | None = None
    settling: bool = False
    refused: str = ""
    held: str = ""
    told: str = ""
    limited_since: float | None = None
    size: int = 0
    seen: Observation | None = None
    problem: Problem | None = None
    replaced: bool = False
    beside: str = ""
    _text: bytes = b""
    _last_change: LastChange = field(default_factory=LastChange)

    @property
    def key(self) -> Key:
        """What it is known by in its queue."""
        return self.upload.kind, self.upload.name

    @property
    def members(self) -> tuple[str, ...] | None:
        """A flat upload's files as the last look saw them; None for a directory."""
        if self.upload.kind is UploadKind.DIRECTORY:
            return None
        return self.seen.members if self.seen else (self.file_name,)

    def order(self) -> tuple[float, float, int]:
        """Renamed in first, in the order of their renames; then by when they were last changed."""
        return (float("inf") if self.arrival is None else self.arrival), self._last_change.since, self.upload.id

    def is_ready(self, fd: int, scan_time: ScanTime, queue: QueueConfig, listings: Listings) -> bool:
        """Look at it in the incoming directory ``fd``. True where it is to be taken now: as an upload, or, where
        ``problem`` was set, to be put aside."""
        self.refused = self.held = ""
        self.limited_since, limited = None, self.limited_since
        action = self._action(fd, scan_time, queue, listings)
        if action is Action.ABANDON:
            self.problem = self._incomplete(scan_time)
        if action in (Action.TAKE, Action.ABANDON):
            self.refused = refusal(fd, self.upload.kind, self.file_name)
            self.due = scan_time.monotonic + TRY_AGAIN  # where it cannot be taken after all
            self.size = self._size(fd, queue)
            self.limited_since = limited
        ready = action in (Action.TAKE, Action.ABANDON) and not self.refused
        if not ready:
            self._forget_names()
        return ready

    def _forget_names(self) -> None:
        """Until the next look at it, of a directory no file names are needed, and of a flat upload so many."""
        kept = 0 if self.upload.kind is UploadKind.DIRECTORY else _NAMES_KEPT
        if self.seen and len(self.seen.members) > kept:
            self.seen = replace(self.seen, members=self.seen.members[:kept])

    def _action(self, fd: int, scan_time: ScanTime, queue: QueueConfig, listings: Listings) -> Action:
        kind, now = self.upload.kind, scan_time.monotonic
        self.settling, self.problem = False, None
        if kind is UploadKind.DIRECTORY and (self.arrival is not None or not queue.abandon_after):
            return Action.TAKE
        try:
            self.seen = scan.observe(fd, kind, self.file_name, queue, listings)
        except PermissionError:
            return Action.TAKE  # to be refused, with what to do about it
        self._last_change.note(self.seen, scan_time)
        self.replaced = bool(self._text and self.seen.text) and self.seen.text != self._text
        self._text = self.seen.text or self._text
        doomed = self.upload.nameless or UPLOAD_NAME.fullmatch(self.upload.name) is None
        decision = decide(self.seen, self._last_change.since, now, queue, doomed=doomed)
        self.due, self.settling = decision.due, decision.settling
        if decision.action is not Action.TAKE_IF_UNWRITTEN:
            return decision.action
        if not queue.abandon_after or not scan.is_open_for_writing(fd, kind, self.file_name, self.seen.members):
            return Action.TAKE
        self.due = now + _WRITER_PAUSE
        abandoned = now - self._last_change.since >= max(queue.abandon_after, queue.settle)
        return Action.ABANDON if abandoned else Action.WAIT

    def _size(self, fd: int, queue: QueueConfig) -> int:
        if self.upload.kind is UploadKind.DIRECTORY and self.seen is None:  # it was renamed in, and not looked into
            try:
                return scan.size_of(fd, self.file_name, queue)
            except PermissionError:  # it will be refused
                return 0
        return self.seen.size if self.seen else 0

    def _incomplete(self, scan_time: ScanTime) -> Problem:
        quiet = max(scan_time.monotonic - self._last_change.since, 0.0)
        lacking = self.lacking() or "a process of this machine still has a file open for writing"
        return rules.UPLOAD_INCOMPLETE.problem(f"{lacking}, and nothing has changed for {quiet:.0f} seconds")

    def lacking(self) -> str:
        """What is missing, as the last look saw it."""
        return self.seen.lacking if self.seen else ""

    def is_stale(self, now: float) -> bool:
        """True if it lacks something and has not changed for a while."""
        return bool(self.lacking()) and now - self._last_change.since >= TELL_AFTER

    def stuck(self, now: float) -> str:
        """What it lacks and what to do, if that will hardly come by itself; else empty."""
        what = self.beside or (self.seen.stuck if self.seen else "")
        return f"{self.lacking()}; {what}" if what and self.is_stale(now) and self.gone_since is None else ""

    def news(self, now: float) -> str:
        """What its log should say and does not yet; told once."""
        news = self.refused or self.held
        if not news and self.is_stale(now):
            news = f"waits: {self.stuck(now) or self.lacking()}"
        if not news or news == self.told:
            return ""
        self.told = news
        return news

    def hold(self, reason: str, now: float) -> None:
        """It is ready, but nothing can be taken from this incoming directory."""
        self.held, self.due = reason, now + TRY_AGAIN

    def limit(self, reason: str, now: float) -> None:
        """It is ready, but its account has too much on its way. Its log says so; nothing that it lacks does."""
        self.held, self.due = reason, now + ROOM_PAUSE
        self._forget_names()
        self.limited_since = now if self.limited_since is None else self.limited_since

    def returned(self, reason: str, now: float) -> None:
        """It could not be taken after all."""
        self.refused, self.due = f"{plain(self.file_name)} could not be taken: {reason}", now + TRY_AGAIN
