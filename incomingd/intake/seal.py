"""Sealing: the daemon's own copy of a claimed upload. From here on nobody else can change a byte of it.

A claim is a rename, not a wall: a writer with an open descriptor, a link or a working directory inside goes on
writing after it. So every file is copied (or, where it already is the daemon's alone, renamed) into ``state/sealed/ID``
and hashed on the way; only sealed bytes are checked and published.

Rules: regular files only, opened without following links; a queue's limits hold while copying, not before; hidden names
(rsync's and sftp's temporaries, also directories of them) are left out, and files whose names no .changes can list; all
that is wrong is told in one pass. What the sealed directory holds and the claim does not was renamed by an earlier try:
sealing can be done twice.

Fails with :class:`~incomingd.errors.Retry` where the daemon's own side is at fault: no space, no right, an I/O error.
"""

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from incomingd import fsio, rules
from incomingd.config import QueueConfig
from incomingd.errors import Retry
from incomingd.intake.claim import move_to_claims
from incomingd.intake.scan import BINARIES, CHANGES, SLACK, entries
from incomingd.model import FILE_NAME, UPLOAD_NAME, FileEntry, Problem, Seal, Upload, plain
from incomingd.places import Places

_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}


def seal(places: Places, upload: Upload, queue: QueueConfig, members: Sequence[str] | None) -> Seal:
    """Seal a claimed upload; may be done twice. ``members``: as the journal has them (None: a directory)."""
    claim, sealed = places.claim(queue, upload.id), places.sealed(upload.id)
    problems = list(_name_problems(upload))
    with _ours(sealed):
        fsio.make_directories(sealed, 0o700)
    if not os.path.lexists(claim):
        _take_up_again(places, upload, queue, members)
    if not os.path.lexists(claim) and not any(sealed.iterdir()):
        problems.append(rules.UPLOAD_LOST.problem(f"nothing is left of {plain(upload.name)} in {claim}"))
        return Seal(files=(), problems=tuple(problems))
    sealing = _Sealing(sealed, queue, problems)
    try:
        with fsio.directory(claim) as fd:
            sealing.take_all(fd)
    except FileNotFoundError:
        sealing.take_earlier(frozenset())  # the claim has been cleared away: all is in the sealed directory
    except NotADirectoryError:
        problems.append(rules.NOT_REGULAR_FILE.problem(f"{plain(upload.name)} is not a directory"))
    except PermissionError:
        problems.append(rules.UNREADABLE_FILE.problem(f"the directory {plain(upload.name)} cannot be read"))
    except OSError as error:
        raise Retry(f"{claim}: {error.strerror or error}") from error
    files = tuple(sorted(sealing.files.values(), key=lambda entry: entry.name))
    return Seal(files=files, problems=tuple(problems), left_out=tuple(sealing.left_out))


def _name_problems(upload: Upload) -> Iterator[Problem]:
    if not UPLOAD_NAME.fullmatch(upload.name):
        yield rules.BAD_UPLOAD_NAME.problem(
            f'"{plain(upload.name)}" is not a letter or digit and then up to 199 letters, digits and . _ + ~ -'
        )


def _take_up_again(places: Places, upload: Upload, queue: QueueConfig, members: Sequence[str] | None) -> None:
    """A claim that stopped between its journal row and its rename, and could not be mended at start-up."""
    try:
        move_to_claims(places, upload, queue, members)
    except FileNotFoundError:
        return  # neither here nor there
    except OSError as error:
        raise Retry(f"{plain(upload.name)} cannot be moved out of {queue.path}: {error.strerror or error}") from error


@contextmanager
def _ours(path: Path) -> Iterator[None]:
    """Failures here are the environment's: nothing of the upload is to blame."""
    try:
        yield
    except OSError as error:
        raise Retry(f"{path}: {error.strerror or error}") from error


class _Sealing:
    """One pass over one claim."""

    def __init__(self, target: Path, queue: QueueConfig, problems: list[Problem]) -> None:
        self.files: dict[str, FileEntry] = {}
        self.left_out: list[str] = []
        self._target = target
        self._queue = queue
        self._problems = problems
        self._left = queue.max_upload
        self._full = False

    def take_all(self, fd: int) -> None:
        found = [(name, status) for name, status in entries(fd, self._queue)]
        shown = [(name, status) for name, status in found if not name.startswith(".")]
        if len(shown) > self._queue.max_files or len(found) > self._queue.max_files + SLACK:
            # One problem says it all; a list of a hundred thousand names helps nobody.
            self._problems.append(
                rules.TOO_MANY_FILES.problem(f"there are more than the {self._queue.max_files} files that are allowed")
            )
            return
        self.take_earlier(frozenset(name for name, _ in shown))
        needed = self._needed({*self.files, *(name for name, _ in shown)})
        for name, status in sorted(shown):
            self._take(fd, name, status, needed)

    def _needed(self, names: Iterable[str]) -> tuple[str, ...]:
        """The endings of files that are the upload itself, listed or not."""
        bare = self._queue.allow_bare_debs and not any(name.endswith(CHANGES) for name in names)
        return (CHANGES, *BINARIES) if bare else (CHANGES,)

    def take_earlier(self, in_claim: frozenset[str]) -> None:
        """What an earlier try renamed out of the claim. It counts first, or a second try would have a higher limit."""
        with _ours(self._target):
            for path in sorted(self._target.iterdir()):
                if path.name not in in_claim:
                    self._hash_earlier(path)

    def _hash_earlier(self, path: Path) -> None:
        try:
            self.files[path.name] = entry = fsio.hash_file(path)
            self._left -= entry.size
        except fsio.NotRegularError:  # swapped in at the last moment, and the try ended there
            fsio.remove_tree(path)
            self._problem(rules.NOT_REGULAR_FILE, f"{plain(path.name)} is not a regular file", path.name)

    def _take(self, fd: int, name: str, status: os.stat_result, needed: tuple[str, ...]) -> None:
        if not stat.S_ISREG(status.st_mode):
            kind = _KINDS.get(stat.S_IFMT(status.st_mode), "not a regular file")
            self._problem(rules.NOT_REGULAR_FILE, f"{plain(name)} is {kind}", name)
        elif not FILE_NAME.fullmatch(name):
            if name.endswith(needed):
                found = f'"{plain(name)}" has characters that a file name may not have'
                self._problem(rules.BAD_FILE_NAME, found, name)
            else:
                self.left_out.append(plain(name))
        elif self._readable(fd, name) and not self._full:
            self._seal(fd, name)

    def _readable(self, fd: int, name: str) -> bool:
        """Told before sealing: a right that is missing there may be the daemon's own."""
        try:
            with fsio.regular(name, fd):
                return True
        except fsio.NotRegularError:
            self._problem(rules.NOT_REGULAR_FILE, f"{plain(name)} is not a regular file any more", name)
        except PermissionError:
            self._problem(rules.UNREADABLE_FILE, f"{plain(name)} cannot be read by the daemon", name)
        except FileNotFoundError:
            self._problem(rules.CHANGED_WHILE_READ, f"{plain(name)} was removed while it was read", name)
        except OSError as error:
            raise Retry(f"{plain(name)}: {error.strerror or error}") from error
        return False

    def _seal(self, fd: int, name: str) -> None:
        try:
            entry = fsio.seal_file(name, fd, self._target / name, max(self._left, 0))
        except fsio.NotRegularError:
            self._problem(rules.NOT_REGULAR_FILE, f"{plain(name)} is not a regular file any more", name)
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise Retry(f"{self._target / name}: {error.strerror or error}") from error
            self._too_large(name)
        else:
            self._left -= entry.size
            self.files[name] = entry

    def _too_large(self, name: str) -> None:
        self._full = True
        self._problem(
            rules.UPLOAD_TOO_LARGE,
            f"with {plain(name)} the upload has more than the {self._queue.max_upload} bytes that are allowed",
            name,
        )

    def _problem(self, rule: rules.Rule, found: str, name: str) -> None:
        self._problems.append(rule.problem(found, file=plain(name)))
