"""What is kept of failed uploads: only what was looked at, and no more and no longer than ``[limits]`` say."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from incomingd.config import reader
from incomingd.intake.room import Room
from incomingd.journal import Journal
from incomingd.journal.rejects import Rejects
from incomingd.journal.uploads import Uploads
from incomingd.model import Owner, Problem, Upload, UploadKind
from incomingd.pipeline.keeping import Keeping
from incomingd.places import Places
from incomingd.states import Stage
from tests.support.instance import Instance, until
from tests.support.uploads import Builder

NOW = datetime(2026, 5, 1, tzinfo=UTC)
MIB = 1 << 20


class Store:
    """The rejected uploads of an instance, and what keeps them."""

    def __init__(self, folder: Path, **limits: object) -> None:
        document = {"suites": {"stable": {}}, "incoming": {"default": {"path": "incoming"}}, "limits": limits}
        self.places = Places(reader.parse(document, folder / "incomingd.toml"))
        (self.places.state / "rejected").mkdir(parents=True, exist_ok=True)
        self.journal = Journal(self.places.journal)
        self.uploads = Uploads(self.journal)
        self.kept = Rejects(self.journal)
        self.now = NOW

    def start(self) -> Keeping:
        keeping = Keeping(self.journal, lambda: self.places, lambda: self.now, Room())
        keeping.start()
        return keeping

    def failed(self, uid: int | None, at: datetime = NOW, *, size: int = MIB, name: str = "job") -> Upload:
        """An upload that has failed, with so many bytes in its sealed folder."""
        owner = None if uid is None else Owner(uid=uid, account=None)
        seen = self.uploads.see(name, "default", UploadKind.DIRECTORY, at, "seen", owner=owner)
        upload = self.uploads.move(self.uploads.claim(seen, at, None, "claimed"), Stage.CHECKING, at)
        sealed = self.places.sealed(upload.id)
        sealed.mkdir(parents=True)
        (sealed / "a.changes").write_bytes(b"x" * size)
        return self.uploads.reject(upload, [Problem(code="x", message="y")], at, "rejected")

    def there(self) -> list[int]:
        return sorted(int(path.name) for path in (self.places.state / "rejected").iterdir())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path, rejected_max="5M", rejected_for="30d")
    yield made
    made.journal.close()


def keep(store: Store, *uploads: Upload) -> None:
    keeping = store.start()
    for upload in uploads:
        keeping.keep(upload)
    until(lambda: not (store.places.state / "sealed").exists() or not list((store.places.state / "sealed").iterdir()))
    settled(store)
    keeping.close()


def settled(store: Store) -> None:
    """Until the journal says of each what lies there, and no more is there than may be."""
    limit = store.places.config.limits.rejected_max
    until(lambda: store.kept.ids() == set(store.there()) and store.kept.total() <= limit, "an end of the clearing away")


def test_the_oldest_of_the_account_that_holds_most_leaves(store: Store) -> None:
    alice = [store.failed(1001, NOW + timedelta(seconds=number)) for number in range(2)]
    mallory = [store.failed(1002, NOW + timedelta(seconds=10 + number)) for number in range(6)]
    keep(store, *alice, *mallory)
    assert store.there() == [*(one.id for one in alice), *(one.id for one in mallory[-2:])]


def test_what_is_too_old_leaves_by_itself(store: Store) -> None:
    old, new = store.failed(1001, NOW - timedelta(days=31)), store.failed(1001, NOW - timedelta(days=29))
    keep(store, old, new)
    keeping = store.start()
    keeping.tend()
    until(lambda: store.there() == [new.id], "its leaving")
    assert store.kept.ids() == {new.id}
    store.now += timedelta(days=2)
    keeping = store.start()
    keeping.tend()
    until(lambda: store.there() == [], "the other's leaving")
    keeping.close()


def test_no_limit_of_time(tmp_path: Path) -> None:
    store = Store(tmp_path, rejected_for="0s")
    old = store.failed(1001, NOW - timedelta(days=10_000))
    keep(store, old)
    keeping = store.start()
    keeping.tend()
    keeping.close()
    assert store.there() == [old.id]
    store.journal.close()


def test_what_the_journal_does_not_know_is_measured_after_a_start(store: Store) -> None:
    """As after an upgrade, a power cut, or an operator's rm."""
    uploads = [store.failed(1001, NOW + timedelta(seconds=number)) for number in range(8)]
    for upload in uploads:
        store.places.sealed(upload.id).rename(store.places.rejected(upload.id))
    gone = store.failed(1001)
    store.kept.note(gone.id, 100 * MIB)
    keeping = store.start()
    settled(store)
    keeping.close()
    assert store.there() == [upload.id for upload in uploads[-4:]]


def test_many_are_removed_in_steps(store: Store) -> None:
    uploads = [store.failed(None, NOW - timedelta(days=40), size=10) for _ in range(55)]
    keep(store, *uploads)
    keeping = store.start()
    keeping.tend()
    until(lambda: store.there() == [], "their leaving")
    keeping.close()


def test_of_one_that_is_not_authorised_only_the_changes_is_kept(instance: Instance, builder: Builder) -> None:
    stranger = builder.keys.make("Stranger")
    upload = builder.upload("hello", "1.0-1", key=stranger)
    (upload.folder / "core").write_bytes(b"x")
    assert instance.failed(upload.send_directory(instance.incoming)) == ["unknown-key"]
    kept = instance.state / "rejected" / str(instance.wait(upload.name)["id"])
    until(kept.is_dir, "what is kept")
    assert [file.name for file in kept.iterdir()] == [upload.changes.name]
    retried = instance.ctl("retry", upload.name)
    assert retried.returncode == 1
    assert "send the whole upload again" in retried.stderr


def test_of_one_that_is_authorised_what_it_lists_is_kept(instance: Instance, builder: Builder) -> None:
    upload = builder.upload("hello", "1.0-1", distribution="nowhere")
    (upload.folder / "core").write_bytes(b"x")
    assert instance.failed(upload.send_directory(instance.incoming)) == ["unknown-distribution"]
    kept = instance.state / "rejected" / str(instance.wait(upload.name)["id"])
    until(kept.is_dir, "what is kept")
    listed = sorted(file.name for file in upload.files if file.name != "core")
    assert sorted(file.name for file in kept.iterdir()) == listed
