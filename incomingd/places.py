"""Where everything lies: paths only, no I/O.

::

    state/journal.db        the journal; state/lock is held by the one daemon
    state/claims/QUEUE/ID/  an upload as it was claimed, kept until it ended (or below the queue's own ``claims``)
    state/sealed/ID/        the daemon's own copy: what is checked and published
    state/rejected/ID/      what a failed upload brought
    state/asked-for/ID/     a copy of the .changes of an upload that lies in incoming, while a command is obeyed
    state/imports/NAME/     what an import has read so far, until it is published
    state/gnupg/            signing/, the archive's home; uploaders/ and uploaders.gpg, the keyring of those trusted
    archive/dists/.generations/SUITE/N/   whole generations; dists/SUITE is a link to one
    archive/dists/.generations/SUITE/by-hash/SECTION/   indexes by their digests; all generations link there
    status/NAME.json, by-id/ID.json, index.json
"""

from dataclasses import dataclass
from pathlib import Path

from incomingd.config import Config, QueueConfig


@dataclass(frozen=True, slots=True)
class StatusFolder:
    """The files that scripts poll."""

    path: Path

    def of(self, name: str) -> Path:
        """The newest upload of that name."""
        return self.path / f"{name}.json"

    def by_id(self, upload_id: int) -> Path:
        """One upload."""
        return self.path / "by-id" / f"{upload_id}.json"

    @property
    def index(self) -> Path:
        """What is in flight, what ended, and the service's health."""
        return self.path / "index.json"


@dataclass(frozen=True, slots=True)
class Places:
    """The paths of one instance."""

    config: Config

    @property
    def state(self) -> Path:
        """The daemon's own folder, mode 0700."""
        return self.config.service.state

    @property
    def journal(self) -> Path:
        """The SQLite database."""
        return self.state / "journal.db"

    @property
    def lock(self) -> Path:
        """Locked by the daemon as long as it runs."""
        return self.state / "lock"

    @property
    def signing_home(self) -> Path:
        """The gnupg home with the archive's secret keys."""
        return self.state / "gnupg" / "signing"

    @property
    def uploaders_home(self) -> Path:
        """The gnupg home with the uploaders' public keys."""
        return self.state / "gnupg" / "uploaders"

    @property
    def archive(self) -> Path:
        """What is served."""
        return self.config.archive.root

    @property
    def status(self) -> Path:
        """Where scripts poll."""
        return self.config.service.status

    def claims(self, queue: QueueConfig) -> Path:
        """Where a queue's uploads are claimed to: on the file system of its ``path``."""
        return queue.claims or self.state / "claims" / queue.name

    def claim(self, queue: QueueConfig, upload_id: int) -> Path:
        """One claimed upload."""
        return self.claims(queue) / str(upload_id)

    def sealed(self, upload_id: int) -> Path:
        """The daemon's own copy of one upload."""
        return self.state / "sealed" / str(upload_id)

    def asked_for(self, upload_id: int) -> Path:
        """The .changes of an upload in incoming, while it is found out who may take it back."""
        return self.state / "asked-for" / str(upload_id)

    @property
    def checked(self) -> tuple[Path, ...]:
        """What check workers may read: the folders that hold the daemon's own copies."""
        return self.state / "sealed", self.state / "asked-for"

    @property
    def imports(self) -> Path:
        """What imports have read, a folder each; one that begins with ``done-`` is to be removed."""
        return self.state / "imports"

    @property
    def import_dates(self) -> Path:
        """When the repositories were made of which the newest imports were."""
        return self.state / "import-dates.json"

    def rejected(self, upload_id: int) -> Path:
        """What is kept of a failed upload."""
        return self.state / "rejected" / str(upload_id)

    def generation(self, suite: str, number: int) -> Path:
        """One whole generation of a suite."""
        return self.archive / "dists" / ".generations" / suite / str(number)

    def by_hash(self, suite: str) -> Path:
        """What the ``by-hash`` links of all generations of a suite lead into: a folder for each section."""
        return self.archive / "dists" / ".generations" / suite / "by-hash"

    def suite_link(self, suite: str) -> Path:
        """The symbolic link that clients follow."""
        return self.archive / "dists" / suite

    def status_of(self, name: str) -> Path:
        """The newest upload of that name."""
        return StatusFolder(self.status).of(name)

    def status_by_id(self, upload_id: int) -> Path:
        """One upload."""
        return StatusFolder(self.status).by_id(upload_id)

    @property
    def status_index(self) -> Path:
        """What is in flight, what ended, and the service's health."""
        return StatusFolder(self.status).index
