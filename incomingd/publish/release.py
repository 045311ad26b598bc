"""Writes a suite's Release file (Debian wiki, "DebianRepository/Format"; apt-secure(8)). Pure."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime

from incomingd.config import SuiteConfig
from incomingd.journal.generations import IndexFile


def release_text(suite: SuiteConfig, files: Sequence[IndexFile], at: datetime, *, sha512: bool) -> bytes:
    """The text to be signed. ``files`` are all index files, their paths below the suite's folder.

    ``at`` becomes the Date. It must not go back from one generation to the next: apt keeps the Release with the later
    Date and drops the other. Nor may it run ahead of the clock: apt refuses one from the future.
    """
    heads = [
        ("Origin", suite.origin),
        ("Label", suite.label),
        ("Suite", suite.suite),
        ("Codename", suite.codename),
        ("Date", release_date(at)),
        ("Acquire-By-Hash", "yes"),
        ("Architectures", " ".join(suite.binary_architectures)),
        ("Components", " ".join(suite.components)),
        ("Description", suite.description),
    ]
    lines = [f"{name}: {value.strip()}" for name, value in heads if value and value.strip()]
    listed = sorted(files, key=lambda file: file.path)
    lines += _table("SHA256", ((file.sha256, file) for file in listed))
    if sha512:
        lines += _table("SHA512", ((file.sha512, file) for file in listed))
    return ("\n".join(lines) + "\n").encode()


def release_date(at: datetime) -> str:
    """``Mon, 23 Nov 2026 08:00:00 UTC``, whatever the locale; parts of a second are cut off."""
    return format_datetime(at.astimezone(UTC).replace(tzinfo=None)).replace("-0000", "UTC")


def _table(name: str, rows: Iterable[tuple[str | None, IndexFile]]) -> Iterator[str]:
    yield f"{name}:"
    for digest, file in rows:
        if digest is None:
            raise ValueError(f"{file.path} has no {name}, and the Release is to list it")
        yield f" {digest} {file.size:8} {file.path}"
