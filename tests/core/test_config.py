"""A configuration is taken whole or refused with every fault in it."""

import tomllib
from pathlib import Path

import pytest

from incomingd.config import Config
from incomingd.config.reader import load, parse
from incomingd.errors import ConfigError

GOOD = """
[archive]
root = "archive"
signing_keys = ["0123456789ABCDEF0123456789ABCDEF01234567"]
[suites.stable]
accepts = ["stable", "bookworm"]
[incoming.default]
path = "incoming"
"""


def parsed(text: str) -> Config:
    return parse(tomllib.loads(text), Path("/srv/x/incomingd.toml"))


def faults(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parsed(text)
    return list(caught.value.errors)


def test_defaults_are_those_of_the_contract() -> None:
    config = parsed(GOOD)
    suite, queue = config.suites[0], config.queues[0]
    assert (suite.codename, suite.components, suite.architectures) == ("stable", ("main",), ("amd64", "arm64"))
    assert (queue.settle, queue.abandon_after, queue.signatures, queue.max_upload) == (
        2.0,
        86400.0,
        "required",
        4 << 30,
    )
    assert (config.publish.keep_generations, config.publish.grace, config.publish.batch) == (10, 86400.0, 500)


def test_paths_count_from_the_file() -> None:
    config = parsed(GOOD)
    assert config.archive.root == Path("/srv/x/archive")
    assert config.queues[0].path == Path("/srv/x/incoming")
    assert config.service.state == Path("/srv/x/state")


def test_a_suite_accepts_its_name_and_codename() -> None:
    config = parsed('[suites.stable]\ncodename = "bookworm"\n[incoming.default]\npath = "incoming"')
    assert config.suites[0].accepts == ("stable", "bookworm")
    assert config.suite_for("bookworm") is config.suites[0]
    assert config.suite_for("sid") is None


def test_checks_of_a_suite_stand_over_the_general_ones() -> None:
    config = parsed(
        GOOD + "[checks]\nmax_text_file = 5\nrequire_source = true\n[suites.stable.checks]\nmax_text_file = '2k'"
    )
    assert config.checks.max_text_file == 5
    assert config.suites[0].checks.max_text_file == 2048
    assert config.suites[0].checks.require_source


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[archiv]\nroot='x'", ["[archiv]", "allowed are archive"]),
        ("[archive]\nrot='x'", ["[archive] rot", "unknown", "root"]),
        ("[archive]\nroot=3", ["[archive] root", "is 3", "text"]),
        ("[archive]\nsigning_keys=['ABCD']", ["signing_keys", "40 hex digits", '"ABCD"']),
        ("[incoming.default]\nsettle='soon'", ["[incoming.default] settle", '"soon"', "seconds"]),
        ("[incoming.default]\nsettle=-1", ["settle", "-1"]),
        ("[incoming.default]\nsignatures='maybe'", ["signatures", '"required", "optional"']),
        ("[incoming.default]\nmax_upload='lots'", ["max_upload", '"lots"', "bytes"]),
        ("[incoming.default]\nmax_files=0", ["max_files", "whole number from 1"]),
        ("[incoming.default]\nmax_files=true", ["max_files", "whole number from 1"]),
        ("[incoming.other]", ["[incoming.other] path", "missing"]),
        ("[suites.'a/b']", ["suites.a/b", "name must be"]),
        ("[suites.x]\ncomponents=[]", ["[suites.x] components", "at least 1"]),
        ("[suites.x]\ncomponents=['main','main']", ["components", "twice"]),
        ("[suites.x]\narchitectures=['all']", ["architectures", 'besides "all"']),
        ("[suites.x]\naccepts=['bookworm']\n[suites.y]\naccepts=['bookworm']", ["suites.y", "lands in [suites.x]"]),
        ("[publish]\nbatch='many'", ["[publish] batch", "whole number"]),
        ("uploaders=3", ["uploaders", "[[uploaders]]"]),
        ("[[uploaders]]\nname='x'", ["[uploaders #1] key", "missing"]),
        ("[[uploaders]]\nkey='1234'", ["[uploaders #1] key", "40 hex digits"]),
        ("[checks.lintian]\nsuites=['nowhere']", ["[checks.lintian] suites", '"nowhere"', "must be a suite: stable"]),
        ("[checks.commands.a]\ncommand=['a']\nsuites=['x']", ["[checks.commands.a] suites", '"x"', "stable"]),
        ("[suites.x]\noverrides=3", ["[suites.x] overrides", "one line of text"]),
        ("[service]\nstatus='incoming/status'", ["[incoming.default] path", "must not lie in each other"]),
        ("[archive]\nroot='state'", ["state", "must not lie in each other"]),
    ],
)
def test_a_fault_names_table_key_and_what_is_allowed(text: str, words: list[str]) -> None:
    base = "" if "incoming.default" in text else '[incoming.default]\npath="incoming"\n'
    base += "" if "[suites." in text else "[suites.stable]\n"
    if "[incoming.default]" in text:
        text = text.replace("[incoming.default]", '[incoming.default]\npath="incoming"')
    found = faults(f"{text}\n{base}")
    assert any(all(word in line for word in ["/srv/x/incomingd.toml", *words]) for line in found), found


def test_every_fault_is_told_at_once() -> None:
    found = faults("[archive]\nx=1\n[publish]\nbatch='a'\n[suites.stable]\ny=1\n[incoming.default]\npath=7")
    assert len(found) == 4


def test_a_file_that_is_not_there_or_not_toml_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("[archive\n")
    with pytest.raises(ConfigError, match="is not TOML"):
        load(tmp_path / "bad.toml")


def test_control_characters_never_reach_a_release_file() -> None:
    assert "origin" in faults(GOOD.replace("[archive]", '[archive]\norigin = "a\\nSuite: b"'))[0]
