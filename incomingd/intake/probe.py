"""Whether a queue's uploads can be claimed: tried with a directory of the daemon's own, renamed as a claim is.

Its name is random, so that no one can be there first, and it is removed at once. What a crash has left is removed by
the next probe: empty directories of the daemon's own, and nothing else.
"""

import contextlib
import errno
import os
import secrets
from pathlib import Path

from incomingd import fsio
from incomingd.config import QueueConfig
from incomingd.places import Places

#: Hidden, so that no scan takes it for an upload.
PREFIX = ".incomingd-probe"


def area_fault(places: Places, queue: QueueConfig) -> str:
    """Why nothing can be claimed from a queue, as a sentence; empty if a probe could be renamed across."""
    root, claims = Path(os.path.realpath(queue.path)), places.claims(queue)
    try:
        fsio.make_directories(claims, 0o700)
    except OSError as error:
        return f"the claims folder {claims} cannot be made: {error.strerror}; uploads stay in {queue.path}"
    name = f"{PREFIX}-{secrets.token_hex(8)}"
    try:
        for folder in (root, claims):
            _remove_left(folder)
        (root / name).mkdir(0o700)
    except OSError as error:
        return (
            f"{queue.path} cannot be written to: {error.strerror}; uploads stay there until the daemon "
            f"(uid {os.geteuid()}) may rename out of it"
        )
    try:
        fsio.rename(root / name, claims / name)
    except OSError as error:
        return _rename_refused(queue, claims, error)
    finally:
        _remove_empty(root / name)
        fsio.remove_tree(claims / name)
    return ""


def _remove_left(folder: Path) -> None:
    with os.scandir(folder) as entries:
        left = [entry for entry in entries if entry.name.startswith(PREFIX)]
    for entry in left:
        with contextlib.suppress(FileNotFoundError):
            if entry.stat(follow_symlinks=False).st_uid == os.geteuid():
                _remove_empty(folder / entry.name)


def _remove_empty(path: Path) -> None:
    with contextlib.suppress(OSError):  # gone, no directory, or not empty: then it is not a probe of ours
        path.rmdir()


def _rename_refused(queue: QueueConfig, claims: Path, error: OSError) -> str:
    if error.errno == errno.EXDEV:
        return (
            f"{queue.path} and the claims folder {claims} are on different file systems or mounts, and a claim is one "
            f"rename; set [incoming.{queue.name}] claims to a folder on that of {queue.path}, out of the uploaders' "
            "reach; uploads stay where they are meanwhile"
        )
    return f"nothing can be renamed from {queue.path} to {claims}: {error.strerror}; uploads stay where they are"
