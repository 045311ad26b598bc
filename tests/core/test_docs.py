"""The pages in docs/ lead nowhere that is not there, and name no command that does not exist."""

import re
from pathlib import Path

import pytest
from click import Context

from incomingd.cli import main

PROJECT = Path(__file__).parents[2]
SECURITY = PROJECT / "SECURITY.md"
PAGES = sorted([PROJECT / "README.md", SECURITY, *(PROJECT / "docs").rglob("*.md")])


def anchors(page: Path) -> set[str]:
    """Its headings, as links name them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)", page.read_text()):
        found = page.parent / target if target else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_command_exists(page: Path) -> None:
    # In code only: a block that is indented or fenced, or between backticks.
    code = re.findall(r"`([^`]+)`|^    (.*)$", page.read_text(), re.MULTILINE)
    named = {
        verb
        for parts in code
        for verb in re.findall(r"\bincomingctl(?: --config \S+)? ([a-z]+(?:-[a-z]+)*)", " ".join(parts))
    }
    assert named <= set(main.list_commands(Context(main)))


def test_every_test_that_the_threat_model_names_exists() -> None:
    named = re.findall(r"`(tests/\S+)::(\w+)`", SECURITY.read_text())
    assert named
    missing = [
        f"{file}::{test}"
        for file, test in named
        if not re.search(rf"^def {test}\(", (PROJECT / file).read_text(), re.MULTILINE)
    ]
    assert missing == []
