"""The real nginx in front of an archive, with the settings of docs/operators.md."""

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.instance import PATIENCE, until

_CONFIG = """\
user root;
daemon off;
worker_processes 2;
pid {work}/nginx.pid;
error_log {work}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log {work}/access.log;
    client_body_temp_path {work}/body;
    proxy_temp_path {work}/proxy;
    fastcgi_temp_path {work}/fastcgi;
    uwsgi_temp_path {work}/uwsgi;
    scgi_temp_path {work}/scgi;
    server {{
        listen 127.0.0.1:{port};
        root {root};
        autoindex on;
        location ~ /\\. {{ deny all; }}
        location ~ ^/dists/.*/by-hash/.*[^/]$ {{ expires 30d; }}
        location ~ ^/pool/.*[^/]$ {{ expires 1d; }}
        location ~ /(InRelease|Release|Release\\.gpg)$ {{ add_header Cache-Control no-cache; }}
    }}
}}
"""


@contextlib.contextmanager
def nginx(archive: Path, work: Path) -> Iterator[str]:
    """Serve ``archive`` on loopback; its address. ``work`` is a new folder for nginx's own files."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed")
    work.mkdir()
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        port = listening.getsockname()[1]
        (work / "nginx.conf").write_text(_CONFIG.format(work=work, root=archive, port=port))
        # As nginx hands its sockets to the next nginx at an upgrade: nobody else can take the port meanwhile.
        server = subprocess.Popen(
            [program, "-p", work, "-e", work / "error.log", "-c", work / "nginx.conf"],
            env={**os.environ, "NGINX": f"{listening.fileno()};"},
            pass_fds=[listening.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    try:
        until(lambda: (work / "nginx.pid").exists() or server.poll() is not None, "nginx's start")
        assert server.poll() is None, (work / "error.log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(PATIENCE)
