"""Lets the calling thread, and all that it starts, reach only some files (landlock(7)).

Rules:

* Everything that the kernel can forbid is forbidden; a :class:`Grant` names a file, or a folder with all that is below
  it, and what is allowed there. A path that does not exist is passed over.
* Which file a path means is settled when :func:`restrict` is called: what is renamed over it later is another file.
* Root and processes with capabilities are bound too. No right can be had back; a second call can only take more away.
* Only the calling thread is bound, and the threads and processes that it starts later.

What a kernel cannot forbid, by the version of its interface (ABI): before 2, nothing can be moved between folders at
all; before 3, files may be truncated, for which :mod:`.seccomp` stands in; before 6, signals and abstract sockets reach
other processes. No version covers what changes a file's mode, owner or times, or connecting to a named socket: that,
too, is for :mod:`.seccomp`.

A kernel without landlock, or one that was started without it, has ABI 0: :func:`restrict` then does nothing and returns
False. Every other failure is an ``OSError``.
"""

import ctypes
import errno
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path

#: The numbers are the same on every architecture (linux: scripts/syscall.tbl).
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION, _RULE_PATH_BENEATH = 1, 1
#: What tells that the kernel has none: not built in; not started with it; forbidden by a container's own filter.
_ABSENT = {errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}
#: Scopes of ABI 6: abstract sockets and signals stay among those that are bound together.
_SCOPES = 0b11
#: TCP of ABI 4: bind and connect.
_NETWORK = 0b11
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class Right(IntFlag):
    """LANDLOCK_ACCESS_FS_… of linux/landlock.h."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


READ = Right.READ_FILE | Right.READ_DIR
RUN = READ | Right.EXECUTE
#: A device such as /dev/null.
DEVICE = Right.READ_FILE | Right.WRITE_FILE
#: Everything but devices.
CHANGE = ~(Right.MAKE_CHAR | Right.MAKE_BLOCK | Right.IOCTL_DEV)
#: What files may be linked from, to where :data:`FILL` is granted.
LINK = READ | Right.WRITE_FILE | Right.TRUNCATE | Right.REFER
#: Files and folders.
FILL = LINK | Right.REMOVE_DIR | Right.REMOVE_FILE | Right.MAKE_DIR | Right.MAKE_REG
#: The first ABI that knows all rights below this one.
_NEW_IN = {2: Right.REFER, 3: Right.TRUNCATE, 5: Right.IOCTL_DEV}
#: What can be granted for something that is no folder.
_OF_FILES = Right.EXECUTE | Right.WRITE_FILE | Right.READ_FILE | Right.TRUNCATE | Right.IOCTL_DEV


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What is allowed at ``path`` and below it."""

    path: Path
    rights: Right


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("rights", ctypes.c_uint64), ("folder", ctypes.c_int32))


def abi() -> int:
    """The version of the kernel's landlock; 0 if it has none."""
    try:
        return _syscall(_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION)
    except OSError as error:
        if error.errno in _ABSENT:
            return 0
        raise


def restrict(grants: Iterable[Grant], *, network: bool = False) -> bool:
    """Forbid everything but ``grants``, and TCP without ``network``; False if the kernel has no landlock.

    The caller must have called :func:`.limits.gain_no_privileges`.
    """
    version = abi()
    if not version:
        return False
    handled = _known(version)
    attributes = _Ruleset(handled, _NETWORK if version >= 4 and not network else 0, _SCOPES if version >= 6 else 0)
    # An older kernel takes a shorter structure.
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = _syscall(_CREATE_RULESET, ctypes.byref(attributes), size, 0)
    try:
        for grant in grants:
            _allow(ruleset, grant, handled)
        _syscall(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return True


def _known(version: int) -> int:
    """Every right that an ABI knows."""
    missing = [right for since, right in _NEW_IN.items() if version < since]
    return min(missing, default=Right.IOCTL_DEV << 1) - 1


def _allow(ruleset: int, grant: Grant, handled: int) -> None:
    try:
        fd = os.open(grant.path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return  # what cannot be reached need not be allowed
    try:
        is_folder = stat.S_ISDIR(os.fstat(fd).st_mode)
        rights = grant.rights & handled if is_folder else grant.rights & handled & _OF_FILES
        if rights:
            rule = _PathBeneath(rights, fd)
            _syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(fd)


def _syscall(number: int, *arguments: object) -> int:
    # As long as a register: of a shorter number the upper half would be whatever was there.
    words = (ctypes.c_long(word) if isinstance(word, int) else word for word in arguments)
    result = int(_libc.syscall(ctypes.c_long(number), *words))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
