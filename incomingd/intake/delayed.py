"""The folders for delayed uploads in an incoming directory: ``DELAYED/N-day``.

Rules:

* Every account that may write in incoming could make one of these names first: a directory with a mode of its own, a
  file, a link. So a folder counts only if it belongs to the daemon, to root or to incoming's owner, and gives no one
  more rights than incoming does. This is asked of the open descriptor, each time.
* A folder that is missing is made. One that is too open gets incoming's mode. A name that belongs to another account
  is renamed, and the folder made: no link is followed, nothing is removed, and what was renamed in incoming is an
  upload like any other, to be refused.

Failures are ``OSError``, with a sentence in ``strerror`` if a folder is refused.
"""

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator

from incomingd import fsio
from incomingd.config import QueueConfig

_ACL = "system.posix_acl_access"


@contextlib.contextmanager
def opened(queue: QueueConfig) -> Iterator[int]:
    """A descriptor of the folder. Raises ``OSError``, also if it is not to be trusted."""
    above, folder = queue.path.parent, queue.path.name
    with (
        fsio.directory(os.path.realpath(above.parent), through=True) as root,
        fsio.directory(above.name, root, through=True) as delayed,
        fsio.directory(folder, delayed) as fd,
    ):
        like = os.fstat(root)
        for name, one in ((above.name, delayed), (f"{above.name}/{folder}", fd)):
            status = os.fstat(one)
            if not _is_ours(status, like):
                raise PermissionError(errno.EPERM, _foreign(name, status))
            if _too_open(status, like):
                raise PermissionError(errno.EPERM, _open_to_others(name, status, like))
        yield fd


def prepare(queue: QueueConfig) -> list[str]:
    """Make the folder if it is not there, and put right what is not as it must be.

    Returns a sentence for each name of another account that was renamed. Raises ``OSError``.
    """
    above, folder = queue.path.parent, queue.path.name
    with fsio.directory(os.path.realpath(above.parent), through=True) as root:
        renamed = _prepare(above.name, root, root)
        with fsio.directory(above.name, root, through=True) as delayed:
            renamed += _prepare(folder, delayed, root)
    return [f"{above.parent}: {sentence}" for sentence in renamed]


def remove(queue: QueueConfig) -> None:
    """Remove the folder if it is empty, and the one above if it was the last."""
    above, folder = queue.path.parent, queue.path.name
    with contextlib.suppress(OSError), fsio.directory(os.path.realpath(above.parent)) as root:
        with fsio.directory(above.name, root) as delayed:
            os.rmdir(folder, dir_fd=delayed)
        os.rmdir(above.name, dir_fd=root)


def _is_ours(status: os.stat_result, incoming: os.stat_result) -> bool:
    return status.st_uid in (0, os.geteuid(), incoming.st_uid)


def _too_open(status: os.stat_result, incoming: os.stat_result) -> bool:
    """More rights than incoming gives, or names that others may rename, which they may not in incoming."""
    more = status.st_mode & ~incoming.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    return bool(more or incoming.st_mode & ~status.st_mode & stat.S_ISVTX)


def _foreign(name: str, status: os.stat_result) -> str:
    return (
        f"{name} belongs to uid {status.st_uid}, not to the daemon (uid {os.geteuid()}), root or incoming's owner; "
        "remove it"
    )


def _open_to_others(name: str, status: os.stat_result, incoming: os.stat_result) -> str:
    found, wanted = stat.S_IMODE(status.st_mode), stat.S_IMODE(incoming.st_mode)
    return f"{name} has mode {found:04o}, and incoming has {wanted:04o}; give it that mode"


def _prepare(name: str, dir_fd: int, root: int) -> list[str]:
    like = os.fstat(root)
    try:
        status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        _make_like(name, dir_fd, root)
        return []
    if not _is_ours(status, like):
        aside = f"{name}.of-uid-{status.st_uid}-{secrets.token_hex(6)}"
        try:
            fsio.rename(name, aside, source_fd=dir_fd, target_fd=dir_fd)
        except PermissionError as error:
            raise PermissionError(error.errno, _foreign(name, status)) from error
        _make_like(name, dir_fd, root)
        return [f"{name} belonged to uid {status.st_uid}, and is called {aside} now; ask that account what it is"]
    if stat.S_ISDIR(status.st_mode) and _too_open(status, like):
        with fsio.directory(name, dir_fd) as fd:
            try:
                _set_mode(fd, stat.S_IMODE(like.st_mode))
            except PermissionError as error:
                raise PermissionError(error.errno, _open_to_others(name, status, like)) from error
    return []


def _make_like(name: str, dir_fd: int, root: int) -> None:
    """With the owner, mode and ACL of ``root``; what a default ACL gives is meant for uploads."""
    like = os.fstat(root)
    wanted = stat.S_IMODE(like.st_mode)
    try:
        os.mkdir(name, wanted & ~(stat.S_ISUID | stat.S_ISGID), dir_fd=dir_fd)
    except FileExistsError:  # someone was faster: opened() says whether it can be trusted
        return
    with fsio.directory(name, dir_fd) as made:
        if os.fstat(made).st_uid != os.geteuid():
            return
        # Only root can give it to another account; the group and a default ACL are enough if incoming has them.
        with contextlib.suppress(PermissionError):
            os.fchown(made, like.st_uid, like.st_gid)
        try:
            with fsio.directory(".", root) as readable:
                os.setxattr(made, _ACL, os.getxattr(readable, _ACL))
        except OSError:  # it has none, or the file system knows of none
            with contextlib.suppress(OSError):
                os.removexattr(made, _ACL)
        if stat.S_IMODE(os.fstat(made).st_mode) != wanted:
            _set_mode(made, wanted)


def _set_mode(fd: int, mode: int) -> None:
    try:
        os.fchmod(fd, mode)
    except PermissionError:
        # The group's bit came from above: a unit with RestrictSUIDSGID= cannot give it.
        os.fchmod(fd, mode & ~(stat.S_ISUID | stat.S_ISGID))
