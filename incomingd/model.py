"""The vocabulary: frozen values that every room shares. No I/O, no clock, no settings.

Times are aware UTC datetimes named ``*_at``; sizes are bytes; digests are lower-case hex; a fingerprint is the 40
upper-case hex digits of an OpenPGP v4 primary key unless said otherwise.
"""

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from incomingd.states import Stage

#: The name of an upload's directory, or of a flat upload's .changes less its ending.
UPLOAD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,199}", re.ASCII)
#: The name of a file inside an upload, at most 255 bytes. Everything that goes into a path has matched it.
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~_-]{0,254}", re.ASCII)
#: A source or binary package's name (Debian Policy 5.6.1 and 5.6.7).
PACKAGE_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong: a stable kebab-case code, and a sentence with found, expected and what to do."""

    code: str
    message: str
    file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Digests:
    """The three digests of one file's bytes, lower-case hex."""

    md5: str
    sha1: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """A file whose bytes the daemon has read itself: sealed, or in the pool. ``name`` matches :data:`FILE_NAME`."""

    name: str
    size: int
    digests: Digests


class BinaryKind(StrEnum):
    """Which family of binary package a file is, by its ending."""

    DEB = "deb"
    UDEB = "udeb"
    DDEB = "ddeb"


#: The fields of one deb822 stanza: names as spelled, values as they stand (continuation lines joined by ``\\n``, each
#: still with its leading blank), in the order of the file.
Fields = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BinaryPackage:
    """A checked .deb, .udeb or .ddeb. Version, section and priority are what the archive will say of it."""

    kind: BinaryKind
    file: FileEntry
    package: str
    version: str
    architecture: str
    source: str
    source_version: str
    component: str
    section: str
    priority: str
    control: Fields


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePackage:
    """A checked .dsc with the files it needs. ``files`` is the .dsc's own list and does not hold the .dsc itself;
    ``in_upload`` names those that came with the upload, the others are to be in the archive already."""

    dsc: FileEntry
    source: str
    version: str
    component: str
    section: str
    priority: str
    fields: Fields
    files: tuple[FileEntry, ...]
    in_upload: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedChanges:
    """One .changes that passed every check that does not depend on the archive's content.

    ``suites`` are the suites (config tables) that its Distribution maps to. ``signed_by`` is None where it is unsigned
    and that is allowed. ``others`` are files that are kept with it but enter no index (.buildinfo).
    """

    file: FileEntry
    source: str
    version: str
    distribution: str
    suites: tuple[str, ...]
    architectures: tuple[str, ...]
    signed_by: str | None
    binaries: tuple[BinaryPackage, ...]
    sources: tuple[SourcePackage, ...]
    others: tuple[FileEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangesSummary:
    """What a status file says of one .changes; every field may be empty where the upload never got that far."""

    file: str
    source: str = ""
    version: str = ""
    distribution: str = ""
    architectures: tuple[str, ...] = ()
    signed_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One thing that a .commands file asks for: an upload, by its .changes or its own name, is to be cancelled, or,
    with ``days``, to be due in so many. ``within``: only the one that was sent with a delay of so many days is meant.
    """

    name: str
    days: int | None = None
    within: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Commands:
    """What a .commands file asks for.

    ``digest`` is the same for the same request by the same signature, however the file around it is written.
    """

    orders: tuple[Order, ...]
    signed_by: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What checking one upload came to. ``changes`` is complete only where ``problems`` is empty; ``commands`` is
    there only where the upload is a .commands file, and then ``changes`` is empty."""

    summaries: tuple[ChangesSummary, ...]
    changes: tuple[CheckedChanges, ...]
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    commands: Commands | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """What sealing one upload came to: the regular files that the daemon now owns, and what could not be taken.

    ``left_out`` are regular files that no .changes can list, since their names do not match :data:`FILE_NAME`; as
    :func:`plain` shows them.
    """

    files: tuple[FileEntry, ...]
    problems: tuple[Problem, ...]
    left_out: tuple[str, ...] = ()


class UploadKind(StrEnum):
    """How an upload was delivered."""

    DIRECTORY = "directory"
    FLAT = "flat"
    COMMANDS = "commands"
    OPERATION = "operation"


class OperationKind(StrEnum):
    """What an operator can ask for, to be done in sequence with the uploads."""

    COPY = "copy"
    REMOVE = "remove"
    ROLLBACK = "rollback"
    IMPORT = "import"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A publish of its own, asked for by an operator. ``suite`` is the one that changes.

    ``copy`` and ``remove`` name a source package, in one version or in any; ``copy`` takes it from ``from_suite``;
    ``rollback`` names the generation whose content the suite is to have again; ``import`` what was read, a folder's
    name in ``state/imports``, and with ``newest`` whatever is older than another version is left out.
    """

    kind: OperationKind
    suite: str
    source: str | None = None
    version: str | None = None
    from_suite: str | None = None
    generation: int | None = None
    staged: str | None = None
    newest: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One line of an upload's own log."""

    at: datetime
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteResult:
    """In which generation of a suite an upload became visible."""

    generation: int
    inrelease_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What a published upload put where: suite name to result, and pool paths below the archive root."""

    suites: dict[str, SuiteResult]
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """One upload as the journal has it.

    ``sequence`` is given at the claim, and given anew where a delayed upload becomes due; it is the order of
    publishing. ``delay``: it was sent to the folder for uploads that wait for so many days. ``due_at`` is when that is
    over, from the claim on; ``delayed`` until then.
    """

    id: int
    name: str
    queue: str
    kind: UploadKind
    stage: Stage
    sequence: int | None
    seen_at: datetime
    claimed_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    delay: int | None = None
    due_at: datetime | None = None
    delayed: bool = False
    changes: tuple[ChangesSummary, ...] = ()
    published: Published | None = None
    already_published: bool = False
    warnings: tuple[Problem, ...] = ()
    problems: tuple[Problem, ...] = ()
    log: tuple[LogLine, ...] = field(default=())

    def __str__(self) -> str:
        return f"{self.name}#{self.id}"


def split_section(section: str) -> tuple[str, str]:
    """A section's component, which may have a slash itself, and its index (``debian-installer/binary-arm64``)."""
    head, _, index = section.rpartition("/")
    component = head.removesuffix("/debian-installer")
    return component, index if component == head else f"debian-installer/{index}"


def pool_directory(component: str, source: str) -> str:
    """A source package's pool directory, without a trailing slash: ``pool/main/h/hello``, ``pool/main/libf/libfoo``."""
    prefix = source[:4] if source.startswith("lib") and len(source) > 3 else source[0]
    return f"pool/{component}/{prefix}/{source}"


def without_epoch(version: str) -> str:
    """A version as file names spell it: without its epoch (Debian Policy 5.6.12)."""
    return version.split(":", 1)[-1]


def plain(value: Any) -> str:
    """``value`` for a message: control characters escaped, and cut where an attacker made it long."""
    text = str(value)
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode("ascii") for c in text[:200])
    return shown if len(text) <= 200 else f"{shown}… ({len(text)} characters)"
