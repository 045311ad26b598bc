"""The configuration that the package installs is whole, and tells the truth about every default."""

import re
import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from incomingd.config import (
    ArchiveConfig,
    ChecksConfig,
    CommandConfig,
    Config,
    LintianConfig,
    PublishConfig,
    QueueConfig,
    ServiceConfig,
    SuiteConfig,
    UploaderRule,
)
from incomingd.config.reader import load, parse

FILE = Path(__file__).parents[2] / "conf/incomingd.toml"
INSTALLED = Path("/etc/incomingd/incomingd.toml")
TABLES = {
    "archive": ArchiveConfig,
    "service": ServiceConfig,
    "suites.stable": SuiteConfig,
    "incoming.default": QueueConfig,
    "uploaders": UploaderRule,
    "publish": PublishConfig,
    "checks": ChecksConfig,
    "checks.lintian": LintianConfig,
    "checks.commands.example": CommandConfig,
}
FINGERPRINT = "0123456789ABCDEF0123456789ABCDEF01234567"


def settings(kind: type[Any]) -> dict[str, Any]:
    """The keys of a table, each with its default."""
    return {f.name: f.default for f in fields(kind) if "parse" in f.metadata}


def shown(text: str) -> dict[str, set[str]]:
    """The keys that each table of the file shows, as they are or behind a "#"."""
    found: dict[str, set[str]] = {}
    table = ""
    for line in text.splitlines():
        if header := re.match(r"(?:# )?\[+([a-z.]+)\]+", line):
            table = header[1]
        elif key := re.match(r"(?:# )?([a-z_0-9]+) = ", line):
            found.setdefault(table, set()).add(key[1])
    return found


def uncommented() -> Config:
    """The file with every setting in force."""
    text = re.sub(r"^# (?=\[\[?[a-z.]+\]|(?!token)[a-z_0-9]+ = )", "", FILE.read_text(), flags=re.MULTILINE)
    return parse(tomllib.loads(text.replace('"FINGERPRINT"', f'"{FINGERPRINT}"')), INSTALLED)


def test_it_is_taken_as_it_is_with_the_places_of_a_package() -> None:
    config = load(FILE)
    assert config.archive.root == Path("/srv/incomingd/archive")
    assert config.service.state == Path("/var/lib/incomingd")
    assert config.service.status == Path("/srv/incomingd/status")
    assert [queue.path for queue in config.queues] == [Path("/srv/incomingd/incoming")]


@pytest.mark.parametrize(("table", "kind"), TABLES.items())
def test_every_setting_there_is_occurs_in_it(table: str, kind: type[Any]) -> None:
    assert shown(FILE.read_text())[table] == set(settings(kind))


def test_every_default_is_the_one_that_it_shows() -> None:
    plain, whole = load(FILE), uncommented()
    assert whole.archive == plain.archive
    assert whole.service == plain.service
    # There is no file of these by default, and the example names some.
    assert [replace(suite, overrides=None, source_overrides=None) for suite in whole.suites] == list(plain.suites)
    assert whole.queues == plain.queues
    assert whole.publish == plain.publish
    assert whole.checks == plain.checks
    # These are there where their tables are.
    assert (plain.lintian, plain.commands) == (None, ())
    assert whole.lintian == LintianConfig()
    (example,) = whole.commands
    assert example == CommandConfig(name="example", command=example.command)
    (rule,) = whole.uploaders
    # A rule has a key or a token, and without binaries those of sources count.
    assert replace(rule, key=None, binaries=()) == UploaderRule()
