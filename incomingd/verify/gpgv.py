"""Runs gpgv, within limits: what it puts out as signed, and what it says in its status lines."""

import contextlib
import os
import signal
from pathlib import Path

from incomingd.errors import ProgramKilled, Retry
from incomingd.sandbox import limits

#: In place of a status keyword: gpgv has used up its processor time.
OVERDUE = "overdue"
#: The keywords that go with an exit status other than 0. One without any of them stands for something else.
_FAILS = {"BADSIG", "ERRSIG", "EXPSIG", "EXPKEYSIG", "REVKEYSIG"}
#: A signature has some ten status lines.
_MAX_STATUS = 1 << 20
#: Seconds of gpgv's own processor time; it takes some 5 ms, and less than a second for the largest text and key.
PROCESSOR = 5
#: Where gpgv's messages for people go. A check worker can open nothing for writing: it has this from before.
_NOWHERE = os.open(os.devnull, os.O_RDWR)
#: The descriptor on which gpgv writes its status.
_STATUS = 3
_BLOCK = 1 << 16


def run(keyring: Path, data: bytes) -> tuple[bytes, list[list[str]]]:
    """gpgv's output and status lines. Raises ``Retry`` if it cannot run, ``ProgramKilled`` if someone else ends it.

    The status goes to a file of its own, mixed with nothing. An end that no status line stands for gets one here:
    :data:`OVERDUE`, or ``exit-status-N``.
    """
    _readable(keyring)
    status_fd = os.memfd_create("status")
    try:
        command = ["gpgv", "--homedir", str(keyring.parent), "--keyring", str(keyring)]
        command += ["--status-fd", str(_STATUS), "--output", "-", "-"]
        code, output = _ended(command, data, status_fd)
        lines = os.pread(status_fd, _MAX_STATUS, 0).decode("utf-8", "replace").split("\n")
    except FileNotFoundError as error:
        raise Retry("gpgv is not installed; install Debian's package gpgv") from error
    finally:
        os.close(status_fd)
    if code in (-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP, -signal.SIGKILL):
        raise ProgramKilled(f"gpgv was ended by {signal.Signals(-code).name}")
    if code != 0:
        _readable(keyring)  # if it was replaced meanwhile, gpgv says that the key is not known, or crashes
    status = [line.split()[1:] for line in lines if line.startswith("[GNUPG:] ") and len(line.split()) > 1]
    if code == -signal.SIGXCPU:
        status.append([OVERDUE])
    elif code != 0 and not any(line[0] in _FAILS for line in status):
        status.append([f"exit-status-{code}"])
    return output, status


def _ended(command: list[str], data: bytes, status_fd: int) -> tuple[int, bytes]:
    """Exit status, as of ``Popen.returncode``, and output.

    posix_spawn(3), since Popen costs 0.13 ms more for each text: as much as to check a small .changes.
    """
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
    with contextlib.ExitStack() as stack:
        given = _opened(stack, os.memfd_create("signed"))
        _write(given, data)
        ours, theirs = os.pipe()
        _opened(stack, ours)
        try:
            actions = [(os.POSIX_SPAWN_DUP2, fd, to) for to, fd in enumerate((given, theirs, _NOWHERE, status_fd))]
            with limits.processor_of_children(PROCESSOR):
                # Python ignores these two; gpgv is to end by them.
                reset = [signal.SIGPIPE, signal.SIGXFSZ]
                pid = os.posix_spawnp(command[0], command, environment, file_actions=actions, setsigdef=reset)
        finally:
            os.close(theirs)
        try:
            output = b"".join(iter(lambda: os.read(ours, _BLOCK), b""))
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            raise
        finally:
            ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return ended, output


def _opened(stack: contextlib.ExitStack, fd: int) -> int:
    stack.callback(os.close, fd)
    return fd


def _write(fd: int, data: bytes) -> None:
    """Have ``fd`` read as ``data`` from its begin."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)


def _readable(keyring: Path) -> None:
    try:
        with keyring.open("rb"):
            pass
    except OSError as error:
        raise Retry(
            f"{keyring}: {error.strerror}; incomingctl trust KEYFILE, or a restart of the daemon, writes it anew"
        ) from error
