"""Takes and checks one package: what a worker process does. The rules are those of an upload, less its .changes.

The file is copied (or linked) first, and only the copy is looked at. Section and priority are what the package says of
itself; a .dsc may be signed by anybody, since the operator vouches for it.
"""

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from incomingd import fsio, rules
from incomingd.config import Config, SuiteConfig
from incomingd.errors import Retry
from incomingd.importing.repository import fetch, is_address
from incomingd.journal.staging import Item, Origin, StagedFile, StagedPackage
from incomingd.model import FILE_NAME, BinaryKind, FileEntry, Problem, SourcePackage, plain, pool_directory
from incomingd.publish.stanza import packages_stanza, sources_stanza
from incomingd.verify import deb822, overrides, policy
from incomingd.verify.binary import check_alone
from incomingd.verify.changes import read_rows
from incomingd.verify.keyring import Keyring
from incomingd.verify.signature import Verifier, is_signed
from incomingd.verify.source import SourceContext, check_source

#: Packages in one folder of the staging area.
_IN_FOLDER = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What an import is: into which suite and component (None: as each section says), staged where, by whose rules."""

    config: Config
    suite: SuiteConfig
    component: str | None
    folder: Path
    link: bool
    now: datetime
    keyring: Path


class Reader:
    """Reads packages for one import."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._made: set[Path] = set()
        self._overrides = overrides.load([task.suite])
        self._verifier = Verifier(keyring=Keyring(task.keyring).public, keys=Keyring(task.keyring).load(), now=task.now)

    def read(self, number: int, origin: Origin) -> Item:
        """Take one package in; ``number`` is its own in this import. Raises ``Retry``."""
        name = origin.path.rpartition("/")[2]
        problems: list[Problem]
        package: StagedPackage | None = None
        try:
            if not FILE_NAME.fullmatch(name):
                problems = [rules.BAD_FILE_NAME.problem(f"it is called {plain(name)}", file=plain(name))]
            elif name.endswith(".dsc"):
                package, problems = self._source(number, origin)
            else:
                package, problems = self._binary(number, origin)
        except fsio.NotRegularError:
            problems = [rules.NOT_REGULAR_FILE.problem("it is a link or a special file", file=name)]
        except FileNotFoundError:
            problems = [rules.MISSING_FILE.problem("it is listed, and it is not there", file=name)]
        except PermissionError as error:
            raise Retry(f"{origin.path}: cannot be read by the user {os.geteuid()}, who runs incomingd") from error
        if package is not None:
            problems += self._fits(package, name)
            if origin.sha256 not in (None, package.sha256):
                found = f"its SHA256 is {package.sha256}, and the index of the repository has {origin.sha256}"
                problems.append(rules.CHECKSUM_MISMATCH.problem(found, file=name))
        return Item(
            id=number, origin=origin, problems=tuple(dict.fromkeys(problems)), package=None if problems else package
        )

    def _copy(self, path: str, staged: str) -> FileEntry:
        """Stage one file, below the import's folder; what it holds."""
        target = self._task.folder / staged
        if target.parent not in self._made:
            fsio.make_directories(target.parent, 0o700)
            self._made = {target.parent}  # the next one is nearly always in there, too
        if is_address(path):
            fsio.write_new(target, fetch(path))
            entry = replace(fsio.hash_file(target), name=path.rpartition("/")[2])
        else:
            entry = fsio.take_copy(Path(path), target, link=self._task.link)
        return entry

    def _component(self, origin: Origin) -> Callable[[str, str], str]:
        """How the component follows from a section and a file's name: not at all, where somebody has said it."""
        said = self._task.component or origin.component
        return lambda section, name: said or policy.component(section, [self._task.suite], name)

    def _fits(self, package: StagedPackage, file: str) -> list[Problem]:
        """The suite has its component and architecture."""
        suite, problems = self._task.suite, []
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
        name = origin.path.rpartition("/")[2]
        staged = f"{number // _IN_FOLDER}/{number}-{name}"
        entry = self._copy(origin.path, staged)
        outcome = check_alone(self._task.folder / staged, entry, self._component(origin), self._task.now)
        if outcome.package is None or outcome.problems:
            return None, list(outcome.problems)
        binary = self._overrides.placed(outcome.package, self._component(origin))
        where = f"{pool_directory(binary.component, binary.source)}/{entry.name}"
        family = "debian-installer/" if binary.kind is BinaryKind.UDEB else ""
        suite = self._task.suite
        architectures = suite.binary_architectures if binary.architecture == "all" else (binary.architecture,)
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
            sections=tuple(f"{binary.component}/{family}binary-{arch}" for arch in architectures),
            files=(StagedFile(path=where, file=entry, staged=staged),),
        )
        return package, []

    # -- sources ------------------------------------------------------------------------------------------------------

    def _source(self, number: int, origin: Origin) -> tuple[StagedPackage | None, list[Problem]]:
        where, _, name = origin.path.rpartition("/")
        beside = f"{number // _IN_FOLDER}/{number}"
        staged = f"{beside}/{name}"
        entry = self._copy(origin.path, staged)
        text, problems = self._text(staged, entry)
        if text is None:
            return None, problems
        stanza, more = deb822.parse(text, entry.name)
        if stanza is None:
            return None, [*problems, *more]
        taken: dict[str, FileEntry] = {}
        for row in read_rows(stanza, entry.name, columns=3)[0]:
            if FILE_NAME.fullmatch(row.name):
                with contextlib.suppress(FileNotFoundError):  # an orig may be in the archive already
                    taken[row.name] = self._copy(f"{where}/{row.name}", f"{beside}/{row.name}")
        section, priority = _place(stanza)
        context = SourceContext(
            source=stanza.get("Source"),
            version=stanza.get("Version"),
            section=section,
            priority=priority,
            component=self._component(origin)(section, entry.name),
            folder=self._task.folder / beside,
            files=taken,
            checks=self._task.suite.checks,
        )
        outcome = check_source(text, entry, context)
        problems += outcome.problems
        if outcome.package is None or problems:
            return None, problems
        source = self._overrides.placed(outcome.package, self._component(origin))
        return self._staged_source(source, staged, taken.__contains__), []

    def _text(self, staged: str, entry: FileEntry) -> tuple[bytes | None, list[Problem]]:
        """The .dsc's text, without its signature."""
        limit = self._task.suite.checks.max_text_file
        if entry.size > limit:
            found = f"it has {entry.size} bytes, and {limit} are allowed"
            return None, [rules.TEXT_TOO_LARGE.problem(found, file=entry.name)]
        data = (self._task.folder / staged).read_bytes()
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
            sections=(f"{source.component}/source",),
            files=tuple(files),
        )


def _place(stanza: deb822.Stanza) -> tuple[str, str]:
    """Section and priority of a source: its own, or those of the first package that it lists (deb-src-control(5))."""
    first = next((line.split() for line in stanza.lines("Package-List")), [])
    section = stanza.get("Section") or (first[2] if len(first) > 3 else "misc")
    return section, stanza.get("Priority") or (first[3] if len(first) > 3 else "optional")
