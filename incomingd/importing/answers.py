"""What an answer of a process that reads an import's packages has to be, whatever package has got hold of it. Pure.

Names in it become paths, and values are published. It counts only if it can be true of the package that was given:

* names, versions, components and architectures have their form, and the suite has them;
* what a signed index lists is what was read: its size, digest, name and version;
* each file goes where a package of that name has it, and is in the process's own folder;
* its stanza is one, has no field twice, and says of name, place, size and digest what the rest of the answer says.

Whether the rest is true is not known: a process that lies can let the packages that it reads pass as right.
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
    """What no process that does its work says of ``origin``; ``place`` is the process's own folder."""
    package = answer.package
    if answer.id != number:
        yield "it is another package"
    if (package is None) != bool(answer.problems):
        yield "it is neither read nor refused"
    if package is not None:
        yield from _misspelled(package, task.suite)
        yield from _misplaced(package, number, origin, place)
        yield from _unlike_index(package, origin)
        yield from _misstated(package)


def _misspelled(package: StagedPackage, suite: SuiteConfig) -> Iterator[str]:
    if not all(PACKAGE_NAME.fullmatch(name) for name in (package.name, package.source)):
        yield "its name is none"
    if not all(VERSION.fullmatch(version) for version in (package.version, package.source_version)):
        yield "its version is none"
    if package.component not in suite.components:
        yield "the suite has no such component"
    if package.kind == "dsc":
        if (package.architecture, package.name) != ("source", package.source):
            yield "a source has another name or architecture"
    elif package.kind not in _KINDS or package.architecture not in ("all", *suite.binary_architectures):
        yield "the suite has no such kind or architecture"
    if package.sections != sections_of(package.kind, package.component, package.architecture, suite):
        yield "it is listed elsewhere"


def _misplaced(package: StagedPackage, number: int, origin: Origin, place: str) -> Iterator[str]:
    """Where its files are, and where they are to be."""
    if not package.files or package.sha256 != package.files[0].file.digests.sha256 or not package.files[0].staged:
        yield "its own file is missing"
    if package.kind != "dsc" and len(package.files) != 1:
        yield "a binary package has one file"
    names = set()
    for file in package.files:
        names.add(file.file.name)
        if not (FILE_NAME if package.kind == "dsc" else LOOSE_FILE_NAME).fullmatch(file.file.name):
            yield "a file has no proper name"
        if file.path != f"{pool_directory(package.component, package.source)}/{file.file.name}":
            yield "a file belongs elsewhere in the pool"
        if package.kind == "dsc":
            where = staged_source(place, number, file.file.name)
        else:
            where = staged_binary(place, number, origin)
        if file.staged not in (None, where):
            yield "a file is staged elsewhere"
        if not _is_sized(file):
            yield "a file has no proper size or digest"
    if len(names) != len(package.files):
        yield "it has a file twice"


def _is_sized(file: StagedFile) -> bool:
    digests = (file.file.digests.md5, file.file.digests.sha1, file.file.digests.sha256)
    return file.file.size >= 0 and all(digest.isascii() and (digest.isalnum() or not digest) for digest in digests)


def _unlike_index(package: StagedPackage, origin: Origin) -> Iterator[str]:
    if origin.sha256 is None or not package.files:
        return
    if (package.sha256, package.files[0].file.size) != (origin.sha256, origin.size):
        yield "the signed index lists other content"
    if unlike(origin, package.name, package.version):
        yield "the signed index lists another package"


def _misstated(package: StagedPackage) -> Iterator[str]:
    """Its stanza is one, of the file that it lists."""
    text, own = package.stanza, next(iter(package.files), None)
    if own is None:
        return
    fields = _fields(text)
    if fields is None:
        yield "its stanza is none"
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
        yield "its stanza is another one's"
    if not text.startswith(f"Package: {package.name}\n".encode()):
        yield "its stanza is another package's"
    if not others.isdisjoint(fields):
        yield "its stanza has fields that an index of its kind has not"


def _fields(text: bytes) -> dict[str, str] | None:
    """The fields of one stanza, by their names in lower case; None if it is none, or has one twice."""
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
