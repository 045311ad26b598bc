"""What a process that reads an import's packages may answer: nothing else becomes a path, or is published."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from incomingd.importing.answers import faults
from incomingd.importing.protocol import Answer
from incomingd.importing.readers import chunks, readable
from incomingd.importing.reading import Reader, Task
from incomingd.journal.staging import Origin
from incomingd.model import Problem
from tests.support import imports, packages

NUMBER = 7
#: The process's own folder.
PLACE = "7-0"


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return imports.task(tmp_path, tmp_path)


@pytest.fixture(params=["binary", "source"])
def read(request: pytest.FixtureRequest, task: Task, tmp_path: Path) -> tuple[Answer, Origin]:
    """An honest answer."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    if request.param == "binary":
        path = packages.binary(theirs, "hello", "1.0-1")
    else:
        path, *_ = packages.source(theirs, "hello", "1.0-1", form="quilt")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    listed = {"sha256": digest, "package": "hello", "version": "1.0-1"}
    origin = Origin(path=str(path), size=path.stat().st_size, mtime_ns=0, **listed)
    item = Reader(task, PLACE).read(NUMBER, origin)
    assert item.problems == ()
    return Answer(id=NUMBER, problems=(), package=item.package), origin


def test_an_honest_answer(read: tuple[Answer, Origin], task: Task) -> None:
    answer, origin = read
    assert list(faults(answer, NUMBER, origin, task, PLACE)) == []


def with_file(package: Any, **changes: Any) -> Any:
    first, *others = package.files
    return replace(package, files=(replace(first, **changes), *others))


@pytest.mark.parametrize(
    "alter",
    [
        lambda package: replace(package, name="../hello"),
        lambda package: replace(package, source="Hello"),
        lambda package: replace(package, version="1.0\nFilename: x"),
        lambda package: replace(package, component="../../state"),
        lambda package: replace(package, component="secret"),
        lambda package: replace(package, architecture="riscv64"),
        lambda package: replace(package, kind="rpm"),
        lambda package: replace(package, sections=("main/binary-arm64", "main/source")),
        lambda package: replace(package, sha256="0" * 64),
        lambda package: replace(package, files=()),
        lambda package: with_file(package, path="pool/main/o/other/other_1.0-1_amd64.deb"),
        lambda package: with_file(package, path="../state/gnupg/uploaders/uploaders.gpg"),
        lambda package: with_file(package, staged="../../gnupg/signing/private-keys-v1.d/key"),
        lambda package: with_file(package, staged="7-0/0/8-other_1.0-1_amd64.deb"),
        lambda package: with_file(package, staged=package.files[0].staged.replace("7-0/", "7-1/", 1)),
        lambda package: replace(package, files=(*package.files, package.files[-1])),
        lambda package: with_file(package, staged=None),
        lambda package: with_file(package, file=replace(package.files[0].file, name="a/b")),
        lambda package: with_file(package, file=replace(package.files[0].file, size=-1)),
        lambda package: replace(package, stanza=package.stanza.replace(b"hello", b"sudo")),
        lambda package: replace(package, stanza=package.stanza + package.stanza.replace(b"hello", b"sudo")),
        lambda package: replace(package, stanza=package.stanza.replace(b"\nVersion: 1.0-1", b"\nVersion: 9")),
        lambda package: replace(package, stanza=package.stanza[:-1]),
        lambda package: replace(package, stanza=package.stanza[:-1] + b"fileName: x\n\n"),
        lambda package: replace(package, stanza=package.stanza[:-1] + b"sha512: x\nStatus: y\n\n"),
        lambda package: replace(package, stanza=package.stanza.replace(b"hello_1.0-1", b"sudo_1.0-1")),
        lambda package: replace(package, stanza=b""),
    ],
)
def test_an_answer_that_cannot_be_true(alter: Callable[[Any], Any], read: tuple[Answer, Origin], task: Task) -> None:
    answer, origin = read
    altered = replace(answer, package=alter(answer.package))
    assert altered != answer
    assert list(faults(altered, NUMBER, origin, task, PLACE)) != []


@pytest.mark.parametrize(
    "other",
    [{"sha256": "0" * 64}, {"size": 1}, {"package": "sudo"}, {"version": "1.0-2"}],
    ids=lambda other: next(iter(other)),
)
def test_an_answer_that_a_signed_index_contradicts(
    other: dict[str, Any], read: tuple[Answer, Origin], task: Task
) -> None:
    answer, origin = read
    assert list(faults(answer, NUMBER, replace(origin, **other), task, PLACE)) != []


def test_an_answer_about_something_else(read: tuple[Answer, Origin], task: Task) -> None:
    answer, origin = read
    problem = Problem(code="bad-deb", message="it is none")
    assert list(faults(answer, NUMBER + 1, origin, task, PLACE)) != []
    assert list(faults(replace(answer, package=None), NUMBER, origin, task, PLACE)) != []
    assert list(faults(replace(answer, problems=(problem,)), NUMBER, origin, task, PLACE)) != []


def test_long_names_make_short_chunks() -> None:
    """A chunk and its answer never wait for each other in a pipe."""
    origins = [Origin(path="x" * 4000, size=1, mtime_ns=0) for _ in range(20)] + [
        Origin(path="short", size=1, mtime_ns=0) for _ in range(120)
    ]
    made = list(chunks(origins, 5))
    assert [number for chunk in made for number, _ in chunk] == list(range(5, 145))
    assert all(len(chunk) <= 50 and sum(len(one.path) for _, one in chunk) <= 1 << 15 for chunk in made)
    assert list(chunks([], 1)) == []


def test_a_link_that_no_index_lists_leads_nowhere(task: Task, tmp_path: Path) -> None:
    """Nor do the folders that links lead into: what takes a process over reads no more than was signed for."""
    theirs, away, secret = tmp_path / "theirs", tmp_path / "elsewhere.deb", tmp_path / "secret.deb"
    theirs.mkdir()
    for file in (away, secret):
        file.write_bytes(b"x")
    hello = theirs / "hello_1.0-1_amd64.deb"
    hello.symlink_to(away)
    (theirs / "unlisted_1.0-1_amd64.deb").symlink_to(secret)
    listed = [Origin(path=str(hello), size=1, mtime_ns=0, sha256="0" * 64)]
    assert readable(replace(task, roots=(theirs,)), listed) == ((away,), (theirs,))
    assert readable(replace(task, roots=(away,)), []) == ((away,), ())


def test_a_source_is_read_with_what_is_beside_it(task: Task, tmp_path: Path) -> None:
    source = tmp_path / "hello_1.0-1.dsc"
    source.write_bytes(b"x")
    assert readable(replace(task, roots=(source,)), []) == ((), (tmp_path,))
