"""Feeds archives that must be refused to the checks themselves, before they see the first upload.

The rules about archives rest on libraries and on Python, which change with updates of the system, and no honest upload
shows that one of them has gone blind. So the process from which check workers are forked begins with these, and so does
an import. They lie in memory, take some milliseconds together, and each is sound but for the one thing it stands for.

:func:`run` raises :class:`~incomingd.errors.Halt` if one of them passes, and if the one that is in order does not.
"""

import gzip
import lzma
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import zstandard

from incomingd.config import ChecksConfig
from incomingd.errors import Halt
from incomingd.model import Digests, FileEntry, Problem
from incomingd.verify.binary import check_alone
from incomingd.verify.overrides import Overrides
from incomingd.verify.source import check_tarball
from incomingd.verify.streams import Spare

_NAME, _ORIG = "selftest_1_all.deb", "selftest_1.orig.tar"
_CONTROL = b"""Package: selftest
Version: 1
Architecture: all
Maintainer: incomingd <root@localhost>
Description: is never published
"""
_END = bytes(1024)
#: The text of another package, by which an attacker would replace the one above.
_EVIL = _CONTROL.replace(b"selftest", b"evil")


def run() -> None:
    """Raise ``Halt`` if the checks do not tell good archives from bad ones."""
    wrong = fault()
    if wrong:
        raise Halt(wrong)


def fault() -> str:
    """A sentence for the operator; empty if each archive gets its due."""
    wrong = [
        *(f"a package with {what} passes" for what, deb in packages().items() if not _judged(deb)),
        *(f"a source with {what} passes" for what, tar in sources().items() if not _judged_source(tar)),
        *(f"a sound package does not pass ({problem.message})" for problem in _judged(sound_package())[:1]),
        *(f"a sound source does not pass ({problem.message})" for problem in _judged_source(sound_source())[:1]),
    ]
    if not wrong:
        return ""
    return (
        f"the self-test of the checks failed, so nothing is checked or published: {'; '.join(wrong)}; "
        "reinstall incomingd and the Python packages that it needs (docs/operators.md)"
    )


def _judged(deb: bytes) -> Sequence[Problem]:
    with _file(deb) as path:
        entry = FileEntry(name=_NAME, size=len(deb), digests=Digests(md5="", sha1="", sha256=""))
        now = datetime.now(UTC)
        return check_alone(
            path, entry, lambda _section, _name: "main", now, checks=ChecksConfig(), overridden=Overrides()
        ).problems


def _judged_source(tar: bytes) -> Sequence[Problem]:
    with _file(tar) as path:
        return tuple(check_tarball(path, "", _ORIG, Spare()))


@contextmanager
def _file(data: bytes) -> Iterator[Path]:
    """A file in memory: a full disk must not look like a fault of the checks."""
    fd = os.memfd_create("selftest", os.MFD_CLOEXEC)
    try:
        os.write(fd, data)
        yield Path(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


# -- archives ---------------------------------------------------------------------------------------------------------


def _member(
    name: str, content: bytes = b"", kind: bytes = b"0", *, size: bytes = b"", prefix: bytes = b"", hidden: bytes = b""
) -> bytes:
    """A member of a tar in GNU's format: its ``size`` as it is spelled, ``hidden`` behind what has no content."""
    head = bytearray(512)
    for at, field in (
        *(
            (0, name.encode()),
            (100, b"0000644\0" + b"0000000\0" * 2),
            (124, size or b"%011o\0" % len(content or hidden)),
        ),
        *((136, b"%011o\0" % 10**9), (148, b" " * 8), (156, kind), (257, b"ustar  \0"), (345, prefix)),
    ):
        head[at : at + len(field)] = field
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + content + bytes(-len(content) % 512) + hidden


def _ar(*members: tuple[str, bytes]) -> bytes:
    pieces = [b"!<arch>\n"]
    for name, data in members:
        pieces.append(f"{name:<16}{10**9:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode())
        pieces += [data, b"\n" * (len(data) % 2)]
    return b"".join(pieces)


_FORMAT = ("debian-binary", b"2.0\n")
_GOOD = _member("./", kind=b"5") + _member("./control", _CONTROL)
_DATA = ("data.tar", _member("./", kind=b"5") + _END)


def _deb(control_tar: bytes, ending: str = "") -> bytes:
    return _ar(_FORMAT, (f"control.tar{ending}", control_tar), _DATA)


def _with(more: bytes) -> bytes:
    """A package whose control.tar goes on with ``more`` behind its control file."""
    return _deb(_GOOD + more + _END)


def _long(name: bytes) -> bytes:
    return _member("././@LongLink", name + b"\0", b"L")


def sound_package() -> bytes:
    """What has to pass."""
    return _with(_long(b"./postinst") + _member("./p", b"#!/bin/sh\n"))


def sound_source() -> bytes:
    """What has to pass."""
    return _member("x/", kind=b"5") + _member("pax", b"12 path=x/a\n", b"x") + _member("y", b"a") + _END


def packages() -> dict[str, bytes]:
    """Packages that must not pass, by what is wrong with each."""
    evil = _member("./control", _EVIL)
    return {
        "two control files": _with(evil),
        "a second control file by the last of two long names": _with(
            _long(b"./x") + _long(b"./control") + _member("./y", _EVIL)
        ),
        "a file hidden behind a directory": _with(_member("./", kind=b"5", hidden=_member("./postinst"))),
        "a second archive behind the end of control.tar": _deb(_GOOD + _END + evil + _END),
        "a damaged header before a second control file": _with(b"junk" * 128 + evil),
        "a size that is spelled with _": _with(_member("./x", _EVIL, size=b"000000_%04o\0" % len(_EVIL))),
        "a size that is spelled with 0o": _with(_member("./x", _EVIL, size=b"0o%09o\0" % len(_EVIL))),
        "a prefix outside of POSIX's format": _with(_member("./x", prefix=b"y")),
        "a pax header": _with(_member("pax", b"19 path=./postinst\n", b"x") + _member("./x")),
        "a sparse file": _with(_member("./x", kind=b"S")),
        "a file that is called a directory": _with(_member("./x/", b"x")),
        "a file called .": _deb(_member("./control", _CONTROL) + _member(".") + _END),
        "a member without name": _with(_member("")),
        "a link in control.tar": _with(_member("./postinst", kind=b"2")),
        "a member above its control.tar": _with(_member("../x")),
        "a control.tar that is cut off": _deb((_GOOD + _member("./x", b"x"))[:-100]),
        "no control file": _deb(_member("./x", _CONTROL) + _END),
        "two control.tar": _ar(_FORMAT, ("control.tar", _GOOD + _END), ("control.tar", _GOOD + _END), _DATA),
        "something behind its last member": sound_package() + b"evil",
        **{f"two streams in control.tar{ending}": _deb(_two(pack), ending) for ending, pack in _PACKERS.items()},
        "something behind the stream of control.tar.gz": _deb(gzip.compress(_GOOD + _END, 1) + b"evil", ".gz"),
        "a second stanza in its control file": _deb(_member("./control", _CONTROL + b"\n" + _EVIL) + _END),
        "one field twice": _deb(_member("./control", _CONTROL + 2 * b"X-Odd: x\n") + _END),
    }


_PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".xz": lambda raw: lzma.compress(raw, preset=0),
    ".zst": lambda raw: zstandard.ZstdCompressor(level=1).compress(raw),
}


def _two(pack: Callable[[bytes], bytes]) -> bytes:
    """A tar in two streams; dpkg-deb reads the first alone."""
    return pack(_GOOD + _END) + pack(_END)


def sources() -> dict[str, bytes]:
    """Tarballs of a source that must not pass, by what is wrong with each."""
    good = _member("x/", kind=b"5")
    return {
        "a member above the tree": good + _member("../x") + _END,
        "a member that a pax header puts above the tree": good
        + _member("p", b"13 path=../x\n", b"x")
        + _member("x/y")
        + _END,
        "a size that a pax header changes": good + _member("p", b"12 size=512\n", b"x") + _member("x/y") + _END,
        "a member behind a link": good + _member("l", kind=b"2") + _member("l/x") + _END,
        "a second archive behind the end": good + _END + good + _END,
    }
