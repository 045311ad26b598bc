"""Whose a binary package's name is: each attack on it is one line, decided as the publisher decides it."""

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from incomingd.config import Config
from incomingd.config.reader import parse
from incomingd.model import BinaryKind, BinaryPackage, CheckedChanges, SourcePackage
from incomingd.publish import ownership
from incomingd.publish.decide import decide
from incomingd.publish.overlay import Decision, Overlay
from incomingd.publish.stanza import fields_of
from tests.publish.test_decide import Empty, entry

A, B, SUBKEY, OTHER_SUBKEY = "A" * 40, "B" * 40, "5" * 40, "6" * 40
SUITES = """
[suites.stable]
components = ["main", "contrib"]
[suites.next]
components = ["main", "contrib"]
[incoming.default]
path = "in"
"""
Table = Sequence[dict[str, Any]]
Upload = tuple[CheckedChanges, ...]

TEAM_A: Table = [{"key": A, "sources": ["team-a-*"]}, {"key": B}]


def config(table: Table = ()) -> Config:
    return parse({**tomllib.loads(SUITES), "uploaders": list(table)}, Path("/x/incomingd.toml"))


OPEN = config()


def deb(name: str, version: str = "1.0-1", **more: Any) -> BinaryPackage:
    """A binary package; ``of`` is its source, by default of the same name."""
    arch, kind = more.get("arch", "amd64"), more.get("kind", BinaryKind.DEB)
    fields = {"Package": name, "Version": version, "Architecture": arch, "Description": "x", **more.get("fields", {})}
    return BinaryPackage(
        kind=kind,
        file=entry(f"{name}_{version.split(':')[-1]}_{arch}.{kind}", more.get("content", "")),
        package=name,
        version=version,
        architecture=arch,
        source=more.get("of", name),
        source_version=version,
        component=more.get("component", "main"),
        section="utils",
        priority=more.get("priority", "optional"),
        control=tuple(fields.items()),
    )


def dsc(name: str, version: str = "1.0-1", component: str = "main", **fields: str) -> SourcePackage:
    tar = entry(f"{name}_{version}.tar.gz")
    return SourcePackage(
        dsc=entry(f"{name}_{version}.dsc", repr(fields)),
        source=name,
        version=version,
        component=component,
        section="utils",
        priority="optional",
        fields=(("Source", name), *((key.replace("_", "-"), value) for key, value in fields.items())),
        files=(tar,),
        in_upload=frozenset({tar.name}),
    )


def changes(
    *packages: BinaryPackage | SourcePackage,
    by: str | None = A,
    subkey: str | None = None,
    suites: tuple[str, ...] = ("stable",),
) -> Upload:
    """An upload of one .changes; its source is that of its packages."""
    (source,) = {package.source for package in packages}
    return (
        CheckedChanges(
            file=entry(f"{source}.changes", repr(packages)),
            identity=repr((packages, by)),
            source=source,
            version=packages[0].version,
            distribution=" ".join(suites),
            suites=suites,
            architectures=(),
            signed_by=by,
            signing_key=subkey or by,
            binaries=tuple(one for one in packages if isinstance(one, BinaryPackage)),
            sources=tuple(one for one in packages if isinstance(one, SourcePackage)),
            others=(),
        ),
    )


def archive(*uploads: Upload, settings: Config = OPEN) -> Overlay:
    """What these uploads leave."""
    made = Overlay(Empty())
    for one in uploads:
        decision = decide(one, made, settings)
        assert not decision.problems, decision.problems
        made.add(decision)
    return made


def others() -> Overlay:
    """An archive with packages of several teams."""
    return archive(
        changes(deb("sudo", "1.9-1"), dsc("sudo", "1.9-1"), by=B),
        changes(deb("libc6", "2.36-9", of="glibc"), by=B),
        changes(deb("libc6-udeb", "2.36-9", of="glibc", kind=BinaryKind.UDEB), by=B),
        changes(deb("docs", "1.0-1", of="team-b-docs", arch="all"), by=B),
        changes(deb("driver", "1.0-1", of="team-b-driver", component="contrib"), by=B),
        changes(deb("fresh", "1.0-1", of="team-b-fresh"), by=B, suites=("next",)),
        changes(deb("team-a-tool", "1.0-1"), deb("libtool-a1", "1.0-1", of="team-a-tool")),
    )


def codes(decision: Decision) -> list[str]:
    return sorted({problem.code for problem in decision.problems})


FOREIGN, UNNAMED, KEY = "binary-of-other-source", "binary-not-allowed", "key-not-allowed"
ALL_NAMES: Table = [{"key": A, "sources": ["team-a-*"], "binaries": ["*"]}]
ESSENTIAL: Table = [{"key": A, "sources": ["team-a-*"], "essential": True}]

HELD: list[tuple[str, Table, Upload, list[str]]] = [
    ("sudo", TEAM_A, changes(deb("sudo", "99:1-1", of="team-a-x")), [UNNAMED, FOREIGN]),
    ("libc6 by an epoch", ALL_NAMES, changes(deb("libc6", "99:1-1", of="team-a-x")), [FOREIGN]),
    ("a lower version", ALL_NAMES, changes(deb("libc6", "0.1-1", of="team-a-x")), [FOREIGN]),
    ("the very version", ALL_NAMES, changes(deb("libc6", "2.36-9", of="team-a-x")), [FOREIGN]),
    ("another architecture", ALL_NAMES, changes(deb("libc6", "9", of="team-a-x", arch="arm64")), [FOREIGN]),
    ("all in place of amd64", ALL_NAMES, changes(deb("libc6", "9", of="team-a-x", arch="all")), [FOREIGN]),
    ("amd64 in place of all", ALL_NAMES, changes(deb("docs", "9", of="team-a-x")), [FOREIGN]),
    ("an udeb", ALL_NAMES, changes(deb("libc6", "9", of="team-a-x", kind=BinaryKind.UDEB)), [FOREIGN]),
    ("a .ddeb, which Packages lists", ALL_NAMES, changes(deb("libc6", "9", of="team-a-x", kind="ddeb")), [FOREIGN]),
    ("a .deb named as an udeb", ALL_NAMES, changes(deb("libc6-udeb", "9", of="team-a-x")), [FOREIGN]),
    ("from contrib to main", ALL_NAMES, changes(deb("driver", "9", of="team-a-x")), [FOREIGN]),
    ("from main to contrib", ALL_NAMES, changes(deb("sudo", "9", of="team-a-x", component="contrib")), [FOREIGN]),
    ("one of two suites", ALL_NAMES, changes(deb("fresh", "9", of="team-a-x"), suites=("stable", "next")), [FOREIGN]),
    (
        "a suite that is not the key's",
        [{"key": A, "sources": ["team-a-*"], "suites": ["stable"]}],
        changes(deb("team-a-x"), suites=("stable", "next")),
        [KEY],
    ),
    (
        "both sources, but one in another suite only",
        [*ALL_NAMES, {"key": A, "sources": ["sudo"], "suites": ["next"]}],
        changes(deb("sudo", "9", of="team-a-x")),
        [FOREIGN],
    ),
    (
        "both sources, but one in another component only",
        [*ALL_NAMES, {"key": A, "sources": ["sudo"], "components": ["contrib"]}],
        changes(deb("sudo", "9", of="team-a-x")),
        [FOREIGN],
    ),
    ("debug symbols of another's", ALL_NAMES, changes(deb("sudo-dbgsym", "9", of="team-a-x")), [FOREIGN]),
    ("debug symbols outside of the names", TEAM_A, changes(deb("x-dbgsym", of="team-a-x")), [UNNAMED]),
    ("a name that no one has yet", TEAM_A, changes(deb("openssh-server", of="team-a-x")), [UNNAMED]),
    (
        "names by another rule than the source",
        [*TEAM_A, {"key": A, "sources": ["linux"], "binaries": ["linux-*"]}],
        changes(deb("linux-image", of="team-a-x")),
        [UNNAMED],
    ),
    (
        "binaries in place of what is listed",
        [{"key": A, "sources": ["team-a-*"], "binaries": ["team-a-*"]}],
        changes(deb("libtool-a1", "2.0-1", of="team-a-tool")),
        [UNNAMED],
    ),
    ("a component of another", [{"key": A, "components": ["contrib"]}], changes(deb("x")), [KEY]),
    (
        "taken away from a component of another",
        [{"key": A, "components": ["contrib"]}],
        changes(deb("sudo", "9", component="contrib"), dsc("sudo", "9", "contrib")),
        [KEY],
    ),
    (
        "the source, by rules for binaries in its component",
        [{"key": A, "components": ["main"]}, {"key": A, "components": ["contrib"], "binaries_only": True}],
        changes(dsc("x", component="contrib")),
        [KEY],
    ),
    ("a rule for another subkey", [{"key": OTHER_SUBKEY}], changes(deb("x"), subkey=SUBKEY), [KEY]),
    ("a rule for a token", [{"token": "ci"}], changes(deb("x")), [KEY]),
    ("an unsigned takeover", TEAM_A, changes(deb("sudo", "9", of="team-a-x"), by=None), [FOREIGN]),
    ("an unsigned claim", TEAM_A, changes(dsc("evil", Binary="sudo"), by=None), [FOREIGN]),
    ("a .dsc that claims sudo", ALL_NAMES, changes(dsc("team-a-x", Binary="team-a-x, sudo")), [FOREIGN]),
    ("a claim over several lines", ALL_NAMES, changes(dsc("team-a-x", Binary="team-a-x,\n sudo")), [FOREIGN]),
    (
        "a claim in Package-List",
        ALL_NAMES,
        changes(dsc("team-a-x", Binary="team-a-x", Package_List="\n sudo deb admin optional arch=any")),
        [FOREIGN],
    ),
    ("a claim of a name that no one has", TEAM_A, changes(dsc("team-a-x", Binary="openssh-server")), [UNNAMED]),
    ("a claim of debug symbols", ALL_NAMES, changes(dsc("team-a-x", Binary="sudo-dbgsym")), [FOREIGN]),
    (
        "two .changes, the second with the binary",
        ALL_NAMES,
        changes(deb("team-a-x")) + changes(deb("sudo", "9", of="team-a-y")),
        [FOREIGN],
    ),
    (
        "two .changes by two keys, one takes what the other brings",
        [*ALL_NAMES, {"key": B, "sources": ["team-b-*"], "binaries": ["*"]}],
        changes(deb("new", "1.0", of="team-b-x"), by=B) + changes(deb("new", "2.0", of="team-a-x")),
        [FOREIGN],
    ),
    (
        "two .changes by two keys, one claims what the other brings",
        [*ALL_NAMES, {"key": B, "sources": ["team-b-*"], "binaries": ["*"]}],
        changes(deb("new", of="team-b-x"), by=B) + changes(dsc("team-a-x", Binary="new")),
        [FOREIGN],
    ),
    ("the rights of the table, changed meanwhile", [{"key": B}], changes(deb("team-a-tool", "2.0-1")), [KEY]),
]
for _name, _value in (("Essential", "yes"), ("Protected", "yes"), ("Important", "yes"), ("essential", "1")):
    _one = changes(deb("team-a-x", fields={_name: _value}))
    HELD.append((f"{_name}: {_value}", TEAM_A, _one, ["essential-not-allowed"]))
for _value in ("required", "important", "Required"):
    HELD.append((f"Priority: {_value}", TEAM_A, changes(deb("team-a-x", priority=_value)), ["essential-not-allowed"]))
HELD += [
    (
        "essential by another rule than the name",
        [
            {"key": A, "sources": ["team-a-*"], "essential": True},
            {"key": A, "sources": ["team-*"], "binaries": ["init"]},
        ],
        changes(deb("init", of="team-a-x", fields={"Essential": "yes"})),
        ["essential-not-allowed"],
    ),
    (
        "essential in another suite only",
        [*TEAM_A, {"key": A, "suites": ["next"], "essential": True}],
        changes(deb("team-a-x", fields={"Essential": "yes"})),
        ["essential-not-allowed"],
    ),
    (
        "unsigned and essential",
        TEAM_A,
        changes(deb("team-a-x", fields={"Essential": "yes"}), by=None),
        ["essential-not-allowed"],
    ),
]


@pytest.mark.parametrize(("what", "table", "attack", "wanted"), HELD, ids=[case[0] for case in HELD])
def test_held(what: str, table: Table, attack: Upload, wanted: list[str]) -> None:
    decision = decide(attack, others(), config(table))
    # What the uploader may not do is told alone, without anything of versions and content.
    assert codes(decision) == wanted, decision.problems
    assert (decision.changes, decision.pool, decision.packages) == ((), (), ())


ALLOWED: list[tuple[str, Table, Upload]] = [
    ("names by the globs of sources", TEAM_A, changes(deb("team-a-x"), deb("team-a-x-dbgsym", of="team-a-x"))),
    ("what the suite lists already", TEAM_A, changes(deb("libtool-a1", "2.0-1", of="team-a-tool"))),
    ("its debug symbols", TEAM_A, changes(deb("libtool-a1-dbgsym", "2.0-1", of="team-a-tool"))),
    ("and from another source of the key", TEAM_A, changes(deb("libtool-a1", "2.0-1", of="team-a-lib"))),
    (
        "by binaries, with debug symbols",
        [{"key": A, "sources": ["team-a-*"], "binaries": ["libx*"]}],
        changes(deb("libx1", of="team-a-x"), deb("libx1-dbgsym", of="team-a-x")),
    ),
    (
        "by one more rule",
        [*TEAM_A, {"key": A, "sources": ["team-a-x"], "binaries": ["helper"]}],
        changes(deb("helper", of="team-a-x"), deb("team-a-x")),
    ),
    (
        "moved, by a key that may upload both",
        [*ALL_NAMES, {"key": A, "sources": ["sudo"]}],
        changes(deb("sudo", "2.0-1", of="team-a-x")),
    ),
    ("an own source's claims", TEAM_A, changes(dsc("team-a-tool", "2.0-1", Binary="team-a-tool, libtool-a1"))),
    ("essential by its rule", ESSENTIAL, changes(deb("team-a-x", fields={"Essential": "yes"}))),
    ("Essential: no", TEAM_A, changes(deb("team-a-x", fields={"Essential": "no", "Build-Essential": "yes"}))),
    ("a rule for the subkey", [{"key": SUBKEY, "sources": ["team-a-*"]}], changes(deb("team-a-x"), subkey=SUBKEY)),
    ("a rule for the primary key", TEAM_A, changes(deb("team-a-x"), subkey=SUBKEY)),
    ("unsigned, a new name", TEAM_A, changes(deb("anything"), by=None)),
    ("unsigned, the same source", TEAM_A, changes(deb("sudo", "2.0-1"), by=None)),
    ("another suite does not list it", ALL_NAMES, changes(deb("fresh", "2.0-1", of="team-a-x"))),
    ("its own next version", TEAM_A, changes(deb("sudo", "2.0-1"), dsc("sudo", "2.0-1", Binary="sudo"), by=B)),
    ("contrib of its own", [{"key": A, "components": ["contrib"]}], changes(deb("x", component="contrib"))),
]


@pytest.mark.parametrize(("what", "table", "upload"), ALLOWED, ids=[case[0] for case in ALLOWED])
def test_allowed(what: str, table: Table, upload: Upload) -> None:
    decision = decide(upload, others(), config(table))
    assert not decision.problems
    assert decision.changes
    assert not decision.warnings


def test_without_a_table_every_trusted_key_may_with_a_warning() -> None:
    decision = decide(changes(deb("sudo", "9", of="team-a-x", fields={"Essential": "yes"})), others(), OPEN)
    assert not decision.problems
    assert [problem.code for problem in decision.warnings] == ["binary-taken-over", "essential-package"]
    assert "sudo in stable belonged to the source sudo and belongs to team-a-x now" in decision.warnings[0].message
    assert "Essential: yes" in decision.warnings[1].message


def test_what_is_no_takeover_is_not_warned_of() -> None:
    moved = changes(deb("sudo", "9", component="contrib"), dsc("sudo", "9", "contrib", Binary="sudo, libc6"))
    decision = decide(moved, others(), OPEN)
    assert not decision.problems
    assert not decision.warnings


def test_the_same_batch_counts() -> None:
    table = config([*ALL_NAMES, {"key": B, "sources": ["team-b-*"], "binaries": ["*"]}])
    batch = archive(changes(deb("new", "1.0-1", of="team-b-x"), by=B), settings=table)
    assert codes(decide(changes(deb("new", "2.0-1", of="team-a-x")), batch, table)) == [FOREIGN]
    assert codes(decide(changes(dsc("team-a-x", Binary="new")), batch, table)) == [FOREIGN]


def test_a_name_that_two_sources_share_can_be_updated_by_each() -> None:
    """As after a move that took one architecture only."""
    shared = archive(
        changes(deb("tool", of="team-b-x"), deb("tool", of="team-b-x", arch="arm64"), by=B),
        changes(deb("tool", "2.0-1", of="team-a-x")),
    )
    table = config([*ALL_NAMES, {"key": B, "sources": ["team-b-*"], "binaries": ["tool"]}])
    assert not decide(changes(deb("tool", "3.0-1", of="team-a-x")), shared, table).problems
    assert not decide(changes(deb("tool", "3.0-1", of="team-b-x", arch="arm64"), by=B), shared, table).problems
    assert codes(decide(changes(deb("tool", "3.0-1", of="team-a-x", arch="arm64")), shared, table)) == [FOREIGN]


def test_the_refusal_says_what_to_add() -> None:
    attack = changes(deb("libx1", of="team-a-x"))
    (problem,) = decide(attack, others(), config(TEAM_A)).problems
    rule = f'[[uploaders]] key = "{A}", suites = ["stable"], sources = ["team-a-x"], binaries = ["libx1"]'
    assert rule in problem.message
    added: Table = [*TEAM_A, {"key": A, "suites": ["stable"], "sources": ["team-a-x"], "binaries": ["libx1"]}]
    assert not decide(attack, others(), config(added)).problems
    explicit = config([{"key": A, "binaries": ["team-a-*"]}])
    (problem,) = decide(attack, others(), explicit).problems
    assert 'add "libx1" to binaries = ["team-a-*"]' in problem.message


def test_very_many_claims_make_one_problem() -> None:
    names = ", ".join(f"name-{number}" for number in range(5000))
    (problem,) = decide(changes(dsc("team-a-x", Binary=names)), others(), config(TEAM_A)).problems
    assert "and 4980 more" in problem.message


def test_priority_counts_after_overrides() -> None:
    """The check has put the override's in ``priority``, whatever control says."""
    harmless = changes(deb("team-a-x", fields={"Priority": "required"}, priority="optional"))
    assert not decide(harmless, others(), config(TEAM_A)).problems
    raised = changes(deb("team-a-x", fields={"Priority": "optional"}, priority="required"))
    assert codes(decide(raised, others(), config(TEAM_A))) == ["essential-not-allowed"]


@pytest.mark.parametrize(
    ("fields", "priority", "found"),
    [
        ({"Essential": "yes"}, "", "Essential: yes"),
        ({"PROTECTED": "Yes"}, "", "Protected: Yes"),
        ({"Important": "1"}, "", "Important: 1"),
        ({"Important": "on"}, "", "Important: on"),
        ({"Essential": "no"}, "required", "Priority: required"),
        ({"Priority": "important"}, "", "Priority: important"),
        ({"Priority": "important"}, "optional", ""),
        ({"Essential": "no", "Protected": "False", "Important": "0"}, "standard", ""),
    ],
)
def test_what_is_essential(fields: dict[str, str], priority: str, found: str) -> None:
    assert ownership.essential(tuple(fields.items()), priority) == found


def test_a_stanza_is_read_as_it_was_written() -> None:
    (package,) = decide(
        changes(deb("x", fields={"Essential": "yes", "Description": "x\n long\n ."})), Empty(), OPEN
    ).packages
    fields = dict(fields_of(package.stanza))
    assert (fields["Essential"], fields["Description"], fields["Priority"]) == ("yes", "x\n long\n .", "optional")


def test_the_rights_are_asked_for_again_when_it_is_published() -> None:
    waiting = changes(deb("team-a-x"), suites=("stable",))
    asked: list[Callable[[], Config]] = [lambda: config(TEAM_A), lambda: config([{"key": A, "suites": ["next"]}])]
    assert [codes(decide(waiting, others(), settings())) for settings in asked] == [[], [KEY]]


def test_the_signer_of_each_package_is_kept() -> None:
    both = changes(deb("team-a-x"), subkey=SUBKEY) + changes(deb("team-b-x"), by=B)
    packages = decide(both, Empty(), OPEN).packages
    assert [(one.key.name, one.signed_by, one.signing_key) for one in packages] == [
        ("team-a-x", A, SUBKEY),
        ("team-b-x", B, B),
    ]
    unsigned = (replace(changes(deb("x"))[0], signed_by=None, signing_key=None),)
    assert decide(unsigned, Empty(), OPEN).packages[0].signed_by is None
