"""A Debian machine of its own, on which a test types what a page says. It has an sshd and can reach others by name.

It is a private systemd in which programs can be installed. The network is that of this machine, so each sshd has a port
of its own; ~/.ssh/config says where a name leads to.
"""

import os
import re
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.clients import DEVSCRIPTS
from tests.support.instance import until
from tests.support.packaged import UNIT
from tests.support.private_systemd import NEEDED, PROJECT, PrivateSystemd
from tests.support.sshd import free_port, listens

#: Where the checkout lies in there.
CHECKOUT = "/root/incomingd"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # as Debian sets it for root
_DPKG = Path("/var/lib/dpkg/status")
_BUILD_ESSENTIAL = """\

Package: build-essential
Status: install ok installed
Version: 12.9
Architecture: amd64
Maintainer: Nobody <nobody@example.org>
Description: not really here
"""
#: What pip has to know of this machine's network.
_PIP = re.compile(r"PIP_\w+|(https?|no|all)_proxy|SSL_CERT_FILE|REQUESTS_CA_BUNDLE", re.IGNORECASE)


class Machine:
    """Use it as a context."""

    def __init__(self) -> None:
        self.systemd = PrivateSystemd(installable=True)
        self.port = free_port()

    def __enter__(self) -> Self:
        self.systemd.__enter__()
        try:
            self._set_up()
        except BaseException:
            self.systemd.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            print(self.type(f"journalctl --unit {UNIT} --no-pager --lines 50", check=False))
        self.systemd.__exit__(kind, error, trace)

    def _set_up(self) -> None:
        hidden = [f"--exclude=./{name}" for name in (".git", ".venv", ".cache", "instance", "*.egg-info", "build")]
        tar = subprocess.run(["tar", "-c", *hidden, "."], cwd=PROJECT, check=True, capture_output=True).stdout
        self.systemd.run("mkdir", CHECKOUT)
        self.systemd.run("tar", "-x", "--no-same-owner", "-C", CHECKOUT, data=tar)
        if DEVSCRIPTS.exists():
            self.systemd.run("cp", "-a", DEVSCRIPTS / "usr/bin/dcmd", "/usr/local/bin/dcmd")
        if "Package: build-essential" not in _DPKG.read_text(errors="replace"):
            # The packages that tests build need no compiler; dpkg-buildpackage asks for it all the same.
            self.type("cat >>/var/lib/dpkg/status", data=_BUILD_ESSENTIAL)
        self.type("mkdir -p /run/sshd; ssh-keygen -q -A; rm -f /etc/ssh/sshd_config.d/* /run/nologin")
        self.systemd.write(
            "/etc/ssh/sshd_config",
            f"ListenAddress 127.0.0.1:{self.port}\nUsePAM yes\nPasswordAuthentication no\n"
            "Subsystem sftp internal-sftp\n",
        )
        self.systemd.run("systemd-run", "--unit=sshd-of-the-test", "/usr/sbin/sshd", "-D", "-e")
        until(lambda: listens(self.port), "sshd")

    def type(self, command: str, *, user: str = "root", folder: str = "", check: bool = True, data: str = "") -> str:
        """Type it as that account, in ``folder`` (else its home; root's is the checkout); what it puts out."""
        home = "/root" if user == "root" else self._home(user)
        folder = folder or (CHECKOUT if user == "root" else home)
        network = [f"{name}={value}" for name, value in os.environ.items() if _PIP.fullmatch(name)]
        become = [] if user == "root" else ["runuser", "-u", user, "--"]
        done = self.systemd.run(
            *become,
            *("env", f"HOME={home}", f"USER={user}", f"LOGNAME={user}", f"PATH={_PATH}", "LANG=C.UTF-8", *network),
            *("bash", "-e", "-o", "pipefail", "-c", f"cd {folder}\n{command}"),
            data=data.encode(),
            check=False,
        )
        said = done.stdout.decode(errors="replace")
        errors = done.stderr.decode(errors="replace")
        assert done.returncode == 0 or not check, f"{command}\nended with {done.returncode}: {said}{errors}"
        return said

    def path(self, path: str) -> Path:
        """A path in there, as it is reached from outside."""
        return Path(f"/proc/{self.systemd.pid}/root{path}")

    def apt_client(self, source: str, file: str, key: str, key_file: str) -> str:
        """The packages of an archive, as this machine's own apt knows them by that source alone."""
        self.systemd.write(f"/etc/apt/keyrings/{key_file}", key)
        self.systemd.write(f"/etc/apt/sources.list.d/{file}", source)
        own = f"-o Dir::Etc::sourcelist=/etc/apt/sources.list.d/{file} -o Dir::Etc::sourceparts=/dev/null"
        alone = f"{own} -o Dir::State::lists=/tmp/lists -o Acquire::http::Proxy=DIRECT -o APT::Sandbox::User=root"
        self.type(f"mkdir -p /tmp/lists/partial; apt-get {alone} --error-on=any update")
        said = self.type(f"apt-cache {alone} -o Dir::State::status=/dev/null -o Dir::Cache=/tmp/lists pkgnames")
        self.type(f"rm -r /tmp/lists /etc/apt/sources.list.d/{file}")
        return said

    def account(self, name: str) -> None:
        """An account of a person, with an ssh key."""
        self.type(f"id {name} >/dev/null 2>&1 || adduser --disabled-password --gecos '' {name}")
        self.type(
            "mkdir -p -m 700 ~/.ssh; [ -e ~/.ssh/id_ed25519 ] || ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519",
            user=name,
        )

    def reaches(self, user: str, host: str, other: "Machine", account: str) -> None:
        """Have ``user`` log in at ``host``, which is ``other``, as ``account``: by ssh's own settings and keys."""
        home = "/root" if user == "root" else self._home(user)
        self.systemd.write(
            f"{home}/.ssh/config.{host}",
            f"Host {host}\n HostName 127.0.0.1\n Port {other.port}\n User {account}\n HostKeyAlias {host}\n"
            " BatchMode yes\n",
        )
        self.type("cat ~/.ssh/config.* >~/.ssh/config", user=user)
        key = other.path("/etc/ssh/ssh_host_ed25519_key.pub").read_text()
        self.type("cat >>~/.ssh/known_hosts", user=user, data=f"{host} {key}")
        other.type(
            "mkdir -p -m 700 ~/.ssh; cat >>~/.ssh/authorized_keys",
            user=account,
            data=self.path(f"{home}/.ssh/id_ed25519.pub").read_text(),
        )

    def show_programs(self) -> None:
        """Let the unit see the checkout's Python, if that is below what ``ProtectHome=`` or a private /tmp hides."""
        if NEEDED:
            visible = "\n".join(f"BindReadOnlyPaths={folder}" for folder in NEEDED)
            self.systemd.write(
                f"/etc/systemd/system/{UNIT}.d/programs.conf", f"[Service]\n{visible}\nProtectHome=tmpfs\n"
            )
            self.systemd.systemctl("daemon-reload")

    def _home(self, user: str) -> str:
        return self.systemd.run("getent", "passwd", user).stdout.decode().split(":")[5]
