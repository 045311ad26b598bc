"""Finds what an existing repository lists: its signed InRelease vouches for its indexes, and these for its files.

Rules: the InRelease is verified as strictly as an upload, against a keyring that the operator names. Every index and
every file has to have the digest that is signed for. A file's name may not lead out of the repository. Files behind
http are fetched when they are read (:mod:`.reading`).
"""

import bz2
import gzip
import hashlib
import lzma
import posixpath
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from debian.deb822 import Deb822, Release

from incomingd.config import SuiteConfig
from incomingd.errors import ConfigError, Retry
from incomingd.journal.staging import Origin
from incomingd.model import plain
from incomingd.verify.keyring import Keyring, KeyringError
from incomingd.verify.signature import Verifier

_OPENERS: dict[str, Callable[[bytes], bytes]] = {
    ".xz": lzma.decompress,
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    "": bytes,
}
_INDEX_BYTES = 2 << 30
_SECONDS = 60.0


class Repository:
    """One suite of an existing repository at ``base``, a folder or an address."""

    def __init__(self, base: str, suite: str) -> None:
        self._base = base.rstrip("/")
        self._suite = suite

    def origins(self, keyring: Path, into: SuiteConfig, now: datetime) -> list[Origin]:
        """What it lists for components and architectures that ``into`` has. Raises ``ConfigError`` and ``Retry``."""
        release = self._release(keyring, now)
        digests = {row["name"]: row["sha256"] for row in release.get("SHA256", [])}
        if not digests:
            raise self._wrong("its InRelease lists no SHA256")
        components = [name for name in str(release.get("Components", "")).split() if name in into.components]
        if not components:
            known = ", ".join(into.components)
            raise self._wrong(f"it has {plain(release.get('Components', 'no component'))}, and {into.name} has {known}")
        found: dict[str, Origin] = {}
        for component in components:
            for index in (
                "source/Sources",
                *(f"binary-{arch}/Packages" for arch in (*into.binary_architectures, "all")),
            ):
                for stanza in self._index(f"{component}/{index}", digests):
                    origin = self._origin(stanza, component)
                    found[origin.path] = origin
        return sorted(found.values(), key=lambda origin: origin.path)

    def _wrong(self, what: str) -> ConfigError:
        return ConfigError([f"{self._base} {self._suite}: {what}"])

    def _release(self, keyring: Path, now: datetime) -> Release:
        data = self._read(f"dists/{self._suite}/InRelease")
        if data is None:
            raise self._wrong("there is no InRelease; is it a repository, and is its suite called so (--from-suite)?")
        with tempfile.TemporaryDirectory(prefix="incomingd-") as folder:
            keys = Keyring(Path(folder) / "keys")
            try:
                keys.trust(keyring.read_bytes())
            except KeyringError as error:
                raise ConfigError([f"{keyring}: {error}"]) from error
            signed = Verifier(keyring=keys.public, keys=keys.load(), now=now).verify(data, "InRelease")
        if signed.text is None or signed.doubts:
            raise ConfigError([f"{self._base}: {problem.message}" for problem in (*signed.faults, *signed.doubts)])
        return Release(signed.text)

    def _index(self, name: str, digests: dict[str, str]) -> Iterator[Deb822]:
        """The stanzas of one index, which may be missing: a component need not have sources."""
        for ending, unpack in _OPENERS.items():
            if name + ending not in digests:
                continue
            data = self._read(f"dists/{self._suite}/{name}{ending}")
            if data is None:
                continue
            if hashlib.sha256(data).hexdigest() != digests[name + ending]:
                raise Retry(f"{self._base}: {name}{ending} is not the one that InRelease lists; try again")
            yield from Deb822.iter_paragraphs(unpack(data), use_apt_pkg=False, encoding="utf-8")
            return

    def _origin(self, stanza: Deb822, component: str) -> Origin:
        if "Filename" in stanza:
            name, size, sha256 = stanza["Filename"], stanza.get("Size", ""), stanza.get("SHA256", "")
        else:
            rows = [row.split() for row in stanza.get("Checksums-Sha256", "").split("\n")]
            sha256, size, file = next((row for row in rows if len(row) == 3 and row[2].endswith(".dsc")), ("", "", ""))
            name = f"{stanza.get('Directory', '')}/{file}"
        whole = posixpath.normpath(name)
        if not sha256 or not size.isdecimal() or whole.startswith(("/", "../")):
            raise self._wrong(f'it lists "{plain(name)}" without size and SHA256, or outside of itself')
        return Origin(path=f"{self._base}/{whole}", size=int(size), mtime_ns=0, component=component, sha256=sha256)

    def _read(self, name: str) -> bytes | None:
        try:
            if is_address(self._base):
                with urllib.request.urlopen(f"{self._base}/{name}", timeout=_SECONDS) as answer:  # noqa: S310
                    data: bytes = answer.read(_INDEX_BYTES)
                return data
            return Path(self._base, name).read_bytes()
        except FileNotFoundError:
            return None
        except urllib.error.HTTPError as error:
            if error.code in (403, 404):
                return None
            raise Retry(f"{self._base}/{name}: {error}") from error
        except urllib.error.URLError as error:
            raise Retry(f"{self._base}/{name}: {error.reason}") from error


def is_address(base: str) -> bool:
    """True for what is fetched, False for a folder."""
    return base.startswith(("http://", "https://"))


def fetch(address: str, chunk: int = 1 << 20) -> Iterator[bytes]:
    """The bytes at an address. Raises ``FileNotFoundError``, ``Retry``."""
    try:
        with urllib.request.urlopen(address, timeout=_SECONDS) as answer:  # noqa: S310  # http and https only
            while data := answer.read(chunk):
                yield data
    except urllib.error.HTTPError as error:
        if error.code in (403, 404):
            raise FileNotFoundError(address) from error
        raise Retry(f"{address}: {error}") from error
    except OSError as error:
        raise Retry(f"{address}: {error}") from error
