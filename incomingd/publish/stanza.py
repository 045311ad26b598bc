"""Writes the stanzas of Packages and Sources. Pure.

Rules:

* Every field of the control file or .dsc is kept with its value, in the order of ``apt-ftparchive`` (apt's
  ``tagfile-order.c``) and spelled as there; fields that apt does not know come last, in the file's own order.
* What the archive itself says of a file replaces whatever the uploader says of it: name, size and digests, Section and
  Priority (those of the .changes). A digest that was not computed here is left out, and whatever else apt would
  take as said of the file (:func:`~incomingd.model.is_index_field`); a wrong one makes the file impossible to fetch.
* A stanza has at most max_stanza bytes; with a larger one apt reads nothing at all of the index.
* No value can open a second stanza. Checking has seen to that; here it is a bug, and a ``ValueError``.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from incomingd import rules
from incomingd.config import PublishConfig
from incomingd.model import (
    FIELD_NAME,
    FIELD_VALUE,
    BinaryPackage,
    Fields,
    FileEntry,
    Problem,
    SourcePackage,
    is_index_field,
)

_PACKAGES_ORDER = (
    *("Package", "Package-Type", "Architecture", "Subarchitecture", "Version", "Kernel-Version", "Built-Using"),
    *("Static-Built-Using", "Built-For-Profiles", "Auto-Built-Package", "Multi-Arch", "Status", "Priority"),
    *("Build-Essential", "Protected", "Important", "Essential", "Installer-Menu-Item", "Section", "Source", "Origin"),
    *("Phased-Update-Percentage", "Maintainer", "Original-Maintainer", "Bugs", "Config-Version", "Conffiles"),
    *("Triggers-Awaited", "Triggers-Pending", "Installed-Size", "Provides", "Pre-Depends", "Depends", "Recommends"),
    *("Suggests", "Conflicts", "Breaks", "Replaces", "Enhances", "Filename", "MSDOS-Filename", "Size", "MD5sum"),
    *("SHA1", "SHA256", "SHA512", "Homepage", "Description", "Description-md5", "Tag", "Task"),
)
_SOURCES_ORDER = (
    *("Package", "Source", "Format", "Binary", "Architecture", "Version", "Priority", "Section", "Origin"),
    *("Maintainer", "Original-Maintainer", "Uploaders", "Dm-Upload-Allowed", "Standards-Version", "Build-Depends"),
    *("Build-Depends-Arch", "Build-Depends-Indep", "Build-Conflicts", "Build-Conflicts-Arch", "Build-Conflicts-Indep"),
    *("Testsuite", "Testsuite-Triggers", "Homepage", "Description", "Vcs-Browser", "Vcs-Browse", "Vcs-Arch"),
    *("Vcs-Bzr", "Vcs-Cvs", "Vcs-Darcs", "Vcs-Git", "Vcs-Hg", "Vcs-Mtn", "Vcs-Svn", "Directory", "Package-List"),
    *("Files", "Checksums-Md5", "Checksums-Sha1", "Checksums-Sha256", "Checksums-Sha512"),
)


def packages_stanza(package: BinaryPackage, filename: str, config: PublishConfig) -> bytes:
    """A package's stanza in Packages, with the empty line behind it. ``filename`` is below the archive's root."""
    digests = package.file.digests
    own = {
        "Package": package.package,
        "Architecture": package.architecture,
        "Version": package.version,
        "Section": package.section,
        "Priority": package.priority,
        "Filename": filename,
        "Size": str(package.file.size),
        "MD5sum": digests.md5 if config.md5sum else None,
        "SHA1": digests.sha1 if config.sha1 else None,
        "SHA256": digests.sha256,
        # dpkg's own note of what is installed; apt-ftparchive takes it out too.
        "Status": None,
    }
    return _stanza(package.control, own, _PACKAGES_ORDER)


def sources_stanza(package: SourcePackage, directory: str, config: PublishConfig) -> bytes:
    """A source's stanza in Sources, with the empty line behind it; the .dsc is the first of its files."""
    files = (package.dsc, *package.files)
    own = {
        "Package": package.source,
        "Source": None,
        "Version": package.version,
        "Section": package.section,
        "Priority": package.priority,
        "Directory": directory,
        "Files": _rows((file.digests.md5, file) for file in files) if config.md5sum else None,
        "Checksums-Md5": None,
        "Checksums-Sha1": _rows((file.digests.sha1, file) for file in files) if config.sha1 else None,
        "Checksums-Sha256": _rows((file.digests.sha256, file) for file in files),
        "Checksums-Sha512": None,
        "Status": None,
    }
    return _stanza(package.fields, own, _SOURCES_ORDER)


def fields_of(stanza: bytes) -> Fields:
    """The fields of a stanza that was written here."""
    fields: list[tuple[str, str]] = []
    for line in stanza.decode().split("\n"):
        if line[:1] in (" ", "\t"):
            name, value = fields[-1]
            fields[-1] = (name, f"{value}\n{line}")
        elif line:
            name, _, value = line.partition(":")
            fields.append((name, value.removeprefix(" ")))
    return tuple(fields)


def size_faults(stanza: bytes, file: str, most: int) -> Iterator[Problem]:
    """A stanza that is too large for apt makes every client fail, whatever package it wants."""
    if len(stanza) > most:
        found = f"its stanza in the index would have {len(stanza)} bytes, and {most} are allowed"
        yield rules.STANZA_TOO_LARGE.problem(found, file=file)


def _rows(rows: Iterable[tuple[str, FileEntry]]) -> str:
    return "".join(f"\n {digest} {file.size} {file.name}" for digest, file in rows)


def _stanza(fields: Fields, own: Mapping[str, str | None], order: Sequence[str]) -> bytes:
    """``fields``, with those of ``own`` in their place or added; one of ours without a value is left out."""
    ours = {name.lower(): value for name, value in own.items()}
    values = {name.lower(): value for name, value in fields if name.lower() not in ours and not is_index_field(name)}
    values |= {name: value for name, value in ours.items() if value}
    spelled = {name.lower(): name for name, _ in fields} | {name.lower(): name for name in order}
    known = [name.lower() for name in order]
    places = [*(name for name in known if name in values), *(name for name in values if name not in known)]
    return ("".join(_line(spelled[name], values[name]) for name in places) + "\n").encode()


def _line(name: str, value: str) -> str:
    if not FIELD_NAME.fullmatch(name) or not FIELD_VALUE.fullmatch(value):
        raise ValueError(f"field {name!r} has a value that no stanza can hold: {value[:200]!r}")
    return f"{name}:{value}\n" if value[:1] in ("", " ", "\t", "\n") else f"{name}: {value}\n"
