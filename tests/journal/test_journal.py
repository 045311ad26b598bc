"""The database itself: ours or refused, migrated in steps, and nothing half done."""

import os
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from incomingd.errors import Halt, Retry
from incomingd.journal import Journal, schema
from incomingd.journal.uploads import Uploads


def test_it_is_marked_as_ours_and_durable(journal: Journal) -> None:
    with journal.reading() as db:
        assert db.execute("PRAGMA application_id").fetchone()[0] == schema.APPLICATION_ID
        assert db.execute("PRAGMA user_version").fetchone()[0] == len(schema.MIGRATIONS)
        assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert db.execute("PRAGMA synchronous").fetchone()[0] == 2


def test_a_large_transaction_leaves_no_large_log(journal: Journal, tmp_path: Path) -> None:
    with journal.writing() as db:
        db.executemany("INSERT INTO blocks (id, size) VALUES (?, 0)", ((number,) for number in range(60)))
        db.executemany(
            "INSERT INTO block_forms VALUES (?, 'raw', 0, ?)", ((number, os.urandom(1 << 20)) for number in range(60))
        )
    log = tmp_path / "journal.db-wal"
    assert log.stat().st_size > 60 << 20
    with journal.writing() as db:
        db.execute("DELETE FROM block_forms WHERE block = 1")
    assert log.stat().st_size <= 16 << 20


def test_somebody_elses_database_is_refused(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE addresses (name)")
    other.close()
    with pytest.raises(Halt, match="not a journal of incomingd"):
        Journal(tmp_path / "other.db")


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_bytes(b"not a database at all, " * 100)
    with pytest.raises(Halt, match="damaged"):
        Journal(tmp_path / "journal.db")


def test_a_newer_form_is_refused(tmp_path: Path) -> None:
    Journal(tmp_path / "j.db").close()
    raw = sqlite3.connect(tmp_path / "j.db")
    raw.execute("PRAGMA user_version = 99")
    raw.close()
    with pytest.raises(Halt, match="form 99"):
        Journal(tmp_path / "j.db")


def test_migrations_go_step_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Journal(tmp_path / "j.db").close()
    monkeypatch.setattr(
        schema, "MIGRATIONS", (*schema.MIGRATIONS, "CREATE TABLE later (x) STRICT;".replace("(x)", "(x TEXT)"))
    )
    monkeypatch.setattr("incomingd.journal.MIGRATIONS", schema.MIGRATIONS)
    journal = Journal(tmp_path / "j.db")
    with journal.reading() as db:
        assert db.execute("SELECT count(*) FROM later").fetchone()[0] == 0
        assert db.execute("PRAGMA user_version").fetchone()[0] == len(schema.MIGRATIONS)
    journal.close()


def test_uploads_of_the_first_form_have_no_delay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("incomingd.journal.MIGRATIONS", schema.MIGRATIONS[:1])
        journal = Journal(tmp_path / "j.db")
        with journal.writing() as db:
            db.execute(
                "INSERT INTO uploads (name, queue, kind, stage, sequence, seen_at)"
                " VALUES ('job-1', 'default', 'flat', 'queued', 1, '2026-01-02T03:04:05.678Z')"
            )
        journal.close()
    journal = Journal(tmp_path / "j.db")
    (upload,) = Uploads(journal).head(10)
    journal.close()
    assert (upload.name, upload.delay, upload.due_at, upload.delayed) == ("job-1", None, None, False)


def test_a_failed_transaction_leaves_nothing(journal: Journal) -> None:
    with pytest.raises(KeyError), journal.writing() as db:
        db.execute("INSERT INTO pool_intents VALUES ('x')")
        raise KeyError
    with journal.reading() as db:
        assert db.execute("SELECT count(*) FROM pool_intents").fetchone()[0] == 0


def test_transactions_nest_and_the_outermost_commits(journal: Journal, tmp_path: Path) -> None:
    other = Journal(journal.path)
    with journal.writing() as db:
        with journal.writing():
            db.execute("INSERT INTO pool_intents VALUES ('x')")
        with other.reading() as outside:
            assert outside.execute("SELECT count(*) FROM pool_intents").fetchone()[0] == 0
    with other.reading() as outside:
        assert outside.execute("SELECT count(*) FROM pool_intents").fetchone()[0] == 1
    other.close()


def test_another_thread_sees_a_transaction_when_it_is_over(journal: Journal) -> None:
    def count() -> int:
        with journal.reading() as db:
            return int(db.execute("SELECT count(*) FROM pool_intents").fetchone()[0])

    with ThreadPoolExecutor(1) as other:
        with journal.writing() as db:
            db.execute("INSERT INTO pool_intents VALUES ('x')")
            assert count() == 1
            assert other.submit(count).result() == 0
        assert other.submit(count).result() == 1
    assert count() == 1


def test_a_full_disk_is_the_environments_failure(journal: Journal) -> None:
    with journal.writing() as db:
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(Retry, match="full"), journal.writing() as db:
        db.execute("INSERT INTO pool_intents VALUES (?)", ("x" * 100_000,))
    with journal.writing() as db:
        db.execute("INSERT INTO pool_intents VALUES ('it goes on')")


def test_what_was_committed_outlives_a_kill(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from incomingd.journal import Journal\n"
        f"j = Journal(pathlib.Path({str(tmp_path / 'j.db')!r}))\n"
        "for n in range(10**6):\n"
        "    with j.writing() as db: db.execute('INSERT INTO pool_intents VALUES (?)', (str(n),))\n"
        "    print(n, flush=True)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for _ in range(50):
        told = child.stdout.readline()
    os.kill(child.pid, signal.SIGKILL)
    told = (child.stdout.read().split() or [told.strip()])[-1]
    child.wait()
    journal = Journal(tmp_path / "j.db")
    with journal.reading() as db:
        count = db.execute("SELECT count(*) FROM pool_intents").fetchone()[0]
    journal.close()
    assert int(told) + 1 <= count <= int(told) + 2
