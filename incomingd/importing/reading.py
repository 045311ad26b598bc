"""Takes and checks one package: what a worker process does. The rules are those of an upload, less its .changes.

The file is copied (or linked) first, at most as many bytes as are listed, and only the copy is looked at; nothing is
kept of what cannot be imported. Section and priority are what the package says of itself; a .dsc may be signed by
anybody, since the operator vouches for it.
"""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from incomingd import fsio, rules
from incomingd.config import Config, SuiteConfig
from incomingd.errors import Retry
from incomingd.importing.remote import Server, TooLongError
from incomingd.journal.staging import FILES, Item, Origin, StagedFile, StagedPackage
from incomingd.model import (
    FILE_NAME,
    LOOSE_FILE_NAME,
    BinaryKind,
    FileEntry,
    Problem,
    SourcePackage,
    plain,
    pool_directory,
)
from incomingd.publish.stanza import packages_stanza, size_faults, sources_stanza
from incomingd.verify import deb822, overrides, policy
from incomingd.verify.binary import check_alone
from incomingd.verify.changes import read_rows
from incomingd.verify.keyring import Keyring
from incomingd.verify.signature import Verifier, is_signed
from incomingd.verify.source import SourceContext, check_source

#: Packages in one folder of the staging area.
_IN_FOLDER = 1000
#: Characters of a file's own name in that of its copy.
_NAME_KEPT = 200
#: No limit: a file that no index lists.
_ANY = 1 << 62


class _UnlistedError(Exception):
    """A file is not the one that is listed."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What an import is: into which suite and component (None: as each section says), staged where, by whose rules.

    ``server`` is where its files are fetched from; None if they are on this machine, in ``roots`` and below.
    """

    config: Config
    suite: SuiteConfig
    component: str | None
    folder: Path
    link: bool
    now: datetime
    keyring: Path
    server: Server | None = None
    roots: tuple[Path, ...] = ()

    @property
    def files(self) -> Path:
        """The folder of the packages' files."""
        return self.folder / FILES


def staged_binary(place: str, number: int, origin: Origin) -> str:
    """Where a binary package is staged, below the folder of files; ``place`` is the folder of the process there.

    Its own name may have all the 255 bytes that a name can have, and there is a number before it.
    """
    return f"{place}/{number // _IN_FOLDER}/{number}-{origin.path.rpartition('/')[2][-_NAME_KEPT:]}"


def staged_source(place: str, number: int, name: str) -> str:
    """Where a source's file of that name is; each source has a folder to itself."""
    return f"{place}/{number // _IN_FOLDER}/{number}/{name}"


def unlike(origin: Origin, name: str, version: str) -> bool:
    """True if the index, so far as it says, means another package."""
    return (origin.package or name, origin.version or version) != (name, version)


def sections_of(kind: str, component: str, architecture: str, suite: SuiteConfig) -> tuple[str, ...]:
    """The indexes that list a package, one of "all" for each architecture."""
    if kind == "dsc":
        return (f"{component}/source",)
    family = "debian-installer/" if kind == BinaryKind.UDEB else ""
    architectures = suite.binary_architectures if architecture == "all" else (architecture,)
    return tuple(f"{component}/{family}binary-{one}" for one in architectures)


class Reader:
    """Reads packages for one import, into the folder ``place`` below that of files."""

    def __init__(self, task: Task, place: str) -> None:
        self._task = task
        self._place = place
        self._made: set[Path] = set()
        self._warnings: list[Problem] = []  # of the package in hand
        self._overrides = overrides.load([task.suite])
        self._verifier = Verifier(keyring=Keyring(task.keyring).public, keys=Keyring(task.keyring).load(), now=task.now)

    def read(self, number: int, origin: Origin) -> Item:
        """Take one package in; ``number`` is its own in this import. Raises ``Retry``."""
        name = origin.path.rpartition("/")[2]
        if not (FILE_NAME if name.endswith(".dsc") else LOOSE_FILE_NAME).fullmatch(name):
            problem = rules.BAD_FILE_NAME.problem(f"it is called {plain(name)}", file=plain(name))
            return Item(id=number, origin=origin, problems=(problem,), package=None)
        problems: list[Problem]
        package: StagedPackage | None = None
        self._warnings = []
        try:
            if name.endswith(".dsc"):
                package, problems = self._source(number, origin)
            else:
                package, problems = self._binary(number, origin)
        except fsio.NotRegularError:
            problems = [rules.NOT_REGULAR_FILE.problem("it is a link or a special file", file=name)]
        except (FileNotFoundError, NotADirectoryError):
            problems = [rules.MISSING_FILE.problem("it is listed, and it is not there", file=name)]
        except _UnlistedError as error:
            problems = [error.problem]
        except PermissionError as error:
            raise Retry(f"{origin.path}: cannot be read by the user {os.geteuid()}, who runs incomingd") from error
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            # An index may list any path; that there is no such file is all that the system says of this one.
            problems = [rules.MISSING_FILE.problem("it is listed, and its path is too long for this system", file=name)]
        if package is not None:
            problems += self._fits(package, origin, name)
        if problems:
            self._remove(number, origin)
        return Item(
            id=number,
            origin=origin,
            problems=tuple(dict.fromkeys(problems)),
            warnings=tuple(self._warnings),
            package=None if problems else package,
        )

    def _take(self, origin: Origin, staged: str) -> FileEntry:
        """Stage the package itself. What an index lists has its size and SHA256, or is looked at no further."""
        name = origin.path.rpartition("/")[2]
        try:
            entry = self._copy(origin.path, staged, origin.size if origin.sha256 else _ANY, origin)
        except TooLongError as error:
            found = f"it has more than the {origin.size} bytes that the index of the repository lists"
            raise _UnlistedError(rules.CHECKSUM_MISMATCH.problem(found, file=name)) from error
        if origin.sha256 and (entry.size, entry.digests.sha256) != (origin.size, origin.sha256):
            found = (
                f"it has {entry.size} bytes and the SHA256 {entry.digests.sha256}, and the index of the repository has "
                f"{origin.size} and {origin.sha256}"
            )
            raise _UnlistedError(rules.CHECKSUM_MISMATCH.problem(found, file=entry.name))
        return entry

    def _copy(self, path: str, staged: str, limit: int, origin: Origin) -> FileEntry:
        """Stage one file of at most ``limit`` bytes, below the import's folder; what it holds.

        A link is followed only if an index lists what is behind it. Raises :class:`TooLongError`.
        """
        target, server = self._task.files / staged, self._task.server
        name = path.rpartition("/")[2]
        if target.parent not in self._made:
            fsio.make_directories(target.parent, 0o700)
            self._made = {target.parent}  # the next one is nearly always in there, too
        try:
            if server is None:
                source = Path(os.path.realpath(path) if origin.sha256 else path)
                return replace(fsio.take_copy(source, target, link=self._task.link, limit=limit), name=name)
            fsio.write_new(target, server.chunks(path.removeprefix(f"{server.base}/"), limit))
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise
            raise TooLongError from error
        return replace(fsio.hash_file(target), name=name)

    def _remove(self, number: int, origin: Origin) -> None:
        """Nothing is kept of what cannot be imported."""
        fsio.remove(self._task.files / staged_binary(self._place, number, origin))
        fsio.remove_tree(self._task.files / staged_source(self._place, number, ""))

    def _component(self, origin: Origin) -> Callable[[str, str], str]:
        """How the component follows from a section and a file's name: not at all, where somebody has said it."""
        said = self._task.component or origin.component
        return lambda section, name: said or policy.component(section, [self._task.suite], name)

    def _fits(self, package: StagedPackage, origin: Origin, file: str) -> list[Problem]:
        """It is what the index lists; the suite has its component and architecture, and room for its stanza."""
        suite = self._task.suite
        problems = list(size_faults(package.stanza, file, suite.checks.max_stanza))
        if unlike(origin, package.name, package.version):
            found = f"it is {package.name} {package.version}, and the index of the repository lists it as "
            found += plain(f"{origin.package} {origin.version}")
            problems.append(rules.BAD_INDEX_ENTRY.problem(found, file=file))
        if package.component not in suite.components:
            known = ", ".join(suite.components)
            problems.append(
                rules.UNKNOWN_COMPONENT.problem(
                    f'its component is "{plain(package.component)}", and {suite.name} has {known}', file=file
                )
            )
        if package.architecture not in (*suite.binary_architectures, "all", "source"):
            known = ", ".join(suite.binary_architectures)
            problems.append(
                rules.UNKNOWN_ARCHITECTURE.problem(
                    f'its architecture is "{plain(package.architecture)}", and {suite.name} has {known}', file=file
                )
            )
        return problems

    # -- binaries -----------------------------------------------------------------------------------------------------

    def _binary(self, number: int, origin: Origin) -> tuple[StagedPackage | None, list[Problem]]:
        staged = staged_binary(self._place, number, origin)
        entry = self._take(origin, staged)
        outcome = check_alone(
            self._task.files / staged,
            entry,
            self._component(origin),
            self._task.now,
            checks=self._task.suite.checks,
            overridden=self._overrides,
        )
        self._warnings += outcome.warnings
        if outcome.package is None or outcome.problems:
            return None, list(outcome.problems)
        binary = self._overrides.placed(outcome.package, self._component(origin))
        where = f"{pool_directory(binary.component, binary.source)}/{binary.pool_name}"
        package = StagedPackage(
            kind=binary.kind,
            name=binary.package,
            version=binary.version,
            architecture=binary.architecture,
            source=binary.source,
            source_version=binary.source_version,
            component=binary.component,
            sha256=entry.digests.sha256,
            stanza=packages_stanza(binary, where, self._task.config.publish),
            sections=sections_of(binary.kind, binary.component, binary.architecture, self._task.suite),
            files=(StagedFile(path=where, file=replace(entry, name=binary.pool_name), staged=staged),),
        )
        return package, []

    # -- sources ------------------------------------------------------------------------------------------------------

    def _source(self, number: int, origin: Origin) -> tuple[StagedPackage | None, list[Problem]]:
        name = origin.path.rpartition("/")[2]
        staged = staged_source(self._place, number, name)
        beside = staged.rpartition("/")[0]
        entry = self._take(origin, staged)
        text, problems = self._text(staged, entry)
        if text is None:
            return None, problems
        stanza, more = deb822.parse(text, entry.name)
        if stanza is None:
            return None, [*problems, *more]
        taken, more = self._beside(stanza, origin, beside)
        problems += more
        section, priority = _place(stanza)
        context = SourceContext(
            source=stanza.get("Source"),
            version=stanza.get("Version"),
            section=section,
            priority=priority,
            component=self._component(origin)(section, entry.name),
            folder=self._task.files / beside,
            files=taken,
            checks=self._task.suite.checks,
        )
        outcome = check_source(text, entry, context)
        problems += outcome.problems
        self._warnings += outcome.warnings
        if outcome.package is None or problems:
            return None, problems
        source = self._overrides.placed(outcome.package, self._component(origin))
        return self._staged_source(source, staged, taken.__contains__), []

    def _beside(self, stanza: deb822.Stanza, origin: Origin, staged: str) -> tuple[dict[str, FileEntry], list[Problem]]:
        """Stage the files that a .dsc lists from beside it."""
        where, _, name = origin.path.rpartition("/")
        taken: dict[str, FileEntry] = {}
        problems = []
        rows, faults = read_rows(stanza, name, columns=3)
        for row in () if faults else rows:  # check_source tells the faults
            if not FILE_NAME.fullmatch(row.name):
                continue
            try:
                taken[row.name] = self._copy(f"{where}/{row.name}", f"{staged}/{row.name}", row.size, origin)
            except FileNotFoundError:
                continue  # an orig may be in the archive already
            except TooLongError:
                found = f"it has more than the {row.size} bytes that {name} lists"
                problems.append(rules.SIZE_MISMATCH.problem(found, file=row.name))
        return taken, problems

    def _text(self, staged: str, entry: FileEntry) -> tuple[bytes | None, list[Problem]]:
        """The .dsc's text, without its signature."""
        limit = self._task.suite.checks.max_text_file
        if entry.size > limit:
            found = f"it has {entry.size} bytes, and {limit} are allowed"
            return None, [rules.TEXT_TOO_LARGE.problem(found, file=entry.name)]
        data = (self._task.files / staged).read_bytes()
        if not is_signed(data):
            return data, []
        signed = self._verifier.verify(data, entry.name)
        return signed.text, list(signed.faults)

    def _staged_source(self, source: SourcePackage, staged: str, is_taken: Callable[[str], bool]) -> StagedPackage:
        directory = pool_directory(source.component, source.source)
        beside = Path(staged).parent
        files = [StagedFile(path=f"{directory}/{source.dsc.name}", file=source.dsc, staged=staged)]
        for file in source.files:
            where = f"{beside}/{file.name}" if is_taken(file.name) else None
            files.append(StagedFile(path=f"{directory}/{file.name}", file=file, staged=where))
        return StagedPackage(
            kind="dsc",
            name=source.source,
            version=source.version,
            architecture="source",
            source=source.source,
            source_version=source.version,
            component=source.component,
            sha256=source.dsc.digests.sha256,
            stanza=sources_stanza(source, directory, self._task.config.publish),
            sections=sections_of("dsc", source.component, "source", self._task.suite),
            files=tuple(files),
        )


def _place(stanza: deb822.Stanza) -> tuple[str, str]:
    """Section and priority of a source: its own, or those of the first package that it lists (deb-src-control(5))."""
    first = next((line.split() for line in stanza.lines("Package-List")), [])
    section = stanza.get("Section") or (first[2] if len(first) > 3 else "misc")
    return section, stanza.get("Priority") or (first[3] if len(first) > 3 else "optional")
