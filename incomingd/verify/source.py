"""Checks a .dsc and the files that it lists (dsc(5), dpkg-source(1)).

A file that the .dsc lists and the upload lacks may be in the archive already (an orig tarball): the publisher decides.
"""

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from incomingd import rules
from incomingd.config import ChecksConfig
from incomingd.model import Digests, FileEntry, Problem, SourcePackage, plain, without_epoch
from incomingd.verify import control, deb822, files, openpgp, relations
from incomingd.verify.archives import read_through, tar_stream
from incomingd.verify.changes import ADDRESS, Row, read_rows
from incomingd.verify.deb822 import Stanza
from incomingd.verify.streams import ArchiveError, Spare
from incomingd.verify.tar import Kind, TarMember

_REQUIRED = ("Format", "Source", "Version", "Maintainer", "Architecture", "Checksums-Sha256", "Files")
_COMPRESSED = r"\.tar\.(?P<ending>gz|bz2|xz|lzma)"
_MAX_MEMBERS = 1_000_000
_MAX_BYTES = 64 << 30
#: Those that many have signed have some 20 KiB.
_MAX_SIGNATURE = 256 << 10
#: Bytes of the names of links, which are kept to the end.
_MAX_LINKS = 16 << 20
#: Links that lead in a circle lead nowhere.
_MAX_STEPS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceContext:
    """What the .changes says of one .dsc, and what else the upload has. ``files`` are the sealed ones by name."""

    source: str
    version: str
    section: str
    priority: str
    component: str
    folder: Path
    files: Mapping[str, FileEntry]
    checks: ChecksConfig
    spare: Spare = field(default_factory=Spare)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOutcome:
    """The source package, where its .dsc could be read at all, and what is wrong with it."""

    package: SourcePackage | None
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...] = ()


def check_source(text: bytes, entry: FileEntry, context: SourceContext) -> SourceOutcome:
    """Check the .dsc ``entry``, whose text, without its signature, is ``text``."""
    stanza, problems = deb822.parse(text, entry.name)
    if stanza is None:
        return SourceOutcome(package=None, problems=tuple(problems))
    rows, row_problems = read_rows(stanza, entry.name, columns=3)
    problems += row_problems
    problems += _size(text, entry, context)
    problems += _fields(stanza, entry, context)
    problems += _file_set(stanza, rows, entry.name)
    for row in rows:
        problems += _file(row, entry.name, context)
    package = SourcePackage(
        dsc=entry,
        source=context.source,
        version=context.version,
        component=context.component,
        section=context.section,
        priority=context.priority,
        fields=stanza.fields,
        files=tuple(context.files.get(row.name) or _promised(row) for row in rows),
        in_upload=frozenset(row.name for row in rows if row.name in context.files),
    )
    warnings = tuple(control.warnings(stanza, entry.name))
    return SourceOutcome(package=package, problems=tuple(problems), warnings=warnings)


def _size(text: bytes, entry: FileEntry, context: SourceContext) -> Iterator[Problem]:
    most = context.checks.max_stanza
    if len(text) > most:
        found = f"its text has {len(text)} bytes, and {most} are allowed"
        yield rules.STANZA_TOO_LARGE.problem(found, file=entry.name)


def _promised(row: Row) -> FileEntry:
    """A file that is not in the upload, as the .dsc describes it."""
    return FileEntry(name=row.name, size=row.size, digests=row.digests)


def _fields(stanza: Stanza, entry: FileEntry, context: SourceContext) -> Iterator[Problem]:
    yield from deb822.missing(stanza, _REQUIRED, entry.name)
    if stanza.get("Maintainer") and not ADDRESS.fullmatch(stanza.get("Maintainer")):
        found = f'Maintainer is "{plain(stanza.get("Maintainer"))}"'
        yield rules.BAD_ADDRESS.problem(found, file=entry.name)
    for name, wanted in (("Source", context.source), ("Version", context.version)):
        if wanted and stanza.get(name) and stanza.get(name) != wanted:
            yield rules.DSC_FIELD_MISMATCH.problem(
                f"{name} is {plain(stanza.get(name))}, and the .changes has {wanted}", file=entry.name
            )
    name = f"{context.source}_{without_epoch(context.version)}.dsc"
    if context.source and context.version and entry.name != name:
        yield rules.DSC_FILE_NAME.problem(f"the file is not named {plain(name)}", file=entry.name)
    if stanza.get("Format") and stanza.get("Format") not in context.checks.source_formats:
        allowed = ", ".join(context.checks.source_formats)
        yield rules.SOURCE_FORMAT.problem(
            f"Format is {plain(stanza.get('Format'))}, allowed are {allowed}", file=entry.name
        )
    for fault in relations.faults(stanza, relations.SOURCE_FIELDS, source=True):
        yield rules.BAD_RELATION.problem(plain(fault), file=entry.name)


def _file_set(stanza: Stanza, rows: tuple[Row, ...], file: str) -> Iterator[Problem]:
    """Which files a format is made of (dpkg-source(1), "SOURCE PACKAGE FORMATS")."""
    source, version = stanza.get("Source"), without_epoch(stanza.get("Version"))
    upstream = version.rpartition("-")[0] or version
    if not source or not version or not rows:  # which is told, and then nobody can say what would fit
        return
    names = [row.name for row in rows]
    kinds = [_kind(name, source, version, upstream) for name in names]
    for name, kind in zip(names, kinds, strict=True):
        if not kind:
            yield rules.SOURCE_FILE_SET.problem(
                f"{name} carries neither {plain(source)}_{plain(version)} nor {plain(source)}_{plain(upstream)}",
                file=file,
            )
    if not all(kinds):
        return
    fault = _misfit(stanza.get("Format"), [kind for kind in kinds if kind != "asc"], names)
    if fault:
        yield rules.SOURCE_FILE_SET.problem(f"Format {stanza.get('Format')} {fault}", file=file)
    signed = {name.removesuffix(".asc") for name in names if name.endswith(".asc")}
    for name in sorted(signed - set(names)):
        yield rules.SOURCE_FILE_SET.problem(f"{name}.asc signs {name}, which is not listed", file=file)


def _kind(name: str, source: str, version: str, upstream: str) -> str:
    """orig, orig-COMPONENT, debian, diff, native or asc; empty for a name that belongs to no source of that version."""
    head, tail = re.escape(f"{source}_{upstream}"), re.escape(f"{source}_{version}")
    patterns = (
        ("orig", rf"{head}\.orig{_COMPRESSED}"),
        ("component", rf"{head}\.orig-[A-Za-z0-9-]+{_COMPRESSED}"),
        ("asc", rf"{head}\.orig(?:-[A-Za-z0-9-]+)?\.tar\.(?:gz|bz2|xz|lzma)\.asc"),
        ("debian", rf"{tail}\.debian{_COMPRESSED}"),
        ("diff", rf"{tail}\.diff\.gz"),
        ("native", rf"{tail}{_COMPRESSED}"),
    )
    return next((kind for kind, pattern in patterns if re.fullmatch(pattern, name, re.ASCII)), "")


def _misfit(form: str, kinds: list[str], names: list[str]) -> str:
    components = [kind for kind in kinds if kind == "component"]
    rest = sorted(kind for kind in kinds if kind != "component")
    stems = [re.sub(r"\.tar\.[a-z0-9]+$", "", name) for name in names if not name.endswith(".asc")]
    if len(set(stems)) < len(stems):
        return "has one tarball twice, compressed in different ways"
    if form == "3.0 (native)":
        return "" if rest == ["native"] and not components else "is one tarball, without orig and diff"
    if form == "3.0 (quilt)":
        return "" if rest == ["debian", "orig"] else "is one orig tarball and one debian.tar, and perhaps components"
    if form == "1.0":
        if any(name.endswith((".xz", ".bz2", ".lzma")) for name in names):
            return "knows gzip only"
        good = rest in (["native"], ["diff", "orig"]) and not components
        return "" if good else "is one tarball, or one orig tarball and one diff.gz"
    return ""


def _file(row: Row, dsc: str, context: SourceContext) -> Iterator[Problem]:
    there = context.files.get(row.name)
    if there is None:
        if not files.is_orig(row.name):
            yield rules.MISSING_FILE.problem(f"{dsc} lists it, and it is not in the upload", file=row.name)
        return
    differs = [
        name for name in Digests.__slots__ if getattr(row.digests, name) not in ("", getattr(there.digests, name))
    ]
    if there.size != row.size or differs:
        name = differs[0] if there.size == row.size else ""
        found, listed = (getattr(d, name) for d in (there.digests, row.digests)) if name else (there.size, row.size)
        what = f"its {name.upper()} is {found}" if name else f"it has {found} bytes"
        yield rules.SOURCE_FILE_MISMATCH.problem(f"{what}, and {dsc} lists {listed}", file=row.name)
        return
    match = re.search(rf"{_COMPRESSED}$", row.name)
    if row.name.endswith(".asc"):
        yield from _signature(context.folder / row.name, there)
    elif match:
        yield from check_tarball(context.folder / row.name, match["ending"], row.name, context.spare)
    elif row.name.endswith(".diff.gz"):
        try:
            read_through(context.folder / row.name, "gz", limit=_MAX_BYTES, spare=context.spare)
        except ArchiveError as error:
            yield rules.BAD_COMPRESSION.problem(str(error), file=row.name)


def _signature(path: Path, entry: FileEntry) -> Iterator[Problem]:
    """An upstream signature is one, armored or binary, and nothing else: any other file could be published by its
    name. Whether it is good is for those who trust its key."""
    found = f"it has more than {_MAX_SIGNATURE >> 10} KiB"
    if entry.size <= _MAX_SIGNATURE:
        try:
            openpgp.signature_packets(path.read_bytes())
        except openpgp.OpenPGPError as error:
            found = str(error)
        else:
            return
    yield rules.BAD_UPSTREAM_SIGNATURE.problem(found, file=entry.name)


def check_tarball(path: Path, ending: str, name: str, spare: Spare) -> Iterator[Problem]:
    """Read a tarball through; what leads out of it is told once."""
    outside = ""
    links: dict[str, str] = {}
    kept = 0
    try:
        with tar_stream(path, ending, limit=_MAX_BYTES, spare=spare) as members:
            for count, (info, _) in enumerate(members, 1):
                if count > _MAX_MEMBERS:
                    raise ArchiveError(f"it has more than {_MAX_MEMBERS} members")
                outside = outside or _outside(info) or _below(info, links)
                kept += len(info.name) + len(info.link) if info.kind in (Kind.HARD_LINK, Kind.LINK) else 0
                if kept > _MAX_LINKS:
                    raise ArchiveError(f"the names of its links have more than {_MAX_LINKS >> 20} MiB")
    except ArchiveError as error:
        yield rules.BAD_TAR.problem(str(error), file=name)
    outside = outside or next((f"{plain(link)} leads out through other links" for link in _escaping(links)), "")
    if outside:
        yield rules.TAR_OUTSIDE.problem(outside, file=name)


def _outside(info: TarMember) -> str:
    # tar refuses to unpack a name with "..", wherever that leads.
    if info.name.startswith("/") or ".." in info.name.split("/"):
        return f"it has a member {plain(info.name)}"
    if info.kind is Kind.HARD_LINK and (info.link.startswith("/") or ".." in info.link.split("/")):
        return f"{plain(info.name)} is a link to {plain(info.link)}"
    # A relative symbolic link may go up inside of the tree only; an absolute one leads into a system, not out of it.
    if info.kind is Kind.LINK and not info.link.startswith("/") and _leads_out(info.link, posixpath.dirname(info.name)):
        return f"{plain(info.name)} is a link to {plain(info.link)}"
    if info.kind is Kind.DEVICE:
        return f"{plain(info.name)} is a device or a FIFO"
    return ""


def _below(info: TarMember, links: dict[str, str]) -> str:
    """A member below a symbolic link would be written where that leads. ``links``: those so far, and where they go."""
    parts = posixpath.normpath(info.name).split("/")
    if links:
        above = next((path for n in range(1, len(parts)) if (path := "/".join(parts[:n])) in links), None)
        if above is not None:
            return f"{plain(info.name)} lies below the symbolic link {plain(above)}"
    if info.kind is Kind.LINK:
        links["/".join(parts)] = info.link
    elif info.kind is Kind.HARD_LINK and (other := posixpath.normpath(info.link)) in links:
        links["/".join(parts)] = links[other]
    return ""


def _escaping(links: Mapping[str, str]) -> Iterator[str]:
    """Links that lead out of the tree where those on their way are followed, as whoever opens them does."""
    for link, target in links.items():
        if target.startswith("/"):
            continue
        here, ahead = link.split("/")[:-1], target.split("/")[::-1]
        for _ in range(_MAX_STEPS):
            if not ahead:
                break
            part = ahead.pop()
            if part == "..":
                if not here:
                    yield link
                    break
                here.pop()
            elif part not in ("", "."):
                follow = links.get("/".join([*here, part]))
                if follow is None:
                    here.append(part)
                elif follow.startswith("/"):
                    break
                else:
                    ahead += follow.split("/")[::-1]


def _leads_out(name: str, folder: str) -> bool:
    whole = posixpath.normpath(posixpath.join(folder, name))
    return name.startswith("/") or whole == ".." or whole.startswith(("../", "/"))
