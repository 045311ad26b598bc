"""Single settings are changed in the text of a configuration; all else stays as a person wrote it."""

import tomllib
from pathlib import Path

import pytest

from incomingd.config.edit import header, renamed, toml, with_table, with_value

PACKAGED = (Path(__file__).parents[2] / "conf/incomingd.toml").read_text()
TEXT = """\
[archive]
root = "archive"   # served
# origin = "incomingd"              # Origin of each Release

[suites."a.b"]
# components = ["main"]

# [suites."a.b".checks]
# components = "not this one"
"""


@pytest.mark.parametrize(
    ("table", "key", "value", "line"),
    [
        ("[archive]", "root", "elsewhere", 'root = "elsewhere" # served'),
        ("[archive]", "origin", "x", 'origin = "x"                        # Origin of each Release'),
        ("[archive]", "origin", 'a "b" \\ é', 'origin = "a \\"b\\" \\\\ é"'),
        ("[archive]", "label", "new", '[archive]\nlabel = "new"\n'),
        ('[suites."a.b"]', "components", ["main", "contrib"], 'components = ["main", "contrib"]\n'),
        ("[publish]", "compress", ["gz"], '\n[publish]\ncompress = ["gz"]\n'),
    ],
)
def test_a_value_is_put_in_its_place(table: str, key: str, value: str | list[str], line: str) -> None:
    changed = with_value(TEXT, table, key, value)
    assert line in changed
    before, after = TEXT.splitlines(), changed.splitlines()
    assert len(set(before) - set(after)) <= 1
    found = tomllib.loads(changed)
    for name in table.strip("[]").split(".", 1):
        found = found[name.strip('"')]
    assert found[key] == value
    assert with_value(changed, table, key, value) == changed


def test_tables_are_renamed_and_added() -> None:
    text = renamed(PACKAGED, "[suites.stable]", header("suites", "bookworm"))
    text = with_table(text, header("suites", "a.b"), header("suites", "bookworm"))
    text = with_value(text, header("suites", "a.b"), "components", ["x"])
    assert with_table(text, header("suites", "a.b"), "") == text
    found = tomllib.loads(text)
    assert found["suites"] == {"bookworm": {}, "a.b": {"components": ["x"]}}
    assert text.index("[suites.bookworm]") < text.index('[suites."a.b"]') < text.index("[incoming.default]")
    assert renamed(TEXT, "[suites.none]", "[x]") == TEXT


def test_values() -> None:
    assert toml("é\n") == '"é\\n"'
    assert toml(["a", "b"]) == '["a", "b"]'
