"""After a disk has died: a backup of state and pool is enough, and without the journal nothing is made worse."""

import json
import shutil
import stat
from pathlib import Path

from tests.support.apt import Apt, served
from tests.support.instance import Instance, until
from tests.support.uploads import Builder


def lines(text: str, word: str) -> list[str]:
    return [line for line in text.splitlines() if word in line]


def test_state_and_pool_are_all_that_a_backup_needs(idle: Instance, builder: Builder, tmp_path: Path) -> None:
    with idle:
        idle.succeeded(builder.upload("hello", "1.0-1").send_directory(idle.incoming))
    shutil.rmtree(idle.archive / "dists")
    shutil.rmtree(idle.root / "status")
    for keyring in idle.archive.glob("archive-keyring.*"):
        keyring.unlink()
    with idle, served(idle.archive) as address:
        assert idle.health() == "ok: "
        apt = Apt(tmp_path / "apt", address, idle.keyring)
        apt.update()
        assert apt.download("hello") == ["hello_1.0-1_amd64.deb"]
        assert idle.succeeded("hello-1.0-1")["stage"] == "published"
        idle.succeeded(builder.upload("hello", "1.0-2").send_directory(idle.incoming))
        assert idle.ctl("fsck", "--deep").returncode == 0
    assert lines(idle.ctl("history").stdout, "lost indexes")


def test_without_its_journal_the_archive_stays_as_it_is(idle: Instance, builder: Builder, tmp_path: Path) -> None:
    with idle:
        upload = builder.upload("hello", "1.0-1")
        idle.succeeded(upload.send_directory(idle.incoming))
    (idle.state / "journal.db").rename(tmp_path / "journal.db")
    with idle, served(idle.archive) as address:
        until(lambda: idle.health().startswith("halted"), "a halt")
        assert "knows nothing of it; restore the journal" in idle.health()
        assert idle.ctl("status").returncode == 4
        apt = Apt(tmp_path / "apt", address, idle.keyring)
        apt.update()
        assert apt.candidate("hello") == "1.0-1"
    (idle.archive / "dists/stable").unlink()
    with idle:
        assert idle.health() == "ok: "
        idle.succeeded(upload.send_directory(idle.incoming, "again"))


def test_others_can_get_through_the_folder_that_init_made(idle: Instance) -> None:
    assert stat.S_IMODE(idle.root.stat().st_mode) == 0o755
    assert stat.S_IMODE(idle.state.stat().st_mode) == 0o700


def test_status_files_of_uploads_that_a_restored_journal_does_not_know_say_so(idle: Instance, builder: Builder) -> None:
    backup = idle.root / "backup"
    with idle:
        old = idle.succeeded(builder.upload("old").send_directory(idle.incoming, "kept"))
    shutil.copytree(idle.state, backup, symlinks=True, ignore=shutil.ignore_patterns("S.*"))
    with idle:
        upload = builder.upload("lost")
        lost = idle.succeeded(upload.send_directory(idle.incoming, "lost"))
        builder.upload("again").send_directory(idle.incoming, "kept")
        until(lambda: (idle.status("kept") or {})["id"] > lost["id"], "the newer one of that name")
        again = idle.succeeded("kept")
        wrong = builder.upload("wrong")
        wrong.changes.write_text("nothing")
        idle.failed(wrong.send_directory(idle.incoming, "wrong"))
        failed = idle.status("wrong") or {}
    shutil.rmtree(idle.state)
    backup.rename(idle.state)
    shutil.rmtree(idle.archive / "dists")
    with idle:
        for name, before in (("lost", lost), ("kept", again)):
            found = idle.status(name) or {}
            assert (found["id"], found["state"], found["stage"]) == (before["id"], 3, "cancelled")
            assert [problem["code"] for problem in found["problems"]] == ["journal-restored"]
            assert "send it again" in found["problems"][0]["message"]
            assert found["published"] is None
        assert idle.status("wrong") == failed
        assert json.loads((idle.root / f"status/by-id/{old['id']}.json").read_bytes()) == old
        assert "3 uploads that came after the backup, up to #4" in idle.log()
        sent = idle.succeeded(builder.upload("new").send_directory(idle.incoming, "new"))
        assert sent["id"] == failed["id"] + 1  # no id is given twice
        upload.send_directory(idle.incoming, "lost")
        until(lambda: (idle.status("lost") or {})["id"] == sent["id"] + 1, "the upload that was sent again")
        idle.succeeded("lost")
    with idle:  # and once only
        assert idle.log().count("came after the backup") == 1
        assert (idle.status("kept") or {})["id"] == again["id"]
