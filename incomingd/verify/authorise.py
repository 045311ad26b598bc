"""Whether an upload may be looked into at all: decided on its .changes alone, before anything that they list is copied.

Each .changes is read in this order: its signature; the signed text; who may send it where; what it lists, against the
queue's limits. An upload is authorised if all of them are. Otherwise only problems of signature, names, list and rights
are told. Of one that is authorised, everything else that is wrong with the texts is told with what is found later.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from incomingd import rules
from incomingd.model import ChangesSummary, CheckReport, FileEntry, Problem, plain
from incomingd.rights import rights_of
from incomingd.verify import deb822, files, overrides, policy
from incomingd.verify.changes import Changes, read
from incomingd.verify.job import Job, bounded
from incomingd.verify.signature import Signed, is_signed, too_old

#: With one of these an upload is not authorised; so it is with a problem of a signature.
_REFUSING = frozenset(
    rule.code
    for rule in (
        *(
            rules.BAD_UPLOAD_NAME,
            rules.BAD_FILE_NAME,
            rules.NOT_REGULAR_FILE,
            rules.FOREIGN_FILE,
        ),
        *(
            rules.UNREADABLE_FILE,
            rules.CHANGED_WHILE_READ,
            rules.UPLOAD_LOST,
            rules.NO_CHANGES,
        ),
        *(
            rules.TOO_MANY_FILES,
            rules.TOO_MANY_CHANGES,
            rules.UPLOAD_TOO_LARGE,
            rules.TEXT_TOO_LARGE,
        ),
        *(rules.BAD_FILE_LIST, rules.FILE_LISTS_DIFFER, rules.LISTS_ITSELF),
        *(rules.SUITE_NOT_HERE, rules.KEY_NOT_ALLOWED),
    )
) | {rule.code for rule in rules.of_group("Signature")}
#: These are told as well of an upload that is refused: they are about names, and where it was to go.
_OF_NAMES = frozenset(
    rule.code
    for rule in (
        *(rules.BAD_PACKAGE_NAME, rules.BAD_VERSION, rules.CHANGES_FILE_NAME),
        rules.UNKNOWN_DISTRIBUTION,
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorised:
    """One .changes whose files may be looked into: what it says, and who signed it when. The signer is None if it is
    unsigned, and that is allowed."""

    file: FileEntry
    changes: Changes
    signed_by: str | None
    signing_key: str | None
    made_at: datetime | None
    identity: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorisation:
    """What the .changes of an upload came to. If it is ``refused``, ``problems`` are all that is told of it; otherwise
    they are told with what is found later."""

    refused: bool
    summaries: tuple[ChangesSummary, ...]
    changes: tuple[Authorised, ...] = ()
    problems: tuple[Problem, ...] = ()

    def listed(self) -> dict[str, int]:
        """The files that are listed, each with the largest size that is given for it."""
        return _sizes(one.changes for one in self.changes)

    def sources(self) -> tuple[str, ...]:
        """The source packages that it is about."""
        return tuple(dict.fromkeys(one.changes.source for one in self.changes))

    def refusal(self) -> CheckReport:
        """The report on an upload that is refused."""
        return CheckReport(summaries=self.summaries, changes=(), problems=self.problems, warnings=())


def authorise(job: Job) -> Authorisation:
    """Decide on the sealed .changes of ``job``. Raises as :func:`incomingd.verify.check.check`."""
    texts = [_OneText(job, entry) for entry in sorted(job.seal.files, key=lambda entry: entry.name)]
    for text in texts:
        text.run()
    unread = [problem for text in texts if text.authorised is None for problem in text.problems]
    problems = [
        *job.seal.problems,
        *(problem for text in texts for problem in text.problems),
    ]
    problems += _of_list(job, texts)
    refused = bool(unread) or any(problem.code in _REFUSING for problem in problems)
    if refused:
        problems = [one for one in problems if one.code in _REFUSING | _OF_NAMES or one in unread]
    return Authorisation(
        refused=refused,
        summaries=tuple(text.summary for text in texts),
        changes=() if refused else tuple(text.authorised for text in texts if text.authorised),
        problems=bounded(problems),
    )


def _of_list(job: Job, texts: "list[_OneText]") -> list[Problem]:
    """What is wrong with all .changes together."""
    told = any(problem.file and problem.file.endswith(".changes") for problem in job.seal.problems)
    if not texts and not told and files.sealed_whole(job.seal.problems):
        return [rules.NO_CHANGES.problem("there is no .changes in the upload")]
    most = job.queue.max_upload
    sizes = _sizes(text.authorised.changes for text in texts if text.authorised)
    if sum(sizes.values()) + sum(entry.size for entry in job.seal.files) <= most:
        return []
    found = f"what it lists has together more than the {most} bytes that are allowed"
    return [rules.UPLOAD_TOO_LARGE.problem(found)]


def _sizes(every: Iterable[Changes]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for changes in every:
        for row in changes.rows:
            sizes[row.name] = max(row.size, sizes.get(row.name, 0))
    return sizes


class _OneText:
    """One .changes. ``authorised`` stays None if it cannot be believed, or read."""

    def __init__(self, job: Job, entry: FileEntry) -> None:
        self.authorised: Authorised | None = None
        self.problems: list[Problem] = []
        self.summary = ChangesSummary(file=entry.name)
        self._job = job
        self._entry = entry
        self._name = entry.name

    def run(self) -> None:
        signed = self._signed()
        self.summary = ChangesSummary(file=self._name, signed_by=signed.signed_by)
        if signed.text is None or signed.doubts:
            return
        stanza, problems = deb822.parse(signed.text, self._name)
        self.problems += problems
        if stanza is None:
            return
        changes, problems = read(stanza, self._name)
        self.problems += problems
        self.summary = ChangesSummary(
            file=self._name,
            source=plain(changes.source),
            version=plain(changes.version),
            distribution=plain(" ".join(changes.distributions)),
            architectures=tuple(plain(word) for word in changes.architectures[:100]),
            signed_by=signed.signed_by,
            sha256=self._entry.digests.sha256,
        )
        self._policy(changes, signed)
        self._limits(changes)
        if changes.rows:
            self.authorised = Authorised(
                file=self._entry,
                changes=changes,
                signed_by=signed.signed_by,
                signing_key=signed.signing_key,
                made_at=signed.made_at,
                identity=signed.identity,
            )

    def _signed(self) -> Signed:
        data, problems = self._job.text(self._entry, self._job.config.max_text)
        self.problems += problems
        if data is None:
            return Signed(text=None)
        if not is_signed(data):
            if self._job.queue.signatures == "optional":
                return Signed(text=data)
            self.problems.append(rules.UNSIGNED.problem("it carries no signature", file=self._name))
            return Signed(text=None)
        signed = self._job.verifier().verify(data, self._name)
        self.problems += [*signed.faults, *signed.doubts]
        return signed

    def _policy(self, changes: Changes, signed: Signed) -> None:
        job, name = self._job, self._name
        suites, problems = policy.suites(changes, job.config, name)
        checks = policy.strictest(suites, job.config.checks)
        components = policy.landing(changes, suites, overrides.load(suites).section)
        whose = rights_of(job.config.uploaders, signed.signed_by, signed.signing_key)
        self.problems += problems
        self.problems += policy.rights(changes, components, suites, whose, name)
        self.problems += policy.elsewhere(suites, job.queue, name)
        if self._entry.size > checks.max_text_file:
            found = f"it has more than the {checks.max_text_file} bytes that are allowed"
            self.problems.append(rules.TEXT_TOO_LARGE.problem(found, file=name))
        old = signed.made_at and too_old(signed.made_at, job.now, checks.max_signature_age, name)
        if old:
            self.problems.append(old)

    def _limits(self, changes: Changes) -> None:
        most = self._job.queue.max_files
        if len(changes.rows) > most:
            found = f"the .changes lists {len(changes.rows)} files, and {most} are allowed"
            self.problems.append(rules.TOO_MANY_FILES.problem(found, file=self._name))
