"""What code tries that has taken over a process of incomingd. A program: it prints a line for each attempt.

Usage: attempts.py DIR PID, where DIR holds an instance and PID is its daemon. ``+ NAME`` says that it could be done,
``- NAME: REASON`` that it could not. An attempt changes nothing that the daemon needs.

It imports nothing of incomingd: it is what an attacker would bring along.
"""

import contextlib
import ctypes
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
#: Those that have no function in the C library, or have one in new ones only (x86-64, aarch64).
_NUMBERS = {
    "x86_64": {"add_key": 248, "ptrace": 101, "io_uring_setup": 425, "bpf": 321},
    "aarch64": {"add_key": 217, "ptrace": 117, "io_uring_setup": 425, "bpf": 280},
}[os.uname().machine]
_PTRACE_SEIZE, _MS_BIND, _CLONE_NEWUSER = 0x4206, 4096, 0x10000000


class Attempts:
    """Each public method is one attempt; it raises, or returns False, if it cannot be done."""

    def __init__(self, root: Path, daemon: int) -> None:
        self._root, self._state, self._daemon = root, root / "state", daemon
        self._key = self._state / "gnupg/signing/private-keys-v1.d"
        #: Files that nothing needs, with the mode and owner of those beside them.
        self._victim = self._state / "victim"

    def all(self) -> Iterator[tuple[str, Callable[[], object]]]:
        for name in sorted(vars(type(self))):
            if not name.startswith("_") and name != "all":
                yield name, getattr(self, name)

    # -- the signing key ----------------------------------------------------------------------------------------------

    def list_signing_keys(self) -> object:
        return list(self._key.iterdir())

    def read_signing_key(self) -> object:
        # By its name, as if that were known.
        return (self._state / "key").read_bytes()

    def link_signing_key(self) -> object:
        os.link(self._state / "key", self._root / f"linked-{os.getpid()}")
        return True

    def reach_the_agent_of_the_signing_key(self) -> object:
        with socket.socket(socket.AF_UNIX) as agent:
            agent.connect(str(self._state / "gnupg/signing/S.gpg-agent"))
            return agent.recv(2) == b"OK"

    def sign_with_gpg(self) -> object:
        command = ["gpg", "--homedir", self._state / "gnupg/signing", "--batch", "--clear-sign"]
        return subprocess.run(command, input=b"mine", capture_output=True, check=True).stdout

    # -- what is read and written of files ----------------------------------------------------------------------------

    def read_journal(self) -> object:
        return (self._state / "journal.db").read_bytes()

    def write_file_of_state(self) -> object:
        with self._victim.open("ab") as file:
            return file.write(b"x")

    def truncate_by_name(self) -> object:
        os.truncate(self._victim, 1)
        return True

    def truncate_by_opening(self) -> object:
        os.close(os.open(self._victim, os.O_RDONLY | os.O_TRUNC))
        return True

    def make_file_in_state(self) -> object:
        return self._made(self._state)

    def make_file_in_sealed(self) -> object:
        return self._made(self._state / "sealed")

    def make_file_in_archive(self) -> object:
        return self._made(self._root / "archive")

    def make_file_in_incoming(self) -> object:
        return self._made(self._root / "incoming")

    def make_file_in_status(self) -> object:
        return self._made(self._root / "status")

    def _made(self, folder: Path) -> bool:
        path = folder / f".attempt-{os.getpid()}"
        path.write_bytes(b"x")
        path.unlink()
        return True

    def write_what_an_import_has_read(self) -> object:
        # The database says what is published, and a journal beside it what the database was before.
        database = self._state / "imports/import-other/packages.db"
        with database.open("ab") as file:
            file.write(b"x")
        return True

    def make_file_beside_what_an_import_has_read(self) -> object:
        return all(self._made(path) for path in (self._state / "imports").iterdir())

    def make_folder_in_state(self) -> object:
        (self._state / f"made-{os.getpid()}").mkdir()
        return True

    def make_link_in_state(self) -> object:
        (self._state / f"link-{os.getpid()}").symlink_to("/")
        return True

    def rename_in_state(self) -> object:
        moved = self._state / "moved"
        self._victim.rename(moved)
        moved.rename(self._victim)
        return True

    def remove_from_state(self) -> object:
        (self._state / "removable").rename(self._state / "removable")
        (self._state / "removable").unlink()
        (self._state / "removable").touch()
        return True

    def open_state_to_everyone(self) -> object:
        self._victim.chmod(0o777)
        return self._victim.stat().st_mode & 0o777 == 0o777

    def open_state_by_descriptor(self) -> object:
        fd = os.open(self._state, os.O_RDONLY)
        os.fchmod(fd, 0o711)
        return self._state.stat().st_mode & 0o777 == 0o711

    # -- other processes ----------------------------------------------------------------------------------------------

    def signal_the_daemon(self) -> object:
        os.kill(self._daemon, 0)
        return True

    def limit_the_daemon(self) -> object:
        wanted = (ctypes.c_uint64 * 2)()
        _checked(_libc.prlimit(self._daemon, 7, None, wanted))
        _checked(_libc.prlimit(self._daemon, 7, wanted, None))
        return True

    def read_memory_of_the_daemon(self) -> object:
        with Path(f"/proc/{self._daemon}/mem").open("rb") as memory:
            memory.seek(_mapped(self._daemon))
            return memory.read(1)

    def read_environment_of_the_daemon(self) -> object:
        return Path(f"/proc/{self._daemon}/environ").read_bytes()

    def reach_files_through_the_daemon(self) -> object:
        return list(Path(f"/proc/{self._daemon}/root{self._key}").iterdir())

    def slow_the_daemon_down(self) -> object:
        os.sched_setaffinity(self._daemon, os.sched_getaffinity(self._daemon))
        return True

    def slow_all_of_the_user_down(self) -> object:
        os.setpriority(os.PRIO_USER, 0, os.getpriority(os.PRIO_USER, 0))
        return True

    def share_memory(self) -> object:
        # 0: for no one else (IPC_PRIVATE); and removed again (IPC_RMID).
        made = _checked(_libc.shmget(0, 4096, 0o600))
        return _checked(_libc.shmctl(made, 0, None)) == 0

    def leave_the_session(self) -> object:
        # Who does is not killed with the others.
        return _in_child(os.setsid)

    def change_times(self) -> object:
        before = self._victim.stat().st_mtime_ns
        os.utime(self._victim, ns=(0, before - 10**9))
        changed = self._victim.stat().st_mtime_ns != before
        os.utime(self._victim, ns=(0, before))
        return changed

    def trace_the_daemon(self) -> object:
        _call("ptrace", _PTRACE_SEIZE, self._daemon, 0, 0)
        return True

    # -- the kernel ---------------------------------------------------------------------------------------------------

    def use_the_internet(self) -> object:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as to:
            to.connect(("127.0.0.1", 9))
        return True

    def open_a_local_socket(self) -> object:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM):
            return True

    def send_a_datagram(self) -> object:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with ours, theirs:
            return True

    def use_io_uring(self) -> object:
        parameters = (ctypes.c_uint8 * 120)()
        os.close(_call("io_uring_setup", 1, parameters))
        return True

    def make_a_user_namespace(self) -> object:
        # In another process: this one has to go on as it is.
        return _in_child(lambda: _checked(_libc.unshare(_CLONE_NEWUSER)))

    def mount(self) -> object:
        def act() -> None:
            _checked(_libc.unshare(0x00020000))
            _checked(_libc.mount(b"/tmp", b"/tmp", None, _MS_BIND, None))

        return _in_child(act)

    def use_kernel_keys(self) -> object:
        return _call("add_key", b"user", b"attempt", b"x", 1, -2)

    def load_bpf(self) -> object:
        attributes = (ctypes.c_uint32 * 32)(1, 4, 4, 1)
        os.close(_call("bpf", 0, attributes, 128))
        return True

    def read_shadow(self) -> object:
        return Path("/etc/shadow").read_bytes()


def _mapped(pid: int) -> int:
    return int(Path(f"/proc/{pid}/maps").read_text().partition("-")[0], 16)


def _call(name: str, *arguments: object) -> int:
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    return _checked(_libc.syscall(ctypes.c_long(_NUMBERS[name]), *words))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _in_child(act: Callable[[], object]) -> bool:
    pid = os.fork()
    if not pid:
        with contextlib.suppress(OSError):
            act()
            os._exit(0)
        os._exit(1)
    return os.waitpid(pid, 0)[1] == 0


def lines(root: Path, daemon: int) -> Iterator[str]:
    for name, attempt in Attempts(root, daemon).all():
        try:
            yield f"+ {name}" if attempt() else f"- {name}: it did nothing"
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            yield f"- {name}: {' '.join(str(error).split())}"


if __name__ == "__main__":
    print("\n".join(lines(Path(sys.argv[1]), int(sys.argv[2]))))
