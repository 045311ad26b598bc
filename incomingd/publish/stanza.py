"""Writes the stanzas of Packages and Sources.

Rules: every field of the control file or .dsc is kept as it is; the order is that of ``apt-ftparchive`` (apt's
``tagfile-order.c``), with fields that it does not know last, in the file's own order. Section and Priority are those of
the .changes. A value has been checked to be unable to open a second stanza.
"""

from collections.abc import Iterable, Sequence

from incomingd.config import PublishConfig
from incomingd.model import BinaryPackage, Fields, FileEntry, SourcePackage

_PACKAGES_ORDER = (
    *("Package", "Package-Type", "Architecture", "Subarchitecture", "Version", "Kernel-Version", "Built-Using"),
    *("Static-Built-Using", "Built-For-Profiles", "Auto-Built-Package", "Multi-Arch", "Status", "Priority"),
    *("Build-Essential", "Protected", "Important", "Essential", "Installer-Menu-Item", "Section", "Source", "Origin"),
    *("Phased-Update-Percentage", "Maintainer", "Original-Maintainer", "Bugs", "Config-Version", "Conffiles"),
    *("Triggers-Awaited", "Triggers-Pending", "Installed-Size", "Provides", "Pre-Depends", "Depends", "Recommends"),
    *("Suggests", "Conflicts", "Breaks", "Replaces", "Enhances", "Filename", "Size", "MD5sum", "SHA1", "SHA256"),
    *("SHA512", "Homepage", "Description", "Tag", "Task"),
)
_SOURCES_ORDER = (
    *("Package", "Format", "Binary", "Architecture", "Version", "Priority", "Section", "Origin", "Maintainer"),
    *("Original-Maintainer", "Uploaders", "Dm-Upload-Allowed", "Standards-Version", "Build-Depends"),
    *("Build-Depends-Arch", "Build-Depends-Indep", "Build-Conflicts", "Build-Conflicts-Arch"),
    *("Build-Conflicts-Indep", "Testsuite", "Testsuite-Triggers", "Homepage", "Vcs-Browser", "Vcs-Browse", "Vcs-Arch"),
    *("Vcs-Bzr", "Vcs-Cvs", "Vcs-Darcs", "Vcs-Git", "Vcs-Hg", "Vcs-Mtn", "Vcs-Svn", "Directory", "Package-List"),
    *("Files", "Checksums-Md5", "Checksums-Sha1", "Checksums-Sha256", "Checksums-Sha512"),
)


def packages_stanza(package: BinaryPackage, filename: str, config: PublishConfig) -> bytes:
    """A package's stanza in Packages, with the empty line behind it. ``filename`` is below the archive's root."""
    digests = package.file.digests
    own = [
        ("Section", package.section),
        ("Priority", package.priority),
        ("Filename", filename),
        ("Size", str(package.file.size)),
        ("MD5sum", digests.md5 if config.md5sum else ""),
        ("SHA1", digests.sha1 if config.sha1 else ""),
        ("SHA256", digests.sha256),
    ]
    return _stanza(package.control, own, ("SHA512",), _PACKAGES_ORDER)


def sources_stanza(package: SourcePackage, directory: str, config: PublishConfig) -> bytes:
    """A source's stanza in Sources, with the empty line behind it; the .dsc is among its own files."""
    files = [package.dsc, *package.files]
    own = [
        ("Package", package.source),
        ("Section", package.section),
        ("Priority", package.priority),
        ("Directory", directory),
        ("Files", _rows((f.digests.md5, f) for f in files)),
        ("Checksums-Sha1", _rows((f.digests.sha1, f) for f in files) if config.sha1 else ""),
        ("Checksums-Sha256", _rows((f.digests.sha256, f) for f in files)),
    ]
    # A Sha512 table of the .dsc's own could not list the .dsc itself.
    return _stanza(package.fields, own, ("Source", "Checksums-Sha512"), _SOURCES_ORDER)


def _rows(rows: Iterable[tuple[str, FileEntry]]) -> str:
    return "".join(f"\n {digest} {file.size} {file.name}" for digest, file in rows)


def _stanza(fields: Fields, own: Sequence[tuple[str, str]], dropped: Sequence[str], order: Sequence[str]) -> bytes:
    """``own`` values stand in for fields of the same name; an empty one leaves the field out."""
    replaced = {name.lower() for name, _ in own} | {name.lower() for name in dropped}
    values = {name.lower(): (name, value) for name, value in fields if name.lower() not in replaced}
    values |= {name.lower(): (name, value) for name, value in own if value}
    known = [name.lower() for name in order]
    places = [name for name in known if name in values] + [name for name in values if name not in set(known)]
    lines = (_line(*values[name]) for name in places)
    return ("".join(lines) + "\n").encode()


def _line(name: str, value: str) -> str:
    return f"{name}:{value}\n" if value.startswith("\n") else f"{name}: {value}\n"
