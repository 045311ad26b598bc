"""The self-test of the checks: each of its bad archives breaks one rule, and a rule that has gone blind is told."""

import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from incomingd.errors import Halt
from incomingd.verify import archives, binary, deb822, selftest, source, streams, tar
from incomingd.verify.tar import Kind, TarMember


def test_sound_checks_pass_it() -> None:
    assert selftest.fault() == ""
    selftest.run()


@pytest.mark.parametrize("what", selftest.packages())
def test_each_bad_package_breaks_one_rule(what: str) -> None:
    problems = selftest._judged(selftest.packages()[what])
    assert len(problems) == 1, problems


@pytest.mark.parametrize("what", selftest.sources())
def test_each_bad_source_breaks_one_rule(what: str) -> None:
    problems = selftest._judged_source(selftest.sources()[what])
    assert len(problems) == 1, problems


def with_tarfile(file: IO[bytes], *, deb: bool, charge: Callable[[], None]) -> Iterator[tuple[TarMember, Any]]:
    """A reader that believes what Python's tarfile says."""
    try:
        with tarfile.open(fileobj=file, mode="r:") as read:
            for member in read:
                kind = Kind.DIRECTORY if member.isdir() else Kind.LINK if member.issym() else Kind.FILE
                yield (
                    TarMember(name=member.name, kind=kind, size=member.size, mtime=0),
                    read.extractfile(member) if member.isreg() else None,
                )
    except tarfile.TarError as error:
        raise streams.ArchiveError(str(error)) from error


def nothing(*_: object, **__: object) -> Any:
    return None


#: What is made blind, with what, and one of the things that pass then.
BLIND: dict[str, tuple[object, str, Any, str]] = {
    "a library reads the headers": (archives, "read_tar", with_tarfile, "by the last of two long names"),
    "anything may follow the end": (tar._Blocks, "end", nothing, "a second archive behind the end of control.tar"),
    "every size is one": (tar, "_has_content", nothing, "a file hidden behind a directory"),
    "a file may be called anything": (tar, "_called_root", nothing, "a file called ."),
    "every kind is a file": (tar, "_DEB_KINDS", dict(tar._KINDS), "a sparse file"),
    "members are not compared": (binary, "_plain_member", nothing, "a link in control.tar"),
    "a member may lie anywhere": (source, "_outside", lambda _: "", "a member above the tree"),
    "nothing lies below a link": (source, "_below", lambda *_: "", "a member behind a link"),
    "streams may follow": (streams._Streams, "_next", lambda _: False, "two streams in control.tar.xz"),
    "a pax header may say any size": (
        tar,
        "_pax_size",
        lambda header, _: header.size,
        "a size that a pax header changes",
    ),
    "no field is repeated": (deb822, "_repeated", lambda *_: iter(()), "one field twice"),
}


@pytest.mark.parametrize("name", BLIND)
def test_a_blind_check_halts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, attribute, value, passes = BLIND[name]
    monkeypatch.setattr(owner, attribute, value)
    with pytest.raises(Halt, match="self-test of the checks failed") as halted:
        selftest.run()
    assert f"{passes} passes" in str(halted.value)


def test_checks_that_refuse_all_halt_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise streams.ArchiveError("no")

    monkeypatch.setattr(binary, "ar_members", refuse)
    assert "a sound package does not pass" in selftest.fault()
