"""What a check worker's report has to be, whatever upload has got hold of the worker. Pure.

The daemon acts on a report with its own rights: names of files become paths that it reads and writes, and values are
stored and published. So a report counts only if:

* each .changes is one that was authorised before, signed by the same key and of the same source and version: who may
  upload was decided by another worker, which has read no package;
* each file is one that the daemon has sealed, with the size and the digests that it has found itself; a file that a
  .dsc lists and the upload has not brought has a name that may stand in a path;
* names, versions, suites, components and architectures have their form, and the configuration has them;
* what becomes a stanza is one.

Whether the rest is true is not known: a worker that lies can let its own upload, and later ones, pass as right.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from incomingd.config import Config, SuiteConfig
from incomingd.model import (
    FIELD_NAME,
    FIELD_VALUE,
    FILE_NAME,
    PACKAGE_NAME,
    BinaryPackage,
    CheckedChanges,
    CheckReport,
    Commands,
    Fields,
    FileEntry,
    Seal,
    SourcePackage,
    plain,
)
from incomingd.verify import policy
from incomingd.verify.authorise import Authorisation, Authorised
from incomingd.verify.changes import VERSION
from incomingd.verify.protocol import Request, Step

#: As large as a size in a .changes may be, and the most days that a delayed upload waits.
_LARGEST, _MOST_DAYS = 10**15, 99


def faults(answer: object, request: Request, config: Config) -> Iterator[str]:
    """What no worker that does its work answers to ``request``."""
    judge = _Answer(request.seal, config, request.queue, request.authorisation)
    if isinstance(answer, Authorisation):
        yield from judge.authorisation(answer)
    elif isinstance(answer, CheckReport):
        yield from judge.faults(answer, commands=request.step is Step.COMMANDS)


@dataclass(frozen=True, slots=True)
class _Answer:
    seal: Seal
    config: Config
    queue: str
    authorised: Authorisation | None

    def faults(self, report: CheckReport, *, commands: bool) -> Iterator[str]:
        if not report.problems and (report.commands is None) == commands:
            yield "it has commands where there are none, or none where there are some"
        if not report.problems and bool(report.changes) == commands:
            yield "it has .changes where there are none, or none where there are some"
        if report.commands:
            yield from _orders(report.commands)
        sealed = {entry.name: entry for entry in self.seal.files}
        for changes in report.changes:
            yield from self._changes(changes, sealed)

    def authorisation(self, found: Authorisation) -> Iterator[str]:
        """It says what is copied, so names, sizes and their sum have to be those of an upload."""
        queue = self.config.queue(self.queue)
        if found.refused != (not found.changes) or (found.refused and not found.problems):
            yield "it refuses without a reason, or authorises nothing"
        sealed = {entry.name: entry for entry in self.seal.files}
        for one in found.changes:
            if sealed.get(one.file.name) != one.file:
                yield f"{plain(one.file.name)} is not sealed so"
            if one.signed_by is None and queue is not None and queue.signatures == "required":
                yield f"{plain(one.file.name)} is unsigned"
        for row in (row for one in found.changes for row in one.changes.rows):
            if not FILE_NAME.fullmatch(row.name) or not 0 <= row.size < _LARGEST:
                yield f"{plain(row.name)} is no file name, or its size is none"
        if queue is not None and sum(found.listed().values()) > queue.max_upload:
            yield "it lists more than the queue allows"

    def _changes(self, changes: CheckedChanges, sealed: dict[str, FileEntry]) -> Iterator[str]:
        queue = self.config.queue(self.queue)
        bare = self.authorised is None and queue is not None and queue.allow_bare_debs
        yield from self._as_authorised(changes)
        # What stands in for the .changes of bare packages is no file.
        brought = [*changes.others, *([] if bare and changes.file.name not in sealed else [changes.file])]
        brought += [binary.file for binary in changes.binaries]
        for source in changes.sources:
            brought += [source.dsc, *(file for file in source.files if file.name in source.in_upload)]
            promised = [file for file in source.files if file.name not in source.in_upload]
            yield from (f"{plain(file.name)} is no file name" for file in promised if not _may_be(file))
        yield from (f"{plain(file.name)} is not sealed so" for file in brought if sealed.get(file.name) != file)
        yield from _misspelled([changes.source], [changes.version])
        suites = [self.config.suite(name) for name in changes.suites]
        known = [suite for suite in suites if suite]
        brought_by = {*(one.source for one in changes.binaries), *(one.source for one in changes.sources)}
        yield from (f"{plain(source)} is another source" for source in brought_by - {changes.source})
        if not known or len(known) < len(suites):
            yield "it is for a suite that is not configured"
        for binary in changes.binaries:
            yield from _binary(binary, known)
        for source in changes.sources:
            yield from _source(source, known)

    def _as_authorised(self, changes: CheckedChanges) -> Iterator[str]:
        """What a signature says, no worker that reads packages can say."""
        name = plain(changes.file.name)
        if self.authorised is None:
            if (changes.signed_by, changes.signing_key, changes.made_at) != (None, None, None):
                yield f"{name} is signed, and there is no .changes"
            return
        signed = next((one for one in self.authorised.changes if one.file == changes.file), None)
        if signed is None:
            yield f"{name} is not authorised"
        elif _said(changes) != _signed(signed, self.config):
            yield f"{name} says something else than what was authorised"


def _said(changes: CheckedChanges) -> tuple[object, ...]:
    of_text = (changes.source, changes.version, changes.distribution, changes.architectures, changes.suites)
    return *of_text, changes.signed_by, changes.signing_key, changes.made_at, changes.identity


def _signed(one: Authorised, config: Config) -> tuple[object, ...]:
    changes = one.changes
    suites = tuple(suite.name for suite in policy.suites(changes, config, one.file.name)[0])
    of_text = (changes.source, changes.version, " ".join(changes.distributions), changes.architectures, suites)
    return *of_text, one.signed_by, one.signing_key, one.made_at, one.identity


def _binary(binary: BinaryPackage, suites: Iterable[SuiteConfig]) -> Iterator[str]:
    yield from _misspelled([binary.package, binary.source], [binary.version, binary.source_version])
    yield from _misplaced(binary.component, suites)
    if not FILE_NAME.fullmatch(binary.pool_name):
        yield f"{plain(binary.pool_name)} is no file name"
    if not all(binary.architecture in ("all", *suite.binary_architectures) for suite in suites):
        yield f"no suite has the architecture {plain(binary.architecture)}"
    yield from _no_stanza((*binary.control, ("Section", binary.section), ("Priority", binary.priority)))


def _source(source: SourcePackage, suites: Iterable[SuiteConfig]) -> Iterator[str]:
    yield from _misspelled([source.source], [source.version])
    yield from _misplaced(source.component, suites)
    yield from _no_stanza((*source.fields, ("Section", source.section), ("Priority", source.priority)))


def _may_be(file: FileEntry) -> bool:
    """It may be a file of the archive, as a .dsc lists it: without some of the digests."""
    digests = (file.digests.md5, file.digests.sha1, file.digests.sha256)
    is_hex = all(digest.isascii() and (digest.isalnum() or not digest) for digest in digests)
    return bool(FILE_NAME.fullmatch(file.name)) and 0 <= file.size < _LARGEST and is_hex


def _misspelled(names: Iterable[str], versions: Iterable[str]) -> Iterator[str]:
    yield from (f"{plain(name)} is no package's name" for name in names if not PACKAGE_NAME.fullmatch(name))
    yield from (f"{plain(version)} is no version" for version in versions if not VERSION.fullmatch(version))


def _misplaced(component: str, suites: Iterable[SuiteConfig]) -> Iterator[str]:
    if not all(component in suite.components for suite in suites):
        yield f"no suite has the component {plain(component)}"


def _no_stanza(fields: Fields) -> Iterator[str]:
    for name, value in fields:
        if not FIELD_NAME.fullmatch(name) or not FIELD_VALUE.fullmatch(value):
            yield f"the field {plain(name)} has a value that no stanza can hold"


def _orders(commands: Commands) -> Iterator[str]:
    for order in commands.orders:
        days = [number for number in (order.days, order.within) if number is not None]
        if not FILE_NAME.fullmatch(order.name) or not all(0 <= number <= _MOST_DAYS for number in days):
            yield f"{plain(order.name)} is nothing that commands name"
