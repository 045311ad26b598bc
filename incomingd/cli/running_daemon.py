"""Whether a daemon runs on the instance, and how it is woken; and doing its work in its place where none does."""

import contextlib
import fcntl
import os
import signal
from collections.abc import Iterator

from incomingd import fsio
from incomingd.places import Places


def running(places: Places, *, wake: bool = False) -> bool:
    """True where a daemon runs; ``wake``: tell it to look into the journal."""
    pid = fsio.lock_holder(places.lock)
    if pid is None:
        return False
    if wake:
        try:
            os.kill(pid, signal.SIGUSR1)
        except ProcessLookupError:
            return False
    return True


@contextlib.contextmanager
def running_daemon(places: Places) -> Iterator[bool]:
    """True where no daemon runs; none can start until this is left."""
    with places.lock.open("a") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            yield False
        else:
            yield True
