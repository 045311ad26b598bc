"""One upload to be authorised or checked, and what every step does with it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from incomingd import fsio, rules
from incomingd.config import Config, QueueConfig
from incomingd.model import FileEntry, Problem, Seal
from incomingd.verify.keys import KeyTable
from incomingd.verify.signature import Verifier

#: More problems than anybody reads; they would also fill the status file.
_MAX_PROBLEMS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The sealed files in ``folder``, and what they are judged by.

    ``reading`` is told the name of each file before it is looked into: where the check dies, it is known of which.
    """

    folder: Path
    seal: Seal
    queue: QueueConfig
    config: Config
    keyring: Path
    keys: KeyTable
    now: datetime
    reading: Callable[[str], None]

    def verifier(self) -> Verifier:
        """How signatures are verified."""
        return Verifier(keyring=self.keyring, keys=self.keys, now=self.now)

    def text(self, entry: FileEntry, limit: int) -> tuple[bytes | None, list[Problem]]:
        """The bytes of a sealed text file; or None, with what is wrong, if it is too large."""
        if entry.size > limit:
            found = f"it has more than the {limit} bytes that are allowed"
            return None, [rules.TEXT_TOO_LARGE.problem(found, file=entry.name)]
        self.reading(entry.name)
        with fsio.directory(self.folder) as fd:
            return fsio.read_regular(entry.name, fd, limit), []


def bounded(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Each problem once, and no more than can be read."""
    every = tuple(dict.fromkeys(problems))
    if len(every) <= _MAX_PROBLEMS:
        return every
    rest = len(every) - _MAX_PROBLEMS
    return (
        *every[:_MAX_PROBLEMS],
        rules.MORE_PROBLEMS.problem(f"there are {rest} more problems"),
    )
