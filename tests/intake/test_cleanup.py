"""What an upload leaves behind."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from incomingd import fsio
from incomingd.intake.cleanup import keep_rejected, remove_published
from tests.intake.conftest import Inbox


@pytest.fixture
def sealed(inbox: Inbox) -> Inbox:
    """job-1, claimed and sealed: the .changes was renamed into the seal, hello.deb was copied."""
    inbox.rename_in("job-1", hello_deb=b"deb")
    inbox.look()
    os.link(inbox.claim_of("job-1") / "hello.deb", inbox.folder / "linked")
    inbox.seal("job-1")
    return inbox


def left(inbox: Inbox) -> list[str]:
    roots = [inbox.places.claims(inbox.queue), inbox.state / "sealed"]
    return [path.name for root in roots for path in root.glob("*")]


def kept(inbox: Inbox) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in inbox.places.rejected(1).iterdir() if path.is_file()}


def test_all_that_a_failed_upload_brought_is_kept(sealed: Inbox) -> None:
    for _ in range(2):
        keep_rejected(sealed.places, sealed.newest("job-1"), sealed.queue, sealed.room)
        assert sorted(kept(sealed)) == ["hello.changes", "hello.deb"]
        assert kept(sealed)["hello.deb"] == b"deb"
        assert left(sealed) == []


def test_keeping_goes_on_where_it_was_cut_short(sealed: Inbox) -> None:
    sealed.places.rejected(1).parent.mkdir()
    sealed.claim_of("job-1").rename(sealed.places.rejected(1))
    keep_rejected(sealed.places, sealed.newest("job-1"), sealed.queue, sealed.room)
    assert sorted(kept(sealed)) == ["hello.changes", "hello.deb"]
    assert left(sealed) == []


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a second file system")
def test_it_is_kept_across_file_systems(make_inbox: Callable[..., Inbox]) -> None:
    other = Path("/dev/shm") / f"incomingd-{os.getpid()}"
    (other / "incoming").mkdir(parents=True)
    try:
        inbox = make_inbox(claims=str(other / "claims"))
        inbox.path.rmdir()
        inbox.path.symlink_to(other / "incoming")
        inbox.rename_in("job-1", hello_deb=b"deb")
        assert inbox.look() == ["job-1"]
        os.mkfifo(inbox.claim_of("job-1") / "pipe")
        (inbox.claim_of("job-1") / "deep" / "er").mkdir(parents=True)
        inbox.seal("job-1")
        keep_rejected(inbox.places, inbox.newest("job-1"), inbox.queue, inbox.room)
        assert sorted(kept(inbox)) == ["hello.changes", "hello.deb"]
        assert left(inbox) == []
    finally:
        fsio.remove_tree(other)


def test_nothing_is_left_of_what_was_published(sealed: Inbox) -> None:
    (sealed.claim_of("job-1") / ".~tmp~").mkdir()
    for _ in range(2):
        remove_published(sealed.places, sealed.newest("job-1"), sealed.queue)
        assert left(sealed) == []
    assert not sealed.places.rejected(1).exists()


def test_a_tree_as_deep_as_it_gets_is_removed(sealed: Inbox) -> None:
    fd = os.open(sealed.claim_of("job-1"), os.O_RDONLY)
    for _ in range(1500):
        os.mkdir(".d", dir_fd=fd)
        inner = os.open(".d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    remove_published(sealed.places, sealed.newest("job-1"), sealed.queue)
    assert left(sealed) == []


def test_a_queue_that_is_gone_from_the_configuration_stops_nobody(sealed: Inbox) -> None:
    keep_rejected(sealed.places, sealed.newest("job-1"), None, sealed.room)
    remove_published(sealed.places, sealed.newest("job-1"), None)
    assert not (sealed.state / "sealed" / "1").exists()


def test_a_link_in_the_place_of_a_claim_is_not_followed(sealed: Inbox) -> None:
    precious = sealed.folder / "precious"
    precious.mkdir()
    (precious / "file").write_text("")
    fsio.remove_tree(sealed.claim_of("job-1"))
    sealed.claim_of("job-1").symlink_to(precious)
    keep_rejected(sealed.places, sealed.newest("job-1"), sealed.queue, sealed.room)
    remove_published(sealed.places, sealed.newest("job-1"), sealed.queue)
    assert (precious / "file").exists()
    assert left(sealed) == []
