"""How ``incomingctl submit`` reaches an incoming folder: on this machine, or on another one over ssh.

Each sends under a hidden name and renames last, so that the daemon takes the upload whole and at once. On the
other side nothing but sshd is needed: rsync serves where both sides have it; where not, sftp (what scp speaks by now),
also where the account may do nothing else; ``scp -O`` where there is a shell and no sftp.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Callable, Iterator, Protocol, Sequence

from incomingd.client.errors import TransportError, UsageError
from incomingd.client.text import without_prefix

#: As rsync and scp tell a host from a path: a colon before any slash.
_REMOTE = re.compile(r"(?P<host>(?:[^/:@]+@)?\[[^]/]+]|[^/:]+):(?P<path>.*)", re.DOTALL)
#: Below the incoming folder, for delayed uploads.
_DELAYED = re.compile(r"(?:^|/)DELAYED/[0-9]+-day/*$")
#: ssh(1): the exit status for its own errors, as apart from the remote command's.
_SSH_FAILED = 255
#: unix(7): the longest name of a socket, less what ssh adds while it makes one.
_LONGEST_SOCKET = 80
#: What holds where neither ``-o`` nor ssh_config(5) says otherwise: a dead connection ends, and does not hang the job.
_PATIENCE = ("ConnectTimeout=30", "ServerAliveInterval=15", "ServerAliveCountMax=4")


#: Is told which part of all bytes is there, from 0 to 1.
Progress = Callable[[float], None]
_CHUNK = 1 << 20
_PERCENT = re.compile(rb" ([0-9]{1,3})% ")


class Transport(Protocol):
    """A way into one incoming folder."""

    def send(self, files: Sequence[Path], name: str, progress: Progress) -> None:
        """Send the files as the upload ``name``; ``progress`` is told, as far as it is known. Raises
        :class:`TransportError`."""

    def read(self, path: str) -> bytes | None:
        """A file of that side; None where it is not there. Raises :class:`TransportError` where nothing can be told."""

    def status_folder(self) -> str:
        """Where status files are unless it is said otherwise: beside the incoming folder."""


@contextlib.contextmanager
def transport(to: str, options: Sequence[str]) -> Iterator[Transport]:
    """The way to ``PATH`` or ``[USER@]HOST:PATH``; ``options`` are ssh_config(5) settings."""
    remote = _REMOTE.fullmatch(to)
    if remote is None:
        yield Local(Path(to))
        return
    if remote["host"].startswith("-"):
        raise UsageError(f"{remote['host']} is no host; name [USER@]HOST:PATH")
    with tempfile.TemporaryDirectory(prefix="incomingctl-") as folder:
        over = _Ssh(remote["host"], without_prefix(remote["path"], "~/") or ".", options, Path(folder))
        try:
            yield over
        finally:
            over.close()


class Local:
    """A folder of this machine."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()

    def send(self, files: Sequence[Path], name: str, progress: Progress) -> None:
        """Copies, then one rename."""
        size, sent = sum(file.stat().st_size for file in files) or 1, 0
        hidden, target = self._path / f".{name}", self._path / name
        try:
            hidden.mkdir()
            try:
                for file in files:
                    with file.open("rb") as source, (hidden / file.name).open("xb") as copy:
                        while chunk := source.read(_CHUNK):
                            copy.write(chunk)
                            sent += len(chunk)
                            progress(sent / size)
                if target.exists():
                    raise TransportError(f"{target} is there already; send it under another --name")
                os.rename(hidden, target)
            finally:
                shutil.rmtree(hidden, ignore_errors=True)
        except OSError as error:
            raise TransportError(f"{error.filename or self._path}: {error.strerror}") from error

    def read(self, path: str) -> bytes | None:
        """One file."""
        try:
            return Path(path).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise TransportError(f"{path}: {error.strerror}") from error

    def status_folder(self) -> str:
        """Beside the incoming folder."""
        return _beside(str(self._path))


class _Ssh:
    """A folder of another machine. All calls share one connection where ssh can do that."""

    def __init__(self, host: str, path: str, options: Sequence[str], folder: Path) -> None:
        self._host = host
        self._bare_host = host.replace("[", "").replace("]", "")  # ssh takes an IPv6 address as it is
        self._path = path
        self._folder = folder
        socket = folder / "c"
        shared = (f"ControlPath={socket}", "ControlMaster=auto", "ControlPersist=60")
        ours = (*_PATIENCE, *(shared if len(str(socket)) <= _LONGEST_SOCKET else ()))
        # Of two values ssh takes the first.
        self._options = [word for option in (*options, *ours) for word in ("-o", option)]
        self._programs: frozenset[str] | None = None

    def close(self) -> None:
        """End the connection."""
        self._run(["ssh", *self._options, "-O", "exit", self._bare_host], check=False)

    def status_folder(self) -> str:
        """Beside the incoming folder."""
        return _beside(self._path)

    def send(self, files: Sequence[Path], name: str, progress: Progress) -> None:
        """By rsync if both sides have it, else by sftp, else by scp; these two tell nothing meanwhile."""
        there = self._has()
        if "rsync" in there and shutil.which("rsync"):
            self._by_shell(lambda sources, hidden: self._rsync(sources, hidden, progress), files, name)
        elif "shell" in there and not (shutil.which("sftp") and self._sftp([]).returncode == 0):
            self._by_shell(self._scp, files, name)
        else:
            self._sftp_put(files, name)

    def _has(self) -> frozenset[str]:
        """What the account can run there, of ``shell`` and ``rsync``; asked once. Where it may only sftp, nothing."""
        if self._programs is None:
            answer = self._reached(self._ssh("echo shell; command -v rsync > /dev/null && echo rsync"))
            self._programs = frozenset(answer.stdout.decode(errors="replace").split()) & {"shell", "rsync"}
        return self._programs

    def _by_shell(self, copy: Callable[[Sequence[str], str], None], files: Sequence[Path], name: str) -> None:
        hidden, target = posixpath.join(self._path, f".{name}"), posixpath.join(self._path, name)
        old, new = shlex.quote(hidden), shlex.quote(target)
        self._checked(self._reached(self._ssh(f"mkdir -- {old}")), f"it could not be sent to {self._host}")
        try:
            copy([str(file.absolute()) for file in files], hidden)
            # Modes came along, and the daemon has to be able to read them. The folder is as the umask there has it.
            # -T: into a directory that another account makes at this moment it must not go.
            rename = (
                f"if test -e {new}; then echo it is there already >&2; exit 1; fi; "
                f"chmod 644 -- {old}/* && mv -T -- {old} {new}"
            )
            self._checked(self._ssh(rename), f"it could not be renamed to {target}")
        except BaseException:  # also where it is interrupted: nobody else would ever remove it
            # A server that lost its client may be writing for a moment yet.
            self._ssh(f"rm -rf -- {old} || {{ sleep 1; rm -rf -- {old}; }}")
            raise

    def _rsync(self, sources: Sequence[str], hidden: str, progress: Progress) -> None:
        shell = shlex.join(["ssh", *self._options])
        command = ["rsync", "--times", "--protect-args", "--info=progress2", "-e", shell]
        with tempfile.TemporaryFile() as said:
            with subprocess.Popen(
                [*command, *sources, f"{self._host}:{hidden}/"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=said,
                bufsize=0,
                env={**os.environ, "LC_ALL": "C"},
            ) as process:
                try:
                    for percent in _percents(process):
                        progress(percent / 100)
                except BaseException:  # as subprocess.run does
                    process.kill()
                    raise
            said.seek(0)
            answer = subprocess.CompletedProcess(command, process.returncode, b"", said.read())
        self._checked(answer, f"it could not be sent to {self._host}")

    def _scp(self, sources: Sequence[str], hidden: str) -> None:
        # Its own protocol, in which the other side's shell reads the path. Before OpenSSH 8.6 there is no other, and no
        # option for it.
        to = [*self._options, *sources, f"{self._host}:{shlex.quote(hidden)}/"]
        answer = self._run(["scp", "-q", "-O", *to], check=False)
        if answer.returncode and b"unknown option" in answer.stderr:
            answer = self._run(["scp", "-q", *to], check=False)
        self._checked(answer, f"it could not be sent to {self._host}")

    def _sftp_put(self, files: Sequence[Path], name: str) -> None:
        hidden, target = posixpath.join(self._path, f".{name}"), posixpath.join(self._path, name)
        lines = []
        for file in files:
            remote = _quoted(posixpath.join(hidden, file.name))
            # It is put with the mode that it has here, and the daemon has to be able to read it there.
            lines += [f"put {_quoted(str(file.absolute()))} {remote}", f"chmod 644 {remote}"]
        lines.append(f"rename {_quoted(hidden)} {_quoted(target)}")
        # On its own: a folder that exists already belongs to another upload, and must not be removed below.
        self._checked(self._sftp([f"mkdir {_quoted(hidden)}"]), f"it could not be sent to {self._host}")
        try:
            self._checked(self._sftp(lines), f"it could not be sent to {self._host}")
        except BaseException:  # as above
            # The "-" lets sftp go on where a file was not sent yet.
            left = [f"-rm {_quoted(posixpath.join(hidden, file.name))}" for file in files]
            self._sftp([*left, f"-rmdir {_quoted(hidden)}"])
            raise

    def read(self, path: str) -> bytes | None:
        """One file, by cat, or by sftp where the account has no shell."""
        if "shell" not in self._has():
            return self._sftp_get(path)
        answer = self._reached(self._ssh(f"cat -- {shlex.quote(path)}"))
        return answer.stdout if answer.returncode == 0 else None

    def _sftp_get(self, path: str) -> bytes | None:
        copy = self._folder / "status"
        copy.unlink(missing_ok=True)
        answer = self._sftp([f"-get {_quoted(path)} {_quoted(str(copy))}"])
        if answer.returncode:
            raise TransportError(f"{self._host} cannot be reached: {_said(answer)}")
        return copy.read_bytes() if copy.exists() else None

    # -- programs -----------------------------------------------------------------------------------------------------

    def _ssh(self, command: str) -> subprocess.CompletedProcess[bytes]:
        return self._run(["ssh", *self._options, self._bare_host, command], check=False)

    def _sftp(self, lines: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
        batch = "".join(f"{line}\n" for line in lines).encode()
        return self._run(["sftp", "-q", *self._options, "-b", "-", self._host], given=batch, check=False)

    def _run(
        self, command: Sequence[str], *, given: bytes = b"", check: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        try:
            answer = subprocess.run(command, input=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        except FileNotFoundError as error:
            raise TransportError(f"{command[0]} is not installed; it is needed to send to {self._host}") from error
        if check:
            self._checked(answer, f"it could not be sent to {self._host}")
        return answer

    def _reached(self, answer: subprocess.CompletedProcess[bytes]) -> subprocess.CompletedProcess[bytes]:
        if answer.returncode == _SSH_FAILED:
            raise TransportError(f"{self._host} cannot be reached: {_said(answer)}")
        return answer

    def _checked(self, answer: subprocess.CompletedProcess[bytes], what: str) -> None:
        if answer.returncode:
            raise TransportError(f"{what}: {_said(answer)}")


def _percents(process: subprocess.Popen[bytes]) -> Iterator[int]:
    """What rsync says of all files together: ``  1,234,567  45%   10.00MB/s    0:00:01``, over and over in one line."""
    assert process.stdout is not None  # noqa: S101  # a pipe was asked for
    text = b""
    while chunk := process.stdout.read(4096):
        *whole, text = (text + chunk).replace(b"\n", b"\r").split(b"\r")
        for line in whole:
            found = _PERCENT.search(line)
            if found:
                yield int(found[1])


def _beside(incoming: str) -> str:
    """Also where it is sent to one of the folders for delayed uploads; as the path says it, since incoming may be a
    link to another file system."""
    return posixpath.normpath(posixpath.join(_DELAYED.sub("", incoming) or ".", "..", "status"))


def _quoted(path: str) -> str:
    """A path for sftp's batch. Inside of double quotes it takes globs as they are; a newline would begin a command."""
    if not path.isprintable():
        raise TransportError(f"{path.encode('unicode_escape').decode()}: has a character that sftp cannot be given")
    return '"' + re.sub(r'(["\\])', r"\\\1", path) + '"'


def _said(answer: subprocess.CompletedProcess[bytes]) -> str:
    lines = answer.stderr.decode(errors="replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    return "; ".join(said[-3:]) if said else f"it ended with {answer.returncode}"
