import os
import pickle
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from incomingd import fsio
from incomingd.config import Config, QueueConfig
from incomingd.config import reader as configuration
from incomingd.intake.accounts import TimeBudget
from incomingd.intake.claimed import Claimed, Sealing
from incomingd.intake.cleanup import keep_rejected
from incomingd.intake.incoming_folder import FolderContext, IncomingFolder
from incomingd.intake.listing import Listings, read_listing
from incomingd.intake.ownership import Ownership
from incomingd.intake.readiness import ScanTime
from incomingd.intake.room import Room
from incomingd.intake.scan_events import ScanEvents
from incomingd.intake.seal import is_bare, seal_bare, seal_listed, seal_texts
from incomingd.journal import Journal
from incomingd.journal.uploads import Uploads
from incomingd.model import Seal, Upload
from incomingd.places import Places

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")


def make_config(folder: Path, limits: dict[str, Any] | None = None, **queue: Any) -> Config:
    document = {
        "suites": {"stable": {}},
        "limits": limits or {},
        "incoming": {"default": {"path": "incoming", "settle": "2s", "abandon_after": "1h", **queue}},
    }
    return configuration.parse(document, folder / "incomingd.toml")


def changes_text(**files: bytes | int) -> str:
    """A .changes that lists files (``hello_deb=…`` is hello.deb) by their content, or by a size alone."""
    rows = []
    for name, content in files.items():
        size = content if isinstance(content, int) else len(content)
        rows.append(f" {'0' * 64} {size} {name.replace('_', '.')}")
    return "Format: 1.8\nSource: hello\nChecksums-Sha256:\n" + "\n".join(rows) + "\n"


class Inbox:
    """One incoming directory, without a watch: the test says what was heard, and when it is."""

    def __init__(self, folder: Path, **queue: Any) -> None:
        self.folder = folder
        self.path = folder / "incoming"
        self.state = folder / "state"
        self.path.mkdir()
        self.state.mkdir(mode=0o700)
        self.journal = Journal(self.state / "journal.db")
        self.uploads = Uploads(self.journal)
        #: How far the time of these tests is ahead, and the wall clock ahead of that of the file system.
        self.ahead = self.wall_ahead = 0.0
        self.room = Room()
        self.told: list[Upload] = []
        self.taking: list[Upload] = []
        self.on_taking: Callable[[Sequence[Upload]], None] = self.taking.extend
        self.claimed: list[Upload] = []
        self.configure(**queue)

    def configure(self, **queue: Any) -> None:
        """Settings; a new door, as after a restart of the daemon."""
        self.config = make_config(self.folder, **queue)
        self.places = Places(self.config)
        self.restart()

    @property
    def queue(self) -> QueueConfig:
        return self.config.queues[0]

    def restart(self, budget: TimeBudget | None = None) -> None:
        self.scan_events = ScanEvents()
        self.listings = Listings()
        context = FolderContext(
            uploads=self.uploads,
            scan_events=self.scan_events,
            clock=lambda: datetime.now(UTC),
            on_change=self.told.append,
            on_taking=self.on_taking,
            on_claimed=self.claimed.append,
            listings=self.listings,
            budget=budget or TimeBudget(),
            on_ended=self.ended,
        )
        self.incoming_folders = [IncomingFolder(folder, self.places, context) for folder in self.queue.folders()]
        self.incoming_folder = self.incoming_folders[0]

    def ended(self, upload: Upload) -> None:
        self.told.append(upload)
        keep_rejected(self.places, upload, self.queue, self.room)

    def look(self, *, after: float = 0.0) -> list[str]:
        """Let time pass, look, and name those that were taken."""
        return self._look(self.incoming_folders[:1], after)

    def look_everywhere(self, *, after: float = 0.0) -> list[str]:
        """As :meth:`look`, and in the folders for delayed uploads too."""
        return self._look(self.incoming_folders, after)

    def _look(self, incoming_folders: Sequence[IncomingFolder], after: float) -> list[str]:
        self.ahead += after
        before = len(self.claimed)
        scan_time = ScanTime(wall=time.time() + self.wall_ahead, monotonic=time.monotonic() + self.ahead)
        for incoming_folder in incoming_folders:
            incoming_folder.look(scan_time)
        return [upload.name for upload in self.claimed[before:]]

    def faults(self) -> list[str]:
        return [fault for incoming_folder in self.incoming_folders for fault in incoming_folder.faults]

    def fill(self, name: str, **files: bytes) -> Path:
        """A whole upload in a directory of that name."""
        folder = self.path / name
        folder.mkdir(exist_ok=True)
        for file, content in files.items():
            (folder / file.replace("_", ".")).write_bytes(content)
        (folder / "hello.changes").write_text(changes_text(**files))
        return folder

    def rename_in(self, name: str, **files: bytes) -> None:
        hidden = self.fill(f".{name}", **files)
        hidden.rename(self.path / name)
        self.scan_events.arrived("default", name, renamed_in=True)

    def newest(self, name: str) -> Upload:
        upload = self.uploads.newest(name)
        assert upload is not None
        return upload

    def claimed_upload(self, name: str) -> Claimed:
        upload = self.newest(name)
        return Claimed(
            places=self.places,
            upload=upload,
            queue=self.queue,
            members=self.uploads.members(upload.id),
            room=self.room,
        )

    def seal(self, name: str) -> Seal:
        """Both steps, as if the .changes were by somebody who may upload what they list."""
        claimed = self.claimed_upload(name)
        with Sealing(claimed) as sealing:
            texts = seal_texts(sealing, 1 << 20)
            if is_bare(claimed, texts):
                return seal_bare(sealing)
            if texts.problems:
                return texts
            return seal_listed(sealing, self.listed(texts, claimed.sealed))

    def listed(self, texts: Seal, folder: Path) -> dict[str, int]:
        with fsio.directory(folder) as fd:
            mine = Ownership(uid=os.geteuid())
            return dict(row for entry in texts.files for row in read_listing(fd, entry.name, mine, 2000).files)

    def stage(self, name: str) -> str:
        return str(self.newest(name).stage)

    def claim_of(self, name: str) -> Path:
        return self.places.claim(self.queue, self.newest(name).id)

    def codes(self, name: str) -> list[str]:
        return [problem.code for problem in self.newest(name).problems]


@pytest.fixture
def make_inbox(tmp_path: Path) -> Iterator[Callable[..., Inbox]]:
    made: list[Inbox] = []

    def make(folder: Path = tmp_path, **queue: Any) -> Inbox:
        made.append(Inbox(folder, **queue))
        return made[-1]

    yield make
    for inbox in made:
        inbox.journal.close()


@pytest.fixture
def inbox(make_inbox: Callable[..., Inbox]) -> Inbox:
    return make_inbox()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every account can reach, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="incomingd-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def as_nobody(act: Callable[[], Any]) -> Any:
    """What ``act`` returns in a process that is user and group nobody."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            with os.fdopen(write, "wb") as out:
                pickle.dump(act(), out)
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read, "rb") as answers:
        answer = answers.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, "the process of nobody failed; its trace is on stderr"
    return pickle.loads(answer)


def until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Wait for something that is to happen."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)
    return found
