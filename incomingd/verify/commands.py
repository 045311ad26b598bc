"""What a .commands file asks for, as dcut and dput-ng write it (debianqueued, "Commands").

Rules: it is signed by a trusted key, whatever the queue allows for uploads, and was signed within the last day. Of the
commands there are ``rm`` and ``cancel``, which mean the same: an upload that waits is cancelled, as a whole; and
``reschedule FILE N-day``: a delayed upload is due in so many days. Whether it is the signer's own, and waits, is for
whoever has the journal.

dcut names each package of an upload, too: these are passed over, since they go with their .changes. A name may have
the folder before it that a delayed upload was sent to: ``DELAYED/3-day/NAME``.
"""

import hashlib
import json
import re
from collections.abc import Iterator

from incomingd import rules
from incomingd.model import FILE_NAME, CheckReport, Commands, FileEntry, Order, Problem, plain
from incomingd.verify import deb822, files
from incomingd.verify.job import Job
from incomingd.verify.signature import is_signed, too_old

#: Seconds after which a signature is too old to be believed. Its date may be a day in the future.
MAX_AGE = 86400.0
#: A file with more commands, or more that is wrong, is something else altogether.
_MAX_COMMANDS, _MAX_PROBLEMS = 100, 20
_DAY = re.compile(r"([0-9]{1,2})-day", re.ASCII)
_NAMED = re.compile(r"(?:DELAYED/([0-9]{1,2})-day/)?([^/]*)", re.ASCII)


def check_commands(job: Job) -> CheckReport:
    """Read the one sealed .commands file of ``job``. Raises as :func:`incomingd.verify.check.check`."""
    problems = list(job.seal.problems)
    commands = None
    for entry in job.seal.files:
        found = _Reading(job, entry)
        commands = found.run()
        problems += found.problems
    return CheckReport(
        summaries=(),
        changes=(),
        problems=tuple(problems),
        warnings=(),
        commands=None if problems else commands,
    )


class _Reading:
    """One reading of one file."""

    def __init__(self, job: Job, entry: FileEntry) -> None:
        self.problems: list[Problem] = []
        self._job = job
        self._entry = entry
        self._name = entry.name

    def run(self) -> Commands | None:
        data, problems = self._job.text(self._entry, self._job.config.checks.max_text_file)
        self.problems += problems
        return None if data is None else self._read(data)

    def _read(self, data: bytes) -> Commands | None:
        job, name = self._job, self._name
        if not is_signed(data):
            self.problems.append(rules.UNSIGNED.problem("it carries no signature", file=name))
            return None
        signed = job.verifier().verify(data, name)
        self.problems += [*signed.faults, *signed.doubts]
        if self.problems or signed.text is None or signed.signed_by is None or signed.made_at is None:
            return None
        old = too_old(signed.made_at, job.now, MAX_AGE, name)
        stanza, problems = deb822.parse(signed.text, name)
        self.problems += [*([old] if old else []), *problems]
        if stanza is None:
            return None
        self.problems += deb822.missing(stanza, ("Commands",), name)
        lines = stanza.lines("Commands")
        named = list(dict.fromkeys(order for line in lines[:_MAX_COMMANDS] for order in self._orders(line)))
        if len(lines) > _MAX_COMMANDS:
            self._refuse(f"there are {len(lines)} commands, and {_MAX_COMMANDS} are allowed")
        orders = tuple(order for order in named if files.kind(order.name) is files.Kind.BYHAND)
        if named and not orders:
            self._refuse("it names no .changes and no upload, and whose other files are cannot be told")
        self.problems = self.problems[:_MAX_PROBLEMS]
        # Not of the bytes: white space and armor can be written otherwise without breaking the signature.
        what = json.dumps([signed.signed_by, signed.made_at.timestamp(), lines])
        return Commands(
            orders=orders, signed_by=signed.signed_by, digest=hashlib.sha256(what.encode("utf-8")).hexdigest()
        )

    def _orders(self, line: str) -> Iterator[Order]:
        """What one command asks for."""
        command, *words = line.split()
        if command == "reschedule":
            yield from self._reschedule(words)
            return
        if command not in ("rm", "cancel"):
            self._refuse(f'"{plain(command)}" is none of rm, cancel and reschedule')
            return
        words = [word for word in words if word != "--searchdirs"]
        if not words:
            self._refuse(f"{command} names nothing")
        for word in words:
            yield from self._named(word, None)

    def _reschedule(self, words: list[str]) -> Iterator[Order]:
        day = _DAY.fullmatch(words[1]) if len(words) == 2 else None
        if day is None:
            self._refuse('reschedule has a .changes and then a day, as "3-day"')
            return
        days, most = int(day[1]), self._job.queue.delayed
        if days > most:
            allowed = f"{most} days are the most that this queue allows" if most else "this queue delays no uploads"
            self._refuse(f"{words[1]} is too late, since {allowed}")
            return
        yield from self._named(words[0], days)

    def _named(self, word: str, days: int | None) -> Iterator[Order]:
        found = _NAMED.fullmatch(word)
        if found and FILE_NAME.fullmatch(found[2]):
            yield Order(name=found[2], days=days, within=None if found[1] is None else int(found[1]))
        else:
            self._refuse(f'"{plain(word)}" is no name of a file or an upload')

    def _refuse(self, found: str) -> None:
        self.problems.append(rules.COMMANDS_REFUSED.problem(found, file=self._name))
