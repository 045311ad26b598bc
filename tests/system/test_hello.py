"""A source package and its binaries as Debian built them: hello, with the .dsc that its maintainer signed."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from debian.deb822 import Dsc

from tests.support.apt import Apt, served
from tests.support.debian import debian_hello
from tests.support.instance import Instance
from tests.support.uploads import Builder, Upload


@pytest.fixture(scope="session")
def hello() -> Path:
    """What Debian has of it."""
    return debian_hello()


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
