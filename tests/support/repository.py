"""A signed repository of another owner, as the test wants it, and a server that answers as an attacker would."""

import gzip
import hashlib
import lzma
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.keys import Keys

#: What a server does with one request, in place of sending the file of that path.
Trick = Callable[["Answer"], None]


class Repository:
    """A repository in ``root``, of one suite and component, for amd64. :meth:`publish` signs it as it is then."""

    def __init__(self, root: Path, keys: Keys, key: str) -> None:
        self.root, self._keys, self._key = root, keys, key
        self.public = keys.public(key)
        root.mkdir(parents=True)

    def stanza(self, deb: Path, **fields: str | bytes) -> bytes:
        """The stanza of a package that lies in the repository; ``fields`` take the place of its own."""
        data = deb.read_bytes()
        found: dict[str, str | bytes] = {}
        found["Package"], found["Version"], found["Architecture"] = deb.stem.split("_")
        found["Filename"] = str(deb.relative_to(self.root))
        found["Size"], found["SHA256"] = str(len(data)), hashlib.sha256(data).hexdigest()
        return stanza(found | fields)

    def publish(
        self,
        *stanzas: bytes,
        folder: str = "stable",
        files: Mapping[str, bytes] | None = None,
        listed: Mapping[str, bytes] | None = None,
        date: datetime | None = None,
        **fields: str | None,
    ) -> None:
        """Write the indexes and sign them.

        ``files`` are indexes in place of Packages, .gz and .xz; ``listed`` is what Release says of some of them;
        ``fields`` go into Release, or are left out of it if they are None.
        """
        packages = b"\n".join(stanzas)
        usual = {"": packages, ".gz": gzip.compress(packages), ".xz": lzma.compress(packages)}
        indexes = {f"main/binary-amd64/Packages{ending}": data for ending, data in usual.items()}
        indexes = dict(indexes if files is None else files)
        where = self.root / "dists" / folder
        for name, data in indexes.items():
            (where / name).parent.mkdir(parents=True, exist_ok=True)
            (where / name).write_bytes(data)
        head: dict[str, str | None] = {
            "Suite": folder,
            "Codename": folder,
            "Date": rfc2822(date or datetime.now(UTC)),
            "Components": "main",
            "Architectures": "amd64",
        }
        head |= {name.replace("_", "-"): value for name, value in fields.items()}
        text = "".join(f"{name}: {value}\n" for name, value in head.items() if value is not None)
        rows = (indexes | dict(listed or {})).items()
        text += "SHA256:\n" + "".join(
            f" {hashlib.sha256(data).hexdigest()} {len(data)} {name}\n" for name, data in rows
        )
        (where / "InRelease").write_bytes(self._keys.sign(text, self._key))


def stanza(fields: Mapping[str, str | bytes]) -> bytes:
    """One stanza of an index."""
    lines = [name.encode() + b": " + (v if isinstance(v, bytes) else v.encode()) for name, v in fields.items()]
    return b"\n".join(lines) + b"\n"


def rfc2822(date: datetime) -> str:
    """A date as Release has it."""
    return format_datetime(date.astimezone(UTC)).replace("+0000", "UTC")


def days(count: float) -> datetime:
    """So many days from now."""
    return datetime.now(UTC) + timedelta(days=count)


class Answer:
    """One request, to be answered."""

    def __init__(self, handler: BaseHTTPRequestHandler, server: "Server") -> None:
        self._handler, self.server, self.path = handler, server, handler.path.lstrip("/")

    def file(self, path: str) -> None:
        """Send a file of the repository."""
        found = self.server.root / path
        if found.is_file():
            self.data(found.read_bytes())
        else:
            self.head(404)

    def data(self, data: bytes, *, length: int | None = None) -> None:
        """Send these bytes; ``length``: say that it is another number of bytes."""
        self.head(200, Content_Length=str(len(data) if length is None else length))
        self.send(data)

    def head(self, status: int, reason: str | None = None, **headers: str) -> None:
        """Status and headers."""
        self._handler.send_response(status, reason)
        for name, value in headers.items():
            self._handler.send_header(name.replace("_", "-"), value)
        self._handler.end_headers()

    def redirect(self, to: str) -> None:
        """Send it elsewhere."""
        self.head(302, Location=to)

    def send(self, data: bytes) -> None:
        """More bytes. Raises ``OSError`` once the client has gone."""
        self._handler.wfile.write(data)
        self._handler.wfile.flush()
        self.server.sent += len(data)

    def endless(self, most: int = 200 << 20) -> None:
        """A file that does not end, or not before a disk is full."""
        self.head(200)
        while self.server.sent < most:
            self.send(bytes(1 << 16))

    def hang(self) -> None:
        """Say nothing until the server is closed."""
        self.server.closing.wait()


class Server:
    """Serves ``root`` on the loopback interface; ``trick`` is called in place of that, if it is set."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.trick: Trick | None = None
        self.asked: list[str] = []
        self.sent = 0
        self.closing = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                outer.asked.append(self.path)
                answer = Answer(self, outer)
                try:
                    (outer.trick or (lambda answer: answer.file(answer.path)))(answer)
                except OSError:  # the client has gone
                    return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """End."""
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def serving(root: Path) -> Iterator[Server]:
    """A server for the time of a test."""
    server = Server(root)
    try:
        yield server
    finally:
        server.close()


def trick_for(part: str, trick: Trick) -> Trick:
    """A trick for the paths that contain ``part``; all else is sent as it is."""

    def answer(one: Answer) -> None:
        if part in one.path:
            trick(one)
        else:
            one.file(one.path)

    return answer
