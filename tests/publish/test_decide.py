"""What depends on the archive is decided in sequence: rule, upload and code in one line."""

import hashlib
import tomllib
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import pytest

from incomingd.config import Config
from incomingd.config.reader import parse
from incomingd.journal.catalogue import Listed, Package, PackageKey, PoolFile
from incomingd.model import (
    BinaryKind,
    BinaryPackage,
    CheckedChanges,
    Digests,
    FileEntry,
    SourcePackage,
)
from incomingd.publish.decide import decide
from incomingd.publish.overlay import Decision, Overlay


def config(extra: str = "") -> Config:
    text = f'[suites.stable]\ncomponents=["main","contrib"]\n{extra}\n[suites.next]\n[incoming.default]\npath="in"'
    return parse(tomllib.loads(text), Path("/x/incomingd.toml"))


CONFIG = config()


class Empty:
    """An archive that holds nothing."""

    def pool_file(self, path: str) -> PoolFile | None:
        return None

    def package(self, key: PackageKey) -> Package | None:
        return None

    def listed(self, suite: str, name: str) -> list[Listed]:
        return []

    def listed_many(self, suite: str, names: Collection[str]) -> dict[str, list[Listed]]:
        return {}

    def was_published(self, changes: CheckedChanges) -> bool:
        return False

    def has_source(self, source: str, version: str) -> bool:
        return False


def entry(name: str, content: str = "") -> FileEntry:
    data = f"{name}{content}".encode()
    md5, sha1, sha256 = (hashlib.new(a, data).hexdigest() for a in ("md5", "sha1", "sha256"))
    return FileEntry(name=name, size=len(data), digests=Digests(md5=md5, sha1=sha1, sha256=sha256))


def binary(version: str = "1.0", arch: str = "amd64", **more: str) -> BinaryPackage:
    name, component = more.get("name", "hello"), more.get("component", "main")
    kind = BinaryKind(more.get("kind", "deb"))
    return BinaryPackage(
        kind=kind,
        file=entry(f"{name}_{version.split(':')[-1]}_{arch}.{kind}", more.get("content", "")),
        package=name,
        version=version,
        architecture=arch,
        source="hello",
        source_version=version,
        component=component,
        section="utils",
        priority="optional",
        control=(("Package", name), ("Version", version), ("Architecture", arch), ("Description", "x")),
    )


def source(version: str = "1.0", orig: str = "", *, with_orig: bool = True) -> SourcePackage:
    tar = entry("hello_1.0.orig.tar.gz", orig)
    return SourcePackage(
        dsc=entry(f"hello_{version}.dsc"),
        source="hello",
        version=version,
        component="main",
        section="utils",
        priority="optional",
        fields=(("Source", "hello"), ("Version", version)),
        files=(tar,),
        in_upload=frozenset({tar.name} if with_orig else ()),
    )


def upload(
    *packages: BinaryPackage | SourcePackage, suites: tuple[str, ...] = ("stable",), changes: str = ""
) -> tuple[CheckedChanges, ...]:
    binaries = tuple(p for p in packages if isinstance(p, BinaryPackage))
    sources = tuple(p for p in packages if isinstance(p, SourcePackage))
    name = changes or f"hello_{'_'.join(p.version for p in packages)}.changes"
    return (
        CheckedChanges(
            file=entry(name, repr(packages)),
            identity=f"{name} {packages!r}",
            source="hello",
            version=packages[0].version,
            distribution="stable",
            suites=suites,
            architectures=(),
            signed_by=None,
            binaries=binaries,
            sources=sources,
            others=(),
        ),
    )


def after(*uploads: tuple[CheckedChanges, ...], settings: Config = CONFIG) -> Overlay:
    archive = Overlay(Empty())
    for one in uploads:
        decision = decide(one, archive, settings)
        assert not decision.problems, decision.problems
        archive.add(decision)
    return archive


def sections(decision: Decision) -> set[str]:
    return {change.section for _, change in decision.changes if change.package}


FIRST = upload(binary())

CASES: list[tuple[str, Callable[[], Overlay], tuple[CheckedChanges, ...], str]] = [
    ("the same name with other bytes", lambda: after(FIRST), upload(binary(content="!")), "pool-conflict"),
    ("an older version", lambda: after(upload(binary("2.0"))), FIRST, "version-not-newer"),
    ("older by its epoch", lambda: after(upload(binary("1:1.0"))), upload(binary("2.0")), "version-not-newer"),
    ("an equal version, spelled otherwise", lambda: after(FIRST), upload(binary("1.00")), "same-version-other-content"),
    ("one moved to another component", lambda: after(FIRST), upload(binary(component="contrib")), "same-version"),
    ("a replay of what was superseded", lambda: after(FIRST, upload(binary("2.0"))), FIRST, "replayed"),
    (
        "a replay in other armor",
        lambda: after(FIRST, upload(binary("2.0"))),
        tuple(replace(one, file=entry("hello_1.0.changes", "armored otherwise")) for one in FIRST),
        "replayed",
    ),
    ("an orig that is nowhere", after, upload(source(with_orig=False)), "missing-orig"),
    ("an orig other than the pool's", lambda: after(upload(source())), upload(source("1.0-2", "!")), "pool-conflict"),
    ("a suite that is gone", after, upload(binary(), suites=("gone",)), "unknown-distribution"),
    ("two contents in one upload", after, FIRST + upload(binary(content="!")), "pool-conflict"),
]


@pytest.mark.parametrize(("what", "archive", "new", "code"), CASES, ids=[case[0] for case in CASES])
def test_refused(what: str, archive: Callable[[], Overlay], new: tuple[CheckedChanges, ...], code: str) -> None:
    decision = decide(new, archive(), CONFIG)
    assert any(problem.code.startswith(code) for problem in decision.problems), decision.problems
    assert not decision.changes


def test_a_first_upload_goes_into_pool_and_section() -> None:
    decision = decide(FIRST, Empty(), CONFIG)
    assert decision.files == ("pool/main/h/hello/hello_1.0_amd64.deb",)
    assert sections(decision) == {"main/binary-amd64"}
    assert not decision.already_published


def test_the_same_again_is_already_published() -> None:
    assert decide(FIRST, after(FIRST), CONFIG).already_published
    again = upload(binary(), changes="signed-again.changes")
    assert decide(again, after(FIRST), CONFIG).already_published


def test_the_same_again_stays_where_it_is_when_the_settings_have_changed() -> None:
    archive = after(upload(binary(), source()))
    moved = [replace(one, component="contrib") for one in (binary(), source())]
    (again,) = upload(binary(), source())
    again = replace(again, binaries=(moved[0],), sources=(moved[1],))
    assert decide((again,), archive, CONFIG).already_published


def test_an_all_package_goes_into_every_architecture() -> None:
    assert sections(decide(upload(binary(arch="all")), Empty(), CONFIG)) == {"main/binary-amd64", "main/binary-arm64"}


def test_one_that_becomes_specific_replaces_only_its_own() -> None:
    decision = decide(upload(binary("2.0")), after(upload(binary(arch="all"))), CONFIG)
    assert sections(decision) == {"main/binary-amd64"}


def test_a_newer_version_in_another_component_leaves_the_old_one() -> None:
    decision = decide(upload(binary("2.0", component="contrib")), after(FIRST), CONFIG)
    changes = {change.section: change.package for _, change in decision.changes}
    assert changes["main/binary-amd64"] is None
    assert changes["contrib/binary-amd64"] is not None


def test_an_udeb_has_an_index_of_its_own() -> None:
    decision = decide(upload(binary(kind="udeb")), after(FIRST), CONFIG)
    assert sections(decision) == {"main/debian-installer/binary-amd64"}


def test_an_architecture_after_the_other() -> None:
    decision = decide(upload(binary(arch="arm64")), after(FIRST), CONFIG)
    assert sections(decision) == {"main/binary-arm64"}


def test_an_orig_may_be_in_the_pool_already() -> None:
    decision = decide(upload(source("1.0-2", with_orig=False)), after(upload(source("1.0-1"))), CONFIG)
    assert not decision.problems
    assert [file.file.name for file in decision.pool] == ["hello_1.0-2.dsc"]


def test_an_orig_that_was_not_sent_may_be_listed_without_md5_and_sha1() -> None:
    full = source("1.0-2", with_orig=False)
    (tar,) = full.files
    bare = replace(full, files=(replace(tar, digests=replace(tar.digests, md5="", sha1="")),))
    decision = decide(upload(bare), after(upload(source("1.0-1"))), CONFIG)
    assert not decision.problems
    (package,) = decision.packages
    assert f" {tar.digests.sha1} {tar.size} {tar.name}".encode() in package.stanza
    other = replace(bare, files=(replace(tar, digests=replace(tar.digests, sha1="0" * 40)),))
    refused = decide(upload(other), after(upload(source("1.0-1"))), CONFIG)
    assert [problem.code for problem in refused.problems] == ["pool-conflict"]


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (binary(), binary(content="!"), ("from an upload that is published now", "other content")),
        (binary("1.0"), binary("1:1.0", content="!"), ("another epoch", "raise the version behind it")),
        (binary(arch="all"), binary(arch="all", content="!"), ("-A for all", "-B, -sd")),
        (source("1.0-1"), source("1.0-2", "!"), ("-sa for the orig", "-B, -sd")),
    ],
    ids=["same version", "an epoch added", "all built twice", "orig built twice"],
)
def test_a_conflict_says_what_it_is_and_what_to_do(
    first: BinaryPackage | SourcePackage, second: BinaryPackage | SourcePackage, words: tuple[str, ...]
) -> None:
    problems = decide(upload(second), after(upload(first)), CONFIG).problems
    [conflict] = [one for one in problems if one.code == "pool-conflict"]
    for word in words:
        assert word in conflict.message
    assert ("another epoch" in conflict.message) == ("another epoch" in words[0])


def test_two_suites_at_once() -> None:
    decision = decide(upload(binary(), suites=("stable", "next")), Empty(), CONFIG)
    assert {suite for suite, _ in decision.changes} == {"stable", "next"}
    assert len(decision.pool) == 1


@pytest.mark.parametrize(
    ("packages", "refused"), [((binary(),), True), ((source(), binary()), False)], ids=["alone", "with its source"]
)
def test_require_source(packages: tuple[BinaryPackage | SourcePackage, ...], refused: bool) -> None:
    demanding = config("[suites.stable.checks]\nrequire_source = true")
    decision = decide(upload(*packages), Empty(), demanding)
    assert [p.code for p in decision.problems] == (["missing-source"] if refused else [])
    assert not decide(FIRST, after(upload(source()), settings=demanding), demanding).problems


def test_every_problem_is_told() -> None:
    archive = after(upload(binary("2.0"), binary("2.0", name="hello-doc", arch="all")))
    decision = decide(upload(binary(), binary(name="hello-doc", arch="all")), archive, CONFIG)
    assert {problem.file for problem in decision.problems} == {"hello_1.0_amd64.deb", "hello-doc_1.0_all.deb"}
