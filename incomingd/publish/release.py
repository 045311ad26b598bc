"""Writes a suite's Release file (Debian wiki, RepositoryFormat; apt-secure(8))."""

from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import format_datetime

from incomingd.config import ArchiveConfig, SuiteConfig
from incomingd.journal.generations import IndexFile


def release_text(
    archive: ArchiveConfig, suite: SuiteConfig, files: Sequence[IndexFile], at: datetime, *, sha512: bool
) -> bytes:
    """The text to be signed. ``at`` never goes back from one generation to the next: apt keeps the newer one."""
    date = format_datetime(at.astimezone(UTC).replace(tzinfo=None)).replace("-0000", "UTC")
    heads = [
        ("Origin", archive.origin),
        ("Label", archive.label),
        ("Suite", suite.name),
        ("Codename", suite.codename),
        ("Date", date),
        ("Acquire-By-Hash", "yes"),
        ("Architectures", " ".join(suite.binary_architectures)),
        ("Components", " ".join(suite.components)),
        ("Description", archive.description),
    ]
    lines = [f"{name}: {value}" for name, value in heads if value]
    lines += ["SHA256:", *(f" {file.sha256} {file.size} {file.path}" for file in files)]
    if sha512:
        lines += ["SHA512:", *(f" {file.sha512} {file.size} {file.path}" for file in files)]
    return ("\n".join(lines) + "\n").encode()
