"""A configuration is taken whole or refused with every fault in it."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from incomingd.config import Config
from incomingd.config.reader import find, load, parse
from incomingd.config.warnings import warnings
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


def test_a_table_keeps_its_name_whatever_clients_call_the_suite() -> None:
    config = parsed(
        '[archive]\norigin = "O"\nlabel = "L"\n[suites.trixie]\nsuite = "stable"\nlabel = "own"\n'
        '[suites.forky]\nsuite = "testing"\ncodename = "next"\n[incoming.default]\npath = "incoming"'
    )
    trixie, forky = config.suites
    assert (trixie.name, trixie.suite, trixie.codename, trixie.links) == ("trixie", "stable", "trixie", ("stable",))
    assert (trixie.origin, trixie.label, trixie.description) == ("O", "own", "")
    assert trixie.accepts == ("trixie", "stable")
    assert forky.links == ("testing", "next")


@pytest.mark.parametrize(
    "tables",
    [
        '[suites.one]\nsuite = "two"\n[suites.two]',
        '[suites.one]\ncodename = "two"\n[suites.two]',
        '[suites.two]\n[suites.one]\nsuite = "two"',
        '[suites.one]\nsuite = "three"\n[suites.two]\nsuite = "three"',
        '[suites.one]\nsuite = "three"\n[suites.two]\ncodename = "three"',
    ],
)
def test_a_name_leads_to_one_suite(tables: str) -> None:
    with pytest.raises(ConfigError, match="name tables by codename"):
        parsed(f'{tables}\n[incoming.default]\npath = "incoming"')


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
        (f"[[uploaders]]\nkey='{'A' * 40}'\ntoken='ci'", ["[uploaders #1] key", "beside token", "one of them"]),
        ("[[uploaders]]\ntoken='a b'", ["[uploaders #1] token", "letters, digits"]),
        ("[[uploaders]]\ntoken='ci'\nbinaries=[]", ["[uploaders #1] binaries", "at least 1"]),
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


def test_a_rule_has_a_key_or_a_token() -> None:
    config = parsed(GOOD + f"[[uploaders]]\nkey = '{'a' * 40}'\n[[uploaders]]\ntoken = 'ci'\nbinaries = ['x-*']")
    assert [(rule.key, rule.token, rule.binaries) for rule in config.uploaders] == [
        ("A" * 40, None, ()),
        (None, "ci", ("x-*",)),
    ]


def test_unsigned_uploads_beside_uploaders_are_warned_of() -> None:
    table = "[[uploaders]]\ntoken = 'ci'\n"
    text = GOOD + table + "[incoming.open]\npath = 'open'\nsignatures = 'optional'\n"
    (line,) = warnings(parsed(text))
    assert line.startswith("/srv/x/incomingd.toml: [incoming.open] signatures: ")
    assert "[[uploaders]]" in line
    assert not warnings(parsed(text.replace(table, "")))
    assert not warnings(parsed(GOOD + table))


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


# -- the file in the current directory --------------------------------------------------------------------------------

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be several accounts")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with a configuration, and no other one named."""
    monkeypatch.delenv("INCOMINGD_CONFIG", raising=False)
    folder = tmp_path / "here"
    folder.mkdir(mode=0o755)
    (folder / "incomingd.toml").write_text(GOOD)
    (folder / "incomingd.toml").chmod(0o644)
    monkeypatch.chdir(folder)
    return folder / "incomingd.toml"


def refusal() -> str:
    with pytest.raises(ConfigError) as caught:
        find(None)
    (line,) = caught.value.errors
    return line


def test_the_callers_own_file_in_the_current_directory_is_used(here: Path) -> None:
    assert find(None).absolute() == here


def test_a_link_of_the_callers_own_to_such_a_file_is_used(here: Path) -> None:
    here.rename(here.parent / "other.toml")
    here.symlink_to("other.toml")
    assert find(None).absolute() == here


@needs_root
def test_roots_own_file_is_used_by_everyone(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert find(None).absolute() == here


@needs_root
@pytest.mark.parametrize("whose", ["file", "folder", "link", "target"])
def test_what_belongs_to_another_account_is_refused(here: Path, whose: str) -> None:
    """root types ``incomingctl status`` in a folder of mallory's: her programs would run as root."""
    target = here.rename(here.parent / "target.toml") if whose in ("link", "target") else here
    if target != here:
        here.symlink_to("target.toml")
    os.chown(
        {"file": here, "folder": here.parent, "link": here, "target": target}[whose], 1234, 0, follow_symlinks=False
    )
    line = refusal()
    assert "incomingd.toml was found in the current directory and is not used" in line
    assert "belongs to uid 1234, not to you or root" in line
    assert "--config incomingd.toml" in line
    assert "$INCOMINGD_CONFIG" in line


@pytest.mark.parametrize("which", ["file", "folder"])
@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_what_others_may_write_is_refused(here: Path, which: str, mode: int) -> None:
    (here if which == "file" else here.parent).chmod(mode)
    assert f"has mode {mode:04o} and can be written by other accounts" in refusal()


@needs_root
def test_a_group_may_write_only_if_it_is_the_accounts_own(here: Path) -> None:
    here.chmod(0o664)
    assert find(None).absolute() == here
    os.chown(here, 0, 54321)
    assert "has mode 0664 and can be written by other accounts" in refusal()


def test_what_is_no_file_is_refused_and_not_waited_for(here: Path) -> None:
    here.unlink()
    os.mkfifo(here, 0o600)
    assert "it is not a regular file" in refusal()
    here.unlink()
    here.symlink_to("nowhere")
    assert "cannot be looked at" in refusal()


@needs_root
def test_what_is_named_is_obeyed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chown(here, 1234, 0)
    assert find(here) == here
    monkeypatch.setenv("INCOMINGD_CONFIG", str(here))
    assert find(None) == here


@needs_root
def test_the_command_says_so_and_does_nothing(here: Path) -> None:
    os.chown(here, 1234, 0)
    done = subprocess.run(
        [Path(sys.executable).parent / "incomingctl", "status"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "belongs to uid 1234, not to you or root" in done.stderr
