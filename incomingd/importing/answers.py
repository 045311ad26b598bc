"""Checks what a process that reads an import's packages says: a package may have taken it over. Pure.

Names in an answer become paths, and values are published. An answer counts only if it can be true of the package that
the process was given:

* names and versions are well-formed, and the suite has the component and the architecture;
* size, digest, name and version are those that a signed index lists;
* each file has the pool path of a package of that name, and lies in the process's own folder;
* the stanza is a single one without repeated fields, and agrees with the rest of the answer in name, place, size and
  digest.

The rest cannot be checked: a process that lies can pass off the packages that it reads as correct.
"""

from collections.abc import Iterator

from incomingd.config import SuiteConfig
from incomingd.importing.protocol import Answer
from incomingd.importing.reading import Task, sections_of, staged_binary, staged_source, unlike
from incomingd.journal.staging import Origin, StagedFile, StagedPackage
from incomingd.model import FIELD_NAME, FILE_NAME, LOOSE_FILE_NAME, PACKAGE_NAME, BinaryKind, pool_directory
from incomingd.verify.changes import VERSION

_KINDS = tuple(BinaryKind)


def faults(answer: Answer, number: int, origin: Origin, task: Task, place: str) -> Iterator[str]:
    """What cannot be true in the answer about ``origin``; ``place`` is the process's own folder."""
    package = answer.package
    if answer.id != number:
        yield "the answer is about another package"
    if (package is None) != bool(answer.problems):
        yield "the answer must have either a package or problems"
    if package is not None:
        yield from _misspelled(package, task.suite)
        yield from _misplaced(package, number, origin, place)
        yield from _unlike_index(package, origin)
        yield from _misstated(package)


def _misspelled(package: StagedPackage, suite: SuiteConfig) -> Iterator[str]:
    if not all(PACKAGE_NAME.fullmatch(name) for name in (package.name, package.source)):
        yield "the name of the package or of its source is not valid"
    if not all(VERSION.fullmatch(version) for version in (package.version, package.source_version)):
        yield "the version of the package or of its source is not valid"
    if package.component not in suite.components:
        yield "the suite does not have this component"
    if package.kind == "dsc":
        if (package.architecture, package.name) != ("source", package.source):
            yield "a source package must have the name of its source and the architecture source"
    elif package.kind not in _KINDS or package.architecture not in ("all", *suite.binary_architectures):
        yield "the suite does not have this kind of package or this architecture"
    if package.sections != sections_of(package.kind, package.component, package.architecture, suite):
        yield "the indexes that are to list it are not those of its component and architecture"


def _misplaced(package: StagedPackage, number: int, origin: Origin, place: str) -> Iterator[str]:
    """The files must lie in the folder of the process, and go to the pool directory of the source."""
    if not package.files or package.sha256 != package.files[0].file.digests.sha256 or not package.files[0].staged:
        yield "the .deb or .dsc itself is missing"
    if package.kind != "dsc" and len(package.files) != 1:
        yield "a binary package must have exactly one file"
    names = set()
    for file in package.files:
        names.add(file.file.name)
        if not (FILE_NAME if package.kind == "dsc" else LOOSE_FILE_NAME).fullmatch(file.file.name):
            yield "the name of a file is not valid"
        if file.path != f"{pool_directory(package.component, package.source)}/{file.file.name}":
            yield "the pool path of a file is not that of its source"
        if package.kind == "dsc":
            where = staged_source(place, number, file.file.name)
        else:
            where = staged_binary(place, number, origin)
        if file.staged not in (None, where):
            yield "a file lies outside of the folder of the process"
        if not _is_sized(file):
            yield "the size or a digest of a file is not valid"
    if len(names) != len(package.files):
        yield "a file is named twice"


def _is_sized(file: StagedFile) -> bool:
    digests = (file.file.digests.md5, file.file.digests.sha1, file.file.digests.sha256)
    return file.file.size >= 0 and all(digest.isascii() and (digest.isalnum() or not digest) for digest in digests)


def _unlike_index(package: StagedPackage, origin: Origin) -> Iterator[str]:
    if origin.sha256 is None or not package.files:
        return
    if (package.sha256, package.files[0].file.size) != (origin.sha256, origin.size):
        yield "size or SHA256 are not those in the signed index"
    if unlike(origin, package.name, package.version):
        yield "name or version are not those in the signed index"


def _misstated(package: StagedPackage) -> Iterator[str]:
    """The stanza must be a single one, and describe the file that the answer names."""
    text, own = package.stanza, next(iter(package.files), None)
    if own is None:
        return
    fields = _fields(text)
    if fields is None:
        yield "the stanza is not a single well-formed one"
        return
    wanted = {"version": package.version}
    if package.kind == "dsc":
        directory = own.path.rpartition("/")[0]
        rows = "".join(f"\n {file.file.digests.sha256} {file.file.size} {file.file.name}" for file in package.files)
        wanted |= {"directory": directory, "checksums-sha256": rows}
        others = {"filename", "source", "checksums-sha512", "checksums-md5", "status"}
    else:
        wanted |= {"architecture": package.architecture, "filename": own.path}
        wanted |= {"size": str(own.file.size), "sha256": package.sha256}
        others = {"directory", "files", "checksums-sha1", "checksums-sha256", "sha512", "status"}
    if any(fields.get(name) != value for name, value in wanted.items()):
        yield "the stanza differs from the answer in version, place, size or digest"
    if not text.startswith(f"Package: {package.name}\n".encode()):
        yield "the stanza is that of another package"
    if not others.isdisjoint(fields):
        yield "the stanza has fields that do not belong into this kind of index"


def _fields(text: bytes) -> dict[str, str] | None:
    """The fields of a stanza by their names in lower case; None if it is malformed or repeats a field."""
    if text.find(b"\n\n") != len(text) - 2 or b"\0" in text or b"\r" in text:
        return None
    fields: dict[str, str] = {}
    last = ""
    try:
        lines = text.decode().split("\n")[:-2]
    except UnicodeDecodeError:
        return None
    for line in lines:
        if line[:1] in (" ", "\t"):
            if not last or not line.strip():
                return None
            fields[last] += f"\n{line}"
            continue
        name, colon, value = line.partition(":")
        last = name.lower()
        if not colon or not FIELD_NAME.fullmatch(name) or last in fields:
            return None
        fields[last] = value.removeprefix(" ")
    return fields
