"""What lies in an incoming directory at one moment. Looks only: changes nothing, decides nothing.

Rules:

* Everything is read relative to a directory's descriptor and without following links; entries, bytes and .changes
  are bounded, so that nobody can make a look long by filling a directory.
* A .changes is read leniently and unverified, for one question only: is all that it lists there, at its listed size?
  The answer says when to take an upload, never whether it is good.
* The time of the last change is the newest ctime: the kernel sets it at every change of content, name, mode or owner,
  while an uploader sets mtime at will (``scp -p`` and ``rsync -a`` do). mtime counts in the fingerprint all the same.

Fails with ``OSError`` only where the directory itself cannot be read.
"""

import contextlib
import errno
import itertools
import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass

from incomingd import fsio
from incomingd.config import DELAYED, QueueConfig
from incomingd.model import FILE_NAME, UploadKind, plain

CHANGES, COMMANDS = ".changes", ".commands"
BINARIES = (".deb", ".udeb", ".ddeb")
#: Made by mkfs in the root of a file system, and nobody's upload.
_NOT_UPLOADS = frozenset({"lost+found"})
#: Entries beyond a queue's ``max_files`` that are looked at all the same: temporary files of rsync, and the like.
SLACK = 100
_SIGNED = b"-----BEGIN PGP SIGNED MESSAGE-----"
_SIGNED_END = b"-----END PGP SIGNATURE-----"
_FILE_FIELD = re.compile(rb"(files|checksums-[a-z0-9]+):\s*", re.IGNORECASE)
_TEXT_LIMIT = 1 << 20
#: A file of an upload, also under the name that rsync gives it on the way: .hello_1.0-1_amd64.deb.Xy12ab
_PACKAGING = re.compile(r"\.(changes|u?deb|ddeb|dsc)(\.[A-Za-z0-9]{6})?$")

#: One upload of a queue: how it comes, and its name as the journal has it.
Key = tuple[UploadKind, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """The top level of one incoming directory: uploads by key with their file names, whatever else is there, and what
    is being written under a hidden name."""

    uploads: dict[Key, str]
    others: frozenset[str]
    hidden: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What one .changes seems to list: names and sizes. ``whole`` is False where the text was cut off."""

    files: tuple[tuple[str, int], ...] = ()
    whole: bool = True
    unreadable: bool = False


#: Listings by file name, each with the state of the file that it was read from.
Listings = MutableMapping[str, tuple[tuple[int, ...], Listing]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """One waiting upload at one moment. ``changed_at`` is in seconds of the file system's clock; ``lacking`` says
    what is not there yet and is empty where all is; ``members`` are the files that belong to it, the .changes first."""

    fingerprint: int
    changed_at: float
    lacking: str
    unreadable: bool
    members: tuple[str, ...]


def survey(fd: int, *, delayed: bool = False) -> Survey:
    """The top level of the incoming directory ``fd``. Hidden names are being written and are left alone; ``delayed``:
    so is the directory that holds those for delayed uploads."""
    uploads: dict[Key, str] = {}
    others, hidden = set(), set()
    with os.scandir(fd) as entries:
        for entry in entries:
            if entry.name in _NOT_UPLOADS:
                continue
            if entry.name.startswith("."):
                hidden.add(entry.name)
                continue
            if entry.is_dir(follow_symlinks=False):
                if delayed and entry.name == DELAYED:
                    continue
                uploads.setdefault((UploadKind.DIRECTORY, plain(entry.name)), entry.name)
            elif entry.name.endswith(CHANGES):
                uploads.setdefault((UploadKind.FLAT, plain(entry.name.removesuffix(CHANGES))), entry.name)
            elif entry.name.endswith(COMMANDS):
                uploads.setdefault((UploadKind.COMMANDS, plain(entry.name.removesuffix(COMMANDS))), entry.name)
            else:
                others.add(entry.name)
    return Survey(uploads=uploads, others=frozenset(others), hidden=frozenset(hidden))


def hidden_since(fd: int, name: str, queue: QueueConfig) -> float | None:
    """When an upload that is being written under the hidden ``name`` was last changed; None where it is none.

    An account's own settings are none, where incoming is its home: it holds packages, or a file of one that a client
    has not renamed yet.
    """
    try:
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            return status.st_ctime if _PACKAGING.search(name) else None
        with fsio.directory(name, fd) as own:
            inside = dict(entries(own, queue))
    except OSError:  # gone meanwhile, or not to be read
        return None
    if not any(_PACKAGING.search(file) for file in inside):
        return None
    return max(status.st_ctime, *(one.st_ctime for one in inside.values()))


def beside_delayed(fd: int, queue: QueueConfig) -> list[str]:
    """What lies in the folder for delayed uploads of the incoming directory ``fd`` and is in none of its days' folders:
    nobody takes it. An empty folder of a longer delay is none."""
    days = {f"{number}-day" for number in range(queue.delayed + 1)}
    found = []
    with contextlib.suppress(OSError), fsio.directory(DELAYED, fd) as delayed:
        with os.scandir(delayed) as inside:
            others = [one.name for one in itertools.islice(inside, SLACK) if one.name not in days]
        found = [name for name in others if not name.startswith(".") and not _is_empty(name, delayed)]
    return sorted(found)


def _is_empty(name: str, dir_fd: int) -> bool:
    """True for a directory that holds nothing, or cannot be looked into."""
    try:
        with fsio.directory(name, dir_fd) as own, os.scandir(own) as inside:
            return next(inside, None) is None
    except NotADirectoryError:
        return False
    except OSError as error:
        return error.errno != errno.ELOOP  # a link is as good as a file


def entries(fd: int, queue: QueueConfig) -> Iterator[tuple[str, os.stat_result]]:
    """Name and lstat of what is in an upload's directory, hidden ones too; some more than the queue allows, at most."""
    with os.scandir(fd) as found:
        for number, entry in enumerate(found):
            if number > queue.max_files + SLACK:
                return
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            yield entry.name, status


def sight(fd: int, kind: UploadKind, file_name: str, queue: QueueConfig, listings: Listings) -> Sight:
    """Look at one upload of the incoming directory ``fd``. ``listings`` is kept from look to look by the caller."""
    if kind is UploadKind.DIRECTORY:
        return _directory(fd, file_name, queue, listings)
    return _flat(fd, file_name, queue, listings)


def _directory(fd: int, name: str, queue: QueueConfig, listings: Listings) -> Sight:
    with fsio.directory(name, fd) as own:
        statuses = {"": os.fstat(own), **dict(entries(own, queue))}
        if len(statuses) > queue.max_files + SLACK:
            # More will not make it better, and reading on is what an attacker wants: to be taken, and refused.
            return _sight(statuses, "", unreadable=False, members=())
        changes = sorted(n for n in statuses if n.endswith(CHANGES) and not n.startswith("."))[: queue.max_changes + 1]
        if not changes:
            debs = tuple(name for name in sorted(statuses) if name.endswith(BINARIES) and not name.startswith("."))
            lacking = _bare_lacking(statuses, debs) if queue.allow_bare_debs else "there is no .changes yet"
            return _sight(statuses, lacking, unreadable=False, members=debs)
        found = [_listing(own, n, statuses[n], listings) for n in changes]
    lacking = next(filter(None, (_lacking(n, li, statuses) for n, li in zip(changes, found, strict=True))), "")
    listed = dict.fromkeys(n for li in found for n, _ in li.files if n in statuses)
    return _sight(
        statuses,
        lacking,
        unreadable=any(li.unreadable for li in found),
        members=tuple({**dict.fromkeys(changes), **listed}),
    )


def _bare_lacking(statuses: Iterable[str], debs: Collection[str]) -> str:
    """What an upload without a .changes lacks; rsync and sftp clients write under hidden names first."""
    hidden = next((name for name in statuses if name.startswith(".")), "")
    if hidden:
        return f"{plain(hidden)} is still being written"
    return "" if debs else "there is no .changes and no .deb yet"


def _flat(fd: int, file_name: str, queue: QueueConfig, listings: Listings) -> Sight:
    statuses = {file_name: os.stat(file_name, dir_fd=fd, follow_symlinks=False)}
    listing = _listing(fd, file_name, statuses[file_name], listings)
    names = flat_members(file_name, listing)[: queue.max_files + 1]
    for name in names[1:]:
        try:
            statuses[name] = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except OSError:
            continue
    lacking = _lacking(file_name, listing, statuses)
    return _sight(statuses, lacking, unreadable=listing.unreadable, members=names)


def flat_members(file_name: str, listing: Listing) -> tuple[str, ...]:
    """The files of a flat upload: its .changes and what that lists, but never what is an upload of its own."""
    listed = (name for name, _ in listing.files if not name.endswith((CHANGES, COMMANDS)))
    return tuple(dict.fromkeys((file_name, *listed)))


def _sight(
    statuses: Mapping[str, os.stat_result], lacking: str, *, unreadable: bool, members: tuple[str, ...]
) -> Sight:
    marks = [(name, *_mark(status)) for name, status in sorted(statuses.items())]
    return Sight(
        fingerprint=hash(tuple(marks)),
        changed_at=max(status.st_ctime for status in statuses.values()),
        lacking=lacking,
        unreadable=unreadable,
        members=members,
    )


def _mark(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _lacking(changes: str, listing: Listing, statuses: Mapping[str, os.stat_result]) -> str:
    if not listing.whole:
        return f"{plain(changes)} is cut off"
    for name, size in listing.files:
        status = statuses.get(name)
        if status is None:
            return f"{plain(changes)} lists {name}, which is not there"
        if stat.S_ISREG(status.st_mode) and status.st_size != size:
            return f"{name} has {status.st_size} bytes of the {size} that {plain(changes)} lists"
    return ""


def _listing(fd: int, name: str, status: os.stat_result, listings: Listings) -> Listing:
    mark = _mark(status)
    known = listings.get(name)
    if known and known[0] == mark:
        return known[1]
    found = read_listing(fd, name)
    listings[name] = (mark, found)
    return found


def read_listing(fd: int, name: str) -> Listing:
    """What the .changes ``name`` in ``fd`` seems to list. One that is no .changes at all lists nothing."""
    try:
        return _parse(fsio.read_regular(name, fd, _TEXT_LIMIT))
    except FileNotFoundError:
        return Listing(whole=False)
    except OSError as error:
        # A link, a FIFO or one that is too large: nothing to wait for, it will be refused.
        return Listing(unreadable=error.errno in (errno.EACCES, errno.EPERM))


def _parse(raw: bytes) -> Listing:
    if not raw.strip() or (raw.startswith(_SIGNED) and _SIGNED_END not in raw):
        return Listing(whole=False)
    return Listing(files=tuple(dict(_rows(raw.splitlines())).items()))


def _rows(lines: Iterable[bytes]) -> Iterator[tuple[str, int]]:
    """The rows of Files and Checksums-* (deb-changes(5)): digest, size, in Files section and priority, and name."""
    inside = False
    for line in lines:
        if not line.startswith((b" ", b"\t")):
            inside = _FILE_FIELD.fullmatch(line) is not None
            continue
        columns = line.split()
        if not inside or len(columns) not in (3, 5) or not columns[1].isdigit() or len(columns[1]) > 15:
            continue
        name = os.fsdecode(columns[-1])
        if FILE_NAME.fullmatch(name):
            yield name, int(columns[1])


def is_open_for_writing(fd: int, kind: UploadKind, file_name: str, members: Iterable[str]) -> bool:
    """True where a process of this machine has one of an upload's files open for writing."""
    if kind is not UploadKind.DIRECTORY:
        return _any_writer(fd, members)
    with fsio.directory(file_name, fd) as own:
        return _any_writer(own, members)


def _any_writer(fd: int, members: Iterable[str]) -> bool:
    for name in members:
        try:
            with fsio.regular(name, fd) as opened:
                if fsio.has_writer(opened):
                    return True
        except OSError:  # not there, not readable, not regular: nothing to wait for
            continue
    return False
