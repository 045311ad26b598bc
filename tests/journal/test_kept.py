"""What the journal knows of the index files under by-hash: who lists them, since when not, and how much they use."""

import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from incomingd.journal import Journal
from incomingd.journal.catalogue import Catalogue, PoolFile
from incomingd.journal.generations import IndexFile
from incomingd.journal.kept import KeptIndexes, Space
from incomingd.model import Digests, FileEntry

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SUITE = "stable"


@pytest.fixture
def kept(journal: Journal) -> KeptIndexes:
    return KeptIndexes(journal)


def after(minutes: float) -> datetime:
    return NOW + timedelta(minutes=minutes)


def index(content: str, size: int = 4096) -> IndexFile:
    """An index file of that content; equal content has equal digests."""
    return IndexFile(
        path="main/binary-amd64/Packages.xz", size=size, sha256=content, sha512=f"{content}512", allocated=size
    )


def publish(kept: KeptIndexes, contents: Iterable[str], keep: int = 2) -> None:
    """A generation each minute, each with one index."""
    before: tuple[IndexFile, ...] = ()
    for number, content in enumerate(contents, 1):
        files = (index(content),)
        kept.replace(SUITE, number, before, files, after(number))
        kept.outlived(SUITE, number - keep + 1)
        before = files


def due(kept: KeptIndexes, at: datetime, limit: int = 100) -> list[str]:
    return [one.sha256 for one in kept.due(at, limit)]


def test_an_index_is_due_when_neither_its_generation_nor_its_time_keeps_it(kept: KeptIndexes) -> None:
    publish(kept, "abcd")
    assert due(kept, after(1)) == []
    assert due(kept, after(2)) == ["a"]  # superseded by the second generation
    assert due(kept, after(3)) == ["a", "b"]
    assert due(kept, after(1000)) == ["a", "b"]  # the newest two list c and d
    assert due(kept, after(1000), limit=1) == ["a"]
    kept.forget(kept.due(after(2), 100))
    assert due(kept, after(1000)) == ["b"]
    assert {one.sha256 for one in kept.all(SUITE)} == {"b", "c", "d"}


def test_an_index_that_comes_back_is_current_again(kept: KeptIndexes) -> None:
    publish(kept, "abcda")
    assert due(kept, after(1000)) == ["b", "c"]
    assert kept.space().grace_only == 2 * 4096


def test_fewer_generations_are_kept_after_a_reload(kept: KeptIndexes) -> None:
    publish(kept, "abcd", keep=10)
    assert due(kept, after(1000)) == []
    kept.outlived_all(SUITE, 4)
    assert due(kept, after(1000)) == ["a", "b", "c"]
    kept.outlived_all(SUITE, 3)
    assert due(kept, after(1000)) == ["a", "b"]
    assert kept.space() == Space(pool=0, indexes=4 * 4096, grace_only=2 * 4096)


def test_a_switch_that_came_late_begins_the_time_again(kept: KeptIndexes) -> None:
    publish(kept, "abc", keep=1)
    kept.switched_late(SUITE, 3, after(60))
    assert due(kept, after(59)) == ["a"]
    assert due(kept, after(60)) == ["a", "b"]


def test_what_leaves_is_told_by_publish(kept: KeptIndexes) -> None:
    publish(kept, "abcd", keep=1)
    assert [(one.superseded_at, one.size) for one in kept.leaving()] == [(after(n), 4096) for n in (2, 3, 4)]


def test_names_under_by_hash_are_those_of_every_digest_that_release_lists(kept: KeptIndexes) -> None:
    publish(kept, "a")
    assert kept.all(SUITE)[0].by_hash == ("SHA256/a", "SHA512/a512")
    assert IndexFile(path="main/x", size=1, sha256="a").by_hash == ("SHA256/a",)


def test_the_sums_are_true_after_any_history(kept: KeptIndexes, journal: Journal) -> None:
    dice, catalogue = random.Random(1), Catalogue(journal)
    before: tuple[IndexFile, ...] = ()
    for number in range(1, 200):
        files = tuple(index(str(dice.randrange(40)), dice.randrange(9000)) for _ in range(dice.randrange(3)))
        kept.replace(SUITE, number, before, files, after(number))
        kept.outlived(SUITE, number - 3)
        before = files
        if dice.random() < 0.2:
            kept.forget(kept.due(after(number - 20), 3))
        path = f"pool/{dice.randrange(30)}"
        if dice.random() < 0.3:
            catalogue.set_gone([path], after(number))
        elif catalogue.pool_file(path) is None or dice.random() < 0.5:
            digests = Digests(md5="0", sha1="0", sha256="0")
            file = FileEntry(name="x", size=dice.randrange(9000), digests=digests)
            catalogue.add_pool_files([PoolFile(path=path, file=file)], None, after(number))
    with journal.reading() as db:
        pool = db.execute("SELECT sum(size) FROM pool_files WHERE gone_at IS NULL").fetchone()[0]
        indexes, grace_only = db.execute("SELECT sum(size), sum(size * grace_only) FROM kept_indexes").fetchone()
    assert kept.space() == Space(pool=pool, indexes=indexes, grace_only=grace_only)
    assert 0 < grace_only < indexes


def test_a_journal_of_before_has_its_pool_added_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from incomingd.journal import schema

    before = next(n for n, step in enumerate(schema.MIGRATIONS) if "CREATE TABLE kept_indexes" in step)
    monkeypatch.setattr("incomingd.journal.MIGRATIONS", schema.MIGRATIONS[:before])
    old = Journal(tmp_path / "journal.db")
    digests = Digests(md5="0", sha1="0", sha256="0")
    files = [PoolFile(path=f"pool/{n}", file=FileEntry(name=str(n), size=100, digests=digests)) for n in range(3)]
    Catalogue(old).add_pool_files(files, None, NOW)
    Catalogue(old).set_gone(["pool/2"], NOW)
    old.close()
    monkeypatch.undo()
    new = Journal(tmp_path / "journal.db")
    assert KeptIndexes(new).space() == Space(pool=200, indexes=0, grace_only=0)
    new.close()
