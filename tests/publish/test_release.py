"""The Release file, as text and as python-debian reads it; apt itself reads it in test_apt."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from debian.deb822 import Release

from incomingd.config import SuiteConfig
from incomingd.journal.generations import IndexFile
from incomingd.publish.release import release_date, release_text

AT = datetime(2026, 11, 23, 8, 0, 0, 999999, UTC)
SUITE = SuiteConfig(
    name="bookworm",
    suite="stable",
    codename="bookworm",
    origin="Example: ünïcode",
    label="Example",
    description="Packages of team A",
    components=("main", "contrib"),
    architectures=("amd64", "all", "arm64", "source"),
)
FILES = [
    IndexFile(path="main/source/Sources.xz", size=12, sha256="c" * 64, sha512="f" * 128),
    IndexFile(path="main/binary-amd64/Packages", size=123456789012, sha256="a" * 64, sha512="d" * 128, stored=False),
    IndexFile(path="main/binary-amd64/Packages.gz", size=0, sha256="b" * 64, sha512="e" * 128),
]


def test_the_whole_text() -> None:
    assert release_text(SUITE, FILES, AT, sha512=False).decode() == (
        "Origin: Example: ünïcode\nLabel: Example\nSuite: stable\nCodename: bookworm\n"
        "Date: Mon, 23 Nov 2026 08:00:00 UTC\nAcquire-By-Hash: yes\nArchitectures: amd64 arm64\n"
        "Components: main contrib\nDescription: Packages of team A\nSHA256:\n"
        f" {'a' * 64} 123456789012 main/binary-amd64/Packages\n"
        f" {'b' * 64}        0 main/binary-amd64/Packages.gz\n"
        f" {'c' * 64}       12 main/source/Sources.xz\n"
    )


def test_the_order_of_files_does_not_matter() -> None:
    one = release_text(SUITE, FILES, AT, sha512=True)
    assert one == release_text(SUITE, FILES[::-1], AT, sha512=True)


def test_python_debian_reads_it() -> None:
    release = Release(release_text(SUITE, FILES, AT, sha512=True))
    assert release["Suite"] == "stable"
    assert [row["name"] for row in release["SHA512"]] == sorted(file.path for file in FILES)
    assert {row["sha256"] for row in release["SHA256"]} == {file.sha256 for file in FILES}


def test_what_is_not_set_is_not_there() -> None:
    text = release_text(replace(SUITE, label=" ", origin="", description=None), [], AT, sha512=False)
    assert text.startswith(b"Suite: stable\n")
    assert text.endswith(b"Components: main contrib\nSHA256:\n")


def test_a_digest_that_is_missing_is_a_bug() -> None:
    with pytest.raises(ValueError, match=r"Packages has no SHA512"):
        release_text(SUITE, [IndexFile(path="main/Packages", size=1, sha256="a" * 64)], AT, sha512=True)


@pytest.mark.parametrize(
    ("at", "date"),
    [
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "Fri, 02 Jan 2026 03:04:05 UTC"),
        (datetime(2026, 1, 1, 0, 30, tzinfo=timezone(timedelta(hours=2))), "Wed, 31 Dec 2025 22:30:00 UTC"),
        (datetime(2028, 2, 29, 23, 59, 59, 1, UTC), "Tue, 29 Feb 2028 23:59:59 UTC"),
    ],
)
def test_dates(at: datetime, date: str) -> None:
    assert release_date(at) == date
