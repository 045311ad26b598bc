import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from incomingd.config import reader
from incomingd.journal import Journal
from incomingd.journal.uploads import Uploads
from incomingd.model import (
    ChangesSummary,
    CheckReport,
    Problem,
    Published,
    SuiteResult,
    Upload,
    UploadKind,
)
from incomingd.places import Places
from incomingd.report.health import HealthState
from incomingd.report.reporter import Reporter
from incomingd.states import Stage

T0 = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
HELLO = ChangesSummary(
    file="hello_2.10-3_amd64.changes", source="hello", version="2.10-3", distribution="stable", architectures=("amd64",)
)


class Desk:
    """A journal, the status folder that is drawn from it, and a hand that moves uploads and tells of it."""

    def __init__(self, folder: Path) -> None:
        self.status = folder / "status"
        self.journal = Journal(folder / "journal.db")
        self.uploads = Uploads(self.journal)
        self.health_state = HealthState(started_at=T0)
        self.places = Places(
            reader.parse(
                {"suites": {"stable": {}}, "incoming": {"default": {"path": "incoming"}}}, folder / "incomingd.toml"
            )
        )
        #: Whether clients see what the journal has as published.
        self.switched = True
        self._now = T0
        self.restart()

    def restart(self) -> None:
        """A new process on the same journal."""
        self.reporter = Reporter(self.places, self.uploads, self.health_state, threading.Lock(), lambda: self.switched)
        self.reporter.prepare(datetime.now(UTC))

    def now(self) -> datetime:
        self._now += timedelta(seconds=1)
        return self._now

    # -- what happens to an upload ------------------------------------------------------------------------------------

    def see(self, name: str) -> Upload:
        return self._told(self.uploads.see(name, "default", UploadKind.DIRECTORY, self.now(), "seen"))

    def claim(self, name: str) -> Upload:
        return self._told(self.uploads.claim(self.see(name), self.now(), None, "claimed"))

    def check(self, name: str) -> Upload:
        return self._told(self.uploads.move(self.claim(name), Stage.CHECKING, self.now(), "checking"))

    def queue(self, name: str) -> Upload:
        report = CheckReport(summaries=(HELLO,), changes=(), problems=(), warnings=())
        return self._told(self.uploads.queue(self.check(name), report, self.now(), "checked"))

    def publish(self, upload: Upload) -> Upload:
        upload = self.uploads.move(upload, Stage.PUBLISHING, self.now())
        done = Published(
            suites={"stable": SuiteResult(generation=17, inrelease_sha256="ab" * 32)},
            files=("pool/main/h/hello/x.deb",),
        )
        return self._told(self.uploads.publish(upload, done, self.now(), "published", already_published=False))

    def reject(self, upload: Upload) -> Upload:
        problem = Problem(code="checksum-mismatch", file="x.deb", message="found a, expected b; build it again")
        return self._told(self.uploads.reject(upload, [problem], self.now(), "rejected: 1 problem"))

    def _told(self, upload: Upload) -> Upload:
        self.reporter.tell([upload])
        return upload

    # -- what a script sees -------------------------------------------------------------------------------------------

    def file(self, name: str) -> dict[str, Any]:
        found = json.loads((self.status / f"{name}.json").read_bytes())
        assert isinstance(found, dict)
        return found

    def by_id(self, upload: Upload) -> dict[str, Any]:
        return self.file(f"by-id/{upload.id}")

    def names(self, part: str) -> list[str]:
        """Who is in that list of index.json."""
        return [entry["name"] for entry in self.file("index")[part]]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.journal.close()
