"""What is right is accepted, of every kind."""

import bz2
import gzip
import lzma
from collections.abc import Callable
from typing import Any

import pytest
import zstandard

from incomingd.model import BinaryKind
from tests.verify.builders import (
    SIGNATURE,
    Bench,
    Members,
    Upload,
    ar_parts,
    codes,
    control_tar,
    data_tar,
    dpkg_deb,
    drop,
    every,
    lead,
    put,
    swap,
    tar,
    told,
)

ORIG = "hello_1.0.orig.tar.gz"
BINARY = {"sourceful": False}
SOURCE = {"binary": False, "suffix": "source"}
BINNMU = every(put("Source", "hello (1.0-1)"), put("Binary-Only", "yes"))


def packed(number: int, ending: str, how: Callable[[bytes], bytes]) -> Callable[[Members], Members]:
    """control.tar (1) or data.tar (2) compressed in another way."""

    def altered(members: Members) -> Members:
        name, raw = ("control.tar", control_tar(members)) if number == 1 else ("data.tar", data_tar())
        return [*members[:number], (name + ending, how(raw)), *members[number + 1 :]]

    return altered


def without_orig(files: dict[str, bytes]) -> None:
    files.pop(ORIG)


def in_two_streams(files: dict[str, bytes]) -> None:
    """As pbzip2 packs."""
    raw = gzip.decompress(files.pop(ORIG))
    files["hello_1.0.orig.tar.bz2"] = bz2.compress(raw[:700]) + bz2.compress(raw[700:])


def lzma_alone(data: bytes) -> bytes:
    return lzma.compress(data, lzma.FORMAT_ALONE)


SOUND: dict[str, dict[str, Any]] = {
    "binary and source": {},
    "source alone": SOURCE,
    "binary alone": BINARY,
    "3.0 (native)": {"form": "3.0 (native)", "version": "1.0"},
    "1.0 with a diff": {"form": "1.0"},
    "1.0, native": {"form": "1.0", "version": "1.0"},
    "quilt with a component": {"components": True},
    "an orig of several streams": {"tarballs": in_two_streams},
    "quilt with a component and its signature": {
        "components": True,
        "tarballs": lambda files: files.update({"hello_1.0.orig-doc.tar.gz.asc": SIGNATURE}),
    },
    "quilt with an upstream signature": {"tarballs": lambda files: files.update({f"{ORIG}.asc": SIGNATURE})},
    "an epoch": {"version": "1:1.0-1"},
    "a tilde and a plus": {"version": "1.0~rc1+ds-1~bpo12+1"},
    "an orig from the archive": {"listed": without_orig},
    "an orig from the archive, listed": {"sent": without_orig},
    "Architecture: all": {"architecture": "all", "suffix": "all"},
    "Architecture: all without source": {"architecture": "all", "suffix": "all", **BINARY},
    "a udeb": {"kind": "udeb", "section": "debian-installer", "package": "hello-udeb"},
    "a ddeb": {"kind": "ddeb", "package": "hello-dbgsym", "changes": put("Binary", "hello")},
    "a -dbgsym beside its package": {"package": "hello-dbgsym", "changes": put("Binary", "hello")},
    "a binNMU": {"version": "1.0-1+b1", "control": put("Source", "hello (1.0-1)"), "changes": BINNMU, **BINARY},
    "a binNMU whose .changes does not say of what": {
        "version": "1.0-1+b1", "control": put("Source", "hello (1.0-1)"), **BINARY,
    },
    "a udeb that says so": {
        "kind": "udeb", "section": "debian-installer", "package": "hello-udeb", "control": put("Package-Type", "udeb"),
    },
    "a binNMU of a package with a version of its own": {
        "version": "1.0-1+b1", "deb_name": "hello_4.2+b1_amd64.deb", "changes": BINNMU, **BINARY,
        "control": every(put("Version", "4.2+b1"), put("Source", "hello (1.0-1)")),
    },
    "a package with a version of its own": {
        "control": every(put("Version", "4.2"), put("Source", "hello (1.0-1)")),
        "deb_name": "hello_4.2_amd64.deb",
    },
    "names and descriptions in UTF-8": {
        "changes": put("Changed-By", "Žofie Ångström <z@example.org>"),
        "control": swap(" It does.", " Það gerir það. 你好"),
    },
    "fields that nobody knows": {"control": put("X-Ticket", "one\n two"), "changes": put("X-Ci-Job", "7")},
    "Format 1.7": {"changes": put("Format", "1.7")},
    "no Checksums-Sha1": {"changes": drop("Checksums-Sha1"), "dsc": drop("Checksums-Sha1")},
    "a contrib package": {"section": "contrib/devel"},
    "a section of one's own": {"section": "oddities", "settings": {"checks.extra_sections": ["oddities"]}},
    "unsigned where that is allowed": {"by": "", "settings": {"incoming.default.signatures": "optional"}},
    "signed by a subkey": {"by": "bob"},
    "blank lines around the signed block": {"signed": lambda data: b"\n \n" + data + b"\n\t\n"},
    "a .dsc signed by the same key": {"dsc_by": "ada", "settings": {"checks.require_dsc_signature": True}},
    "a .dsc signed by another trusted key": {"dsc_by": "bob"},
    "a .buildinfo": {"listed": lambda files: files.update({"hello_1.0-1_amd64.buildinfo": b"Format: 1.0\nA: b\n"})},
    "two suites": {
        "changes": put("Distribution", "stable testing"),
        "settings": {"suites.testing": {"components": ["main"], "architectures": ["amd64"]}},
    },
    "alternatives": {"control": put("Depends", "libc6 (>= 2.36), aa | bb:any (<< 1:2~), cc")},
    "a trailing comma in a .dsc": {"dsc": put("Build-Depends", "debhelper (>= 13), gcc | clang,")},
    "a versioned Provides": {"control": put("Provides", "hi (= 1.0), ho")},
    "Built-Using": {"control": put("Built-Using", "gcc-12 (= 12.2.0-14)")},
    "a Depends over several lines": {"control": put("Depends", "libc6,\n libgcc-s1 (>= 3.0)")},
    "a link inside of the tree": {
        "tarballs": lambda f: f.update({ORIG: tar(("hello-1.0/a/b", "../c"), ("hello-1.0/c", b""))})
    },
    "links in a circle, and through another": {
        "tarballs": lambda f: f.update({ORIG: tar(
            ("h/a", "b"), ("h/b", "a"), ("h/lib", "usr/lib"), ("h/usr/lib/", b""),
            ("h/x", "lib/../share"), ("h/e", "/etc"),
        )})
    },
    "a member that begins with _": {"parts": lambda members: [*members[:1], ("_gpgorigin", b"x"), *members[1:]]},
    "Multi-Arch: same": {"control": every(put("Multi-Arch", "same"), put("Essential", "no"))},
    "a later minor format": {"parts": lambda members: [("debian-binary", b"2.1\nmore\n"), *members[1:]]},
    **{f"control.tar{end}": {"parts": packed(1, end, how)} for end, how in (
        ("", bytes), (".xz", lzma.compress), (".zst", zstandard.ZstdCompressor().compress),
    )},
    **{f"data.tar{end}": {"parts": packed(2, end, how)} for end, how in (
        ("", bytes), (".xz", lzma.compress), (".zst", zstandard.ZstdCompressor().compress), (".bz2", bz2.compress),
        (".lzma", lzma_alone),
    )},
    "a key with the right": {"settings": {"uploaders": [{"key": "ada", "sources": ["hel*"], "suites": ["sta*"]}]}},
    "a right of the primary key serves its subkey": {"by": "bob", "settings": {"uploaders": [{"key": "bob"}]}},
    "a right of the subkey serves it": {"by": "bob", "settings": {"uploaders": [{"key": "bob-subkey"}]}},
    "binaries only": {"settings": {"uploaders": [{"key": "ada", "binaries_only": True}]}, **BINARY},
    "the second of two rows": {
        "settings": {"uploaders": [{"key": "ada", "sources": ["x"]}, {"key": "ada", "sources": ["hello"]}]}
    },
    "unsigned, with an uploaders table": {
        "by": "", "settings": {"incoming.default.signatures": "optional", "uploaders": [{"key": "bob"}]},
    },
    "a dependency field of 300 KiB on one line": {
        "control": put("Depends", ", ".join(f"some-library-of-many-{n}" for n in range(12_000))),
    },
    "a package that unpacks to more than usual": {
        "parts": lambda members: [*members[:2], ("data.tar.gz", tar(("./x", bytes(1200 << 20))))],
        "settings": {"checks.max_unpacked": "2G"},
        "sourceful": False,
    },
}  # fmt: skip


@pytest.mark.parametrize("options", SOUND.values(), ids=SOUND)
def test_what_is_right_is_accepted(bench: Bench, options: dict[str, Any]) -> None:
    report = bench.check(Upload(**options))
    assert codes((*report.problems, *report.warnings)) == [], "\n".join(told(report))
    assert len(report.changes) == 1


@pytest.mark.parametrize("compression", ["gzip", "xz", "zstd", "none"])
def test_what_dpkg_deb_writes_is_read(bench: Bench, compression: str) -> None:
    built = dpkg_deb(bench.control(), compression)
    report = bench.check(Upload(sourceful=False, deb=lambda _: built))
    assert codes((*report.problems, *report.warnings)) == [], "\n".join(told(report))


def test_who_signed_is_told_by_the_primary_key(bench: Bench) -> None:
    fingerprints = bench.keys.fingerprints
    assert bench.check(Upload(by="bob")).changes[0].signed_by == fingerprints["bob"]
    assert bench.check(Upload(by="ada")).summaries[0].signed_by == fingerprints["ada"]


def test_what_is_handed_on(bench: Bench) -> None:
    report = bench.check(Upload(version="2:1.0-1", section="contrib/devel", control=put("X-Ticket", "one\n two")))
    (changes,) = report.changes
    (binary,), (source,) = changes.binaries, changes.sources
    assert (binary.kind, binary.package, binary.version, binary.architecture) == (
        *(BinaryKind.DEB, "hello", "2:1.0-1", "amd64"),
    )
    assert (binary.source, binary.source_version) == ("hello", "2:1.0-1")
    assert (binary.component, binary.section, binary.priority) == ("contrib", "contrib/devel", "optional")
    assert ("X-Ticket", "one\n two") in binary.control
    assert (source.source, source.version, source.component) == ("hello", "2:1.0-1", "contrib")
    assert {file.name for file in source.files} == {ORIG, "hello_1.0-1.debian.tar.xz"} == source.in_upload
    assert (changes.suites, changes.distribution) == (("stable",), "stable")


@pytest.mark.parametrize("name", ["a:b.deb", "a b.deb"])
def test_what_is_listed_under_a_name_that_no_file_may_have_is_not_told_to_be_unlisted(bench: Bench, name: str) -> None:
    report = bench.check(Upload(listed=lambda files: files.update({name: b"x"})))
    assert report.problems
    assert report.warnings == ()


def test_an_orig_beside_the_upload_that_no_changes_lists_is_left_out(bench: Bench) -> None:
    """A .dsc may name it; but what the .changes does not list is not published from the upload."""
    orig: dict[str, bytes] = {}
    report = bench.check(
        Upload(listed=lambda files: orig.update({ORIG: files.pop(ORIG)}), sent=lambda files: files.update(orig))
    )
    assert codes(report.problems) == []
    assert codes(report.warnings) == ["unlisted-file"]
    assert report.changes[0].sources[0].in_upload == {"hello_1.0-1.debian.tar.xz"}


def test_all_problems_are_told_together(bench: Bench) -> None:
    report = bench.check(
        Upload(
            changes=every(put("Date", "today"), put("Distribution", "sid"), lead("Closes: none\n")),
            dsc=put("Build-Depends", "gcc (13)"),
            control=put("Provides", "hi (>= 1)"),
            sent=lambda files: files.update({"hello_1.0-1.debian.tar.xz": b"other"}),
        )
    )
    assert set(codes(report.problems)) == {
        *("bad-date", "bad-closes", "unknown-distribution", "bad-relation", "size-mismatch", "source-file-mismatch"),
    }
    assert {problem.file for problem in report.problems if problem.code == "bad-relation"} == {
        *("hello_1.0-1.dsc", "hello_1.0-1_amd64.deb"),
    }


def test_a_text_whose_signature_is_not_good_is_not_read(bench: Bench) -> None:
    report = bench.check(Upload(by="mallory", changes=put("Date", "today")))
    assert codes(report.problems) == ["unknown-key"]
    assert report.summaries[0].source == ""


def test_before_an_upload_is_authorised_only_names_list_and_rights_are_told(bench: Bench) -> None:
    """Its .dsc and .deb are not even sealed, and nothing else that its .changes says is told."""
    report = bench.check(
        Upload(
            by="ada",
            settings={"uploaders": [{"key": "bob"}]},
            changes=every(put("Date", "today"), put("Distribution", "sid"), put("Maintainer", "nobody")),
            control=put("Provides", "hi (>= 1)"),
            sent=lambda files: files.update({"hello_1.0-1.debian.tar.xz": b"other", "more": b""}),
        )
    )
    assert set(codes(report.problems)) == {"key-not-allowed", "unknown-distribution"}
    assert report.warnings == ()


def test_a_list_that_cannot_be_read_is_told_with_the_text_that_it_is_in(bench: Bench) -> None:
    report = bench.check(Upload(changes=every(put("Date", "today"), drop("Checksums-Sha256"))))
    assert set(codes(report.problems)) >= {"missing-field"}
    assert report.changes == ()


def test_one_of_two_changes_is_not_authorised(bench: Bench) -> None:
    """All of an upload is published, or nothing, so nothing is looked into."""
    files = Upload(control=put("Provides", "hi (>= 1)")).files(bench.keys)
    files["other_1.0-1_amd64.changes"] = Upload(by="mallory").files(bench.keys)["hello_1.0-1_amd64.changes"]
    report = bench.check_files(files)
    assert [(one.code, one.file) for one in report.problems] == [("unknown-key", "other_1.0-1_amd64.changes")]


def test_an_unknown_key_and_a_key_without_the_right_are_two_problems(bench: Bench) -> None:
    table = {"uploaders": [{"key": "bob"}]}
    unknown, without = bench.check(Upload(by="mallory", settings=table)), bench.check(Upload(by="ada", settings=table))
    assert codes(unknown.problems) == ["unknown-key"]
    assert "incomingctl trust" in unknown.problems[0].message
    assert codes(without.problems) == ["key-not-allowed"]
    assert bench.keys.fingerprints["ada"] in without.problems[0].message


def test_a_right_in_one_of_two_suites_is_none_in_the_other(bench: Bench) -> None:
    report = bench.check(
        Upload(
            changes=put("Distribution", "stable testing"),
            settings={"suites.testing": {}, "uploaders": [{"key": "ada", "suites": ["stable"]}]},
        )
    )
    assert "key-not-allowed" in codes(report.problems)
    assert "this is for testing" in next(p.message for p in report.problems if p.code == "key-not-allowed")


def test_the_members_of_a_built_package(bench: Bench) -> None:
    files = Upload(sourceful=False).files(bench.keys)
    names = [name for name, _ in ar_parts(files["hello_1.0-1_amd64.deb"])]
    assert names == ["debian-binary", "control.tar.gz", "data.tar.xz"]
