"""What was published once is known again: by its identity, and what came before these were kept as well as may be."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from incomingd import codec
from incomingd.journal import Journal, schema
from incomingd.journal.catalogue import Catalogue
from incomingd.model import ChangesSummary, CheckedChanges, Digests, FileEntry

PUBLISHED = datetime(2026, 1, 2, 12, tzinfo=UTC)
SIGNED = PUBLISHED - timedelta(minutes=1)
DAY = timedelta(days=1)


def changes(
    sha256: str, identity: str, *, signed_by: str | None = "A", made_at: datetime | None = SIGNED
) -> CheckedChanges:
    return CheckedChanges(
        file=FileEntry(name="hello_1.0_amd64.changes", size=1, digests=Digests(md5="", sha1="", sha256=sha256)),
        identity=identity,
        source="hello",
        version="1.0",
        distribution="stable",
        suites=("stable",),
        architectures=("amd64",),
        signed_by=signed_by,
        made_at=made_at,
        binaries=(),
        sources=(),
        others=(),
    )


FIRST = changes("a", "1")


def add_upload(journal: Journal) -> None:
    summary = ChangesSummary(file="hello_1.0_amd64.changes", source="hello", version="1.0", signed_by="A")
    with journal.writing() as db:
        db.execute(
            "INSERT INTO uploads (id, name, queue, kind, stage, seen_at, finished_at, changes)"
            " VALUES (1, 'u', 'default', 'flat', 'published', ?, ?, ?)",
            (codec.timestamp(SIGNED), codec.timestamp(PUBLISHED), codec.dumps((summary,))),
        )


@pytest.fixture
def before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalogue:
    """A journal that knows of one .changes by the digest of its file alone."""
    step = next(number for number, step in enumerate(schema.MIGRATIONS) if "published_changes_by_identity" in step)
    with monkeypatch.context() as patch:
        patch.setattr("incomingd.journal.MIGRATIONS", schema.MIGRATIONS[:step])
        journal = Journal(tmp_path / "j.db")
        add_upload(journal)
        with journal.writing() as db:
            db.execute("INSERT INTO published_changes VALUES ('a', 1, 'hello_1.0_amd64.changes')")
        journal.close()
    return Catalogue(Journal(tmp_path / "j.db"))


def test_it_is_known_by_its_identity_and_by_its_file(journal: Journal, catalogue: Catalogue) -> None:
    add_upload(journal)
    assert not catalogue.was_published(FIRST)
    catalogue.add_published_changes([FIRST], 1)
    for same in (FIRST, changes("b", "1"), changes("a", "2")):
        assert catalogue.was_published(same)
        catalogue.add_published_changes([same], 1)
    assert not catalogue.was_published(changes("b", "2"))
    with journal.reading() as db:
        assert db.execute("SELECT count(*) FROM published_changes").fetchone()[0] == 1


def test_one_that_was_published_before_is_known_by_its_file(before: Catalogue) -> None:
    assert before.was_published(FIRST)
    assert before.was_published(replace(FIRST, signed_by=None, made_at=None))
    assert not before.was_published(changes("b", "1", signed_by=None, made_at=None))


@pytest.mark.parametrize(
    ("signed_by", "made_at", "known"),
    [
        ("A", SIGNED, True),
        ("A", PUBLISHED + DAY, True),
        ("A", PUBLISHED + DAY + timedelta(seconds=1), False),
        ("B", SIGNED, False),
    ],
    ids=["other bytes", "by a clock that is ahead", "signed again since", "signed by another"],
)
def test_one_that_was_published_before_is_known_in_other_armor(
    before: Catalogue, signed_by: str, made_at: datetime, known: bool
) -> None:
    assert before.was_published(changes("b", "1", signed_by=signed_by, made_at=made_at)) is known
    other = FileEntry(name="hello_1.1_amd64.changes", size=1, digests=FIRST.file.digests)
    assert (
        before.was_published(
            replace(changes("b", "1"), file=replace(other, digests=Digests(md5="", sha1="", sha256="b")))
        )
        is False
    )


def test_one_that_comes_again_gets_its_identity(before: Catalogue) -> None:
    before.add_published_changes([changes("b", "1")], 1)
    before.add_published_changes([FIRST], 1)  # by now other bytes have that identity
    before.add_published_changes([changes("a", "3")], 1)
    assert before.was_published(changes("c", "1"))
    assert before.was_published(changes("c", "3"))
