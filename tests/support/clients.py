"""dput and dput-ng as people have them, and the servers that they send to."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.client_docs import dput_ng_profile, dput_settings, nginx_location, web_host
from tests.support.instance import BIN, PATIENCE, until
from tests.support.sshd import Sshd, free_port, listens

#: Debian's dput-ng conflicts with its dput: ``./test`` unpacks it here.
DPUT_NG = Path(__file__).parents[2] / ".cache/dput-ng"
#: dput's dcut wants its debsign, and nobody its many dependencies.
DEVSCRIPTS = DPUT_NG.with_name("devscripts")
#: Of whoever is not anonymous at the ftp server.
PASSWORD = "secret"
_NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


class Home:
    """An uploader's home: settings of dput and dput-ng, a gnupg home, and an ssh that knows the server."""

    def __init__(self, folder: Path, gnupg: Path, server: Sshd) -> None:
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        # ssh looks for its settings where passwd(5) says, whatever $HOME is. Of two -F the last one counts.
        for name in ("ssh", "scp", "sftp"):
            program = folder / "bin" / name
            program.write_text(
                f'#!/bin/sh\nexec /usr/bin/{name} {" ".join(server.options)} -F {folder}/.ssh/config "$@"\n'
            )
            program.chmod(0o755)
        (folder / "bin/incomingctl").symlink_to(BIN / "incomingctl")
        if DEVSCRIPTS.exists():
            for name in ("debsign", "dcmd"):
                (folder / "bin" / name).symlink_to(DEVSCRIPTS / "usr/bin" / name)
        # dput-ng's sftp and curl are no ssh: they read them in $HOME.
        (folder / ".ssh").mkdir(mode=0o700)
        shutil.copy(server.folder / "known_hosts", folder / ".ssh")
        (folder / ".ssh/config").write_text(f"Host 127.0.0.1\n IdentityFile {server.settings['IdentityFile']}\n")
        key = server.settings["IdentityFile"]
        (folder / ".curlrc").write_text(f'key = "{key}"\npubkey = "{key}.pub"\nsilent\nshow-error\n')
        self.environment = {
            "PATH": f"{folder}/bin:/usr/bin:/bin",
            "HOME": str(folder),
            "GNUPGHOME": str(gnupg),
            "DEBEMAIL": "joan.builder@example.org",
            "DEBFULLNAME": "Joan Builder",
            "LANG": "C.UTF-8",
        }

    def knows(self, web: str, host: str) -> None:
        """Have ssh take ``web``, a host and a web server's port, for ``host``, as docs/clients.md has it."""
        text = web_host().replace("archive.example.org:8080", web).replace("archive.example.org", host)
        with (self.folder / ".ssh/config").open("a") as settings:
            settings.write(text)

    def run(
        self, *command: str | Path, folder: Path | None = None, answer: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run something there, to its end, whatever that is; ``answer`` is what it reads where it asks."""
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env=self.environment,
            cwd=folder or self.folder,
            input=answer,
            start_new_session=True,  # what asks for a password would ask the terminal
        )

    def dput(
        self, *words: str | Path, settings: Mapping[str, object], answer: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """dput, with ``settings`` beside those that docs/clients.md has for ~/.dput.cf."""
        return self._old("dput", *words, settings=settings, answer=answer)

    def dcut(self, *words: str | Path, settings: Mapping[str, object]) -> subprocess.CompletedProcess[str]:
        """The dcut that comes with it."""
        if not DEVSCRIPTS.exists():
            pytest.skip("devscripts is not unpacked")
        return self._old("dcut", *words, settings=settings)

    def _old(
        self, program: str, *words: str | Path, settings: Mapping[str, object], answer: str = ""
    ) -> subprocess.CompletedProcess[str]:
        lines = "".join(f"{key} = {value}\n" for key, value in (dput_settings() | settings).items())
        (self.folder / ".dput.cf").write_text(f"[archive]\n{lines}")
        return self.run(program, *words, answer=answer)

    def dput_ng(self, program: str, *words: str | Path, profile: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
        """dput-ng's dput or dcut, with ``profile`` beside what docs/clients.md has for its own."""
        if not DPUT_NG.exists():
            pytest.skip("dput-ng is not unpacked")
        mine = self.folder / ".dput.d"
        if not (mine / "profiles").exists():
            shutil.copytree(DPUT_NG / "etc/dput.d", mine, ignore=shutil.ignore_patterns("README"), dirs_exist_ok=True)
            # It looks below its working directory, too: there it finds what is in /usr/share where it is installed.
            (self.folder / "skel").symlink_to(DPUT_NG / "usr/share/dput-ng")
        (mine / "profiles/archive.json").write_text(json.dumps(dput_ng_profile() | profile))
        return self.run("/usr/bin/python3", DPUT_NG / "usr/bin" / program, *words)

    def dput_ng_hook(self, name: str, code: str) -> None:
        """A hook of the user's own, in Python, that dput-ng is to call before and after."""
        mine = self.folder / ".dput.d"
        for folder in ("hooks", "scripts"):
            (mine / folder).mkdir(parents=True, exist_ok=True)
        plugin = {"description": name, "path": f"{name}.run", "pre": True, "post": True}
        (mine / "hooks" / f"{name}.json").write_text(json.dumps(plugin))
        (mine / "scripts" / f"{name}.py").write_text(f"def run(changes, profile, interface):\n    {code}\n")


@contextlib.contextmanager
def ftp_server(folder: Path, login: str = "anonymous") -> Iterator[int]:
    """pyftpdlib's own server: whoever logs in so may write in ``folder``, anybody as anonymous. Its port."""
    pytest.importorskip("pyftpdlib")
    port = free_port()
    command = [sys.executable, "-m", "pyftpdlib", "-i", "127.0.0.1", "-p", str(port), "-w", "-d", folder]
    if login != "anonymous":
        command += ["-u", login, "-P", PASSWORD]
    with _running(command, port):
        yield port


@contextlib.contextmanager
def put_server(folder: Path, work: Path, *, tls: bool = False) -> Iterator[int]:
    """nginx, as docs/clients.md sets it up: PUT writes in ``folder``. Its port.

    With ``tls`` its certificate, signed by itself, is ``work/certificate.pem``.
    """
    if _NGINX is None:
        pytest.skip("nginx is not installed")
    port = free_port()
    work.mkdir()
    temporary = folder.parent / "put"  # on the same file system: what is renamed in is never seen half written
    temporary.mkdir()
    user = "user root;" if os.geteuid() == 0 else ""
    (work / "nginx.conf").write_text(
        f"{user} daemon off; worker_processes 1; pid {work}/pid; error_log {work}/error.log;\n"
        f"events {{ }}\nhttp {{ access_log off;\n"
        + "".join(f"{kind}_temp_path {work}/{kind};\n" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
        + f"server {{ listen 127.0.0.1:{port}{_tls(work) if tls else ''};\n{_location(folder, temporary)}}} }}\n"
    )
    with _running([_NGINX, "-p", work, "-c", work / "nginx.conf", "-e", work / "error.log"], port):
        yield port


def _location(folder: Path, temporary: Path) -> str:
    """That of docs/clients.md, with the folders of this one."""
    text = nginx_location()
    for there, here in (("/srv/incomingd/incoming", folder), ("/srv/incomingd/put", temporary)):
        assert there in text
        text = text.replace(there, str(here))
    return text


def _tls(work: Path) -> str:
    """A key and its certificate for the address, and how nginx is told of them."""
    key, certificate = work / "key.pem", work / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"]
    make += ["-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*make, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return f" ssl; ssl_certificate {certificate}; ssl_certificate_key {key}"


@contextlib.contextmanager
def _running(command: list[Any], port: int) -> Iterator[None]:
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: listens(port) or server.poll() is not None, str(command[0]))
        assert server.poll() is None, f"{command} ended with {server.returncode}"
        yield
    finally:
        server.terminate()
        server.wait()
