"""What will never be taken as it lies there: told in the daemon's log, in health, and by a status file of its own."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from incomingd.model import Upload, UploadKind
from tests.intake.conftest import Inbox, changes_text
from tests.intake.test_flat import drop


def last(upload: Upload) -> str:
    return upload.log[-1].message


def old(*paths: Path) -> None:
    """As if nothing had changed for a while: ctime cannot be set, so the test waits for the tick instead."""
    assert all(path.exists() for path in paths)
    time.sleep(0.02)


def quiet(inbox: Inbox) -> None:
    """Time passes for the daemon and for the file system's clock alike."""
    inbox.wall_ahead += 20
    for _ in range(3):
        inbox.look(after=11)


def test_a_lone_package_gets_a_status(inbox: Inbox, caplog: pytest.LogCaptureFixture) -> None:
    (inbox.path / "hello_1.0_amd64.deb").write_bytes(b"deb")
    inbox.look()
    assert inbox.uploads.newest("hello_1.0_amd64.deb") is None
    quiet(inbox)
    upload = inbox.newest("hello_1.0_amd64.deb")
    assert upload.kind is UploadKind.LONE
    words = (
        "no .changes lists it; send its .changes too, or the package alone by incomingctl submit hello_1.0_amd64.deb "
        f"--suite SUITE --key KEY --to {inbox.path}"
    )
    assert last(upload) == f"waits: {words}"
    assert words in " ".join(inbox.incoming_folder.faults)
    assert f"hello_1.0_amd64.deb#{upload.id}: waits: {words}" in caplog.text


def test_its_changes_takes_it_along(inbox: Inbox) -> None:
    drop(inbox, "hello", hello_deb=b"deb")
    (inbox.path / "hello.changes").rename(inbox.folder / "later")
    quiet(inbox)
    lone = inbox.newest("hello.deb")
    (inbox.folder / "later").rename(inbox.path / "hello.changes")
    assert [*inbox.look(), *inbox.look(after=3)] == ["hello"]
    inbox.look()
    ended = inbox.uploads.get(lone.id)
    assert ended.stage == "cancelled"
    assert "is a file of another upload by now" in ended.problems[0].message
    assert inbox.incoming_folder.faults == ()


def test_it_is_put_aside_like_any_upload_that_never_gets_whole(inbox: Inbox) -> None:
    (inbox.path / "hello.deb").write_bytes(b"deb")
    quiet(inbox)
    lone = inbox.newest("hello.deb")
    inbox.look(after=3600)
    ended = inbox.uploads.get(lone.id)
    assert ended.stage == "abandoned"
    assert "no .changes lists it, and nothing has changed for" in ended.problems[0].message
    assert not (inbox.path / "hello.deb").exists()


def test_it_is_met_again_after_a_restart(inbox: Inbox) -> None:
    (inbox.path / "hello.deb").write_bytes(b"deb")
    quiet(inbox)
    lone = inbox.newest("hello.deb")
    inbox.restart()
    inbox.look()
    assert inbox.newest("hello.deb").id == lone.id
    (inbox.path / "hello.deb").unlink()
    inbox.look()
    inbox.look()
    assert inbox.uploads.get(lone.id).stage == "cancelled"


def test_files_that_still_come_are_no_lone_packages(inbox: Inbox) -> None:
    """dput sends the .changes last; a large file takes its time."""
    (inbox.path / "hello.deb").write_bytes(b"deb")
    (inbox.path / "hello.orig.tar.gz").write_bytes(b"part")
    for size in range(4):
        os.truncate(inbox.path / "hello.orig.tar.gz", size)
        inbox.look(after=20)  # and no time passes for the file system: the other file has just grown
    assert inbox.uploads.newest("hello.deb") is None


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "put a .changes and the files that it lists into it, or remove it"),
        ({"hello.deb": b""}, "send the packages by incomingctl submit job-1/*.deb --suite SUITE --key KEY --to"),
    ],
)
def test_a_directory_without_a_changes(inbox: Inbox, files: dict[str, bytes], words: str) -> None:
    (inbox.path / "job-1").mkdir()
    for name, data in files.items():
        (inbox.path / "job-1" / name).write_bytes(data)
    inbox.look()
    quiet(inbox)
    assert last(inbox.newest("job-1")).startswith("waits: there is no .changes yet; ")
    assert words in last(inbox.newest("job-1"))
    assert words in " ".join(inbox.incoming_folder.faults)


def test_a_changes_whose_files_are_in_a_directory_beside_it(inbox: Inbox) -> None:
    (inbox.path / "job-1").mkdir()
    (inbox.path / "job-1/hello.deb").write_bytes(b"deb")
    (inbox.path / "hello.changes").write_text(changes_text(hello_deb=b"deb"))
    inbox.look()
    quiet(inbox)
    words = "hello.deb lies in the directory job-1 beside it: mv hello.changes job-1/"
    assert words in last(inbox.newest("hello"))
    assert words in " ".join(inbox.incoming_folder.faults)


def test_a_directory_whose_files_lie_beside_it(inbox: Inbox) -> None:
    (inbox.path / "job-1").mkdir()
    (inbox.path / "job-1/hello.changes").write_text(changes_text(hello_deb=b"deb"))
    (inbox.path / "hello.deb").write_bytes(b"deb")
    inbox.look()
    quiet(inbox)
    assert "hello.deb lies beside it: mv hello.deb job-1/" in last(inbox.newest("job-1"))


def signed(**files: Any) -> str:
    text = changes_text(**files)
    return (
        f"-----BEGIN PGP SIGNED MESSAGE-----\n\n{text}-----BEGIN PGP SIGNATURE-----\nx\n-----END PGP SIGNATURE-----\n"
    )


def test_the_first_of_two_under_one_name_is_told(inbox: Inbox) -> None:
    changes = inbox.path / "hello.changes"
    changes.write_text(signed(hello_deb=b"one"))
    inbox.look()
    first = inbox.newest("hello")
    changes.write_text(signed(hello_deb=b"second"))
    (inbox.path / "hello.deb").write_bytes(b"second")
    assert inbox.look(after=2) == []
    ended = inbox.uploads.get(first.id)
    assert ended.stage == "cancelled"
    assert "hello.changes was replaced by another one of the same name" in ended.problems[0].message
    inbox.look()
    assert inbox.newest("hello").id > first.id
    assert inbox.look(after=3) == ["hello"]


def test_the_same_again_replaces_nothing(inbox: Inbox) -> None:
    changes = inbox.path / "hello.changes"
    for _ in range(2):
        changes.write_text(signed(hello_deb=b"one"))
        inbox.look(after=1)
    assert [upload.name for upload in inbox.uploads.open()] == ["hello"]
    assert inbox.newest("hello").id == 1
