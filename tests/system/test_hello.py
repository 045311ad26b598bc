"""A source package and its binaries as Debian built them: hello, with the .dsc that its maintainer signed.

They are fetched once, from wherever this machine's own apt gets its packages, into ``$INCOMINGD_TEST_CACHE``
(``.cache/`` by default).
"""

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from debian.deb822 import Deb822, Dsc

from tests.support.apt import Apt, served
from tests.support.instance import Instance
from tests.support.uploads import Builder, Upload

CACHE = Path(os.environ.get("INCOMINGD_TEST_CACHE", Path(__file__).parents[2] / ".cache"))
_OPTION_LINE = re.compile(r"^deb(-src)?\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<rest>\S.*)$")


@pytest.fixture(scope="session")
def hello() -> Path:
    """The folder with what Debian has of hello."""
    folder = CACHE / "hello"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "hello.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes may share the cache
        if not folder.is_dir():
            _fetch(folder)
    return folder


def _fetch(folder: Path) -> None:
    part = folder.with_name("hello.part")
    shutil.rmtree(part, ignore_errors=True)
    download, apt = part / "files", part / "apt"
    for made in (download, apt / "lists/partial", apt / "archives/partial", apt / "sources"):
        made.mkdir(parents=True)
    _write_sources(apt / "sources")
    options = (
        *("Dir::Etc::SourceList=/dev/null", f"Dir::Etc::SourceParts={apt}/sources", f"Dir::State::Lists={apt}/lists"),
        *(f"Dir::Cache={apt}", "Acquire::Languages=none", "APT::Sandbox::User=root", "Debug::NoLocking=true"),
    )
    command = ["apt-get", "-q", *(word for option in options for word in ("-o", option))]
    for words in (["update"], ["source", "--download-only", "hello"], ["download", "hello"]):
        done = subprocess.run([*command, *words], cwd=download, capture_output=True, text=True, timeout=600)
        if done.returncode:
            pytest.skip(f"hello cannot be fetched: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
    download.rename(folder)
    shutil.rmtree(part)


def _write_sources(folder: Path) -> None:
    """The machine's own sources, with the source packages of each."""
    for number, file in enumerate([Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]):
        if file.suffix == ".sources":
            stanzas = [stanza for stanza in Deb822.iter_paragraphs(file.read_text()) if "URIs" in stanza]
            for stanza in stanzas:
                stanza["Types"] = "deb deb-src"
            (folder / f"{number}.sources").write_text("\n".join(stanza.dump() for stanza in stanzas))
        elif file.suffix == ".list" and file.is_file():
            found = [match for line in file.read_text().splitlines() if (match := _OPTION_LINE.match(line))]
            entries = {(f"[{one['options']}] " if one["options"] else "") + one["rest"] for one in found}
            lines = (f"{kind} {entry}\n" for entry in sorted(entries) for kind in ("deb", "deb-src"))
            (folder / f"{number}.list").write_text("".join(lines))


@pytest.fixture
def upload(hello: Path, builder: Builder) -> Upload:
    """Source and binary in one upload, as a maintainer's own machine makes it."""
    folder = builder.folder / "hello"
    shutil.copytree(hello, folder)
    files = sorted(folder.iterdir(), key=lambda file: (file.suffix != ".dsc", file.name))
    return builder.sign(folder, files)


@pytest.fixture(params=["file", "http"])
def apt(request: pytest.FixtureRequest, instance: Instance, tmp_path: Path) -> Iterator[Apt]:
    if request.param == "file":
        yield Apt(tmp_path / "apt", f"file://{instance.archive}", instance.keyring)
    else:
        with served(instance.archive) as address:
            yield Apt(tmp_path / "apt", address, instance.keyring)


def test_hello(instance: Instance, upload: Upload, hello: Path, apt: Apt) -> None:
    found = instance.succeeded(upload.send_directory(instance.incoming))
    deb, dsc = upload.file("*.deb"), Dsc(upload.file("*.dsc").read_bytes())
    assert found["changes"][0]["version"] == dsc["Version"]
    # Its maintainer's key is nobody's here: the signed .changes vouches for the .dsc.
    assert [warning["code"] for warning in found["warnings"]] == ["unknown-key"]
    apt.update()
    assert apt.candidate("hello") == dsc["Version"]
    apt.pretend_installed("libc6", "2:99")
    assert apt.install("hello").joinpath("usr/bin/hello").stat().st_size > 10_000
    apt.run("install", "--yes", "--reinstall", "--download-only", "hello")
    apt.run("download", "hello")
    assert (apt.root / "work" / deb.name).read_bytes() == deb.read_bytes()
    unpacked = f"hello-{dsc['Version'].rpartition('-')[0]}"
    assert {unpacked, *(file["name"] for file in dsc["Files"])} <= set(apt.source("hello"))
    assert "AC_INIT" in (apt.root / "work" / unpacked / "configure.ac").read_text()
    assert {file.name for file in hello.iterdir()} == {Path(file).name for file in found["published"]["files"]}
