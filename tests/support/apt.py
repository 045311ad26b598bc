"""The real apt in a private root, as a client of an archive."""

import contextlib
import os
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_FOLDERS = ("state/lists/partial", "cache/archives/partial", "etc/preferences.d", "log", "work", "root/var/lib/dpkg")


class Apt:
    """One apt, which knows nothing of the machine's own: lists, cache, sources and trust are below ``root``.

    ``address`` is where the archive is, ``file:///…`` or ``http://…``; ``keyring`` is what its Releases must be signed
    by.
    """

    def __init__(
        self, root: Path, address: str, keyring: Path, *, suite: str = "stable", components: str = "main"
    ) -> None:
        self.root = root
        for folder in _FOLDERS:
            (root / folder).mkdir(parents=True)
        for file in ("status", "available"):
            (root / "root/var/lib/dpkg" / file).touch()
        (root / "etc/archive.sources").write_text(
            f"Types: deb deb-src\nURIs: {address}\nSuites: {suite}\nComponents: {components}\nSigned-By: {keyring}\n"
        )
        (root / "apt.conf").write_text(
            f'Dir::State "{root}/state"; Dir::State::status "{root}/root/var/lib/dpkg/status";\n'
            f'Dir::Cache "{root}/cache"; Dir::Log "{root}/log"; Dir::Etc "{root}/etc"; Dir::Etc::Main "/dev/null";\n'
            'Dir::Etc::Parts "/dev/null"; Dir::Etc::SourceList "/dev/null"; Dir::Etc::Trusted "/dev/null";\n'
            f'Dir::Etc::TrustedParts "/dev/null"; Dir::Etc::SourceParts "{root}/etc";\n'
            'APT::Architecture "amd64"; APT::Architectures { "amd64"; }; APT::Sandbox::User "root";\n'
            'Acquire::Languages "none"; Acquire::Retries "0"; Debug::NoLocking "true";\n'
            f'DPkg::Options {{ "--root={root}/root"; "--force-all"; "--log={root}/log/dpkg"; }};\n'
            'DPkg::Path "/usr/sbin:/usr/bin:/sbin:/bin"; DPkg::Use-Pty "false";\n'
        )

    def run(self, *words: str, tool: str = "apt-get") -> str:
        """What apt says; it must end well, and warn of nothing."""
        environment = {**os.environ, "APT_CONFIG": str(self.root / "apt.conf"), "LC_ALL": "C.UTF-8"}
        for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            environment.pop(proxy, None)
        command = [tool, *words]
        done = subprocess.run(
            command, cwd=self.root / "work", env=environment, capture_output=True, text=True, timeout=120
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        bad = [line for line in done.stderr.splitlines() if line.startswith(("W:", "E:"))]
        assert not bad, said
        return done.stdout

    def pretend_installed(self, package: str, version: str) -> None:
        """A dependency that no archive of the test has."""
        with (self.root / "root/var/lib/dpkg/status").open("a") as status:
            status.write(
                f"Package: {package}\nStatus: install ok installed\nVersion: {version}\nArchitecture: amd64\n"
                "Maintainer: Nobody <nobody@example.org>\nDescription: not really here\n\n"
            )

    def update(self) -> None:
        """``apt-get update``."""
        self.run("update")

    def candidate(self, package: str) -> str:
        """The version that would be installed; empty where there is none."""
        said = self.run("policy", package, tool="apt-cache")
        found = said.split("Candidate: ")[1].split("\n")[0] if "Candidate: " in said else ""
        return "" if found == "(none)" else found

    def packages(self) -> set[tuple[str, str]]:
        """Every package and version that the archive has for amd64."""
        lines = self.run("dumpavail", tool="apt-cache").splitlines()
        names, versions = (
            [line.split()[1] for line in lines if line.startswith(field)] for field in ("Package: ", "Version: ")
        )
        return set(zip(names, versions, strict=True))

    def download(self, *packages: str) -> list[str]:
        """``install --download-only``: the names of the .deb files that are then in the cache."""
        self.run("install", "--yes", "--no-install-recommends", "--download-only", *packages)
        return sorted(file.name for file in (self.root / "cache/archives").glob("*.deb"))

    def install(self, *packages: str) -> Path:
        """Install into a root of its own, without maintainer scripts; that root."""
        self.run("install", "--yes", "--no-install-recommends", *packages)
        return self.root / "root"

    def source(self, package: str, *, unpack: bool = True) -> list[str]:
        """``apt-get source``: the names of what is then there."""
        self.run("source", *([] if unpack else ["--download-only"]), package)
        return sorted(file.name for file in (self.root / "work").iterdir())


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder over http on loopback; its address."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
