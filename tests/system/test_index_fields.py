"""What a package says that becomes an index: nothing that apt would take as said of a file, and not too much."""

import gzip
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from incomingd import fsio
from incomingd.config import ChecksConfig, PublishConfig
from incomingd.publish.stanza import packages_stanza
from incomingd.verify.binary import check_alone
from incomingd.verify.overrides import Overrides
from tests.support import packages
from tests.support.apt import Apt
from tests.support.instance import Instance
from tests.support.uploads import Builder
from tests.verify.builders import ar, ar_parts, tar

#: Each alone makes apt refuse the file, or look for it elsewhere.
SAID = {
    "Checksum-FileSize": "1",
    "filename": "pool/main/o/other/other_1.0_amd64.deb",
    "Size": "1",
    "MD5Sum": "0" * 32,
    "SHA1": "0" * 40,
    "SHA256": "0" * 64,
    "SHA512": "0" * 128,
    "Description-md5": "0" * 32,
}
#: What a stanza may have by default.
MOST = 1 << 20


@pytest.fixture
def lenient(idle: Instance) -> Instance:
    """An instance that takes packages in every way, running."""
    idle.set("incoming.default", allow_bare_debs=True, default_suite="stable", signatures="optional")
    idle.start()
    return idle


def deb(folder: Path, name: str, *, size: int = 0, **fields: str) -> Path:
    """A package with these fields, whose control file has so many bytes; dpkg-deb would not build all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    path = packages.binary(folder, name, "1.0-1")
    text = packages.control_text(name, "1.0-1", "amd64", None, dict(fields)).encode()
    left = size - len(text)
    while left > 0:
        line = b" " + b"x" * min(max(left - 2, 1), 1000) + b"\n"
        text, left = text + line, left - len(line)
    assert not size or len(text) == size
    members = ar_parts(path.read_bytes())
    members[1] = ("control.tar.gz", tar(("./", b""), ("./control", text)))
    path.write_bytes(ar(members))
    return path


def upload(builder: Builder, name: str, file: Path) -> Path:
    """A folder with that package and a .changes of it."""
    made = builder.upload(name, key=None)
    old = made.file("*.deb")
    shutil.copy(file, old)
    subprocess.run(
        ["sh", "-c", 'cd "$0" && changestool *.changes updatechecksums', made.folder], check=True, capture_output=True
    )
    return made.folder


def send(instance: Instance, folder: Path, name: str) -> str:
    shutil.copytree(folder, instance.incoming / f".{name}")
    (instance.incoming / f".{name}").rename(instance.incoming / name)
    return name


def client(instance: Instance, root: Path) -> Apt:
    apt = Apt(root / "apt", instance.archive.as_uri(), instance.keyring)
    apt.update()
    return apt


def stanzas(instance: Instance) -> str:
    path = instance.archive / "dists/stable/main/binary-amd64/Packages.gz"
    return gzip.decompress(path.read_bytes()).decode()


def test_fields_of_the_index_do_not_survive_in_whatever_way_they_come(
    lenient: Instance, builder: Builder, tmp_path: Path
) -> None:
    made = {name: deb(tmp_path / name, name, **SAID, **{"X-Odd": "kept"}) for name in ("one", "two", "three")}
    told = [lenient.succeeded(send(lenient, upload(builder, "one", made["one"]), "changes"))]
    told.append(lenient.succeeded(send(lenient, tmp_path / "two", "bare")))
    for status in told:
        (warning,) = status["warnings"]
        assert warning["code"] == "index-field"
        assert "Checksum-FileSize, filename, Size" in warning["message"]
    imported = lenient.ctl("import", "--suite", "stable", tmp_path / "three")
    assert imported.returncode == 0, imported.stderr
    assert "warning: it has the fields Checksum-FileSize, filename" in imported.stderr
    text = stanzas(lenient)
    assert text.count("X-Odd: kept") == 3
    for word in ("Checksum-FileSize", "other_1.0", "Description-md5", "SHA512", "0" * 32):
        assert word not in text
    apt = client(lenient, tmp_path)
    assert (apt.install("one", "two", "three") / "usr/share/doc/three/README").exists()


def test_a_source_cannot_say_them_either(lenient: Instance, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    packages.source(tmp_path / "src", "hello", "1.0-1", form="quilt")
    (dsc,) = (tmp_path / "src").glob("*.dsc")
    dsc.write_text(f"{dsc.read_text()}Checksum-FileSize: 1\nDirectory: pool\n")
    imported = lenient.ctl("import", "--suite", "stable", tmp_path / "src")
    assert imported.returncode == 0, imported.stderr
    assert "warning: it has the field Checksum-FileSize" in imported.stderr
    text = gzip.decompress((lenient.archive / "dists/stable/main/source/Sources.gz").read_bytes()).decode()
    assert "FileSize" not in text
    assert text.count("Directory: pool/main/h/hello\n") == text.count("Directory:") == 1
    assert "hello-1.0" in client(lenient, tmp_path).source("hello")


def sized(folder: Path, name: str, size: int) -> Path:
    """A package whose stanza in Packages has so many bytes, its empty line among them."""
    more = 0
    while True:  # the number of digits of the file's own size is in it, too
        made = deb(folder / name, name, size=size - 500 + more)
        found = packages_size(made)
        if found == size:
            return made
        more += size - found


def packages_size(file: Path) -> int:
    """How many bytes the stanza of that package has."""
    entry = fsio.hash_file(file)
    now = datetime.now(UTC)
    found = check_alone(file, entry, lambda _section, _name: "main", now, checks=ChecksConfig(), overridden=Overrides())
    assert found.package, found.problems
    return len(packages_stanza(found.package, f"pool/main/m/{file.name[:4]}/{file.name}", PublishConfig()))


@pytest.mark.parametrize("way", ["changes", "bare", "import"])
def test_a_stanza_of_one_mebibyte_and_no_more(lenient: Instance, builder: Builder, tmp_path: Path, way: str) -> None:
    most, more = sized(tmp_path, "most", MOST), sized(tmp_path, "more", MOST + 1)
    assert more.stat().st_size < MOST
    if way == "import":
        refused = lenient.ctl("import", "--suite", "stable", more.parent)
        assert refused.returncode == 1
        assert f"would have {MOST + 1} bytes, and {MOST} are allowed" in refused.stdout
        assert lenient.ctl("import", "--suite", "stable", most.parent).returncode == 0
    else:
        folders = [upload(builder, one.parent.name, one) if way == "changes" else one.parent for one in (most, more)]
        assert lenient.failed(send(lenient, folders[1], "more")) == ["stanza-too-large"]
        lenient.succeeded(send(lenient, folders[0], "most"))
    assert len(stanzas(lenient)) == MOST
    apt = client(lenient, tmp_path)
    assert apt.candidate("most") == "1.0-1"
    assert (apt.install("most") / "usr/share/doc/most/README").exists()


def test_a_control_file_that_is_too_large_is_not_read(lenient: Instance, tmp_path: Path) -> None:
    large = deb(tmp_path / "large", "large", size=MOST + 1)
    assert lenient.failed(send(lenient, large.parent, "large")) == ["stanza-too-large"]


def test_the_limit_can_be_lowered_and_holds_for_sources(lenient: Instance, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    packages.source(tmp_path / "src", "hello", "1.0-1", form="quilt")
    (dsc,) = (tmp_path / "src").glob("*.dsc")
    # The text fits, and what the index adds of its own digests does not.
    for most in (500, dsc.stat().st_size):
        lenient.set("checks", max_stanza=most)
        assert lenient.ctl("reload").returncode == 0
        refused = lenient.ctl("import", "--suite", "stable", tmp_path / "src")
        assert refused.returncode == 1
        assert f"and {most} are allowed" in refused.stdout
    lenient.set("checks", max_stanza="1M")
    assert lenient.ctl("reload").returncode == 0
    assert lenient.ctl("import", "--suite", "stable", tmp_path / "src").returncode == 0
    lenient.set("checks", max_stanza="2M")
    refused = lenient.run("incomingd", "--check-config")
    assert refused.returncode == 2
    assert 'a size of at most "1M"' in refused.stderr
