"""Reports that no honest worker makes: each value by which a hostile one could have the daemon act for it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from incomingd.model import CheckedChanges, CheckReport, Commands, Digests, FileEntry, Order, Seal
from incomingd.verify import answers
from incomingd.verify.authorise import Authorisation, Authorised, authorise
from incomingd.verify.check import check
from incomingd.verify.job import Job
from incomingd.verify.protocol import Request, Step
from tests.verify.builders import NOW, Keys, Upload, make_config, sealed

Alter = Callable[[CheckedChanges], CheckedChanges]
KEY = FileEntry(name="../../gnupg/signing/x.key", size=1, digests=Digests(md5="0" * 32, sha1="0" * 40, sha256="0" * 64))


def of_binary(**values: object) -> Alter:
    return lambda changes: replace(changes, binaries=(replace(changes.binaries[0], **values),))  # type: ignore[arg-type]


def of_source(**values: object) -> Alter:
    return lambda changes: replace(changes, sources=(replace(changes.sources[0], **values),))  # type: ignore[arg-type]


def with_file(**values: object) -> Alter:
    def alter(changes: CheckedChanges) -> CheckedChanges:
        [binary] = changes.binaries
        return replace(changes, binaries=(replace(binary, file=replace(binary.file, **values)),))  # type: ignore[arg-type]

    return alter


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory, keys: Keys) -> tuple[CheckReport, Seal, Job]:
    folder: Path = tmp_path_factory.mktemp("answers")
    seal = sealed(folder / "1", Upload().files(keys))
    config = make_config(folder, {})
    job = Job(
        folder=folder / "1",
        seal=seal,
        queue=config.queues[0],
        config=config,
        keyring=keys.keyring.public,
        keys=keys.keyring.load(),
        now=NOW,
        reading=lambda _: None,
    )
    return check(job, authorised(seal, job)), seal, job


def authorised(seal: Seal, job: Job) -> Authorisation:
    texts = tuple(entry for entry in seal.files if entry.name.endswith(".changes"))
    return authorise(replace(job, seal=replace(seal, files=texts)))


def faults(answer: CheckReport | Authorisation, seal: Seal, job: Job, *, commands: bool = False) -> list[str]:
    step = Step.COMMANDS if commands else Step.CHECK
    given = authorised(seal, job) if step is Step.CHECK else None
    request = Request(step=step, folder=job.folder, seal=seal, queue=job.queue.name, now=NOW, authorisation=given)
    return list(answers.faults(answer, request, job.config))


def listing(**values: object) -> Callable[[Authorised], Authorised]:
    """Another first row in the list."""

    def alter(one: Authorised) -> Authorised:
        first, *rest = one.changes.rows
        return replace(one, changes=replace(one.changes, rows=(replace(first, **values), *rest)))  # type: ignore[arg-type]

    return alter


def test_an_honest_authorisation_has_no_fault(honest: tuple[CheckReport, Seal, Job]) -> None:
    _, seal, job = honest
    found = authorised(seal, job)
    assert found.changes
    assert faults(found, seal, job) == []


@pytest.mark.parametrize(
    ("alter", "fault"),
    [
        (listing(name="../../journal.db"), "is no file name"),
        (listing(name="/etc/shadow"), "is no file name"),
        (listing(size=-1), "its size is none"),
        (listing(size=1 << 60), "its size is none"),
        (listing(size=5 << 30), "more than the queue allows"),
        (lambda one: replace(one, file=KEY), "is not sealed so"),
        (lambda one: replace(one, signed_by=None), "is unsigned"),
    ],
)
def test_what_is_copied_is_not_for_a_worker_to_say(
    honest: tuple[CheckReport, Seal, Job], alter: Callable[[Authorised], Authorised], fault: str
) -> None:
    _, seal, job = honest
    found = authorised(seal, job)
    told = faults(replace(found, changes=tuple(alter(one) for one in found.changes)), seal, job)
    assert any(fault in one for one in told), told


def test_an_authorisation_of_nothing(honest: tuple[CheckReport, Seal, Job]) -> None:
    _, seal, job = honest
    found = authorised(seal, job)
    assert faults(replace(found, changes=()), seal, job)
    assert faults(replace(found, refused=True), seal, job)
    assert faults(replace(found, refused=True, changes=()), seal, job)


def test_an_honest_report_has_no_fault(honest: tuple[CheckReport, Seal, Job]) -> None:
    report, seal, job = honest
    assert report.changes
    assert report.changes[0].sources
    assert report.changes[0].binaries
    assert faults(report, seal, job) == []


@pytest.mark.parametrize(
    ("alter", "fault"),
    [
        (with_file(name=KEY.name), "is not sealed so"),
        (with_file(name="/etc/passwd"), "is not sealed so"),
        (with_file(size=1), "is not sealed so"),
        (with_file(digests=KEY.digests), "is not sealed so"),
        (lambda changes: replace(changes, file=KEY), "is not sealed so"),
        (lambda changes: replace(changes, others=(KEY,)), "is not sealed so"),
        (of_source(dsc=KEY), "is not sealed so"),
        (of_source(files=(KEY,), in_upload=frozenset({KEY.name})), "is not sealed so"),
        (of_source(files=(KEY,), in_upload=frozenset()), "is no file name"),
        (of_source(source="../x"), "is no package's name"),
        (of_source(component="../../state"), "no suite has the component"),
        (of_source(fields=(("Package", "x\n\nPackage: libc6"),)), "no stanza can hold"),
        (of_binary(source="../x"), "is no package's name"),
        (of_binary(package="x/y"), "is no package's name"),
        (of_binary(version="1/../.."), "is no version"),
        (of_binary(source_version="x"), "is no version"),
        (of_binary(architecture="../x"), "no suite has the architecture"),
        (of_binary(component="../../state"), "no suite has the component"),
        (of_binary(control=(("Depends", "x\n\nPackage: libc6"),)), "no stanza can hold"),
        (of_binary(section="x\nEssential: yes"), "no stanza can hold"),
        (lambda changes: replace(changes, source="../x"), "is no package's name"),
        (lambda changes: replace(changes, version="x"), "is no version"),
        (lambda changes: replace(changes, suites=("stable", "../x")), "a suite that is not configured"),
        (lambda changes: replace(changes, suites=()), "a suite that is not configured"),
        (lambda changes: replace(changes, signed_by=None), "than what was authorised"),
        (lambda changes: replace(changes, signed_by="A" * 40), "than what was authorised"),
        (lambda changes: replace(changes, signing_key="A" * 40), "than what was authorised"),
        (lambda changes: replace(changes, made_at=NOW), "than what was authorised"),
        (lambda changes: replace(changes, identity="0" * 64), "than what was authorised"),
        (lambda changes: replace(changes, source="sudo"), "than what was authorised"),
        (lambda changes: replace(changes, distribution="testing"), "than what was authorised"),
        (lambda changes: replace(changes, file=changes.binaries[0].file), "is not authorised"),
        (of_binary(source="sudo"), "is another source"),
        (of_source(source="sudo"), "is another source"),
    ],
)
def test_what_an_honest_worker_never_reports(honest: tuple[CheckReport, Seal, Job], alter: Alter, fault: str) -> None:
    report, seal, job = honest
    found = faults(replace(report, changes=(alter(report.changes[0]),)), seal, job)
    assert any(fault in one for one in found), found


def test_a_report_of_nothing_at_all(honest: tuple[CheckReport, Seal, Job]) -> None:
    report, seal, job = honest
    nothing = replace(report, changes=())
    assert faults(nothing, seal, job)
    assert faults(nothing, seal, job, commands=True)
    assert faults(report, seal, job, commands=True)


@pytest.mark.parametrize("order", [Order(name="../x"), Order(name="x", days=10**12), Order(name="x", within=-1)])
def test_commands_that_no_file_can_have(honest: tuple[CheckReport, Seal, Job], order: Order) -> None:
    report, seal, job = honest
    commands = Commands(orders=(order,), signed_by="0" * 40, digest="0" * 64)
    assert faults(replace(report, changes=(), commands=commands), seal, job, commands=True)
