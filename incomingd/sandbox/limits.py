"""The one place that limits a process: resources (setrlimit(2)), privileges (prctl(2), capset(2)) and the network.

Each function changes the process that calls it, for good; what it starts from then on has the same limits.
:func:`processor_of_children` and :func:`give_processor` limit others. None needs a privilege. :func:`leave_network`
does what the kernel allows. The others raise ``OSError`` if the kernel refuses.
"""

import contextlib
import ctypes
import errno
import os
import resource
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

#: linux/prctl.h, linux/sched.h
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 1, 24, 36, 38, 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAP_DAC_READ_SEARCH = 2
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
#: linux/capability.h: the version of the structures that have two words for each set.
_CAPABILITY_VERSION_3 = 0x20080522
#: Of 1000, as a share of the memory that there is.
_END_FIRST = 500
_libc = ctypes.CDLL(None, use_errno=True)


def at_most(most: Mapping[int, int], *, raisable: bool = False) -> None:
    """Set limits (``resource.RLIMIT_…``), or keep those that are lower already.

    ``raisable``: only the soft limits, so that the process itself can set them again for its next piece of work.
    """
    for what, wanted in most.items():
        hard = resource.getrlimit(what)[1]
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(what, (limit, hard if raisable else limit))


@contextlib.contextmanager
def processor_of_children(seconds: int) -> Iterator[None]:
    """Give every process that is started in here so many seconds of processor time; this process keeps what it has.

    It costs four system calls: a function that ran between fork and exec would take milliseconds,
    and a check worker may set no other process's limits.
    """
    own, hard = resource.getrlimit(resource.RLIMIT_CPU)
    # This process may have used more than that already, and is told so. What is executed does not inherit a handler.
    handler = signal.getsignal(signal.SIGXCPU)
    may_handle = threading.current_thread() is threading.main_thread()
    if may_handle:
        signal.signal(signal.SIGXCPU, lambda _number, _frame: None)
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, hard))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CPU, (own, hard))
        if may_handle:
            signal.signal(signal.SIGXCPU, handler)


def give_processor(pid: int, seconds: int) -> None:
    """Give a process that this one has started so many seconds of processor time in all; then it ends with SIGXCPU."""
    with contextlib.suppress(ProcessLookupError):  # it has ended
        hard = resource.prlimit(pid, resource.RLIMIT_CPU)[1]
        soft = seconds if hard == resource.RLIM_INFINITY else min(seconds, hard)
        resource.prlimit(pid, resource.RLIMIT_CPU, (soft, hard))


def end_first() -> None:
    """Have the kernel end this process, and what it starts, before others if there is no memory left (proc(5))."""
    with contextlib.suppress(OSError):  # proc may be missing; no more is lost than the order
        Path("/proc/self/oom_score_adj").write_text(f"{_END_FIRST}\n", encoding="ascii")


def gain_no_privileges() -> None:
    """Let no program that is executed from here have more rights than this process, whatever its file says."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def pass_no_capabilities_on() -> None:
    """Keep the capabilities, and let no program that is executed from here have them (capabilities(7), "Ambient")."""
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)


def drop_capabilities(*, reads_all: bool = False) -> None:
    """Give up every capability. As root too: what is executed then has none, if :func:`gain_no_privileges` was called.

    Does nothing to file modes: the process still owns what its user owns. ``reads_all``: root goes on reading what
    others may not (CAP_DAC_READ_SEARCH).
    """
    pass_no_capabilities_on()
    kept = 1 << _CAP_DAC_READ_SEARCH if reads_all else 0
    for number in range(64):
        if kept >> number & 1:
            continue
        try:
            _prctl(_PR_CAPBSET_DROP, number)
        except OSError as error:
            # EPERM: a user that is not root has no right to, and gets no capability from executing a program either.
            if error.errno not in (errno.EINVAL, errno.EPERM):  # EINVAL: the kernel knows no more
                raise
            break
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    # Effective, permitted and inheritable: the lower half of each, then the upper half of each.
    held = (ctypes.c_uint32 * 6)()
    _checked(_libc.capget(header, held))
    kept &= held[1]
    try:
        _checked(_libc.capset(header, (ctypes.c_uint32 * 6)(kept, kept)))
    except PermissionError:
        # The packaged unit filters capset(2). What is inheritable alone is no right, and no program turns it into one.
        if held[0] or held[1] or held[3] or held[4]:
            raise


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the process ``parent``, which has started it, ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before that was said
        os.kill(os.getpid(), signal.SIGKILL)


def adopt_orphans() -> None:
    """Become the parent of what this process's children leave behind, so that it can be waited for."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def leave_network() -> None:
    """Enter a network namespace with nothing in it.

    Needs root or user namespaces. If the kernel allows neither, the process keeps the network that it has.
    """
    user, group = os.geteuid(), os.getegid()
    if _libc.unshare(_CLONE_NEWNET) == 0 or _libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        return
    # In there it is the user that it was, or it could not read what is that user's alone.
    with contextlib.suppress(OSError):
        for file, line in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            Path(f"/proc/self/{file}").write_text(line, encoding="ascii")


def _prctl(option: int, *arguments: int) -> None:
    words = (*arguments, 0, 0, 0, 0)[:4]
    _checked(_libc.prctl(option, *map(ctypes.c_ulong, words)))


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
