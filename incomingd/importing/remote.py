"""Where a repository's files are read from: a folder, or a server that is trusted with nothing.

Rules for a server:

* http and https only. A redirect is followed only to the same scheme, host and port, or to a host that the operator
  allows, never from https to http, and at most five times. The body of a redirect is not read.
* No byte is read beyond the limit that the caller gives.
* A request ends if it is too slow: an answer has to begin within a minute, and from then on there is a minute for the
  whole of it, and one second more for every 10 kB that came.
* What a server says is made printable.

Proxies are those of the environment (``http_proxy``, ``https_proxy``, ``no_proxy``), as for other programs.
"""

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, Protocol, cast
from urllib.error import URLError
from urllib.parse import quote, unquote, urljoin, urlsplit
from urllib.request import HTTPHandler, HTTPSHandler, OpenerDirector, ProxyHandler, Request

from incomingd import __version__, fsio
from incomingd.errors import ConfigError, Retry
from incomingd.model import plain

#: ``--allow-host``: a name or an address, with a port or for any.
HOST = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?", re.ASCII)
#: Seconds without a byte, and for an answer's head; bytes a second for what follows, on average.
_SECONDS, _SLOWEST = 60.0, 10_000
_REDIRECTS = 5
_CHUNK = 1 << 18
_PORTS = {"http": 80, "https": 443}
#: What is left as it is in an address. A % in a file's name is one: apt asks for %25 too.
_SAFE = "/!$&'()*+,;=:@~"


class TooLongError(Exception):
    """There are more bytes than the caller allows."""


class Place(Protocol):
    """A repository's top."""

    @property
    def base(self) -> str:
        """The folder or the address, without a slash at the end."""

    def chunks(self, name: str, limit: int) -> Iterator[bytes]:
        """The bytes of one file. Raises ``FileNotFoundError``, :class:`TooLongError`, ``Retry`` and ``OSError``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A repository on this machine. Links are followed: what is read has to have its listed digest."""

    base: str

    def chunks(self, name: str, limit: int) -> Iterator[bytes]:
        """As :class:`Place` says. Nothing but a regular file is read."""
        path = Path(os.path.realpath(f"{self.base}/{name}"))
        with fsio.directory(path.parent) as folder, fsio.regular(path.name, folder) as fd:
            while chunk := os.read(fd, _CHUNK):
                limit -= len(chunk)
                if limit < 0:
                    raise TooLongError
                yield chunk


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A repository at an address; ``allowed``: other hosts to which it may redirect (:data:`HOST`)."""

    base: str
    allowed: tuple[str, ...] = ()

    def chunks(self, name: str, limit: int) -> Iterator[bytes]:
        """As :class:`Place` says."""
        patience = _Patience()
        address = f"{self.base}/{quote(os.fsencode(name), safe=_SAFE)}"
        with _told(address), contextlib.closing(self._answer(address, patience)) as answer:
            told, count = _length(answer), 0
            if told is not None and told > limit:
                raise TooLongError
            while chunk := patience.read(answer):
                count += len(chunk)
                if count > limit:
                    raise TooLongError
                yield chunk
            if told is not None and count < told:
                raise Retry(f"{address}: the connection ended after {count} of {told} bytes; try again")

    def _answer(self, address: str, patience: "_Patience") -> HTTPResponse:
        """The answer with the file, behind all redirects."""
        asked = address
        for _ in range(_REDIRECTS + 1):
            answer = patience.open(asked)
            if answer.status == 200:
                return answer
            answer.close()
            if answer.status not in (301, 302, 303, 307, 308):
                if answer.status in (403, 404, 410):
                    raise FileNotFoundError(address)
                raise Retry(f"{asked}: the server says {answer.status} {plain(answer.reason)}; try again later")
            asked = self.redirected(asked, answer.headers.get("Location") or "")
        raise Retry(f"{address}: the server redirects more than {_REDIRECTS} times")

    def redirected(self, asked: str, location: str) -> str:
        """The address of a redirect, if it may be followed."""
        target = quote(location, safe=_SAFE + "%?#[]")
        with contextlib.suppress(ValueError):  # then it is no address
            target = urljoin(asked, target)
        here, there = _origin(self.base), _origin(target)
        if there is None or here is None:
            raise Retry(f"{asked}: the server redirects to {plain(target)}, which is no address of http or https")
        if here[0] == "https" and there[0] != "https":
            raise Retry(f"{asked}: the server redirects to {plain(target)}, which is not https; that is never followed")
        if there != here and not any(_allows(one, there) for one in self.allowed):
            raise Retry(
                f"{asked}: the server redirects to {plain(target)}; that is followed only within {self.base}'s own "
                f"scheme, host and port: give --from-repo the address that is right, or --allow-host {there[1]}"
            )
        return target


def place(base: str, allowed: tuple[str, ...]) -> Place:
    """What ``--from-repo`` names. Raises ``ConfigError``."""
    scheme = base.partition(":")[0].lower() if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", base) else ""
    if scheme in _PORTS:
        if _origin(base) is None or urlsplit(base).query or urlsplit(base).fragment:
            raise ConfigError([f"{plain(base)}: must be http(s)://HOST[:PORT]/PATH, without account, ? and #"])
        return Server(base=base.rstrip("/"), allowed=allowed)
    if scheme == "file":
        host, path = urlsplit(base).netloc, unquote(urlsplit(base).path)
        if host or not path.startswith("/"):
            raise ConfigError([f"{plain(base)}: must be file:///PATH"])
        return Folder(base=os.path.realpath(path))
    if scheme and not os.path.lexists(base):
        raise ConfigError([f"{plain(base)}: cannot be read from; a repository is a folder, or at http: or https:"])
    return Folder(base=os.path.realpath(base))


def _origin(address: str) -> tuple[str, str, int] | None:
    """Scheme, host and port; None for what is no address of a server, or has an account in it."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not HOST.fullmatch(parts.netloc) or not parts.hostname:
        return None
    return parts.scheme, parts.hostname.rstrip("."), port or _PORTS[parts.scheme]


def _allows(allowed: str, there: tuple[str, str, int]) -> bool:
    match = HOST.fullmatch(allowed)
    if match is None:
        return False
    host = match["host"].strip("[]").lower().rstrip(".")
    return host == there[1] and (match["port"] is None or int(match["port"]) == there[2])


def _length(answer: HTTPResponse) -> int | None:
    told = answer.headers.get("Content-Length", "").strip()
    return int(told) if told.isdecimal() and told.isascii() and len(told) < 19 and not answer.chunked else None


@contextlib.contextmanager
def _told(address: str) -> Iterator[None]:
    """What goes wrong on the way, as ``Retry`` with the address."""
    try:
        yield
    except _TooSlowError as error:
        raise Retry(
            f"{address}: no answer came within {_SECONDS:.0f} s, or less than {_SLOWEST // 1000} kB a second; try "
            "again later"
        ) from error
    except FileNotFoundError:
        raise
    except URLError as error:
        raise Retry(f"{address}: {plain(error.reason)}") from error
    except (OSError, HTTPException, ValueError) as error:
        raise Retry(f"{address}: {plain(error) or type(error).__name__}") from error


class _TooSlowError(BaseException):
    """Time is over; no library that is in between may take it for an error of its own."""


class _Patience:
    """Runs the parts of one request that wait for the server, by a timer of the process: a server that sends a byte now
    and then would outlast the limit that a socket has. Only the main thread can."""

    armed = False

    def __init__(self) -> None:
        self._used, self._count = 0.0, 0
        # Never set back: a signal that comes late does nothing.
        signal.signal(signal.SIGALRM, _Patience._over)

    def open(self, address: str) -> HTTPResponse:
        request = Request(address, headers={"User-Agent": f"incomingd/{__version__}"})  # noqa: S310  # by _origin
        with self._within(_SECONDS):
            return cast("HTTPResponse", _opener().open(request, timeout=_SECONDS))

    def read(self, answer: HTTPResponse) -> bytes:
        started = time.monotonic()
        with self._within(_SECONDS + self._count / _SLOWEST - self._used):
            chunk = answer.read1(_CHUNK)
        self._used += time.monotonic() - started
        self._count += len(chunk)
        return chunk

    @contextlib.contextmanager
    def _within(self, seconds: float) -> Iterator[None]:
        if seconds <= 0:
            raise _TooSlowError
        _Patience.armed = True
        # Again and again: an exception that falls into some clean-up of the library is lost.
        signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
        try:
            yield
        finally:
            _Patience.armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)

    @staticmethod
    def _over(*_: Any) -> None:
        if _Patience.armed:
            raise _TooSlowError


def _opener() -> OpenerDirector:
    """Neither redirects nor file:, ftp: and data:; an answer is an answer, whatever its number."""
    opener = OpenerDirector()
    for handler in (ProxyHandler(), HTTPHandler(), HTTPSHandler()):
        opener.add_handler(handler)
    return opener
