"""Lets the calling process, and all that it starts, make only some system calls (seccomp(2), by libseccomp).

Rules:

* :func:`allow_only` is for code whose calls are known: whatever is not listed fails as a call that the kernel does not
  have (ENOSYS), so that libraries fall back on older ones. :func:`forbid` is for any program: what is listed fails.
* A call may be listed with conditions on its arguments. What an argument points to cannot be looked at.
* A name that libseccomp does not know is passed over: the call is newer, or of other architectures. One that has to be
  forbidden in any case has its number with it.
* Calls by way of another architecture (32 bits on a machine of 64) end the process.

libseccomp is used by its public C interface: Debian's apt and systemd need it, so every Debian has ``libseccomp.so.2``.
Without it, or with a kernel without seccomp, nothing is forbidden, and the functions return False. Every other failure
is an ``OSError``.
"""

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

#: linux/seccomp.h and seccomp.h
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_DIFFERENT, _MASKED_EQUAL = 1, 7
_PR_GET_SECCOMP = 21
_NO_SUCH_CALL = -1
_OPTIMIZE, _BINARY_TREE = 8, 2
_INT = 0xFFFFFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """True if the bits ``mask`` of the argument number ``index`` are ``value``; by default those of a C int.

    ``differs``: if the argument as a whole is anything else.
    """

    index: int
    value: int
    mask: int = _INT
    differs: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A system call, if all of ``arguments`` are true. ``result``: 0, or the error that a forbidden call ends with.

    ``number``: for a libseccomp that is older than the call. Newer calls have the same one on all architectures.
    """

    name: str
    arguments: tuple[Argument, ...] = ()
    result: int = errno.EPERM
    number: int | None = None


class _Comparison(ctypes.Structure):
    _fields_ = (("index", ctypes.c_uint), ("how", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def allow_only(calls: Sequence[Call]) -> bool:
    """Forbid all system calls but these; False if that cannot be had here."""
    return _load(_ERRNO | errno.ENOSYS, [(_ALLOW, call) for call in calls])


def forbid(calls: Sequence[Call]) -> bool:
    """Let these system calls end with their ``result``; False if that cannot be had here."""
    return _load(_ALLOW, [(_ERRNO | call.result, call) for call in calls])


@cache
def available() -> bool:
    """True if libseccomp is installed and the kernel has filters."""
    try:
        _library()
    except OSError:
        return False
    return int(ctypes.CDLL(None).prctl(_PR_GET_SECCOMP, 0, 0, 0, 0)) >= 0


def _load(default: int, rules: Sequence[tuple[int, Call]]) -> bool:
    if not available():
        return False
    library = _library()
    with _filter(library, default) as context:
        for action, call in rules:
            _add(library, context, action, call)
        _checked(library.seccomp_load(context))
    return True


@contextlib.contextmanager
def _filter(library: ctypes.CDLL, default: int) -> Iterator[ctypes.c_void_p]:
    context = ctypes.c_void_p(library.seccomp_init(default))
    if not context:
        raise OSError(errno.ENOMEM, "libseccomp cannot make a filter")
    try:
        with contextlib.suppress(OSError):  # a libseccomp before 2.5 has no trees; the filter is slower then
            _checked(library.seccomp_attr_set(context, _OPTIMIZE, _BINARY_TREE))
        yield context
    finally:
        library.seccomp_release(context)


def _add(library: ctypes.CDLL, context: ctypes.c_void_p, action: int, call: Call) -> None:
    number = library.seccomp_syscall_resolve_name(call.name.encode())
    if number == _NO_SUCH_CALL:
        if call.number is None:
            return
        number = call.number
    compared = [
        _Comparison(one.index, _DIFFERENT, one.value, 0)
        if one.differs
        else _Comparison(one.index, _MASKED_EQUAL, one.mask, one.value)
        for one in call.arguments
    ]
    array = (_Comparison * len(compared))(*compared)
    _checked(library.seccomp_rule_add_array(context, action, number, len(compared), array))


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = (ctypes.c_uint32,)
    library.seccomp_release.argtypes = (ctypes.c_void_p,)
    library.seccomp_attr_set.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32)
    library.seccomp_rule_add_array.argtypes = (
        *(ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint),
        ctypes.POINTER(_Comparison),
    )
    return library


def _checked(result: int) -> None:
    if result < 0:
        raise OSError(-result, os.strerror(-result))
