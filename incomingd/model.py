"""The vocabulary: frozen values that every room shares. No I/O, no clock, no settings.

Times are aware UTC datetimes named ``*_at``; sizes are bytes; digests are lower-case hex; a fingerprint is the 40
upper-case hex digits of an OpenPGP v4 primary key unless said otherwise.
"""

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from incomingd.states import Stage

#: The name of an upload's directory, or of a flat upload's .changes less its ending.
UPLOAD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,199}", re.ASCII)
#: An upload's name stays its account's for so long after its end.
NAME_KEPT = timedelta(days=1)
#: The name of a file inside an upload, at most 255 bytes. Everything that goes into a path has matched it.
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~_-]{0,254}", re.ASCII)
#: A source or binary package's name as dpkg and apt both read it (lib/dpkg/parsehelp.c). Capitals dpkg folds, and apt
#: does not.
PACKAGE_NAME = re.compile(r"[a-z0-9][a-z0-9+._-]*", re.ASCII)
#: One as Debian has it (Debian Policy 5.6.1 and 5.6.7).
POLICY_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+", re.ASCII)
#: The name of a package's file that comes without a .changes: what builders write, all in printable ASCII. In the pool
#: it is called by its control file.
LOOSE_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~_ %:@,()-]{0,254}", re.ASCII)
#: A field of a stanza (Debian Policy 5.1): printable ASCII without blank and colon, and not # or - at the beginning.
FIELD_NAME = re.compile(r"(?![#-])[!-9;-~]+", re.ASCII)
#: Its value. Each line after the first begins with a blank and is not blank: dpkg and python-debian end a stanza there.
FIELD_VALUE = re.compile(r"[^\n\r\0]*(\n[ \t]+[^ \t\n\r\0][^\n\r\0]*)*")


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
    """A file whose bytes the daemon has read itself: sealed, or in the pool. ``name`` matches :data:`FILE_NAME`, or, of
    a package that came without a .changes, :data:`LOOSE_FILE_NAME`."""

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

    @property
    def pool_name(self) -> str:
        """Its file's name in the pool: that which dpkg-deb(1) gives it, whatever its builder has called it."""
        return f"{self.package}_{without_epoch(self.version)}_{self.architecture}.{self.kind}"


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
    and that is allowed; ``signing_key`` is the key or subkey that made the signature, and ``made_at`` when it says it
    was made. ``identity`` is what a replay of it is known by, however the file around the signed text is written.
    ``others`` are files that are kept with it but enter no index (.buildinfo).
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
    identity: str
    signing_key: str | None = None
    made_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangesSummary:
    """What a status file says of one .changes; every field may be empty where the upload never got that far.

    ``sha256`` is the digest of the .changes itself, and says whose content this is.
    """

    file: str
    source: str = ""
    version: str = ""
    distribution: str = ""
    architectures: tuple[str, ...] = ()
    signed_by: str | None = None
    sha256: str = ""


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
    :func:`plain` shows them. ``absent`` says of files that are not there which account has one of that name in
    incoming; each is named in its ``file``.
    """

    files: tuple[FileEntry, ...]
    problems: tuple[Problem, ...]
    left_out: tuple[str, ...] = ()
    absent: tuple[Problem, ...] = ()


class UploadKind(StrEnum):
    """How an upload was delivered."""

    DIRECTORY = "directory"
    FLAT = "flat"
    #: A package file in incoming itself that no .changes lists. It is never published as it is.
    LONE = "lone"
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

    ``copy`` and ``remove`` name a source package, in one version or in any. ``copy`` takes it from ``from_suite``, and
    with ``take_over`` whatever its binaries' names belong to. With ``forget`` the names of what ``remove`` takes away
    are free as soon as no client can hold an index that lists them. ``rollback`` names the generation whose content the
    suite is to have again; ``import`` what was read, a folder's name in ``state/imports``, and with ``newest`` whatever
    is older than another version is left out.
    """

    kind: OperationKind
    suite: str
    source: str | None = None
    version: str | None = None
    from_suite: str | None = None
    generation: int | None = None
    staged: str | None = None
    newest: bool = False
    take_over: bool = False
    forget: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Who owns an upload's directory, or its .changes: a user id, and that account's name if it has one.

    ``operator``: it is a directory of root's or the daemon's own account that no one else can write. No other account
    can put such a directory into incoming; a file of root's it can.
    """

    uid: int
    account: str | None
    operator: bool = False


class Cause(StrEnum):
    """Why an upload stands aside: one of its own files cannot be read now; the machine is at fault; or something has
    ended the worker that checked it."""

    UPLOAD = "upload"
    MACHINE = "machine"
    WORKER = "worker"


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
    over, from the claim on; ``delayed`` until then. ``aside``: why it stands aside, and ``aside_since`` when;
    ``tries``: how often it was tried for that cause, also after it has returned with a new ``sequence``. ``uid`` and
    ``account`` are the owner of its directory, or of its .changes; None where it has none (an operator's request) or
    came before owners were kept. ``nameless``: its name is another account's, and it is reported
    by its id only (:mod:`incomingd.journal.names`). ``superseded_by``: the newer version that was published in the same
    generation, so that no index ever listed this one.
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
    uid: int | None = None
    account: str | None = None
    nameless: bool = False
    aside: Cause | None = None
    aside_since: datetime | None = None
    tries: int = 0
    changes: tuple[ChangesSummary, ...] = ()
    published: Published | None = None
    already_published: bool = False
    superseded_by: str | None = None
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


#: What apt takes from an index as said of a file itself: name, size and digests, and the digest of a description.
_INDEX_FIELD = re.compile(r"Filename|Size|MD5sum|SHA[0-9]+|Checksum-FileSize|Description-md5", re.ASCII | re.IGNORECASE)


def is_index_field(name: str) -> bool:
    """True if only the archive may say this in an index: it is left out of what an upload brings."""
    return _INDEX_FIELD.fullmatch(name) is not None


def plain(value: Any) -> str:
    """``value`` in a message: one line of printable characters, and cut if an attacker made it long."""
    text = str(value)
    shown = _escaped(text[:200])
    return shown if len(text) <= 200 else f"{shown}… ({len(text)} characters)"


def printable(text: str) -> str:
    """A whole message as a terminal, a log or a status file may have it: one line.

    Control characters, newlines among them (a second line would pass for a message of its own), those that turn the
    direction of writing, and lone surrogates are escaped, as Python spells them.
    """
    return text if text.isprintable() else _escaped(text)


def _escaped(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode("ascii") for c in text)


#: Days before a key's end at which health says so.
_BEFORE = (1, 7, 30)


def ending(end: int, now: datetime) -> str:
    """``within 7 days``, if what ends then, in seconds since the epoch, ends soon; else, and for 0, nothing.

    It changes three times only, or it would be logged each day.
    """
    left = end - now.timestamp()
    days = next((days for days in _BEFORE if 0 < left <= days * 86400), None)
    return "" if days is None else f"within {days} day{'' if days == 1 else 's'}"


def shown_size(size: int) -> str:
    """``size`` bytes for people, in the units that the configuration has: ``20 GiB``."""
    shown, units = float(size), ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while shown >= 1024 and len(units) > 1:
        shown, units = shown / 1024, units[1:]
    return f"{shown:.3g} {units[0]}" if shown < 1000 else f"{shown:.0f} {units[0]}"
