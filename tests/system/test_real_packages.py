"""More than a hundred packages of many kinds as Debian built them, each with its source: every one is published.

Their stanzas say what ``apt-ftparchive`` says of the same files, field by field and in the same order.

Where the two differ, :data:`PACKAGES_DIFFER` and :data:`SOURCES_DIFFER` say why. Debian keeps its -dbgsym packages in
an archive of their own; tests/system/test_families.py makes some.
"""

import hashlib
import lzma
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from debian.deb822 import Dsc
from debian.debfile import DebFile

from tests.support.debian import Registry, fetched
from tests.support.instance import Instance
from tests.support.uploads import Builder, Upload

#: Small source packages, by what is special about them or about what is built of them. Most are so in several ways.
SOURCES = {
    "3.0 (native)": "architecture-properties hostname meta-phosh mysql-defaults tmperamental",
    "1.0, native": "authbind dh-buildinfo electric-fence memstat",
    "1.0, orig and diff": "dhis-mx-sendmail-engine leave makexvpics nrg2iso",
    "3.0 (quilt) with several origs": "boolector cutesdr gflags mescc-tools",
    "an orig of bzip2": "9mount bindechexascii",
    "an orig with its signature": "chaos-marmosets hello resolvconf-admin rsakeyfind",
    "udebs": "pwgen rdate udpkg",
    "an epoch": "egctl fenics golang-defaults",
    "Multi-Arch same, foreign and allowed": "brightnessctl oflib what-is-python",
    "versioned Provides": "qt6-lottie rng-tools-debian",
    "binNMUs": "haskell-storable-complex haskell-text-binary ksmtuned python-mapbox-earcut",
    "Essential and Important": "init-system-helpers",
    "many binaries, of versions of their own": "bfh-metapackages gcc-defaults python3-defaults",
    "Static-Built-Using": "go-md2man-v2",
    "nothing but Architecture: all": "raku",
}
#: Debian packs with xz; these are packed anew.
REPACKED = {"raku": "gzip", "egctl": "zstd", "g++": "none", "memstat": "zstd", "pwgen-udeb": "gzip"}

#: The fields that differ, and why.
PACKAGES_DIFFER = {
    "SHA512": "apt takes SHA256, which each stanza has, and the archive computes no more than it needs",
}
SOURCES_DIFFER = {
    "Checksums-Sha512": PACKAGES_DIFFER["SHA512"],
    "Section": "no .dsc has one; the .changes has, and apt-ftparchive would want an override file for it",
    "Priority": "as Section",
    "Uploaders": "apt-ftparchive keeps the second blank before a value in Sources",
}

Stanza = list[tuple[str, str]]


@pytest.fixture(scope="session")
def packages() -> Path:
    """The folder with all of them."""

    def fetch(registry: Registry, folder: Path) -> None:
        registry.sources(folder, " ".join(SOURCES.values()).split())
        registry.download(folder, registry.binaries(Dsc(dsc.read_bytes()) for dsc in folder.glob("*.dsc")))
        for deb in folder.glob("*%3a*"):  # apt's names have the epoch, Debian's have not
            deb.rename(folder / re.sub("_[0-9]+%3a", "_", deb.name))
        for name, compression in REPACKED.items():
            repack(next(folder.glob(f"{name}_*deb")), compression)

    chosen = hashlib.sha256(repr((SOURCES, REPACKED)).encode()).hexdigest()
    return fetched(f"packages-{chosen[:12]}", fetch)


def repack(deb: Path, compression: str) -> None:
    with tempfile.TemporaryDirectory(prefix="incomingd-repack-") as tree:
        subprocess.run(["dpkg-deb", "--raw-extract", deb, tree], check=True)
        subprocess.run(["dpkg-deb", f"-Z{compression}", "--build", tree, deb], check=True, capture_output=True)


def uploads(packages: Path, builder: Builder) -> Iterator[Upload]:
    """Each source with its binaries, and then the rebuilt binaries by themselves."""
    sources = {file: Dsc(file.read_bytes()) for file in packages.glob("*.dsc")}
    built: dict[tuple[str, str, str], list[Path]] = {}
    for deb in packages.glob("*deb"):
        control = DebFile(str(deb)).debcontrol()
        source, _, version = control.get("Source", control["Package"]).partition(" ")
        built.setdefault((source, version.strip("()") or control["Version"], control["Version"]), []).append(deb)
    assert {one[:2] for one in built} == {(fields["Source"], fields["Version"]) for fields in sources.values()}
    for dsc, fields in sources.items():
        debs = built.pop((fields["Source"], fields["Version"], fields["Version"]), [])
        yield upload(builder, [dsc, *(packages / row["name"] for row in fields["Files"]), *debs])
    for debs in built.values():
        yield upload(builder, debs)


def upload(builder: Builder, files: list[Path]) -> Upload:
    folder = builder.folder / files[0].stem
    folder.mkdir(parents=True)
    return builder.sign(folder, [Path(shutil.copy(file, folder)) for file in files])


def stanzas(text: str) -> Iterator[Stanza]:
    """Names and values as they stand, less the blank that separates them."""
    for paragraph in text.strip().split("\n\n"):
        fields = re.findall(r"^(\S+):((?:.*)(?:\n[ \t].*)*)$", paragraph, re.MULTILINE)
        assert sum(value.count("\n") + 1 for _, value in fields) == paragraph.count("\n") + 1
        yield [(name, value.removeprefix(" ")) for name, value in fields]


def index(suite: Path, name: str) -> list[Stanza]:
    """All stanzas of the indexes of that name, in all components."""
    texts = (lzma.decompress(file.read_bytes()).decode() for file in suite.glob(f"**/{name}.xz"))
    return [stanza for text in texts if text for stanza in stanzas(text)]


def compared(published: list[Stanza], expected: list[Stanza], key: tuple[str, ...], ignored: Mapping[str, str]) -> int:
    """Fail at the first stanza that differs in more than is listed; how many there are."""

    def by_key(some: list[Stanza]) -> dict[tuple[str, ...], Stanza]:
        found = {tuple(dict(stanza)[name] for name in key): stanza for stanza in some}
        assert len(found) == len(some)
        return found

    ours, theirs = by_key(published), by_key(expected)
    assert ours.keys() == theirs.keys()
    for one, stanza in ours.items():
        ignoring = [[field for field in fields if field[0] not in ignored] for fields in (stanza, theirs[one])]
        assert ignoring[0] == ignoring[1], one
    return len(ours)


def ftparchive(archive: Path, what: str) -> list[Stanza]:
    done = subprocess.run(["apt-ftparchive", "-q", what, "pool"], cwd=archive, check=True, stdout=subprocess.PIPE)
    return list(stanzas(done.stdout.decode()))


def test_a_hundred_real_packages(idle: Instance, packages: Path, builder: Builder) -> None:
    here = subprocess.run(["dpkg", "--print-architecture"], check=True, capture_output=True, text=True).stdout.strip()
    idle.set("suites.stable", architectures=[here])
    idle.set("checks", require_source=True)
    idle.start()
    sent = [one.send_directory(idle.incoming) for one in uploads(packages, builder)]
    found = [idle.wait(name) for name in sent]
    assert {one["name"]: one["problems"] for one in found if one["problems"]} == {}
    # The maintainers' keys are not trusted here, and need not be: the signed .changes vouches for the .dsc. Some of
    # the packages are Essential or Important, which every key may bring if there is no table of uploaders.
    assert {warning["code"] for one in found for warning in one["warnings"]} == {"unknown-key", "essential-package"}

    suite = idle.archive / "dists/stable"
    binaries, sources = index(suite, "Packages"), index(suite, "Sources")
    assert compared(binaries, ftparchive(idle.archive, "packages"), ("Filename",), PACKAGES_DIFFER) >= 100
    assert compared(sources, ftparchive(idle.archive, "sources"), ("Package", "Version"), SOURCES_DIFFER) == len(
        " ".join(SOURCES.values()).split()
    )
    udebs = index(suite / "main/debian-installer", "Packages")
    assert {dict(one)["Package"] for one in udebs} == {"pwgen-udeb", "rdate-udeb", "udpkg"}
    checked = idle.ctl("fsck", "--deep")
    assert checked.returncode == 0, checked.stdout
