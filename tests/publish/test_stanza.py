"""Stanzas of Packages and Sources, beside those that apt-ftparchive writes of the same pool."""

import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from incomingd.config import PublishConfig
from incomingd.model import BinaryKind, BinaryPackage, Digests, Fields, FileEntry, SourcePackage
from incomingd.publish.stanza import packages_stanza, sources_stanza
from tests.support.debian import debian_hello

BARE = PublishConfig()


def entry(path: Path) -> FileEntry:
    data = path.read_bytes()
    md5, sha1, sha256 = (hashlib.new(name, data).hexdigest() for name in ("md5", "sha1", "sha256"))
    return FileEntry(name=path.name, size=len(data), digests=Digests(md5=md5, sha1=sha1, sha256=sha256))


def fields_of(text: str) -> Fields:
    fields: list[tuple[str, str]] = []
    for line in text.rstrip("\n").split("\n"):
        if line[0] in " \t":
            fields[-1] = (fields[-1][0], f"{fields[-1][1]}\n{line.rstrip()}")
        else:
            name, _, value = line.partition(":")
            fields.append((name, value.strip()))
    return tuple(fields)


def binary_of(path: Path) -> BinaryPackage:
    text = subprocess.run(["dpkg-deb", "--info", path, "control"], capture_output=True, check=True, text=True).stdout
    control = fields_of(text)
    by_name = {name.lower(): value for name, value in control}
    source, _, version = by_name.get("source", by_name["package"]).partition(" ")
    return BinaryPackage(
        kind=BinaryKind(path.suffix[1:]),
        file=entry(path),
        package=by_name["package"],
        version=by_name["version"],
        architecture=by_name["architecture"],
        source=source,
        source_version=version.strip("()") or by_name["version"],
        component="main",
        section=by_name.get("section", ""),
        priority=by_name.get("priority", ""),
        control=control,
    )


def source_of(path: Path, section: str = "", priority: str = "") -> SourcePackage:
    text = path.read_text()
    if text.startswith("-----BEGIN PGP SIGNED"):
        text = text.split("\n\n", 1)[1].split("\n-----BEGIN PGP SIGNATURE", 1)[0]
    fields = fields_of(text.rstrip("\n"))
    by_name = {name.lower(): value for name, value in fields}
    names = [line.split()[2] for line in by_name["checksums-sha256"].split("\n") if line]
    return SourcePackage(
        dsc=entry(path),
        source=by_name["source"],
        version=by_name["version"],
        component="main",
        section=section,
        priority=priority,
        fields=fields,
        files=tuple(entry(path.parent / name) for name in names),
        in_upload=frozenset(names),
    )


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that the pool's paths count from."""
    for tool in ("apt-ftparchive", "dpkg-deb", "dpkg-source"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")
    top = tmp_path_factory.mktemp("archive")
    (top / "pool/main/t/tricky").mkdir(parents=True)
    return top


def build_deb(top: Path, control: str, ending: str = "deb") -> Path:
    tree = top / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(control)
    by_name = dict(fields_of(control))
    name = f"{by_name['Package']}_{by_name['Version'].split(':')[-1]}_{by_name['Architecture']}.{ending}"
    target = top / "pool/main/t/tricky" / name
    subprocess.run(["dpkg-deb", "-Znone", "--nocheck", "--build", tree, target], capture_output=True, check=True)
    return target


def ftparchive(top: Path, kind: str, *paths: Path) -> dict[str, str]:
    """apt-ftparchive's stanzas, by the file that each is of."""
    command = ["apt-ftparchive", "-q", "-o", f"APT::FTPArchive::{kind.title()}::SHA512=false", kind, "pool"]
    text = subprocess.run(command, cwd=top, capture_output=True, check=True, text=True).stdout
    stanzas = [stanza + "\n\n" for stanza in text.split("\n\n") if stanza.strip()]
    return {path.name: next(s for s in stanzas if f" {path.name}\n" in s or f"/{path.name}\n" in s) for path in paths}


USUAL = """\
Package: tricky
Version: 1:2.0-3~rc1+b1
Architecture: amd64
Maintainer: Jörg Müller <jm@example.org>
Installed-Size: 12
Depends: libc6 (>= 2.36), libfoo1 | libfoo2
Section: utils
Priority: optional
Description: short, with ünïcode
 Long text.
 .
   indented: with a colon
"""
TRICKY = {
    "the usual": USUAL,
    "every place of the order": """\
Task: x
Tag: a::b
Description: d
Homepage: https://example.org
Enhances: e
Replaces: r
Breaks: b
Conflicts: c
Suggests: s
Recommends: r
Depends: d
Pre-Depends: p
Provides: p (= 1)
Maintainer: M <m@example.org>
Source: other (1.0-1)
Section: contrib/libs
Essential: yes
Priority: important
Multi-Arch: same
Built-Using: gcc-12 (= 12.2.0-14)
Static-Built-Using: rust (= 1)
Version: 0.1
Architecture: all
Package: ordered
""",
    "fields that apt does not know": """\
Package: unknown-fields
Zebra: last of all
Python-Version: 3.11
Version: 1
Architecture: amd64
Maintainer: M <m@example.org>
Ruby-Versions: all
Original-Maintainer: O <o@example.org>
Gstreamer-Elements: a, b,
 c,
\td
Build-Ids: 0123456789abcdef
Description: d
Auto-Built-Package: debug-symbols
""",
    "other spellings": """\
package: spelled
VERSION: 1
architecture: amd64
MAINTAINER: M <m@example.org>
section: misc
installed-size: 5
x-cOlOuR: red
description: d
""",
    "no section, no priority": "Package: bare\nVersion: 1\nArchitecture: all\nMaintainer: M <m@e>\nDescription: x\n",
    "a first line that is empty": """\
Package: hollow
Version: 1
Architecture: all
Maintainer: M <m@e.org>
Depends:
 a,
 b
Description: d
""",
}


@pytest.mark.parametrize("control", TRICKY.values(), ids=TRICKY)
def test_packages_as_apt_ftparchive_writes_it(control: str, pool: Path) -> None:
    lines = control.split("\n")
    named = dict(fields_of(control))
    if "Package" not in named:  # the builder below asks for the usual spelling
        control = "\n".join([lines[0].title(), lines[1].title(), lines[2].title(), *lines[3:]])
    deb = build_deb(pool, control)
    stanza = packages_stanza(binary_of(deb), str(deb.relative_to(pool)), BARE).decode()
    assert stanza == ftparchive(pool, "packages", deb)[deb.name]


def test_udebs_too(pool: Path) -> None:
    udeb = build_deb(pool, USUAL.replace("tricky", "tricky-udeb") + "Package-Type: udeb\n", "udeb")
    stanza = packages_stanza(binary_of(udeb), str(udeb.relative_to(pool)), BARE).decode()
    assert stanza == ftparchive(pool, "packages", udeb)[udeb.name]


def build_source(top: Path, name: str, source_format: str, control: str) -> Path:
    tree = top / f"{name}-1.0"
    (tree / "debian/source").mkdir(parents=True)
    (tree / "debian/source/format").write_text(source_format + "\n")
    (tree / "debian/control").write_text(control)
    (tree / "debian/changelog").write_text(
        f"{name} (1.0{'' if 'native' in source_format else '-2'}) stable; urgency=low\n\n  * X.\n\n"
        " -- M <m@example.org>  Mon, 23 Nov 2026 08:00:00 +0000\n"
    )
    (tree / "debian/rules").write_text("#!/usr/bin/make -f\n")
    (tree / "README").write_text("hello\n")
    place = top / "pool/main" / name[0] / name
    place.mkdir(parents=True)
    if "native" not in source_format:
        orig = place / f"{name}_1.0.orig.tar.gz"
        subprocess.run(["tar", "-czf", orig, "--exclude=debian", "-C", top, tree.name], check=True)
    subprocess.run(["dpkg-source", "--build", tree], cwd=place, capture_output=True, check=True)
    return next(place.glob("*.dsc"))


@pytest.mark.parametrize(
    ("name", "source_format", "extra"),
    [
        ("quilted", "3.0 (quilt)", ""),
        ("native", "3.0 (native)", "Vcs-Git: https://example.org/x.git\nHomepage: https://example.org\n"),
        (
            "old",
            "1.0",
            "Uploaders: A <a@example.org>, B <b@example.org>\nXS-Python-Version: 3\nTestsuite: autopkgtest\n",
        ),
    ],
)
def test_sources_as_apt_ftparchive_writes_it(name: str, source_format: str, extra: str, pool: Path) -> None:
    control = (
        f"Source: {name}\nSection: utils\nPriority: optional\nMaintainer: M <m@example.org>\nStandards-Version: 4.6.2\n"
        f"Build-Depends: debhelper-compat (= 13), libfoo-dev <!nocheck>\nBuild-Conflicts: bar\n{extra}\n"
        f"Package: {name}\nArchitecture: any\nDescription: d\n x\n\n"
        f"Package: {name}-doc\nArchitecture: all\nDescription: d\n x\n"
    )
    dsc = build_source(pool, name, source_format, control)
    stanza = sources_stanza(source_of(dsc), str(dsc.parent.relative_to(pool)), BARE).decode()
    assert stanza == ftparchive(pool, "sources", dsc)[dsc.name]


@pytest.fixture(scope="module")
def real(pool: Path) -> tuple[Path, Path]:
    """hello from Debian's registry: a .deb and a .dsc with its files."""
    place = pool / "pool/main/h/hello"
    shutil.copytree(debian_hello(), place)
    return next(place.glob("*.deb")), next(place.glob("*.dsc"))


def test_a_real_package_and_its_source(real: tuple[Path, Path], pool: Path) -> None:
    deb, dsc = real
    ours = packages_stanza(binary_of(deb), str(deb.relative_to(pool)), BARE).decode()
    assert ours == ftparchive(pool, "packages", deb)[deb.name]
    ours = sources_stanza(source_of(dsc), str(dsc.parent.relative_to(pool)), BARE).decode()
    assert ours == ftparchive(pool, "sources", dsc)[dsc.name]


def a_binary(*more: tuple[str, str], **other: str) -> BinaryPackage:
    control = (("Package", "p"), ("Version", "1"), ("Architecture", "all"), ("Section", "old"), *more)
    return BinaryPackage(
        kind=BinaryKind.DEB,
        file=FileEntry(name="p_1_all.deb", size=7, digests=Digests(md5="m" * 32, sha1="s" * 40, sha256="t" * 64)),
        package="p",
        version="1",
        architecture="all",
        source="p",
        source_version="1",
        component="main",
        section=other.get("section", "net"),
        priority=other.get("priority", "extra"),
        control=control,
    )


def test_section_and_priority_are_those_of_the_changes() -> None:
    stanza = packages_stanza(a_binary(), "pool/p", BARE).decode()
    assert "\nPriority: extra\nSection: net\nFilename: pool/p\n" in stanza
    assert "Section" not in packages_stanza(a_binary(section=""), "pool/p", BARE).decode()


def test_digests_are_settable() -> None:
    stanza = packages_stanza(a_binary(), "pool/p", PublishConfig(md5sum=False, sha1=False)).decode()
    assert f"\nSize: 7\nSHA256: {'t' * 64}\n" in stanza
    assert "MD5sum" not in stanza


@pytest.mark.parametrize(
    "field",
    ["SHA512", "sha512", "MD5SUM", "Filename", "SIZE", "SHA256", "Description-md5", "Description-MD5", "Status"],
)
def test_what_the_uploader_says_of_the_file_does_not_count(field: str) -> None:
    stanza = packages_stanza(a_binary((field, "wrong")), "pool/p", BARE).decode()
    assert "wrong" not in stanza
    assert "wrong" not in packages_stanza(a_binary((field, "wrong")), "p", PublishConfig(md5sum=False)).decode()


def test_checksums_of_a_source_that_were_not_computed_here_are_left_out() -> None:
    rows = "\n 00 7 p_1.tar.gz"
    one = a_binary().file
    source = SourcePackage(
        dsc=replace(one, name="p_1.dsc"),
        source="p",
        version="1",
        component="main",
        section="net",
        priority="optional",
        fields=(("Format", "3.0 (native)"), ("Source", "p"), ("Checksums-Sha512", rows), ("Checksums-Md5", rows)),
        files=(replace(one, name="p_1.tar.gz"),),
        in_upload=frozenset({"p_1.tar.gz"}),
    )
    assert sources_stanza(source, "pool/main/p/p", PublishConfig(md5sum=False, sha1=False)).decode() == (
        "Package: p\nFormat: 3.0 (native)\nVersion: 1\nPriority: optional\nSection: net\nDirectory: pool/main/p/p\n"
        f"Checksums-Sha256:\n {'t' * 64} 7 p_1.dsc\n {'t' * 64} 7 p_1.tar.gz\n\n"
    )


@pytest.mark.parametrize(
    "field",
    [
        ("Description", "d\n\nPackage: evil"),
        ("Description", "d\nPackage: evil"),
        ("Description", "d\n \n x"),
        ("Description", "d\n\t\n x"),
        ("Description", "d\r\n x"),
        ("Description", "d\n x\n"),
        ("Description", "d\0"),
        ("Evil\nPackage", "x"),
        ("Evil:Package", "x"),
        ("", "x"),
        ("#x", "x"),
        ("-x", "x"),
        ("Ünï", "x"),
    ],
    ids=repr,
)
def test_no_field_opens_a_second_stanza(field: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="no stanza can hold"):
        packages_stanza(a_binary(field), "pool/p", BARE)


@pytest.mark.parametrize("value", ["", "\n x", " .", "d\n .\n\tx\n  \xa0", "\xa0", "a\u2028b", "d\n x:\ty "], ids=repr)
def test_odd_values_that_are_good(value: str) -> None:
    stanza = packages_stanza(a_binary(("Description", value)), "pool/p", BARE)
    blank = "" if value[:1] in ("", " ", "\n") else " "
    assert f"\nDescription:{blank}{value}\n\n".encode() in stanza
