"""The pages of this project, as tests type them: the commands of a section, in order.

- A command is a line of a fenced ``sh`` block, or of an indented block that is not a part of a file. Lines that end
  with a backslash are joined. Comments stay where they are, since bash skips them.
- A file part is any other block.
- A table command is what stands between backticks in a table and begins with the name of a program.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[2]
PAGES = (PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md")))
#: How an indented block begins that is a part of a file, or of a formula. Any other is shell.
_NOT_SHELL = re.compile(
    r"#!|\[|\{|Host |Match |Types: |Commands:|server \{|location |a\+ |workers × |command …",
)
#: How a span in a table begins that is typed.
_TABLE_COMMAND = re.compile(
    r"(incomingctl|incomingd|dput|dcut|rsync|scp|sftp|curl|cp|for|mkdir|put|rename|systemctl|journalctl|KEYS"
    r"|reprepro|aptly|apt-get|cat) \S"
)
#: What no test types: page, section, how it begins, and why. Of tests/core/test_typed_pages.py.
EXCEPTIONS = (
    ("README.md", "Try it", "./", "they install packages on the machine, and ./test is the tests themselves"),
    ("README.md", "Run it", "incomingctl ", "a synopsis of all verbs; tests/core/test_docs.py knows that each exists"),
    ("README.md", "Run it", "incomingd ", "a synopsis"),
    ("docs/operators.md", "Memory", "workers ×", "a formula"),
    (
        "docs/operators.md",
        "arrivals … were found by the scan alone",
        "",
        "they change the kernel of the machine on which the tests run",
    ),
    (
        "docs/operators.md",
        'halted: "no usable signing key"',
        "KEYS --edit-key",
        "gpg asks for the passphrase in a window or at a terminal",
    ),
    (
        "docs/operators.md",
        "What reads uploads, and what it can reach",
        "",
        "what the kernel and Debian have to have; they are there where the tests run",
    ),
    ("docs/config.md", "", "command …", "a form, not a command"),
    # Tables that only name a command, which another section has whole.
    ("README.md", "Upload from a CI job", "apt-get update", "named, not to be typed"),
    ("docs/clients.md", "What goes wrong", "rsync --chmod", "named; Clients has it whole"),
    ("docs/config.md", "[incoming.NAME]", "dput -", "named; docs/clients.md has it whole"),
    ("docs/config.md", "[publish]", "incomingctl remove", "named; docs/operators.md has it whole"),
    ("docs/operators.md", "An upload hangs", "incomingctl queue", "named; Holding publishing has it whole"),
    ("docs/operators.md", "One account", "incomingctl copy", "named; a section below it has it whole"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command: where it stands, and its text."""

    page: str
    section: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}, {self.section}: {self.text}"


class Commands:
    """The commands that a test has to type. Taking one removes it."""

    def __init__(self, commands: list[Command]) -> None:
        self.left = list(commands)

    def take(self, start: str) -> str:
        """The next one, which has to begin with ``start``."""
        assert self.left, f"no command is left; expected {start}"
        assert self.left[0].text.startswith(start), f"expected {start}, found {self.left[0]}"
        return self.left.pop(0).text

    def find(self, start: str) -> str:
        """The first one that begins so, wherever it is. For tables, whose rows have no order."""
        found = next((one for one in self.left if one.text.startswith(start)), None)
        assert found is not None, f"no command is left that begins with {start}"
        self.left.remove(found)
        return found.text

    def __iter__(self) -> Iterator[str]:
        while self.left:
            yield self.left.pop(0).text


def commands(page: str, section: str | None = None) -> list[Command]:
    """All of a page, such as ``docs/operators.md``; or only those below one heading, without its subsections."""
    return _found(
        page,
        section,
        ((heading, text) for heading, shell, block in _page_blocks(page) if shell for text in _joined(block)),
    )


def file_parts(page: str, section: str | None = None) -> list[Command]:
    """The blocks that are no shell, as :func:`commands` has the commands."""
    return _found(
        page, section, ((heading, "\n".join(block) + "\n") for heading, shell, block in _page_blocks(page) if not shell)
    )


def table_commands(page: str, section: str | None = None) -> list[Command]:
    """The commands in tables, as :func:`commands` has those in blocks."""
    return _found(
        page,
        section,
        (
            (heading, span)
            for heading, line in _lines((PROJECT / page).read_text().splitlines())
            if line.startswith("| ")
            for span in re.findall(r"`([^`]+)`", line)
            if _TABLE_COMMAND.match(span)
        ),
    )


def excepted(page: str, heading: str, text: str, exception: tuple[str, str, str, str]) -> bool:
    """True if it is one of those that the exception means."""
    return page == exception[0] and exception[1] in heading and text.startswith(exception[2])


def _page_blocks(page: str) -> Iterator[tuple[str, bool, list[str]]]:
    return _blocks((PROJECT / page).read_text().splitlines())


def _found(page: str, section: str | None, texts: Iterable[tuple[str, str]]) -> list[Command]:
    found = [
        Command(page=page, section=heading, text=text)
        for heading, text in texts
        if section in (None, heading) and not any(excepted(page, heading, text, one) for one in EXCEPTIONS)
    ]
    assert found or section is None, f"{page} has nothing to type in section {section!r}"
    return found


def inline(page: str, section: str) -> list[str]:
    """What is between backticks below one heading, without its subsections."""
    text = "\n".join(line for heading, line in _lines((PROJECT / page).read_text().splitlines()) if heading == section)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]


def _lines(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Each line with its heading. Headings themselves, and ``#`` in fenced blocks, are told apart."""
    heading, fenced = "", False
    for line in lines:
        fenced ^= line.startswith("```")
        if not fenced and (found := re.match(r"#+ (.*)", line)):
            heading = found[1].replace("`", "")
        else:
            yield heading, line


def _blocks(lines: list[str]) -> Iterator[tuple[str, bool, list[str]]]:
    """Each block with its heading, and whether it is shell."""
    block: list[str] = []
    fence = before = of = ""
    for heading, line in [*_lines(lines), ("", "")]:
        if line.startswith("```"):
            if fence:
                yield heading, fence == "```sh", block
            fence, block = ("" if fence else line), []
        elif fence:
            block.append(line)
        elif line.startswith("    ") and (block or not before):
            block.append(line[4:])
        elif block:
            yield of, not _NOT_SHELL.match(block[0]), block
            block = []
        before, of = line, heading


def _joined(block: list[str]) -> Iterator[str]:
    text = re.sub(r"\\\n\s*", "", "\n".join(block))
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield line.strip()
