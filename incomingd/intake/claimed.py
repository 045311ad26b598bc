"""One claimed upload, and the work on its files that makes some of them the daemon's own.

What :mod:`.seal` does in its steps is made of this; the rules are there.
"""

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from incomingd import fsio, rules
from incomingd.config import QueueConfig
from incomingd.errors import Obstructed, Retry
from incomingd.intake import ownership
from incomingd.intake.ownership import Ownership
from incomingd.intake.room import Room, Share
from incomingd.intake.scan import BINARIES, CHANGES, SLACK, entries, nested
from incomingd.model import FILE_NAME, LOOSE_FILE_NAME, FileEntry, Problem, Seal, Upload, UploadKind, plain
from incomingd.places import Places

_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}
#: Errors with a file of an upload that are the machine's, not the file's.
_MACHINE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """One claimed upload that is to be sealed. ``members``: as the journal has them (None: a directory)."""

    places: Places
    upload: Upload
    queue: QueueConfig
    members: Sequence[str] | None
    room: Room

    @property
    def claim(self) -> Path:
        """Where it lies."""
        return self.places.claim(self.queue, self.upload.id)

    @property
    def sealed(self) -> Path:
        """Where it is copied to."""
        return self.places.sealed(self.upload.id)


@contextmanager
def machines(path: Path) -> Iterator[None]:
    """Failures here are the machine's: nothing of the upload is to blame."""
    try:
        yield
    except OSError as error:
        raise Retry(f"{path}: {error.strerror or error}") from error


@dataclass(frozen=True, slots=True)
class _Limit:
    """How large a file may be, what a larger one breaks, and where that is ``said``."""

    size: int
    rule: rules.Rule
    said: str


class Sealing:
    """The steps with one claim, which is looked at once, at the first of them. What is in it may change all the time:
    each file is judged by what was opened.

    Used in a ``with`` statement: after an exception, what was copied is removed.
    """

    def __init__(self, claimed: Claimed) -> None:
        self.files: dict[str, FileEntry] = {}
        self.problems: list[Problem] = []
        self._left_out: list[str] = []
        self.claimed = claimed
        self._open = contextlib.ExitStack()
        self._looked: tuple[int, dict[str, os.stat_result] | None, list[str]] | None = None
        self._queue = claimed.queue
        self._target = claimed.sealed
        self._mine = Ownership(uid=os.geteuid())
        self._sealed: list[str] = []
        self._nested = ""
        self._device: int | None = None
        #: True if the sealed directory is new: no earlier try can have left something there.
        self.is_first = False

    def __enter__(self) -> "Sealing":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._open.close()
        if kind is None:
            return
        for name in self._sealed:
            if os.path.lexists(self.claimed.claim / name):  # else it was renamed, and this is all there is
                with contextlib.suppress(OSError):
                    fsio.remove(self._target / name)

    def result(self) -> Seal:
        """What it came to."""
        files = tuple(sorted(self.files.values(), key=lambda entry: entry.name))
        return Seal(files=files, problems=tuple(self.problems), left_out=tuple(self._left_out))

    # -- the steps ----------------------------------------------------------------------------------------------------

    def texts(self, limit: int) -> None:
        """Each .changes, or the .commands file."""
        fd, shown, before = self._look()
        if shown is None:
            return
        texts = {name: status for name, status in shown.items() if self._is_text(name)}
        earlier = [name for name in before if self._is_text(name) and name not in shown]
        if not texts and not earlier and self._nested:
            self.problems.append(rules.NOT_REGULAR_FILE.problem(f"there is no .changes; {self._nested}"))
        most = self._queue.max_changes
        if len({*texts, *earlier}) > most:
            found = f"there are {len({*texts, *earlier})}, and {most} are allowed"
            self.problems.append(rules.TOO_MANY_CHANGES.problem(found))
            return
        self._take_earlier(earlier)
        sizes = {name: min(limit, status.st_size) for name, status in texts.items()}
        with self._reserved(sizes, shown) as share:
            for name in sorted(texts):
                if self._is_good(name, texts[name]):
                    self._seal(fd, name, _Limit(limit, rules.TEXT_TOO_LARGE, "are allowed"), share)

    def listed(self, listed: Mapping[str, int]) -> None:
        """What is listed, by name and size; what is not is left out."""
        fd, found, before = self._look()
        shown = found or {}
        self._take_earlier(name for name in before if name in listed and name not in shown and name not in self.files)
        todo = {name: size for name, size in listed.items() if name in shown and name not in self.files}
        with self._reserved(todo, shown) as share:
            for name, status in sorted(shown.items()):
                if name in self.files or not self._is_regular(name, status):
                    continue
                if name in todo:
                    self._seal(fd, name, _Limit(todo[name], rules.SIZE_MISMATCH, "are listed"), share)
                elif self._is_mine(name, status):
                    self._left_out.append(plain(name))

    def bare(self) -> None:
        """Every package."""
        fd, found, before = self._look()
        shown = found or {}
        debs = {name: status.st_size for name, status in shown.items() if name.endswith(BINARIES)}
        self._take_earlier(name for name in before if name.endswith(BINARIES) and name not in shown)
        most = self._queue.max_upload
        if sum(debs.values()) + sum(entry.size for entry in self.files.values()) > most:
            too_much = f"it has together more than the {most} bytes that are allowed"
            self.problems.append(rules.UPLOAD_TOO_LARGE.problem(too_much))
            return
        with self._reserved(debs, shown) as share:
            for name, status in sorted(shown.items()):
                if name in debs:
                    if self._is_good(name, status, LOOSE_FILE_NAME):
                        self._seal(fd, name, _Limit(debs[name], rules.CHANGED_WHILE_READ, "it had"), share)
                elif self._is_regular(name, status) and self._is_mine(name, status):
                    self._left_out.append(plain(name))

    # -- what lies there ----------------------------------------------------------------------------------------------

    def _look(self) -> tuple[int, dict[str, os.stat_result] | None, list[str]]:
        """A descriptor of the claim, what it holds (:meth:`_shown`), and what an earlier try took out of it."""
        if self._looked is None:
            fd = self._opened()
            self._looked = fd, self._shown(fd), self._earlier()
        return self._looked

    def _opened(self) -> int:
        """A descriptor of the claim; -1 if it has been cleared away, and all is in the sealed directory."""
        name = plain(self.claimed.upload.name)
        try:
            fd = self._open.enter_context(fsio.directory(self.claimed.claim))
            # A flat upload's claim is a directory of the daemon's, and holds only what its owner may have there.
            self._mine = ownership.of_directory(os.fstat(fd))
        except FileNotFoundError:
            return -1
        except NotADirectoryError:
            self.problems.append(rules.NOT_REGULAR_FILE.problem(f"{name} is not a directory"))
            return -1
        except PermissionError:
            self.problems.append(rules.UNREADABLE_FILE.problem(f"the directory {name} cannot be read"))
            return -1
        except OSError as error:
            raise Retry(f"{self.claimed.claim}: {error.strerror or error}") from error
        return fd

    def _shown(self, fd: int) -> dict[str, os.stat_result] | None:
        """What the claim holds under names that are not hidden; None if that is too much."""
        if fd < 0:
            return {}
        with machines(self.claimed.claim):
            found = list(entries(fd, self._queue))
        self._nested = nested(found)
        shown = {name: status for name, status in found if not name.startswith(".")}
        if len(shown) > self._queue.max_files or len(found) > self._queue.max_files + SLACK:
            # One problem says it all; a list of a hundred thousand names helps nobody.
            self.problems.append(
                rules.TOO_MANY_FILES.problem(f"there are more than the {self._queue.max_files} files that are allowed")
            )
            return None
        return shown

    def _is_text(self, name: str) -> bool:
        if self.claimed.upload.kind is UploadKind.COMMANDS:
            return self.claimed.members is not None and name == self.claimed.members[0]
        return name.endswith(CHANGES)

    def _is_regular(self, name: str, status: os.stat_result) -> bool:
        if stat.S_ISREG(status.st_mode):
            return True
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "not a regular file")
        self._problem(rules.NOT_REGULAR_FILE, f"{plain(name)} is {kind}", name)
        return False

    def _is_mine(self, name: str, status: os.stat_result) -> bool:
        if self._mine.allows(status):
            return True
        self._foreign(name, status.st_uid)
        return False

    def _is_good(self, name: str, status: os.stat_result, allowed: re.Pattern[str] = FILE_NAME) -> bool:
        """True for a regular file with a name that is allowed: by default one that a .changes can list."""
        if not self._is_regular(name, status):
            return False
        if not allowed.fullmatch(name):
            self._problem(rules.BAD_FILE_NAME, f'"{plain(name)}" has characters that a file name may not have', name)
            return False
        return True

    def _foreign(self, name: str, uid: int) -> None:
        self._problem(rules.FOREIGN_FILE, f"{plain(name)} {self._mine.refusal(uid)}", name)

    def _problem(self, rule: rules.Rule, found: str, name: str) -> None:
        self.problems.append(rule.problem(found, file=plain(name)))

    # -- taking it ----------------------------------------------------------------------------------------------------

    def _earlier(self) -> list[str]:
        """What is in the sealed directory already: an earlier try renamed it out of the claim, or copied it."""
        if self.is_first:
            return []
        with machines(self._target):
            names = sorted(path.name for path in self._target.iterdir())
            for name in names:
                if name.startswith(fsio.TEMPORARY):
                    fsio.remove(self._target / name)
        return [name for name in names if not name.startswith(fsio.TEMPORARY)]

    def _take_earlier(self, names: Iterable[str]) -> None:
        for name in names:
            path = self._target / name
            with machines(path):
                try:
                    self.files[name] = fsio.own_file(path)
                except fsio.NotRegularError:  # swapped in at the last moment, and the try ended there
                    fsio.remove_tree(path)
                    self._problem(rules.NOT_REGULAR_FILE, f"{plain(name)} is not a regular file", name)

    @contextmanager
    def _reserved(self, sizes: Mapping[str, int], shown: Mapping[str, os.stat_result]) -> Iterator[Share]:
        """Set apart what copies of these files take. What can be renamed takes nothing."""
        if self._device is None:
            with machines(self._target):
                self._device = self._target.stat().st_dev
        device = self._device
        copied = (
            min(size, shown[name].st_size)
            for name, size in sizes.items()
            if stat.S_ISREG(shown[name].st_mode) and not _can_be_renamed(shown[name], device)
        )
        with self.claimed.room.reserve(self._target, sum(copied)) as share:
            yield share

    def _seal(self, fd: int, name: str, limit: _Limit, share: Share) -> None:
        target = self._target / name
        try:
            self.files[name] = fsio.seal_file(name, fd, target, limit.size, self._mine.allows, share.used)
        except fsio.ForeignFileError as error:
            self._foreign(name, error.uid)
        except fsio.NotRegularError:
            self._problem(rules.NOT_REGULAR_FILE, f"{plain(name)} is not a regular file any more", name)
        except fsio.UnreadError as error:
            self._unread(name, error)
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise Retry(f"{target}: {error.strerror or error}") from error
            self._problem(limit.rule, f"it has more than the {limit.size} bytes that {limit.said}", name)
        else:
            self._sealed.append(name)

    def _unread(self, name: str, error: OSError) -> None:
        """What an error with one of the upload's own files comes to."""
        if error.errno in _MACHINE:
            raise Retry(f"{plain(name)}: {error.strerror or error}") from error
        if error.errno == errno.ENOENT:
            self._problem(rules.CHANGED_WHILE_READ, f"{plain(name)} was removed while it was read", name)
        elif error.errno in (errno.EACCES, errno.EPERM):
            self._problem(rules.UNREADABLE_FILE, f"{plain(name)} cannot be read by the daemon", name)
        else:
            found = f"it cannot be read: {error.strerror or error}"
            raise Obstructed(rules.FILE_BUSY.problem(found, file=plain(name))) from error


def _can_be_renamed(status: os.stat_result, device: int) -> bool:
    return status.st_uid == os.geteuid() and status.st_nlink == 1 and status.st_dev == device
