"""What check workers, gpgv below them, and the operator's programs may reach.

Check workers
    may read sealed uploads, the uploaders' keyring, and the programs and libraries of the system. They may write
    nothing, open no socket, signal no one but themselves, and make no system call that reading does not need.
    Without landlock they can still open no file for writing and no socket.

Operator's programs
    may read and run everything but what is hidden from them (the state, the queues, secrets of the system), and write
    into one folder. They may open no socket: not even gpg's agent, which would sign for them, can be reached. Changes
    of modes, owners and attributes are passed over: they end well and do nothing, since a file's owner could open the
    state to others.

Readers of an import's packages
    may read what is imported, the uploaders' keyring and the system's programs and libraries, and write into the
    import's own folder, where they can make nothing but files and folders. If a server has the packages, they have the
    network, and no socket of this machine. Root goes on reading what others may not, within that.

None has other capabilities, other processes' memory, mounts, namespaces, kernel keyrings or io_uring.
"""

import contextlib
import os
import pwd
import shutil
import ssl
import sys
import sysconfig
from collections.abc import Collection, Iterator
from pathlib import Path

from incomingd.sandbox import calls, landlock, limits, seccomp
from incomingd.sandbox.landlock import CHANGE, DEVICE, FILL, LINK, READ, RUN, Grant, Right

#: Programs, libraries and what these read at their start.
_SYSTEM = tuple(
    map(
        Path,
        (
            *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"),
            *("/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives"),
            *("/etc/localtime", "/etc/nsswitch.conf", "/etc/passwd", "/etc/gcrypt", "/etc/gnupg"),
        ),
    )
)
_DEVICES = tuple(Path("/dev", name) for name in ("null", "zero", "full", "random", "urandom"))
#: What no check of an upload is about, and root could read.
_SECRET = tuple(
    map(Path, ("/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/ssh", "/etc/ssl/private"))
)
#: What names of hosts need besides (resolv.conf(5), hosts(5), gai.conf(5)), and OpenSSL.
_NETWORK = ("resolv.conf", "hosts", "host.conf", "gai.conf", "services", "ssl/openssl.cnf")
_PACKAGE = Path(__file__).parents[1]


def missing() -> tuple[str, ...]:
    """What this machine lacks, for the service's health."""
    reasons = []
    if not landlock.abi():
        reasons.append(
            "this kernel has no landlock: check workers and the programs of [checks] can read what the daemon can, its "
            "signing key too; run Linux 5.13 or later, with landlock among the names in /sys/kernel/security/lsm"
        )
    if not seccomp.available():
        reasons.append(
            "system calls cannot be filtered: check workers and the programs of [checks] can use all of the kernel, "
            "and the signing key through gpg's agent; install libseccomp2, and run a kernel with CONFIG_SECCOMP_FILTER"
        )
    return tuple(reasons)


def confine_worker() -> None:
    """Take what no check worker needs; :func:`confine_to_uploads` takes the rest. Raises ``OSError``."""
    limits.gain_no_privileges()
    limits.drop_capabilities()
    seccomp.allow_only(calls.WORKER)


def system(hidden: Collection[Path]) -> tuple[Grant, ...]:
    """What every check worker is left of the system, without what is at or below ``hidden``."""
    paths = {path.resolve() for path in _system()}
    highest = sorted(path for path in paths if paths.isdisjoint(path.parents))
    return (
        *(grant for path in highest for grant in _except(path, RUN, hidden)),
        *(Grant(path=path, rights=DEVICE) for path in _DEVICES),
    )


def confine_to_uploads(readable: Collection[Path], of_system: Collection[Grant]) -> None:
    """Leave a check worker these folders and files, and :func:`system`.

    Binds the calling thread: call it before there are others. Raises ``OSError``.
    """
    landlock.restrict((*of_system, *(Grant(path=path, rights=READ) for path in readable)))


def keep_in_session() -> None:
    """Let this process, which has a session of its own, and what it starts never leave it: who kills the session kills
    all of it. Raises ``OSError``."""
    seccomp.forbid(calls.LEAVING_SESSION)


def confine_program(folder: Path, writable: Path, hidden: Collection[Path]) -> None:
    """Leave the operator's program the upload in ``folder``, ``writable``, and all that is not ``hidden``.

    Raises ``OSError``.
    """
    secret = (*_SECRET, *(home / name for home in _home() for name in (".ssh", ".gnupg")))
    limits.gain_no_privileges()
    limits.drop_capabilities()
    landlock.restrict(
        (
            *_except(Path("/"), RUN, (*hidden, *secret)),
            *(Grant(path=path, rights=DEVICE | Right.TRUNCATE) for path in _DEVICES),
            Grant(path=folder, rights=READ),
            Grant(path=writable, rights=Right(CHANGE)),
        )
    )
    seccomp.forbid(calls.PROGRAM if landlock.abi() >= 3 else (*calls.PROGRAM, *calls.TRUNCATING))


def confine_reader(
    readable: Collection[Path],
    linked: Collection[Path],
    folder: Path,
    hidden: Collection[Path],
    *,
    network: bool = False,
) -> None:
    """Leave a process that reads an import's packages what is ``readable`` and not ``hidden``, and ``folder`` to fill.

    Files can be linked into ``folder`` from below ``linked``. They can be written there, too, as far as their modes
    allow: landlock lets no link have more rights than the file has elsewhere. Changes the process's umask. Raises
    ``OSError``.
    """
    os.umask(0o022)  # no call changes a mode from here on
    limits.gain_no_privileges()
    limits.drop_capabilities(reads_all=True)
    given = (*readable, *(_network() if network else ()))
    landlock.restrict(
        (
            *system(hidden),
            *(grant for path in given for grant in _except(path, READ, hidden)),
            *(grant for path in linked for grant in _except(path, LINK, hidden)),
            Grant(path=folder, rights=FILL),
        ),
        network=network,
    )
    refused = calls.READER_FROM_SERVER if network else calls.READER
    seccomp.forbid(refused if landlock.abi() >= 3 else (*refused, *calls.TRUNCATING))


def _system() -> Iterator[Path]:
    """The system's programs and libraries, the interpreter's and this package."""
    yield from _SYSTEM
    yield from (Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    yield from (Path(path) for path in sys.path if path.endswith(("-packages", "-dynload")))
    yield _PACKAGE
    gpgv = shutil.which("gpgv")
    if gpgv:
        yield Path(gpgv).resolve().parent


def _network() -> Iterator[Path]:
    """What is read to find a server and to know its certificate."""
    certificates = ssl.get_default_verify_paths()
    known = (path for path in (certificates.cafile, certificates.capath) if path)
    for path in (*(Path("/etc", name) for name in _NETWORK), *map(Path, known)):
        yield path.resolve()


def _home() -> Iterator[Path]:
    with contextlib.suppress(KeyError):  # a user without a name
        yield Path(pwd.getpwuid(os.geteuid()).pw_dir).resolve()


def _except(path: Path, rights: Right, hidden: Collection[Path]) -> Iterator[Grant]:
    """Grants for ``path`` and all below it but what is ``hidden``: landlock has no rule that takes away."""
    if path in hidden:
        return
    if not any(path in one.parents for one in hidden):
        yield Grant(path=path, rights=rights)
        return
    try:
        inside = sorted(path.iterdir())
    except OSError:
        return
    for one in inside:
        if not one.is_symlink():  # what it leads to has a name of its own
            yield from _except(one, rights, hidden)
