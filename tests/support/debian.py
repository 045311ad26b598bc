"""Real packages, from wherever this machine's own apt gets its packages.

They are fetched once into ``$INCOMINGD_TEST_CACHE`` (``.cache/`` by default), which several test processes may share.
"""

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from debian.deb822 import Deb822, Dsc

CACHE = Path(os.environ.get("INCOMINGD_TEST_CACHE", Path(__file__).parents[2] / ".cache"))
_OPTION_LINE = re.compile(r"^deb(-src)?\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<rest>\S.*)$")
_AT_ONCE = 6
_INSTALLER = "main/debian-installer"


class Registry:
    """Debian's packages, by an apt of its own: the machine's is not touched."""

    def __init__(self, root: Path) -> None:
        self._root = root
        for made in ("lists/partial", "archives/partial", "sources"):
            (root / made).mkdir(parents=True, exist_ok=True)

    def update(self) -> None:
        """Fetch the indexes, those that can be: what is missing shows when a package is asked for."""
        _write_sources(self._root / "sources")
        self._run(self._root, "apt-get", "-q", "update", check=False)

    def sources(self, folder: Path, names: Sequence[str]) -> None:
        """Fetch source packages into ``folder``."""
        self._fetch(folder, ["source", "--download-only"], names)

    def binaries(self, dscs: Iterable[Dsc]) -> list[str]:
        """``name=version`` of each binary that was built of these sources, for this machine."""
        built = {(dsc["Source"], dsc["Version"]): dsc["Binary"].replace(",", " ").split() for dsc in dscs}
        names = [name for some in built.values() for name in some]
        shown = self._run(self._root, "apt-cache", "show", *names, check=False)
        stanzas = Deb822.iter_paragraphs(shown, use_apt_pkg=False)
        return sorted({f"{one['Package']}={one['Version']}" for one in stanzas if _source(one) in built})

    def download(self, folder: Path, packages: Sequence[str]) -> None:
        """Fetch binary packages into ``folder``, each a name or ``name=version``."""
        self._fetch(folder, ["download"], packages)

    def _fetch(self, folder: Path, words: Sequence[str], names: Sequence[str]) -> None:
        """Over several connections: apt makes one, and waits for each answer of a distant registry."""
        shares = [share for number in range(_AT_ONCE) if (share := names[number::_AT_ONCE])]
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            list(threads.map(lambda share: self._run(folder, "apt-get", "-q", *words, *share), shares))

    def _run(self, folder: Path, program: str, *words: str, check: bool = True) -> str:
        settings = (
            *("Dir::Etc::SourceList=/dev/null", f"Dir::Etc::SourceParts={self._root}/sources"),
            *(f"Dir::State::Lists={self._root}/lists", f"Dir::Cache={self._root}"),
            *("Acquire::Languages=none", "APT::Sandbox::User=root", "Debug::NoLocking=true"),
        )
        command = [program, *(word for setting in settings for word in ("-o", setting)), *words]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
        if check and done.returncode:
            errors = [line for line in (done.stderr or done.stdout).splitlines() if line.startswith("E:")]
            raise RuntimeError(" ".join(errors) or f"{program} ended with the status {done.returncode}")
        return done.stdout


def _source(stanza: Deb822) -> tuple[str, str]:
    name, _, version = stanza.get("Source", stanza["Package"]).partition(" ")
    return name, version.strip("()") or stanza["Version"]


def fetched(name: str, fetch: Callable[[Registry, Path], None]) -> Path:
    """The folder ``name`` of the cache, filled by ``fetch`` where it is not there.

    Fails the test where something is not to be had: a check that is left out would pass for one that holds.
    """
    folder = CACHE / name
    CACHE.mkdir(parents=True, exist_ok=True)
    with _locked(CACHE / "lock"):
        if not folder.is_dir():
            part = folder.with_name(f"{name}.part")
            try:
                _fill(part, fetch)
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                pytest.fail(
                    f"{name}: {error}. If this machine's apt reaches its registry (apt-get update), its release has "
                    f"these packages no more: put others of their kind in their place in {fetch.__module__}"
                )
            part.rename(folder)
    return folder


def debian_hello() -> Path:
    """The folder with what Debian has of hello: a .deb, and a .dsc with its files."""

    def fetch(registry: Registry, folder: Path) -> None:
        registry.sources(folder, ["hello"])
        registry.download(folder, ["hello"])

    return fetched("hello", fetch)


def _fill(part: Path, fetch: Callable[[Registry, Path], None]) -> None:
    old = (CACHE / "apt").is_dir()
    if not old:
        _update()
    try:
        _try_to_fill(part, fetch)
    except RuntimeError:
        # What the indexes of another day list may be gone.
        if not old:
            raise
        _update()
        _try_to_fill(part, fetch)


def _try_to_fill(part: Path, fetch: Callable[[Registry, Path], None]) -> None:
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    fetch(Registry(CACHE / "apt"), part)


def _update() -> None:
    part = CACHE / "apt.part"
    for old in (CACHE / "apt", part):
        shutil.rmtree(old, ignore_errors=True)
    Registry(part).update()
    part.rename(CACHE / "apt")


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    with file.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write_sources(folder: Path) -> None:
    """The machine's own sources, with the source packages of each, and the installer's."""
    for number, file in enumerate([Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]):
        if file.suffix == ".sources":
            stanzas = [stanza for stanza in Deb822.iter_paragraphs(file.read_text()) if "URIs" in stanza]
            for stanza in stanzas:
                stanza["Types"] = "deb deb-src"
                if "Components" in stanza:
                    stanza["Components"] = _with_installer(stanza["Components"])
            (folder / f"{number}.sources").write_text("\n".join(stanza.dump() for stanza in stanzas))
        elif file.suffix == ".list" and file.is_file():
            found = [match for line in file.read_text().splitlines() if (match := _OPTION_LINE.match(line))]
            entries = {
                (f"[{one['options']}] " if one["options"] else "") + _with_installer(one["rest"]) for one in found
            }
            lines = (f"{kind} {entry}\n" for entry in sorted(entries) for kind in ("deb", "deb-src"))
            (folder / f"{number}.list").write_text("".join(lines))


def _with_installer(components: str) -> str:
    return f"{components} {_INSTALLER}" if "main" in components.split() else components
