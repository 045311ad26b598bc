"""docs/config.md lists every setting there is, and no other, with its type and its true default."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import Any

import pytest

from incomingd import config
from incomingd.config.values import BadValueError

PAGE = Path(__file__).parents[2] / "docs/config.md"
#: What a parser is called on the page, where that is not its own name.
WORDS = {"stanza_size": "size", "word": "name"}
#: Defaults that follow from the table's name, or from other settings.
FOLLOWING = {
    "suite": "*NAME*",
    "codename": "*NAME*",
    "accepts": "*NAME, suite and codename*",
    "binaries": "*see below*",
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A setting as the page has it."""

    kind: str
    default: str
    meaning: str


def documented() -> dict[tuple[str, str], Row]:
    """The page's rows by table and key."""
    found: dict[tuple[str, str], Row] = {}
    table = ""
    for line in PAGE.read_text().splitlines():
        if header := re.fullmatch(r"## (\[.*\])", line):
            table = header[1]
        elif line.startswith("## "):
            table = ""
        elif table and (row := re.fullmatch(r"\| `(\w+)` \| (.*?) \| (.*?) \| (.*) \|", line)):
            key = (table, row[1])
            assert key not in found, f"{key} stands there twice"
            found[key] = Row(kind=row[2], default=row[3], meaning=row[4])
    return found


def tables() -> dict[str, type[Any]]:
    """Every dataclass of the configuration that has settings, as the page's headings name it.

    What a docstring begins with is the table: whoever adds a class to the configuration adds a section to the page.
    """
    found = {}
    for kind in vars(config).values():
        if isinstance(kind, type) and kind.__module__ == config.__name__ and any(True for _ in settings(kind)):
            header = re.match(r"``(\[.*?\])``", kind.__doc__ or "")
            assert header, f"the docstring of {kind.__name__} does not begin with its table"
            found[header[1]] = kind
    return found


def settings(kind: type[Any]) -> Iterator[Field[Any]]:
    if hasattr(kind, "__dataclass_fields__"):
        yield from (f for f in fields(kind) if "parse" in f.metadata)


SETTINGS = {(table, f.name): f for table, kind in tables().items() for f in settings(kind)}


def refusal(parse: Any) -> str:
    with pytest.raises(BadValueError) as caught:
        parse(object())
    return str(caught.value)


def type_of(setting: Field[Any]) -> str:
    """The type's name as the page should have it."""
    if "Path" in str(setting.type):
        return "path"
    return named(setting.metadata["parse"])


def named(parse: Any) -> str:
    name = parse.__qualname__.split(".")[0]
    if name == "list_of":
        cells = dict(zip(parse.__code__.co_freevars, parse.__closure__, strict=True))
        return f"list of {named(cells['parse_one'].cell_contents)}"
    if name in ("count", "one_of"):
        return refusal(parse)
    return WORDS.get(name, name)


def test_the_page_lists_what_there_is_and_nothing_else() -> None:
    assert set(documented()) == set(SETTINGS)


@pytest.mark.parametrize(("table", "key"), SETTINGS)
def test_type_and_default_are_true(table: str, key: str) -> None:
    setting, row = SETTINGS[table, key], documented().get((table, key))
    assert row, f"docs/config.md has no line for {key} in {table}"
    assert row.kind == type_of(setting)
    assert row.meaning.endswith(".")
    if setting.default is MISSING:
        assert row.default == "*required*"
    elif key in FOLLOWING:
        assert row.default == FOLLOWING[key]
    elif setting.default is None:
        assert row.default == "*none*"
    else:
        shown = tomllib.loads(f"value = {row.default.strip('`')}")["value"]
        parsed = setting.metadata["parse"](shown)
        assert type(setting.default)(parsed) == setting.default
