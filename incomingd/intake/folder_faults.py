"""What in an incoming directory needs an operator's eye: arrivals that no event announced, files of no upload, what
senders have left under hidden names, and uploads that cannot be taken, or went with the directory that they were in.

Told in health. Files of no upload are named, to be removed, after ``stray_after``; what is hidden never is, since it
is its sender's until it is renamed.
"""

import os
from collections.abc import Collection, Iterable
from dataclasses import replace

from incomingd.config import DELAYED, QueueConfig
from incomingd.intake import scan
from incomingd.intake.readiness import ScanTime
from incomingd.intake.scan import Survey
from incomingd.intake.waiting import TELL_AFTER, Waiting
from incomingd.model import UPLOAD_NAME, UploadKind, plain

#: An arrival that no event announced within so many seconds was missed by the watch.
_ANNOUNCED_WITHIN = 3.0
#: For so many seconds after the last one, missed arrivals are told of.
_TOLD_FOR = 600.0
#: Files of no upload are told of after ``abandon_after``, and no sooner than this, in seconds: dput sends its
#: .changes last.
_STRAY_AFTER = 60.0
#: Strays are looked at for removal this often, in seconds.
_CLEAN_EVERY = 60.0
#: Uploads beyond their accounts' limits are told of after so many seconds: a moment of that is what the limits are for.
_LIMITED_AFTER = 60.0
#: Package files of no upload are looked for this often, in seconds.
_LONE_EVERY = 1.0
#: Names that one sentence shows, and names that are followed.
_SHOWN, _MOST = 5, 10_000


class FolderFaults:
    """What was odd in one incoming directory, from look to look. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._unannounced: dict[str, float] = {}
        self._missed = 0
        self._missed_at = float("-inf")
        self._strays: dict[str, float] = {}
        self._patience = _STRAY_AFTER
        self._clean_at = self._look_into_at = float("-inf")
        self._lone: dict[str, int] = {}  # with their owners
        self._lone_at = float("-inf")
        self._left: list[str] = []
        self._undated: list[str] = []

    def note_arrivals(self, new: set[str], new_events: set[str], now: float, *, announced: bool) -> None:
        """Compare what the scan met with what the watch announced; not where the watch is new, or there is none."""
        if announced:
            self._unannounced.update((name, now) for name in sorted(new - new_events)[:_MOST])
        for name in new_events & self._unannounced.keys():
            del self._unannounced[name]
        late = [name for name, since in self._unannounced.items() if now - since > _ANNOUNCED_WITHIN]
        for name in late:
            del self._unannounced[name]
            self._missed_at = now
        self._missed += len(late)

    def note_strays(
        self, fd: int, found: Survey, waiting: Iterable[Waiting], scan_time: ScanTime, queue: QueueConfig
    ) -> None:
        """Follow the files of the incoming directory ``fd`` that belong to no upload; of very many, some of each
        account's."""
        now = scan_time.monotonic
        listed = {name for one in waiting if one.upload.kind is not UploadKind.LONE for name in one.members or ()}
        strays = sorted(found.others - listed)
        if len(strays) > _MOST:
            strays = scan.by_owner(fd, strays)[:_MOST]
        self._strays = {name: self._strays.get(name, now) for name in strays}
        self._patience = max(queue.abandon_after, _STRAY_AFTER)
        if queue.stray_after:
            self._patience = min(self._patience, queue.stray_after / 2)

    def with_lone(self, found: Survey, waiting: Iterable[Waiting]) -> Survey:
        """The survey with the package files that no .changes lists among the uploads."""
        known: set[str] = set()
        listed: set[str] = set()
        for one in waiting:
            if one.upload.kind is UploadKind.LONE:
                known.add(one.upload.name)
            else:
                listed.update(one.members or ())
        lone = ((known | self._lone.keys()) - listed) & found.others
        if not lone:
            return found
        uploads = {**found.uploads, **{(UploadKind.LONE, name): name for name in sorted(lone)}}
        accounts = {(UploadKind.LONE, name): uid for name, uid in self._lone.items() if name in lone - known}
        return replace(found, uploads=uploads, accounts={**found.accounts, **accounts})

    def note_lone(self, fd: int, scan_time: ScanTime, queue: QueueConfig) -> None:
        """Find package files that no .changes lists, and whose senders have sent nothing more for a while.

        In a queue in which nothing is waited for, nothing is said of them either.
        """
        now = scan_time.monotonic
        if not scan_time.steady or now < self._lone_at or not queue.abandon_after:
            return
        self._lone_at = now + _LONE_EVERY
        quiet = max(TELL_AFTER, queue.settle)
        long_here = [
            name for name, since in self._strays.items() if now - since >= quiet and UPLOAD_NAME.fullmatch(name)
        ]
        packages = scan.lone_packages(fd, long_here, self._lone)
        self._lone = {name: uid for name, uid in self._lone.items() if name in self._strays}
        self._lone.update((name, one.uid) for name, one in packages.items() if scan_time.wall - one.changed_at >= quiet)

    def note_left(self, fd: int, found: Survey, scan_time: ScanTime, queue: QueueConfig) -> None:
        """Follow what lies in the incoming directory ``fd`` and will never be taken as it is: sent under a hidden name
        and not renamed, by the file system's time, which outlasts a restart; or beside the folders for delays."""
        if not scan_time.steady or scan_time.monotonic < self._look_into_at:
            self._left = [name for name in self._left if name in found.hidden]
            return
        self._look_into_at = scan_time.monotonic + _CLEAN_EVERY
        self._undated = scan.beside_delayed(fd, queue) if queue.delay is None and queue.delayed else []
        changed = scan.left_hidden(fd, sorted(found.hidden), queue)
        patience = max(queue.abandon_after, _STRAY_AFTER)
        self._left = [name for name, at in changed.items() if scan_time.wall - at >= patience]

    def overdue(self, fd: int, scan_time: ScanTime, queue: QueueConfig) -> list[str]:
        """Strays of the incoming directory ``fd`` that have not changed for ``stray_after``: by the file system's
        time, which outlasts a restart, and by our own for a while, which no jump of the clock can move."""
        now = scan_time.monotonic
        if not queue.stray_after or not scan_time.steady or now < self._clean_at:
            return []
        self._clean_at = now + min(_CLEAN_EVERY, queue.stray_after)
        followed = [name for name, since in self._strays.items() if now - since >= min(_CLEAN_EVERY, queue.stray_after)]
        return [
            name for name in followed if scan_time.wall - _changed_at(fd, name, scan_time.wall) >= queue.stray_after
        ]

    def sentences(self, queue: QueueConfig, waiting: Collection[Waiting], now: float) -> list[str]:
        """Every fault, one sentence each."""
        found = []
        refused = [one.refused for one in waiting if one.refused]
        if refused:
            found.append(_several(refused, "uploads", f"wait in {queue.path} and cannot be taken", "; "))
        stuck = [f"{plain(one.file_name)} ({why})" for one in waiting if (why := one.stuck(now))]
        if stuck:
            found.append(_several(stuck, "uploads", f"in {queue.path} cannot be taken as they are", "; "))
        limited = [plain(one.file_name) for one in waiting if now - (one.limited_since or now) >= _LIMITED_AFTER]
        if limited:
            found.append(
                _several(
                    limited,
                    "uploads",
                    f"have waited in {queue.path} for {_LIMITED_AFTER:.0f} s and longer, since their accounts have too "
                    "much on the way ([limits] per_account and bytes_per_account)",
                )
            )
        away = [plain(one.file_name) for one in waiting if one.gone_since is not None]
        if away:
            found.append(
                _several(
                    away,
                    "uploads",
                    f"waited in another directory that was {queue.path} before (mount it again, or put it back; "
                    f"those that do not come back within {queue.abandon_after:.0f} s count as withdrawn)",
                )
            )
        strays = [
            plain(name)
            for name, since in self._strays.items()
            if now - since >= self._patience and name not in self._lone
        ]
        if strays:
            found.append(
                _several(
                    strays,
                    "files",
                    f"in {queue.path} belong to no upload (remove them, or send their .changes{_removed(queue)})",
                )
            )
        if self._left:
            found.append(
                _several(
                    [plain(name) for name in self._left],
                    "hidden names",
                    f"in {queue.path} hold uploads that nobody writes any more (remove them; or rename them, without "
                    "the dot, to have them taken)",
                )
            )
        if self._undated:
            found.append(
                _several(
                    [plain(name) for name in self._undated],
                    "names",
                    f"in {queue.path / DELAYED} are none of 0-day to {queue.delayed}-day, and what is there is never "
                    "taken (move it into one of these, or raise delayed)",
                )
            )
        if now - self._missed_at < _TOLD_FOR:
            found.append(
                f"{self._missed} arrivals in {queue.path} were found by the scan alone: the watch missed them; "
                'raise the sysctl fs.inotify.max_queued_events, or on a network file system set watch = "polling"'
            )
        return found


def _removed(queue: QueueConfig) -> str:
    return f"; unchanged for {queue.stray_after:.0f} s they are removed" if queue.stray_after else ""


def _changed_at(fd: int, name: str, now: float) -> float:
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False).st_ctime
    except OSError:  # gone meanwhile
        return now


def _several(items: list[str], noun: str, what: str, separator: str = ", ") -> str:
    shown = separator.join(items[:_SHOWN])
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return f"{len(items)} {noun} {what}: {shown}{more}"
