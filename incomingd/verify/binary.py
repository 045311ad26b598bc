"""Checks a .deb, .udeb or .ddeb (deb(5)): its container, its control file, and what the .changes says of it."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from incomingd import rules
from incomingd.config import ChecksConfig
from incomingd.model import (
    FILE_NAME,
    PACKAGE_NAME,
    POLICY_NAME,
    BinaryKind,
    BinaryPackage,
    FileEntry,
    Problem,
    plain,
)
from incomingd.verify import control, deb822, files, relations
from incomingd.verify.archives import ArMember, ar_members, tar_stream
from incomingd.verify.changes import VERSION
from incomingd.verify.deb822 import Stanza
from incomingd.verify.overrides import Overrides
from incomingd.verify.streams import ArchiveError, CompressionError, Spare
from incomingd.verify.tar import Content, Kind, TarMember

_CONTROL = re.compile(r"control\.tar(?:\.(gz|xz|zst))?", re.ASCII)
_DATA = re.compile(r"data\.tar(?:\.(gz|xz|bz2|zst|lzma))?", re.ASCII)
#: What the names of the members begin with that dpkg and apt read.
_READ = ("debian-binary", "control.tar", "data.tar")
#: dpkg reads the first line only (deb(5)).
_FORMAT = re.compile(rb"2\.[0-9]{1,9}\n.*", re.DOTALL)
_ARCHITECTURE = re.compile(r"[a-z0-9][a-z0-9-]*", re.ASCII)
_SOURCE = re.compile(r"([a-z0-9][a-z0-9+._-]*)(?:\s+\(([^()\s]+)\))?", re.ASCII)
_REQUIRED = ("Package", "Version", "Architecture", "Maintainer", "Description")
_CONTROL_BYTES, _CONTROL_MEMBERS = 32 << 20, 1000
#: A package that unpacks to more than this is none.
_DATA_BYTES = 1 << 40
_AHEAD = timedelta(hours=24)


@dataclass(frozen=True, slots=True, kw_only=True)
class BinaryContext:
    """What the .changes says of one binary. ``names`` is its Binary field; ``sourceful``: it has the source, too."""

    source: str
    source_version: str
    version: str
    names: frozenset[str]
    section: str
    priority: str
    component: str
    sourceful: bool
    now: datetime
    spare: Spare = field(default_factory=Spare)
    checks: ChecksConfig = field(default_factory=ChecksConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class BinaryOutcome:
    """The package, where it could be read at all, and what is wrong with it."""

    package: BinaryPackage | None
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...] = ()


def check_binary(path: Path, entry: FileEntry, context: BinaryContext) -> BinaryOutcome:
    """Check the sealed file at ``path`` against its own control file and the .changes."""
    checks = context.checks
    stanza, problems = _read(path, entry.name, context.now, context.spare, checks.max_stanza)
    if stanza is None:
        return BinaryOutcome(package=None, problems=tuple(problems))
    package = _package(stanza, entry, context.section, context.priority, context.component, checks)
    problems += [*_promise(stanza, package), *_against_changes(stanza, package, context)]
    return _outcome(package, problems, [], stanza, checks)


def _outcome(
    package: BinaryPackage, problems: list[Problem], style: list[Problem], stanza: Stanza, checks: ChecksConfig
) -> BinaryOutcome:
    warnings = list(control.warnings(stanza, package.file.name))
    (problems if checks.strict else warnings).extend([*_style(package), *style])
    return BinaryOutcome(package=package, problems=tuple(problems), warnings=tuple(warnings))


def check_alone(
    path: Path,
    entry: FileEntry,
    component: Callable[[str, str], str],
    now: datetime,
    spare: Spare | None = None,
    *,
    checks: ChecksConfig,
    overridden: Overrides,
) -> BinaryOutcome:
    """Check a file that comes without a .changes: its control file says its section and priority.

    ``component`` gives the component of a section and a file's name. What ``overridden`` says of it comes first.
    """
    stanza, problems = _read(path, entry.name, now, spare or Spare(checks.max_unpacked), checks.max_stanza)
    if stanza is None:
        return BinaryOutcome(package=None, problems=tuple(problems))
    section, priority = overridden.of_binary(stanza.get("Package"), stanza.get("Section"), stanza.get("Priority"))
    style = list(files.style(entry.name, section, priority, checks.extra_sections))
    package = _package(stanza, entry, section, priority, component(section, entry.name), checks)
    problems += _promise(stanza, package)
    return _outcome(package, problems, style, stanza, checks)


def _read(path: Path, name: str, now: datetime, spare: Spare, max_stanza: int) -> tuple[Stanza | None, list[Problem]]:
    """Read the whole file: its control file's fields, where they can be read, and what is wrong."""
    try:
        members = ar_members(path)
        control_member, data_member = _parts(path, members)
        latest = float(max(member.mtime for member in members))
        text, control_latest = _control_file(path, control_member, spare, max_stanza)
        latest = max(latest, control_latest, _read_data(path, data_member, spare))
    except ArchiveError as error:
        rule = _RULES.get(type(error), rules.BAD_DEB)
        return None, [rule.problem(str(error), file=name)]
    problems = []
    if latest > (now + _AHEAD).timestamp():
        problems.append(rules.FUTURE_TIMESTAMP.problem(f"a file in it is dated {_date(latest)}", file=name))
    stanza, text_problems = deb822.parse(text, name, max_line=max_stanza)
    if stanza is not None:
        problems += [rules.BAD_CONTROL_FILE.problem(fault, file=name) for fault in control.faults(stanza, text)]
    return stanza, [*problems, *text_problems]


def is_architecture(word: str) -> bool:
    """True if a binary can be built for it: ``all``, or one that is no wildcard (Debian Policy 11.1)."""
    return bool(_ARCHITECTURE.fullmatch(word)) and not {"source", "any"} & set(word.split("-"))


def _date(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds):%Y-%m-%d}"  # noqa: DTZ006  # the day is enough
    except (ValueError, OverflowError, OSError):
        return f"{seconds:.0f} s after 1970"


class _ControlError(ArchiveError):
    """control.tar is not as it must be."""


class _StanzaError(ArchiveError):
    """The control file is too large."""


class _OutsideError(ArchiveError):
    """A member lies outside of its archive."""


_RULES = {
    CompressionError: rules.BAD_COMPRESSION,
    _ControlError: rules.BAD_CONTROL_ARCHIVE,
    _OutsideError: rules.TAR_OUTSIDE,
    _StanzaError: rules.STANZA_TOO_LARGE,
}


def _parts(path: Path, members: list[ArMember]) -> tuple[ArMember, ArMember]:
    """control.tar and data.tar, behind debian-binary, with members that begin with _ between them.

    Behind data.tar others may follow, such as signatures: none twice, and none that dpkg or apt could take for one of
    the three.
    """
    names = [member.name for member in members]
    plain_members = [member for member in members if not member.name.startswith("_")]
    if any("/" in name or not name for name in names):
        raise ArchiveError("an ar member's name has a slash, or is empty")
    if not names or names[0] != "debian-binary" or len(plain_members) < 3:
        raise ArchiveError(f"its members are {plain(', '.join(names[:5]))}, not debian-binary, control.tar, data.tar")
    first, second, third = plain_members[:3]
    behind = [member.name for member in members[members.index(third) + 1 :]]
    if len(set(names)) < len(names) or any(name.startswith(_READ) for name in behind):
        raise ArchiveError(f"its members are {plain(', '.join(names[:9]))}: one is there twice, or could be taken so")
    with path.open("rb") as file:
        file.seek(first.offset)
        version = file.read(min(first.size, 100))
    if not _FORMAT.fullmatch(version):
        raise ArchiveError(f"its format is {plain(version[:20])}, not 2.x")
    if not _CONTROL.fullmatch(second.name) or not _DATA.fullmatch(third.name):
        raise ArchiveError(f"its members are called {plain(second.name)} and {plain(third.name)}")
    return second, third


def _ending(member: ArMember) -> str:
    return member.name.partition(".tar.")[2]


def _control_file(path: Path, member: ArMember, spare: Spare, max_stanza: int) -> tuple[bytes, float]:
    """The control file's bytes, and the newest date in the archive."""
    found: list[bytes] = []
    names: set[str] = set()
    latest = 0.0
    part = {"offset": member.offset, "size": member.size}
    with tar_stream(path, _ending(member), **part, limit=_CONTROL_BYTES, spare=spare, deb=True) as members:
        for count, (info, content) in enumerate(members, 1):
            if count > _CONTROL_MEMBERS:
                raise _ControlError(f"control.tar has more than {_CONTROL_MEMBERS} members")
            latest = max(latest, info.mtime)
            _inside(info)
            name = info.name.removeprefix("./")
            _plain_member(info, name, names)
            names.add(name)
            if name == "control":
                found.append(_control_bytes(info, content, max_stanza))
    if len(found) != 1:
        raise _ControlError(f"control.tar has {len(found)} control files")
    return found[0], latest


def _plain_member(info: TarMember, name: str, names: set[str]) -> None:
    """control.tar has files and no folders (deb(5)); ``names`` are those so far.

    dpkg-deb unpacks it with tar: through a link, or by a second file of its name, control would become another one.
    """
    if info.kind is Kind.DIRECTORY and name in (".", ""):
        return
    if "/" in name:
        raise _ControlError(f"control.tar has a member {plain(info.name)}, which is not directly in it")
    if info.kind is not Kind.FILE:
        raise _ControlError(f"control.tar has a member {plain(info.name)}, which is not a regular file")
    if name in names:
        raise _ControlError(f"control.tar has {plain(info.name)} twice")


def _inside(info: TarMember) -> None:
    """tar refuses to unpack what goes up from where it is."""
    if ".." in info.name.split("/"):
        raise _OutsideError(f"it has a member {plain(info.name)}")


def _control_bytes(info: TarMember, content: Content | None, most: int) -> bytes:
    if info.size > most:
        raise _StanzaError(f"its control file has {info.size} bytes, and {most} are allowed")
    return content.read() if content else b""


def _read_data(path: Path, member: ArMember, spare: Spare) -> float:
    """Read data.tar through, as dpkg will; the newest date in it."""
    latest = 0.0
    part = {"offset": member.offset, "size": member.size}
    with tar_stream(path, _ending(member), **part, limit=_DATA_BYTES, spare=spare, deb=True) as members:
        for info, _ in members:
            _inside(info)
            latest = max(latest, info.mtime)
    return latest


def _package(
    stanza: Stanza, entry: FileEntry, section: str, priority: str, component: str, checks: ChecksConfig
) -> BinaryPackage:
    version = stanza.get("Version")
    match = _SOURCE.fullmatch(stanza.get("Source").strip())
    return BinaryPackage(
        kind=BinaryKind(entry.name.rpartition(".")[2]),
        file=entry,
        package=stanza.get("Package"),
        version=version,
        architecture=stanza.get("Architecture"),
        source=match[1] if match else stanza.get("Package"),
        source_version=(match[2] if match else None) or version,
        component=component,
        section=files.section(section, checks.extra_sections),
        priority=files.priority(priority),
        control=stanza.fields,
    )


def _promise(stanza: Stanza, package: BinaryPackage) -> Iterator[Problem]:
    """The control file against the rules and its own file name."""
    name = package.file.name
    yield from deb822.missing(stanza, _REQUIRED, name)
    if package.package and not PACKAGE_NAME.fullmatch(package.package):
        yield rules.BAD_PACKAGE_NAME.problem(f'Package is "{plain(package.package)}"', file=name)
    for version in {package.version, package.source_version} - {""}:
        if not VERSION.fullmatch(version):
            yield rules.BAD_VERSION.problem(f'the version is "{plain(version)}"', file=name)
    if stanza.get("Source") and not _SOURCE.fullmatch(stanza.get("Source").strip()):
        yield rules.BAD_PACKAGE_NAME.problem(f'Source is "{plain(stanza.get("Source"))}"', file=name)
    architecture = package.architecture
    if architecture and not is_architecture(architecture):
        yield rules.BAD_BINARY_ARCHITECTURE.problem(f'Architecture is "{plain(architecture)}"', file=name)
        architecture = ""
    # A name made of what is missing or wrong advises nobody.
    if package.package and package.version and architecture and not FILE_NAME.fullmatch(package.pool_name):
        found = f"its control file makes it {plain(package.pool_name)}, which no file in the pool can be called"
        yield rules.DEB_FILE_NAME.problem(found, file=name)
    kind = stanza.get("Package-Type") or package.kind
    if kind != package.kind:
        yield rules.DEB_FILE_NAME.problem(
            f"its Package-Type is {plain(kind)}, and it is named .{package.kind}", file=name
        )
    for fault in relations.faults(stanza, relations.BINARY_FIELDS, source=False):
        yield rules.BAD_RELATION.problem(plain(fault), file=name)


def _style(package: BinaryPackage) -> Iterator[Problem]:
    """What dpkg installs and apt reads without doubt, and Debian would not take."""
    name = package.file.name
    if package.package and name != package.pool_name:
        yield rules.DEB_FILE_NAME.problem(f"its control file makes it {plain(package.pool_name)}", file=name)
    if package.package and not POLICY_NAME.fullmatch(package.package):
        yield rules.BAD_PACKAGE_NAME.problem(f'Package is "{plain(package.package)}"', file=name)


def _against_changes(stanza: Stanza, package: BinaryPackage, context: BinaryContext) -> Iterator[Problem]:
    name = package.file.name
    fits = package.source_version in (context.version, context.source_version)
    if not context.sourceful and context.source_version == context.version:
        # A binNMU whose .changes does not say of which source version it is.
        fits = fits or package.version == context.version
    if context.version and package.version and not fits:
        yield rules.DEB_VERSION_MISMATCH.problem(
            f"its version is {plain(package.version)}, its source's {plain(package.source_version)}, "
            f"and the .changes has {context.version}",
            file=name,
        )
    if context.source and package.source and package.source != context.source:
        yield rules.DEB_SOURCE_MISMATCH.problem(
            f"its source is {plain(package.source)}, and the .changes is of {context.source}", file=name
        )
    if package.package and not {package.package, package.package.removesuffix("-dbgsym")} & context.names:
        yield rules.BINARY_NOT_LISTED.problem(f"{plain(package.package)} does not stand in Binary", file=name)
    section = stanza.get("Section")
    if section and context.section and section != context.section:
        yield rules.SECTION_MISMATCH.problem(
            f"its Section is {plain(section)}, and the .changes has {plain(context.section)}", file=name
        )
