"""Removing: whatever it is, however deep, following no link."""

import contextlib
import errno
import os
from pathlib import Path

from incomingd.fsio.reading import directory
from incomingd.fsio.writing import TEMPORARY

#: Levels of directories in directories after which a removal gives up.
_DEEPEST = 100_000


def remove_tree(path: Path, *, foreign: bool = True) -> None:
    """Remove ``path``, whatever it is, with all that is in it, following no link; nothing is done where it is gone.

    However deep: what is nested is moved up before it is emptied, so neither the stack nor the open descriptors grow.

    Without ``foreign`` only directories of the account that owns ``path`` are emptied. Another one in there is removed
    if it holds nothing; if it holds something, that stays and ``PermissionError`` is raised: who moved it there could
    not have removed it.
    """
    try:
        with directory(path) as fd:
            _empty(fd, None if foreign else os.fstat(fd).st_uid)
        path.rmdir()
    except FileNotFoundError:
        return
    except NotADirectoryError:
        path.unlink()


def _empty(top: int, of: int | None) -> None:
    number = 0
    kept: set[str] = set()
    # Somebody may go on filling it: then it ends as "not empty".
    for _ in range(_DEEPEST):
        folders = [name for name in _unlink_files(top) if name not in kept]
        if not folders:
            break
        for folder in folders:
            if of is not None and os.stat(folder, dir_fd=top, follow_symlinks=False).st_uid != of:
                kept.update(_kept_foreign(folder, top))
                continue
            with directory(folder, top) as fd:
                for nested in _unlink_files(fd):
                    number = _move_up(nested, fd, top, number)
            os.rmdir(folder, dir_fd=top)
    if kept:
        shown = ", ".join(sorted(kept)[:3])
        raise PermissionError(errno.EPERM, f"it holds directories of other accounts ({shown}); remove them by hand")


def _kept_foreign(folder: str, top: int) -> list[str]:
    """Remove a directory of another account if it is empty; else its name."""
    try:
        os.rmdir(folder, dir_fd=top)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        return [folder]
    return []


def _unlink_files(fd: int) -> list[str]:
    """Unlink all that is no directory; the directories that are left."""
    with os.scandir(fd) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in found:
        if not is_folder:
            os.unlink(name, dir_fd=fd)
    return [name for name, is_folder in found if is_folder]


def _move_up(name: str, source: int, target: int, number: int) -> int:
    while True:
        number += 1
        try:
            os.rename(name, f".{TEMPORARY}{number}", src_dir_fd=source, dst_dir_fd=target)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        else:
            return number


def remove(path: Path) -> None:
    """Unlink a file; nothing is done where it is not there."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def remove_empty(path: Path, stop: Path) -> None:
    """Remove ``path`` and then its parents, as long as they are empty, up to, not with, ``stop``."""
    for folder in (path, *path.parents):
        if folder == stop or stop not in folder.parents:
            return
        try:
            folder.rmdir()
        except OSError:  # not empty, or gone
            return
