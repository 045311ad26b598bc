"""Runs gpgv, within limits: what it puts out as signed, and what it says in its status lines."""

import os
import signal
import subprocess
from pathlib import Path

from incomingd.errors import Retry
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


def run(keyring: Path, data: bytes) -> tuple[bytes, list[list[str]]]:
    """gpgv's output and status lines. Raises ``Retry`` if it cannot run, or is ended by someone else.

    The status goes to a file of its own, mixed with nothing. An end that no status line stands for gets one here:
    :data:`OVERDUE`, or ``exit-status-N``.
    """
    _readable(keyring)
    status_fd = os.memfd_create("status")
    try:
        command = ["gpgv", "--homedir", str(keyring.parent), "--keyring", str(keyring)]
        command += ["--status-fd", str(status_fd), "--output", "-", "-"]
        code, output = _ended(command, data, status_fd)
        lines = os.pread(status_fd, _MAX_STATUS, 0).decode("utf-8", "replace").split("\n")
    except FileNotFoundError as error:
        raise Retry("gpgv is not installed; install Debian's package gpgv") from error
    finally:
        os.close(status_fd)
    if code in (-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP, -signal.SIGKILL):
        raise Retry(f"gpgv was ended by {signal.Signals(-code).name}")
    status = [line.split()[1:] for line in lines if line.startswith("[GNUPG:] ") and len(line.split()) > 1]
    if code == -signal.SIGXCPU:
        status.append([OVERDUE])
    elif code != 0 and not any(line[0] in _FAILS for line in status):
        status.append([f"exit-status-{code}"])
    return output, status


def _ended(command: list[str], data: bytes, status_fd: int) -> tuple[int, bytes]:
    """Exit status, as of ``Popen.returncode``, and output."""
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
    with limits.processor_of_children(PROCESSOR):
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=_NOWHERE,
            pass_fds=[status_fd],
            env=environment,
        )
    with process:
        output, _ = process.communicate(data)
    return process.returncode, output


def _readable(keyring: Path) -> None:
    try:
        with keyring.open("rb"):
            pass
    except OSError as error:
        raise Retry(
            f"{keyring}: {error.strerror}; incomingctl trust KEYFILE, or a restart of the daemon, writes it anew"
        ) from error
