"""The files that a .changes lists, against those that the daemon has sealed: what is there, and of what kind.

Pure: digests and sizes of the sealed files are known already. Whether a binary or a source package is sound inside is
asked elsewhere (:mod:`.binary`, :mod:`.source`).
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from enum import Enum, auto

from incomingd import rules
from incomingd.model import Digests, FileEntry, Problem, Seal, SourcePackage, plain
from incomingd.verify.changes import Changes, Row

_TAR = r"\.tar\.(?:gz|bz2|xz|lzma)(?:\.asc)?"
_SOURCE_FILE = re.compile(rf".+(?:{_TAR}|\.diff\.gz)", re.ASCII)
_ORIG = re.compile(rf".+\.orig(?:-[A-Za-z0-9-]+)?{_TAR}", re.ASCII)
_BINARY = re.compile(r"(?:.*_)?(?P<architecture>[^_]*)\.(?:deb|udeb|ddeb)", re.ASCII)
#: What counts for a package that says nothing of use.
_SECTION, _PRIORITY = "misc", "optional"
#: Debian Policy 2.4, and what the installer's packages have.
_SECTIONS = frozenset(
    (
        *("admin", "cli-mono", "comm", "database", "debug", "devel", "doc", "editors", "education", "electronics"),
        *("embedded", "fonts", "games", "gnome", "gnu-r", "gnustep", "golang", "graphics", "hamradio", "haskell"),
        *("httpd", "interpreters", "introspection", "java", "javascript", "kde", "kernel", "libdevel", "libs", "lisp"),
        *("localization", "mail", "math", "metapackages", "misc", "net", "news", "ocaml", "oldlibs", "otherosfs"),
        *("perl", "php", "python", "raku", "ruby", "rust", "science", "shells", "sound", "tasks", "tex", "text"),
        *("utils", "vcs", "video", "web", "x11", "xfce", "zope", "debian-installer"),
    )
)
#: Debian Policy 2.5; extra is what it was until 2017.
PRIORITIES = ("required", "important", "standard", "optional", "extra")


class Kind(Enum):
    """What a file is, by its name."""

    BINARY = auto()
    DSC = auto()
    SOURCE_FILE = auto()
    BUILDINFO = auto()
    BYHAND = auto()


def kind(name: str) -> Kind:
    """What the file ``name`` is (deb-changes(5), "Files")."""
    if name.endswith((".deb", ".udeb", ".ddeb")):
        return Kind.BINARY
    if name.endswith(".dsc"):
        return Kind.DSC
    if name.endswith(".buildinfo"):
        return Kind.BUILDINFO
    return Kind.SOURCE_FILE if _SOURCE_FILE.fullmatch(name) else Kind.BYHAND


def is_orig(name: str) -> bool:
    """True for an upstream tarball and its signature, which the archive may have already."""
    return _ORIG.fullmatch(name) is not None


def is_debug(name: str) -> bool:
    """True for debug symbols that debhelper has split off (dh_strip(1)), and Ubuntu's .ddeb."""
    return package(name).endswith("-dbgsym") or name.endswith(".ddeb")


def package(name: str) -> str:
    """The package in the name of a binary or a .dsc, as dpkg makes it; a package's name may have a ``_`` itself."""
    return name.rsplit("_", 1 if name.endswith(".dsc") else 2)[0]


def architecture(name: str) -> str:
    """The architecture in a binary's file name, empty where there is none."""
    match = _BINARY.fullmatch(name)
    return match["architecture"] if match else ""


def component(section: str) -> str:
    """The component that a section names: ``contrib`` of ``contrib/devel``, empty of ``devel`` (Debian Policy 2.4)."""
    return section.rpartition("/")[0]


def content(row: Row, sealed: FileEntry) -> list[Problem]:
    """Size and every given digest of one file, as listed and as sealed."""
    if sealed.size != row.size:
        found = f"it has {sealed.size} bytes, and {row.size} are listed"
        return [rules.SIZE_MISMATCH.problem(found, file=row.name)]
    return [
        rules.CHECKSUM_MISMATCH.problem(
            f"its {algorithm.upper()} is {getattr(sealed.digests, algorithm)}, and {listed} is listed", file=row.name
        )
        for algorithm in Digests.__slots__
        if (listed := getattr(row.digests, algorithm)) and listed != getattr(sealed.digests, algorithm)
    ]


def kinds(changes: Changes) -> Iterator[Problem]:
    """Each file is of a known kind."""
    for row in changes.rows:
        if kind(row.name) is Kind.BYHAND:
            yield rules.BYHAND.problem("no package and no part of one is called so", file=row.name)


def sections(
    changes: Changes, extra: Collection[str], overridden: Callable[[str, str, str], tuple[str, str]]
) -> Iterator[Problem]:
    """Each package has a known section and priority. ``overridden`` gives those that the archive has for a file's name,
    and the ones it comes with."""
    for row in changes.rows:
        # A row that Files lacks has been told of.
        if kind(row.name) in (Kind.BINARY, Kind.DSC) and row.digests.md5:
            yield from style(row.name, *overridden(row.name, row.section, row.priority), extra)


def style(file: str, section: str, priority: str, extra: Collection[str]) -> Iterator[Problem]:
    """Section and priority are known, or not said at all (Debian Policy 2.4, 2.5)."""
    if section and not is_section(section, extra):
        yield rules.UNKNOWN_SECTION.problem(f'its section is "{plain(section)}"', file=file)
    if priority and priority not in PRIORITIES:
        yield rules.UNKNOWN_PRIORITY.problem(f'its priority is "{plain(priority)}"', file=file)


def is_section(section: str, extra: Collection[str]) -> bool:
    """True if it is one that is known, with or without a component. ``*`` in ``extra`` makes every one known."""
    last = section.rpartition("/")[2]
    return bool(last) and (last in _SECTIONS or last in extra or "*" in extra)


def section(said: str, extra: Collection[str]) -> str:
    """What the index says: what the package says, if that is known."""
    return said if is_section(said, extra) else _SECTION


def priority(said: str) -> str:
    """As :func:`section`."""
    return said if said in PRIORITIES else _PRIORITY


def architectures(changes: Changes, file: str, known: Mapping[str, str]) -> Iterator[Problem]:
    """Architecture is what the files are: source means exactly one .dsc, and each other word has its binaries.

    ``known`` has the architecture of each binary that was read, by file name; of another one its name says it.
    """
    if not changes.rows:  # it is told already that no list can be read
        return
    by_kind: dict[Kind, list[str]] = {}
    for row in changes.rows:
        by_kind.setdefault(kind(row.name), []).append(row.name)
    sourceful, dscs = "source" in changes.architectures, by_kind.get(Kind.DSC, [])
    if sourceful and len(dscs) != 1:
        yield _mismatch(f"Architecture has source, and {len(dscs)} .dsc are listed, where there must be one", file)
    if not sourceful and (dscs or by_kind.get(Kind.SOURCE_FILE)):
        name = (dscs or by_kind[Kind.SOURCE_FILE])[0]
        yield _mismatch(f"Architecture lacks source, and {name} is listed", file)
    found = {known.get(name) or architecture(name) for name in by_kind.get(Kind.BINARY, [])}
    listed = set(changes.architectures) - {"source"}
    for word in sorted(listed - found):
        yield _mismatch(f'Architecture has "{plain(word)}", and no binary of it is listed', file)
    for word in sorted(found - listed):
        yield _mismatch(f'a binary of "{plain(word)}" is listed, and Architecture lacks it', file)


def _mismatch(found: str, file: str) -> Problem:
    return rules.ARCHITECTURE_MISMATCH.problem(found, file=file)


def sealed_whole(seal_problems: Collection[Problem]) -> bool:
    """False where sealing left files out that have no problem of their own: then nobody can say what is missing."""
    return not any(
        problem.code == rules.UPLOAD_TOO_LARGE.code
        or (problem.file is None and problem.code != rules.BAD_UPLOAD_NAME.code)
        for problem in seal_problems
    )


def absent(
    changes: Changes, sealed: Mapping[str, FileEntry], seal: Seal, sources: Iterable[SourcePackage]
) -> Iterator[Problem]:
    """Listed files that are not in the upload. An orig that the .dsc describes alike may be in the archive."""
    in_dsc = {entry.name: entry for source in sources for entry in source.files}
    if not sealed_whole(seal.problems):
        return
    told = {problem.file for problem in seal.problems}
    foreign = {problem.file: problem for problem in seal.absent}
    for row in changes.rows:
        if row.name in sealed or row.name in told:
            continue
        entry = in_dsc.get(row.name)
        if entry is None or not is_orig(row.name):
            found = "it is listed, and it is not in the upload"
            yield foreign.get(row.name) or rules.MISSING_FILE.problem(found, file=row.name)
        elif (entry.size, entry.digests.sha256) != (row.size, row.digests.sha256):
            yield rules.SOURCE_FILE_MISMATCH.problem(
                f"the .changes has {row.size} bytes, SHA256 {row.digests.sha256}, "
                f"the .dsc {entry.size} bytes, SHA256 {plain(entry.digests.sha256)}",
                file=row.name,
            )


def strays(changes: Changes, sources: Iterable[SourcePackage]) -> Iterator[Problem]:
    """Parts of a source that no .dsc lists: they would lie in the pool and in no index."""
    parts = {entry.name for source in sources for entry in source.files}
    for row in changes.rows:
        if kind(row.name) is Kind.SOURCE_FILE and row.name not in parts:
            yield rules.SOURCE_FILE_SET.problem("the .changes lists it, and the .dsc does not", file=row.name)
