"""What lies in an incoming directory at one moment. Looks only: changes nothing, decides nothing.

Rules:

* Everything is read relative to a directory's descriptor and without following links; entries, bytes and .changes
  are bounded, so that nobody can make a look long by filling a directory.
* A .changes is read leniently and unverified, for one question only: is all that it lists there, at its listed size?
  The answer says when to take an upload, never whether it is good.
* A .changes of another account than the upload's is not read, and of no file anything is told that its sender could
  not read: no size, no digest, no line (:mod:`.ownership`).
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
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from incomingd import fsio
from incomingd.config import DELAYED, QueueConfig
from incomingd.intake import ownership
from incomingd.intake.accounts import in_turn
from incomingd.intake.listing import Listing, Listings
from incomingd.intake.ownership import Ownership
from incomingd.intake.ownership import account_name as _account
from incomingd.model import Owner, UploadKind, plain

CHANGES, COMMANDS = ".changes", ".commands"
BINARIES = (".deb", ".udeb", ".ddeb")
PACKAGES = (*BINARIES, ".dsc")
#: Made by mkfs in the root of a file system, and nobody's upload.
NOT_UPLOADS = frozenset({"lost+found"})
#: Entries beyond a queue's ``max_files`` that are looked at all the same: temporary files of rsync, and the like.
SLACK = 100
#: Directories that are looked into at a time, and package files of no upload that are found at a time.
_LOOKED_INTO = 200
#: Entries of the folder for delayed uploads that are read.
_MOST_DELAYED = 10_000
#: Bytes of .changes that are read of one upload. Of one that has more, none is read, and it is taken as it is.
TEXTS_LIMIT = 8 << 20
#: A file of an upload, also under the name that rsync gives it on the way: .hello_1.0-1_amd64.deb.Xy12ab
_PACKAGING = re.compile(r"\.(changes|u?deb|ddeb|dsc)(\.[A-Za-z0-9]{6})?$")

#: One upload of a queue: how it comes, and its name as the journal has it.
Key = tuple[UploadKind, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """The top level of one incoming directory: uploads by key with their file names, whatever else is there, and what
    is being written under a hidden name.

    ``complete`` is False as long as not all was read, and ``steps`` says in how many looks it was (:mod:`.sweep`);
    ``accounts`` are those of uploads that are new; ``beyond`` counts, for each account, those that it has beyond what
    is followed, ``beyond_renamed`` names those of them that were announced.
    """

    uploads: dict[Key, str]
    others: frozenset[str]
    hidden: frozenset[str]
    complete: bool = True
    steps: int = 1
    accounts: Mapping[Key, int] = field(default_factory=dict)
    beyond: Mapping[int, int] = field(default_factory=dict)
    beyond_renamed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One waiting upload at one moment. ``changed_at`` is in seconds of the file system's clock; ``lacking`` says
    what is not there yet and is empty where all is; ``members`` are the files that belong to it, the .changes first;
    ``size`` is that of its regular files, in bytes. ``stuck`` says what to do if it lacks what will hardly come, and
    ``absent`` names a file that it lists and that is not there. ``text`` is a digest of a flat upload's .changes."""

    fingerprint: int
    changed_at: float
    lacking: str
    unreadable: bool
    members: tuple[str, ...]
    size: int
    stuck: str = ""
    absent: str = ""
    text: bytes = b""


def survey(fd: int, *, delayed: bool = False) -> Survey:
    """The top level of the incoming directory ``fd``. Hidden names are being written and are left alone; ``delayed``:
    so is the directory that holds those for delayed uploads."""
    uploads: dict[Key, str] = {}
    others, hidden = set(), set()
    with os.scandir(fd) as entries:
        for entry in entries:
            if entry.name in NOT_UPLOADS:
                continue
            if entry.name.startswith("."):
                hidden.add(entry.name)
                continue
            key = key_of(entry.name, is_directory=entry.is_dir(follow_symlinks=False))
            if key is None:
                others.add(entry.name)
            elif not (delayed and entry.name == DELAYED):
                uploads.setdefault(key, entry.name)
    return Survey(uploads=uploads, others=frozenset(others), hidden=frozenset(hidden))


def key_of(name: str, *, is_directory: bool) -> Key | None:
    """The upload that a visible name in incoming stands for; None for a file of another upload, or of none."""
    if is_directory:
        return UploadKind.DIRECTORY, plain(name)
    if name.endswith(CHANGES):
        return UploadKind.FLAT, plain(name.removesuffix(CHANGES))
    if name.endswith(COMMANDS):
        return UploadKind.COMMANDS, plain(name.removesuffix(COMMANDS))
    return None


def by_owner(fd: int, names: Iterable[str]) -> list[str]:
    """Those of ``names`` that are there in the incoming directory ``fd``, their owners in turn: however many names an
    account has, the first ones are of every account."""
    owners: dict[str, int] = {}
    for name in names:
        with contextlib.suppress(OSError):
            owners[name] = os.stat(name, dir_fd=fd, follow_symlinks=False).st_uid
    return in_turn(owners, owners.__getitem__)


def left_hidden(fd: int, names: Iterable[str], queue: QueueConfig) -> dict[str, float]:
    """Uploads under the hidden ``names`` of the incoming directory ``fd``, each with when it was last changed; of more
    than can be looked into, some of each account's."""
    statuses: dict[str, os.stat_result] = {}
    for name in names:
        with contextlib.suppress(OSError):
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode) or _PACKAGING.search(name):
                statuses[name] = status
    some = in_turn(statuses, lambda name: statuses[name].st_uid)[:_LOOKED_INTO]
    found = ((name, _hidden_since(fd, name, queue)) for name in some)
    return {name: at for name, at in found if at is not None}


def _hidden_since(fd: int, name: str, queue: QueueConfig) -> float | None:
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
            names = (one.name for one in itertools.islice(inside, _MOST_DELAYED))
            others = sorted(name for name in names if name not in days and not name.startswith("."))
        some = by_owner(delayed, others)[:_LOOKED_INTO]
        found = [name for name in some if not _is_empty(name, delayed)]
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


def owner(fd: int, file_name: str) -> Owner:
    """Who owns an upload of the incoming directory ``fd``: its directory, or its .changes. Raises ``OSError``."""
    status = os.stat(file_name, dir_fd=fd, follow_symlinks=False)
    operator = stat.S_ISDIR(status.st_mode) and ownership.of_directory(status).anyone
    return Owner(uid=status.st_uid, account=_account(status.st_uid), operator=operator)


def observe(fd: int, kind: UploadKind, file_name: str, queue: QueueConfig, listings: Listings) -> Observation:
    """Look at one upload of the incoming directory ``fd``. ``listings`` is kept from look to look by the caller."""
    if kind is UploadKind.DIRECTORY:
        return _directory(fd, file_name, queue, listings)
    if kind is UploadKind.LONE:
        return _lone(fd, file_name, queue)
    return _flat(fd, file_name, queue, listings)


def _lone(fd: int, file_name: str, queue: QueueConfig) -> Observation:
    statuses = {file_name: os.stat(file_name, dir_fd=fd, follow_symlinks=False)}
    name = plain(file_name)
    alone = f"the package alone by {_submit(name, queue)}"
    if queue.allow_bare_debs and name.endswith(BINARIES):
        alone = f"put it into a directory: mkdir .new && mv {name} .new/ && mv -T .new {name.rpartition('.')[0]}"
    stuck = f"send its .changes too, or {alone}"
    return _observation(statuses, "no .changes lists it", unreadable=False, members=(file_name,), stuck=stuck)


def _submit(what: str, queue: QueueConfig) -> str:
    """What a sender types."""
    return f"incomingctl submit {plain(what)} --suite SUITE --key KEY --to {queue.path}"


def _directory(fd: int, name: str, queue: QueueConfig, listings: Listings) -> Observation:
    with fsio.directory(name, fd) as own:
        top = os.fstat(own)
        mine = ownership.of_directory(top)
        statuses = {"": top, **dict(entries(own, queue))}
        if len(statuses) > queue.max_files + SLACK:
            # More will not make it better, and reading on is what an attacker wants: to be taken, and refused.
            return _observation(statuses, "", unreadable=False, members=())
        changes = sorted(n for n in statuses if n.endswith(CHANGES) and not n.startswith("."))
        texts = {statuses[name].st_ino: statuses[name].st_size for name in changes}
        if len(changes) > queue.max_changes or sum(texts.values()) > TEXTS_LIMIT:
            return _observation(statuses, "", unreadable=False, members=())  # the same
        if not changes:
            debs = tuple(name for name in sorted(statuses) if name.endswith(BINARIES) and not name.startswith("."))
            lacking = _bare_lacking(statuses, debs) if queue.allow_bare_debs else "there is no .changes yet"
            stuck = _never_whole(name, statuses, debs, queue) if lacking else ""
            return _observation(statuses, lacking, unreadable=False, members=debs, stuck=stuck)
        found = [listings.read(own, n, statuses[n], mine, queue.max_files) for n in changes]
    # What belongs to another account is nothing to wait for: the upload is refused for it.
    here = {name: status for name, status in statuses.items() if mine.allows(status)}
    foreign = statuses.keys() - here.keys()
    lacking = next(filter(None, (_lacking(n, li, here, foreign) for n, li in zip(changes, found, strict=True))), "")
    listed = dict.fromkeys(n for li in found for n, _ in li.files if n in statuses)
    return _observation(
        statuses,
        lacking,
        unreadable=any(li.unreadable for li in found),
        members=tuple({**dict.fromkeys(changes), **listed}),
        stuck=nested(statuses.items()) if lacking else "",
        absent=_absent(found, statuses),
    )


def _never_whole(name: str, files: Mapping[str, os.stat_result], debs: Collection[str], queue: QueueConfig) -> str:
    """What to do with a directory without a .changes, if nothing changes in it any more."""
    if inside := nested(files.items()):
        return inside
    if debs:
        return f"put the .changes into it, or send the packages by {_submit(f'{name}/*.deb', queue)}"
    return "put a .changes and the files that it lists into it, or remove it"


def _absent(listings: Iterable[Listing], files: Collection[str]) -> str:
    """The first file that is listed and not there."""
    return next((name for listing in listings for name, _ in listing.files if name not in files), "")


def beside(fd: int, kind: UploadKind, file_name: str, absent: str, directories: Iterable[str]) -> str:
    """Where the file ``absent`` of an upload lies, if its sender has put it into another place of the incoming
    directory ``fd``: a sentence with what to type; empty if nowhere. ``directories`` are those of the account's other
    uploads."""
    uid = os.stat(file_name, dir_fd=fd, follow_symlinks=False).st_uid
    if kind is UploadKind.DIRECTORY:
        if _is_file_of(uid, absent, fd):
            return f"{plain(absent)} lies beside it: mv {plain(absent)} {plain(file_name)}/"
        return ""
    for directory in itertools.islice(directories, _LOOKED_INTO):
        with contextlib.suppress(OSError), fsio.directory(directory, fd) as own:
            if _is_file_of(uid, absent, own):
                return (
                    f"{plain(absent)} lies in the directory {plain(directory)} beside it: "
                    f"mv {plain(file_name)} {plain(directory)}/"
                )
    return ""


def _is_file_of(uid: int, name: str, fd: int) -> bool:
    try:
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_uid == uid


@dataclass(frozen=True, slots=True, kw_only=True)
class Lone:
    """A package file, its owner, and when a file of that owner was last changed in the incoming directory."""

    uid: int
    changed_at: float


def lone_packages(fd: int, names: Iterable[str], passed_over: Collection[str]) -> dict[str, Lone]:
    """Package files among ``names`` in the incoming directory ``fd`` that are not ``passed_over``; of more than are
    taken on at a time, some of each account's.

    Every file counts for when its owner last changed one: as long as others come, the .changes may come too.
    """
    owners: dict[str, int] = {}
    newest: dict[int, float] = {}
    for name in names:
        with contextlib.suppress(OSError):
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                owners[name] = status.st_uid
                newest[status.st_uid] = max(status.st_ctime, newest.get(status.st_uid, status.st_ctime))
    packages = [name for name in owners if name.endswith(PACKAGES) and name not in passed_over]
    some = in_turn(packages, owners.__getitem__)[:_LOOKED_INTO]
    return {name: Lone(uid=owners[name], changed_at=newest[owners[name]]) for name in some}


def nested(files: Iterable[tuple[str, os.stat_result]]) -> str:
    """What seems to have happened if an upload without a .changes holds a directory; empty if it holds none."""
    inside = next((name for name, status in files if name and stat.S_ISDIR(status.st_mode)), "")
    if not inside:
        return ""
    return (
        f"it holds the directory {plain(inside)}: mv and scp -r put a directory into one that has the new name "
        "already; send it under a name that is not in use, and rename with mv -T"
    )


def _bare_lacking(statuses: Iterable[str], debs: Collection[str]) -> str:
    """What an upload without a .changes lacks; rsync and sftp clients write under hidden names first."""
    hidden = next((name for name in statuses if name.startswith(".")), "")
    if hidden:
        return f"{plain(hidden)} is still being written"
    return "" if debs else "there is no .changes and no .deb yet"


def _flat(fd: int, file_name: str, queue: QueueConfig, listings: Listings) -> Observation:
    statuses = {file_name: os.stat(file_name, dir_fd=fd, follow_symlinks=False)}
    mine = ownership.of_flat(os.fstat(fd), statuses[file_name].st_uid)
    listing = listings.read(fd, file_name, statuses[file_name], mine, queue.max_files)
    names = flat_members(file_name, listing)
    for name in names[1:]:
        try:
            statuses[name] = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except OSError:
            continue
    foreign = {name: status for name, status in statuses.items() if not mine.allows(status)}
    here = {name: status for name, status in statuses.items() if name not in foreign}
    # It counts as absent, and it is not waited for: its owner may leave it there for ever.
    lacking = _lacking(file_name, listing, here, foreign)
    whose = next((name for name in names if name in foreign), "")
    if whose and lacking:
        lacking += f"; {whose} {mine.refusal(foreign[whose].st_uid)}: it counts as absent"
    return _observation(
        here,
        lacking,
        unreadable=listing.unreadable,
        members=tuple(n for n in names if n not in foreign),
        absent=_absent([listing], here),
        text=listing.digest,
    )


def flat_members(file_name: str, listing: Listing) -> tuple[str, ...]:
    """The files of a flat upload: its .changes and what that lists, but never what is an upload of its own."""
    listed = (name for name, _ in listing.files if not name.endswith((CHANGES, COMMANDS)))
    return tuple(dict.fromkeys((file_name, *listed)))


def _observation(
    statuses: Mapping[str, os.stat_result],
    lacking: str,
    *,
    unreadable: bool,
    members: tuple[str, ...],
    stuck: str = "",
    absent: str = "",
    text: bytes = b"",
) -> Observation:
    marks = [(name, *_mark(status)) for name, status in sorted(statuses.items())]
    return Observation(
        fingerprint=hash(tuple(marks)),
        changed_at=max(status.st_ctime for status in statuses.values()),
        lacking=lacking,
        unreadable=unreadable,
        members=members,
        size=_size(statuses.values()),
        stuck=stuck,
        absent=absent,
        text=text,
    )


def size_of(fd: int, name: str, queue: QueueConfig) -> int:
    """The bytes of the regular files in the directory ``name`` of ``fd``; of no more files than a queue allows."""
    with fsio.directory(name, fd) as own:
        return _size(status for _, status in entries(own, queue))


def _size(statuses: Iterable[os.stat_result]) -> int:
    return sum(status.st_size for status in statuses if stat.S_ISREG(status.st_mode))


def _mark(status: os.stat_result) -> tuple[int, ...]:
    return (
        *(status.st_ino, status.st_mode, status.st_uid, status.st_size),
        *(status.st_mtime_ns, status.st_ctime_ns),
    )


def _lacking(
    changes: str, listing: Listing, statuses: Mapping[str, os.stat_result], passed_over: Collection[str] = ()
) -> str:
    if not listing.whole:
        return f"{plain(changes)} is cut off"
    if listing.too_long:
        return ""
    for name, size in listing.files:
        status = statuses.get(name)
        if status is None and name not in passed_over:
            return f"{plain(changes)} lists {name}, which is not there"
        if status and stat.S_ISREG(status.st_mode) and status.st_size != size:
            return f"{name} does not have the size that {plain(changes)} lists"
    return ""


def is_open_for_writing(fd: int, kind: UploadKind, file_name: str, members: Iterable[str]) -> bool:
    """True where a process of this machine has one of an upload's files open for writing."""
    if kind is not UploadKind.DIRECTORY:
        try:
            uid = os.stat(file_name, dir_fd=fd, follow_symlinks=False).st_uid
        except FileNotFoundError:
            return False
        return _any_writer(fd, members, ownership.of_flat(os.fstat(fd), uid))
    with fsio.directory(file_name, fd) as own:
        return _any_writer(own, members, ownership.of_directory(os.fstat(own)))


def _any_writer(fd: int, members: Iterable[str], mine: Ownership) -> bool:
    for name in members:
        try:
            with fsio.regular(name, fd, mine.allows) as opened:
                if fsio.has_writer(opened):
                    return True
        except OSError:  # not there, not readable, not regular: nothing to wait for
            continue
    return False
