"""dput into incoming itself: a .changes and the files that it lists."""

from pathlib import Path

from incomingd.intake.claim import complete_claim
from tests.intake.conftest import Inbox, changes_text


def drop(inbox: Inbox, name: str, **files: bytes) -> None:
    """As dput does it: the .changes last."""
    for file, content in files.items():
        (inbox.path / file.replace("_", ".")).write_bytes(content)
    (inbox.path / f"{name}.changes").write_text(changes_text(**files))


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_it_is_known_by_its_changes_and_taken_when_settled(inbox: Inbox) -> None:
    (inbox.path / "hello.deb").write_bytes(b"deb")
    inbox.look(after=100)
    assert inbox.uploads.open() == []
    drop(inbox, "hello_1_amd64", hello_deb=b"deb")
    assert inbox.look() == []
    assert inbox.stage("hello_1_amd64") == "receiving"
    assert inbox.look(after=2.1) == ["hello_1_amd64"]
    assert names(inbox.claim_of("hello_1_amd64")) == ["hello.deb", "hello_1_amd64.changes"]
    assert names(inbox.path) == []
    assert inbox.uploads.members(1) == ("hello_1_amd64.changes", "hello.deb")


def test_the_chmod_that_dput_sends_afterwards_still_finds_the_files(inbox: Inbox) -> None:
    drop(inbox, "hello", hello_deb=b"deb")
    inbox.look()
    (inbox.path / "hello.deb").chmod(0o644)
    assert inbox.look(after=2.1) == []
    assert inbox.look(after=1.5) == []
    assert inbox.look(after=1) == ["hello"]


def test_a_rename_is_no_sign_that_a_flat_upload_is_whole(inbox: Inbox) -> None:
    drop(inbox, "hello", hello_deb=b"deb")
    inbox.scan_events.arrived("default", "hello.changes", renamed_in=False)
    assert inbox.look() == []


def test_an_orig_that_two_uploads_share_serves_both(inbox: Inbox) -> None:
    drop(inbox, "first", hello_orig=b"orig", first_deb=b"1")
    drop(inbox, "second", hello_orig=b"orig", second_deb=b"2")
    inbox.look()
    assert sorted(inbox.look(after=3)) == ["first", "second"]
    for name in ("first", "second"):
        assert (inbox.claim_of(name) / "hello.orig").read_bytes() == b"orig"
    assert names(inbox.path) == []


def test_a_shared_orig_stays_for_the_one_that_still_waits(inbox: Inbox) -> None:
    drop(inbox, "first", hello_orig=b"orig")
    (inbox.path / "second.changes").write_text(changes_text(hello_orig=4, second_deb=1))
    inbox.look()
    assert inbox.look(after=3) == ["first"]
    assert names(inbox.path) == ["hello.orig", "second.changes"]
    (inbox.path / "second.deb").write_bytes(b"2")
    inbox.look(after=15)
    assert inbox.look(after=3) == ["second"]
    assert names(inbox.claim_of("second")) == ["hello.orig", "second.changes", "second.deb"]
    assert names(inbox.path) == []


def test_nobody_can_list_another_upload_as_a_file_of_his(inbox: Inbox) -> None:
    inbox.fill("victim")
    (inbox.path / "other.changes").write_text(changes_text(nothing_yet=100))
    (inbox.path / "thief.changes").write_text(
        "Files:\n 0 4096 a b victim\n 0 10 a b other.changes\n 0 1 a b ../incomingd.toml\n 0 2 a b .hidden\n"
    )
    inbox.look()
    inbox.look(after=3601)
    assert inbox.claim_of("thief").exists() is False  # abandoned: it was never complete
    assert names(inbox.places.rejected(inbox.newest("thief").id)) == ["thief.changes"]
    assert inbox.codes("thief") == ["upload-incomplete"]
    assert inbox.stage("victim") == "claimed"


def test_a_changes_that_is_a_link_is_taken_as_the_link_that_it_is(inbox: Inbox, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (inbox.path / "hello.changes").symlink_to(secret)
    inbox.look()
    inbox.look(after=3)
    inbox.look(after=10)
    assert (inbox.claim_of("hello") / "hello.changes").is_symlink()
    assert secret.read_text() == "secret"


def test_a_claim_cut_short_is_mended(inbox: Inbox) -> None:
    drop(inbox, "hello", hello_deb=b"deb")
    drop(inbox, "other", hello_deb=b"deb", other_deb=b"x")
    inbox.look()
    upload = inbox.uploads.claim(
        inbox.newest("hello"), inbox.newest("hello").seen_at, ["hello.changes", "hello.deb"], ""
    )
    claim = inbox.places.claim(inbox.queue, upload.id)
    claim.mkdir(parents=True)
    (inbox.path / "hello.changes").rename(claim / "hello.changes")
    for _ in range(2):
        complete_claim(inbox.places, upload, inbox.queue, inbox.uploads.members(upload.id))
        assert names(claim) == ["hello.changes", "hello.deb"]
    assert names(inbox.path) == ["hello.deb", "other.changes", "other.deb"]


def test_files_of_no_upload_are_told_of_but_not_while_their_changes_may_come(inbox: Inbox) -> None:
    drop(inbox, "hello", hello_deb=b"deb", hello_dsc=b"dsc")
    (inbox.path / "hello.dsc").unlink()
    (inbox.path / "stray.deb").write_bytes(b"")
    inbox.look()
    inbox.look(after=600)
    assert inbox.incoming_folder.faults == ()
    inbox.look(after=3600)
    assert ["stray.deb" in fault and "hello" not in fault for fault in inbox.incoming_folder.faults] == [True]
