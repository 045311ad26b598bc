"""Claiming: one rename out of the uploader's reach, into an area of the daemon's own on the same file system.

Rules:

* The journal row with the sequence number is committed before the rename. A crash in between is mended by doing the
  rename again: :func:`complete_claim`.
* A directory is claimed by the rename of the directory; a flat upload by that of its .changes, its files follow. A
  file that another waiting .changes lists too stays for that one, and this one gets a link or a copy.
* Nothing is read or followed here: whatever was under the name goes to the claims area, and sealing looks at it.

:func:`move_to_claims` fails with ``OSError`` and then has moved nothing: the upload lies where it was.
"""

import contextlib
import errno
import logging
import os
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from incomingd import fsio
from incomingd.config import QueueConfig
from incomingd.intake import scan
from incomingd.model import UPLOAD_NAME, Upload, UploadKind, plain
from incomingd.places import Places

log = logging.getLogger(__name__)

_PROBE = ".incomingd-probe"
_ACL = "system.posix_acl_access"


def root_of(queue: QueueConfig) -> Path:
    """A queue's incoming directory; the operator may have made its path a link."""
    return Path(os.path.realpath(queue.path))


@contextlib.contextmanager
def opened(queue: QueueConfig) -> Iterator[int]:
    """A descriptor of a queue's incoming directory, or of one for delayed uploads in it.

    What lies in incoming may be swapped by whoever may write there: below it no link is followed, and whoever takes
    something out does so by the descriptor. Raises ``OSError``.
    """
    if queue.delay is None:
        with fsio.directory(root_of(queue)) as fd:
            yield fd
        return
    above, folder = queue.path.parent, queue.path.name
    with (
        fsio.directory(os.path.realpath(above.parent), through=True) as root,
        fsio.directory(above.name, root, through=True) as delayed,
        fsio.directory(folder, delayed) as fd,
    ):
        yield fd


def make_delayed(queue: QueueConfig) -> None:
    """Make the directory for delayed uploads where it is not there, for whoever may write in incoming.

    Raises ``OSError``.
    """
    above, folder = queue.path.parent, queue.path.name
    with fsio.directory(os.path.realpath(above.parent)) as root:
        _make_like(above.name, root, root)
        with fsio.directory(above.name, root) as delayed:
            _make_like(folder, delayed, root)


def remove_delayed(queue: QueueConfig) -> None:
    """Remove the directory for delayed uploads where it is empty, and the one above where it was the last."""
    above, folder = queue.path.parent, queue.path.name
    with contextlib.suppress(OSError), fsio.directory(os.path.realpath(above.parent)) as root:
        with fsio.directory(above.name, root) as delayed:
            os.rmdir(folder, dir_fd=delayed)
        os.rmdir(above.name, dir_fd=root)


def _make_like(name: str, dir_fd: int, root: int) -> None:
    """With the owner, mode and ACL of ``root``; what a default ACL gives is meant for uploads."""
    like = os.fstat(root)
    wanted = stat.S_IMODE(like.st_mode)
    try:
        os.mkdir(name, wanted & ~(stat.S_ISUID | stat.S_ISGID), dir_fd=dir_fd)
    except FileExistsError:
        return
    with fsio.directory(name, dir_fd) as made:
        # Only root can give it to another account; the group and a default ACL are enough where incoming has them.
        with contextlib.suppress(PermissionError):
            os.fchown(made, like.st_uid, like.st_gid)
        try:
            os.setxattr(made, _ACL, os.getxattr(root, _ACL))
        except OSError:  # it has none, or the file system knows of none
            with contextlib.suppress(OSError):
                os.removexattr(made, _ACL)
        if stat.S_IMODE(os.fstat(made).st_mode) == wanted:
            return  # the group's bit came from above; where a unit has RestrictSUIDSGID=, nobody can give it
        try:
            os.fchmod(made, wanted)
        except PermissionError:
            os.fchmod(made, wanted & ~(stat.S_ISUID | stat.S_ISGID))


def complete_claim(places: Places, upload: Upload, queue: QueueConfig, members: Sequence[str] | None) -> None:
    """Do the renames of a claim that the journal has. May be done twice; does nothing where all is moved already.

    Where they are refused the upload stays in incoming: sealing tries once more, and says why it cannot go on.
    """
    try:
        move_to_claims(places, upload, queue, members)
    except FileNotFoundError:
        log.warning("%s: is neither in %s nor among the claims", plain(upload), queue.path)
    except OSError as error:
        log.warning("%s: cannot be moved out of %s yet: %s", plain(upload), queue.path, error)


def move_to_claims(
    places: Places,
    upload: Upload,
    queue: QueueConfig,
    members: Sequence[str] | None,
    listed_elsewhere: Callable[[], Collection[str]] | None = None,
) -> None:
    """Move an upload from incoming to its claim. ``listed_elsewhere`` gives the file names that other waiting
    .changes list; without it they are read. Raises ``FileNotFoundError`` where the upload is in neither place."""
    claim = places.claim(queue, upload.id)
    fsio.make_directories(claim.parent, 0o700)
    if members is None and os.path.lexists(claim):
        return
    with opened(queue) as fd:
        if members is None:
            fsio.rename(_file_name(fd, upload), claim, source_fd=fd)
            return
        elsewhere = listed_elsewhere or (lambda: _listed_elsewhere(fd, members[0]))
        _move_flat(fd, claim, members, elsewhere)


def _file_name(fd: int, upload: Upload) -> str:
    """The directory's own name. A bad one is escaped in the journal and has to be found again."""
    if UPLOAD_NAME.fullmatch(upload.name):
        return upload.name
    found = scan.survey(fd).uploads
    if (UploadKind.DIRECTORY, upload.name) not in found:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), upload.name)
    return found[UploadKind.DIRECTORY, upload.name]


def _move_flat(fd: int, claim: Path, members: Sequence[str], listed_elsewhere: Callable[[], Collection[str]]) -> None:
    fsio.make_directories(claim, 0o700)
    missing = [name for name in members if not os.path.lexists(claim / name)]
    moved: list[str] = []
    elsewhere = listed_elsewhere() if missing else ()
    try:
        for name in missing:
            if not _lies_there(fd, name):
                if name == members[0]:
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
                continue
            if name != members[0] and name in elsewhere:
                _share(fd, name, claim / name)
            else:
                fsio.rename(name, claim / name, source_fd=fd)
                moved.append(name)
    except OSError:
        for name in moved:
            with contextlib.suppress(OSError):
                fsio.rename(claim / name, name, target_fd=fd)
        with contextlib.suppress(OSError):
            claim.rmdir()
        raise


def _lies_there(fd: int, name: str) -> bool:
    """A directory of that name is another upload, and no file of this one."""
    try:
        return not stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _share(fd: int, source: str, target: Path) -> None:
    try:
        fsio.link(source, target, source_fd=fd)
    except OSError:  # not allowed for files of others (fs.protected_hardlinks), or the file system has no links
        # What cannot be copied either is missed by the checks.
        with contextlib.suppress(fsio.NotRegularError, PermissionError, FileNotFoundError):
            fsio.copy_file(source, fd, target)


def _listed_elsewhere(fd: int, own: str) -> Collection[str]:
    listed: set[str] = set()
    for (kind, _), file_name in scan.survey(fd).uploads.items():
        if kind is UploadKind.FLAT and file_name != own:
            listed.update(scan.flat_members(file_name, scan.read_listing(fd, file_name)))
    return listed


def refusal(fd: int, kind: UploadKind, file_name: str) -> str:
    """Why the daemon could not take an upload of the incoming directory ``fd`` now; empty where nothing is seen.

    rename(2) of a directory into another parent changes its "..", so it needs the right to write in the directory
    itself, not only in incoming. What the daemon owns it opens for itself.
    """
    if kind is not UploadKind.DIRECTORY:
        return ""
    try:
        status = os.stat(file_name, dir_fd=fd, follow_symlinks=False)
        if status.st_uid == os.geteuid() and status.st_mode & stat.S_IRWXU in (
            stat.S_IRUSR,
            stat.S_IRUSR | stat.S_IXUSR,
        ):
            with fsio.directory(file_name, fd) as own:
                os.fchmod(own, stat.S_IMODE(status.st_mode) | stat.S_IRWXU)
    except OSError as error:
        return f"{plain(file_name)} cannot be looked at: {error.strerror}"
    if os.access(file_name, os.R_OK | os.W_OK | os.X_OK, dir_fd=fd, effective_ids=True, follow_symlinks=False):
        return ""
    return (
        f"the directory {plain(file_name)} has mode {stat.S_IMODE(status.st_mode):04o} and belongs to uid "
        f"{status.st_uid}; the daemon (uid {os.geteuid()}) has to be able to read and write in it to take it: run "
        "it by the packaged unit, upload with one account, or set default ACLs on incoming (docs/operators.md)"
    )


def area_fault(places: Places, queue: QueueConfig) -> str:
    """Why nothing can be claimed from a queue, as a sentence; empty where a probe could be renamed across."""
    root, claims = root_of(queue), places.claims(queue)
    try:
        fsio.make_directories(claims, 0o700)
    except OSError as error:
        return f"the claims folder {claims} cannot be made: {error.strerror}; uploads stay in {queue.path}"
    probe, target = root / _PROBE, claims / _PROBE
    try:
        for litter in (probe, target):
            fsio.remove_tree(litter)
        probe.mkdir(0o700)
    except OSError as error:
        return (
            f"{queue.path} cannot be written to: {error.strerror}; uploads stay there until the daemon "
            f"(uid {os.geteuid()}) may rename out of it"
        )
    try:
        fsio.rename(probe, target)
    except OSError as error:
        return _rename_refused(queue, claims, error)
    finally:
        for litter in (probe, target):
            fsio.remove_tree(litter)
    return ""


def _rename_refused(queue: QueueConfig, claims: Path, error: OSError) -> str:
    if error.errno == errno.EXDEV:
        return (
            f"{queue.path} and the claims folder {claims} are on different file systems or mounts, and a claim is one "
            f"rename; set [incoming.{queue.name}] claims to a folder on that of {queue.path}, out of the uploaders' "
            "reach; uploads stay where they are meanwhile"
        )
    return f"nothing can be renamed from {queue.path} to {claims}: {error.strerror}; uploads stay where they are"
