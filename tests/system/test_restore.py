"""After a disk has died: a backup of state and pool is enough, and without the journal nothing is made worse."""

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
