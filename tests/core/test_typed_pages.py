"""Every command of README.md and docs/*.md is typed by a test, and every part of a file is written by one.

A test says what it types by ``@pytest.mark.types``, ``types_table`` or ``writes``, with page and section; the fixtures
``typed``, ``tabled`` and ``written`` give it the commands, and fail if it leaves any. Exceptions are in
``tests/support/pages.py``, with their reasons.
"""

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import pages
from tests.support.pages import PAGES, PROJECT, Command

#: What is found in a page, by the mark of those who type it; and the fixture by which they get it.
KINDS: dict[str, tuple[Callable[[str], list[Command]], str]] = {
    "types": (pages.commands, "typed"),
    "types_table": (pages.table_commands, "tabled"),
    "writes": (pages.file_parts, "written"),
}
NAMES = [str(page.relative_to(PROJECT)) for page in PAGES]


def marked() -> Iterator[tuple[str, str, str, str]]:
    """Of each mark of each test: the test, the kind, page and section."""
    for file in sorted((PROJECT / "tests/system").glob("test_*.py")):
        if "@pytest.mark.types" not in (text := file.read_text()) and "@pytest.mark.writes" not in text:
            continue
        module = importlib.import_module(f"tests.system.{Path(file).stem}")
        for name, test in vars(module).items():
            for mark in getattr(test, "pytestmark", []) if name.startswith("test_") else []:
                if mark.name in KINDS:
                    code = test.__code__
                    assert KINDS[mark.name][1] in code.co_varnames[: code.co_argcount], f"{name}: {mark.name}"
                    yield name, mark.name, *mark.args


@pytest.mark.parametrize("page", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_test_types_it(page: str, kind: str) -> None:
    typed = {(of, section) for _, mark, of, section in marked() if mark == kind}
    assert [str(one) for one in KINDS[kind][0](page) if (page, one.section) not in typed] == []


@pytest.mark.parametrize("exception", pages.EXCEPTIONS, ids=lambda exception: f"{exception[0]}-{exception[2]}")
def test_no_exception_is_left_over(exception: tuple[str, str, str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "EXCEPTIONS", ())
    found = [one for find, _ in KINDS.values() for one in find(exception[0])]
    assert any(pages.excepted(one.page, one.section, one.text, exception) for one in found)
