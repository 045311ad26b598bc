"""A real sshd on loopback, with a host key and an authorized key of its own."""

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.instance import until

_SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


@dataclass(frozen=True, kw_only=True)
class Sshd:
    """How to reach it: ``options`` are for ssh, scp and sftp alike."""

    port: int
    folder: Path

    @property
    def settings(self) -> dict[str, str]:
        """ssh_config(5)."""
        return {
            "Port": str(self.port),
            "IdentityFile": str(self.folder / "id"),
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": str(self.folder / "known_hosts"),
            "StrictHostKeyChecking": "yes",
            "BatchMode": "yes",
        }

    @property
    def options(self) -> list[str]:
        """The same for a command line."""
        return ["-F", "none", *(word for key, value in self.settings.items() for word in ("-o", f"{key}={value}"))]


@contextlib.contextmanager
def sshd(folder: Path, settings: str = "", *, sftp: bool = True) -> Iterator[Sshd]:
    """Start one, with more ``settings`` of sshd_config(5), and end it. Skips where there is none, or none can run."""
    if _SSHD is None or not shutil.which("ssh"):
        pytest.skip("sshd or ssh is not installed")
    if os.geteuid() != 0:
        pytest.skip("sshd needs root")
    folder.mkdir(mode=0o700)
    for name in ("host", "id"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    shutil.copy(folder / "id.pub", folder / "authorized_keys")
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # compiled into sshd; it changes root to it
    port = free_port()
    kind, key, *_ = (folder / "host.pub").read_text().split()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port},[localhost]:{port} {kind} {key}\n")
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nPidFile none\nUsePAM yes\nStrictModes no\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nPermitRootLogin prohibit-password\n"
        f"PasswordAuthentication no\nMaxStartups 100\n{'Subsystem sftp internal-sftp' if sftp else ''}\n"
        f"{settings}"
    )
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([_SSHD, "-D", "-e", "-f", folder / "sshd_config"], stderr=log)
    try:
        until(lambda: listens(port) or server.poll() is not None, "sshd")
        assert server.poll() is None, (folder / "log").read_text()
        yield Sshd(port=port, folder=folder)
    finally:
        server.terminate()
        server.wait()


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int) -> bool:
    """True where somebody does."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
