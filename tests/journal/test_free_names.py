"""A name that left the pool is free, and what had it before stays known as lost."""

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from incomingd import codec
from incomingd.journal import Journal, schema
from incomingd.journal.catalogue import Catalogue, Change, Package, PackageKey, PoolFile
from incomingd.model import ChangesSummary, Digests, FileEntry

T0 = datetime(2026, 1, 2, tzinfo=UTC)
DAY = timedelta(days=1)
NEVER = datetime(2000, 1, 1, tzinfo=UTC)
DEB = "main/binary-amd64"


def package(source: str, content: str, *, name: str = "tool", kind: str = "deb", also: tuple[str, ...] = ()) -> Package:
    architecture, ending = ("source", "dsc") if kind == "dsc" else ("amd64", f"amd64.{kind}")
    path = f"pool/main/x/{source}/{name}_1.0_{ending}"
    return Package(
        key=PackageKey(kind=kind, name=name, version="1.0", architecture=architecture),
        source=source,
        source_version="1.0",
        component="main",
        stanza=f"Package: {name}\nX-Content: {content}\n\n".encode(),
        paths=(path, *also),
    )


def pool_file(path: str, content: str) -> PoolFile:
    digests = Digests(md5="0" * 32, sha1="0" * 40, sha256=content.rjust(64, "0"))
    return PoolFile(path=path, file=FileEntry(name=path.rpartition("/")[2], size=1, digests=digests))


def bring(catalogue: Catalogue, generation: int, at: datetime, one: Package, content: str) -> None:
    catalogue.add_pool_files([pool_file(path, content) for path in one.paths], None, at)
    catalogue.add_packages([one], None, at)
    catalogue.apply("stable", generation, [(Change(section=DEB, name=one.key.name, package=one.key), None)], at)


def remove(catalogue: Catalogue, generation: int, at: datetime, name: str = "tool") -> None:
    catalogue.apply("stable", generation, [(Change(section=DEB, name=name, package=None), None)], at)


def leave_the_pool(catalogue: Catalogue, at: datetime) -> None:
    catalogue.set_gone(catalogue.unused_before(at, NEVER, 100), at)


def test_other_content_under_the_same_path_makes_the_old_one_lost(catalogue: Catalogue) -> None:
    bring(catalogue, 1, T0, package("tool", "old"), "a")
    remove(catalogue, 2, T0 + DAY)
    leave_the_pool(catalogue, T0 + 2 * DAY)
    bring(catalogue, 3, T0 + 3 * DAY, package("tool", "new"), "b")
    now = catalogue.package(package("tool", "").key)
    assert now
    assert b"new" in now.stanza
    file = catalogue.pool_file(now.paths[0])
    assert file
    assert (file.file.digests.sha256[-1], file.gone) == ("b", False)
    # The way back to the first generation leads over the old one, and says so.
    (former,) = catalogue.before("stable", 1)
    assert (former.change.package, former.is_lost) == (now.key, True)
    assert [one.is_lost for one in catalogue.before("stable", 2)] == [False]


def test_other_content_of_another_source_makes_the_old_one_lost(catalogue: Catalogue) -> None:
    bring(catalogue, 1, T0, package("squatter", "old"), "a")
    remove(catalogue, 2, T0)
    bring(catalogue, 3, T0, package("tool", "new"), "b")
    now = catalogue.package(package("tool", "").key)
    assert now
    assert now.source == "tool"
    assert [one.is_lost for one in catalogue.before("stable", 1)] == [True]


def test_every_package_that_had_the_file_is_lost(catalogue: Catalogue) -> None:
    orig = "pool/main/x/tool/tool_1.0.orig.tar.gz"
    bring(catalogue, 1, T0, package("tool", "old", kind="dsc", also=(orig,)), "a")
    remove(catalogue, 2, T0)
    leave_the_pool(catalogue, T0 + DAY)
    catalogue.add_pool_files([pool_file(orig, "b")], None, T0 + DAY)
    assert catalogue.package(package("tool", "", kind="dsc").key) is None


def test_the_same_content_comes_back_as_what_it_was(catalogue: Catalogue) -> None:
    one = package("tool", "old")
    bring(catalogue, 1, T0, one, "a")
    remove(catalogue, 2, T0)
    leave_the_pool(catalogue, T0 + DAY)
    catalogue.add_pool_files([pool_file(one.paths[0], "a")], 7, T0 + DAY)
    assert catalogue.package(one.key) == one
    assert [former.is_lost for former in catalogue.before("stable", 1)] == [False]


def test_a_crash_before_the_commit_leaves_litter_under_a_free_name(catalogue: Catalogue) -> None:
    one = package("tool", "old")
    bring(catalogue, 1, T0, one, "a")
    remove(catalogue, 2, T0)
    leave_the_pool(catalogue, T0)
    catalogue.forget_intents(one.paths)
    catalogue.intend(one.paths)  # other bytes are about to be placed
    assert catalogue.unfulfilled() == list(one.paths)


def test_forgotten_files_leave_earlier_and_those_in_use_never(catalogue: Catalogue) -> None:
    one, kept = package("tool", "old"), package("kept", "x", name="kept")
    bring(catalogue, 1, T0, one, "a")
    bring(catalogue, 1, T0, kept, "k")
    remove(catalogue, 2, T0 + DAY)
    catalogue.forget([*one.paths, *kept.paths])
    assert catalogue.unused_before(NEVER, T0, 10) == []
    assert catalogue.unused_before(NEVER, T0 + DAY, 10) == list(one.paths)
    # Listed again, it is as any other.
    catalogue.apply("stable", 3, [(Change(section=DEB, name="tool", package=one.key), None)], T0 + DAY)
    remove(catalogue, 4, T0 + 2 * DAY)
    assert catalogue.unused_before(NEVER, T0 + 9 * DAY, 10) == []
    assert catalogue.unused_before(T0 + 2 * DAY, NEVER, 10) == list(one.paths)


def test_what_no_suite_lists_is_found_until_its_name_is_free(catalogue: Catalogue) -> None:
    one = package("tool", "old")
    bring(catalogue, 1, T0, one, "a")
    assert catalogue.unlisted_source("tool", None) == []
    remove(catalogue, 2, T0)
    assert catalogue.unlisted_source("tool", "1.0") == [one]
    assert catalogue.unlisted_source("tool", "2.0") == []
    leave_the_pool(catalogue, T0)
    assert catalogue.unlisted_source("tool", None) == []


def test_names_are_found_at_once(catalogue: Catalogue) -> None:
    for name in ("a", "b", "c"):
        bring(catalogue, 1, T0, package(f"of-{name}", "x", name=name), name)
    found = catalogue.listed_many("stable", {"a", "c", "none"})
    assert {name: [(one.section, one.source) for one in listed] for name, listed in found.items()} == {
        "a": [(DEB, "of-a")],
        "c": [(DEB, "of-c")],
    }
    assert catalogue.listed_many("next", {"a"}) == {}


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM packages WHERE kind = ? AND name = ? AND version = ? AND architecture = ? AND NOT lost",
        "SELECT path FROM pool_files WHERE forgotten AND gone_at IS NULL AND unused_at <= ? ORDER BY unused_at LIMIT 1",
        "SELECT 1 FROM packages p WHERE p.kind = 'dsc' AND p.name = ? AND p.version = ? AND NOT p.lost LIMIT 1",
    ],
)
def test_no_question_reads_a_whole_table(journal: Journal, query: str) -> None:
    with journal.reading() as db:
        plan = [row["detail"] for row in db.execute(f"EXPLAIN QUERY PLAN {query}", ("x",) * query.count("?"))]
    assert [line for line in plan if line.startswith("SCAN") or "TEMP B-TREE" in line] == []


def test_a_journal_of_the_former_form_keeps_its_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who signed is known from the upload, if all its .changes of that source were signed by one."""
    before = next(number for number, step in enumerate(schema.MIGRATIONS) if "packages_again" in step)
    with monkeypatch.context() as patch:
        patch.setattr("incomingd.journal.MIGRATIONS", schema.MIGRATIONS[:before])
        journal = Journal(tmp_path / "j.db")
        with journal.writing() as db:
            uploads = [[("one", "A"), ("other", "B")], [("one", "A"), ("one", "B")], [("one", None)], []]
            for number, signed in enumerate(uploads, 1):
                summaries = tuple(ChangesSummary(file="x", source=source, signed_by=key) for source, key in signed)
                db.execute(
                    "INSERT INTO uploads (id, name, queue, kind, stage, seen_at, changes)"
                    " VALUES (?, 'u', 'default', 'flat', 'published', '2026-01-02T03:04:05.678Z', ?)",
                    (number, codec.dumps(summaries)),
                )
            db.execute(
                "INSERT INTO pool_files (path, size, md5, sha1, sha256, added_at) VALUES ('p', 1, '', '', '', '')"
            )
            for number, upload in ((7, 1), (8, 2), (9, 3), (10, 4), (11, None)):
                db.execute(
                    "INSERT INTO packages VALUES (?, 'deb', 'one', ?, 'amd64', 'one', '1', 'main', ?, 'then', x'41')",
                    (number, f"{number}", upload),
                )
                db.execute("INSERT INTO package_files VALUES (?, 'p')", (number,))
            db.execute("INSERT INTO entries VALUES ('stable', 'main/binary-amd64', 'one', 7)")
        journal.close()
    journal = Journal(tmp_path / "j.db")
    catalogue = Catalogue(journal)
    keys = [PackageKey(kind="deb", name="one", version=f"{n}", architecture="amd64") for n in range(7, 12)]
    found = [catalogue.package(key) for key in keys]
    assert [(one.signed_by, one.stanza, one.paths) for one in found if one] == [
        (signer, b"A", ("p",)) for signer in ("A", None, None, None, None)
    ]
    assert [one.package for one in catalogue.listed("stable", "one")] == [keys[0]]
    with journal.writing() as db:
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        with pytest.raises(sqlite3.IntegrityError):
            db.execute("INSERT INTO entries VALUES ('stable', 'main/binary-amd64', 'none', 99)")
    journal.close()
