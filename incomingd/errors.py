"""The three ways in which work can fail that are nobody's bug.

Each names the one who has to act, and the pipeline has one ``except`` for each:

* :class:`Rejected`: the uploader. Final; carries every problem that was found.
* :class:`Retry`: the environment (a full disk, an agent that is gone). The upload stays where it is and
  is tried again with back-off.
* :class:`Halt`: the operator (no usable signing key, a damaged archive). Nothing is published until somebody
  has mended it; uploads still come in.

:class:`Obstructed` is between the first two: one upload cannot be read at this moment, and it alone is at fault. It
stands aside, no other waits for it, and if that lasts it is rejected.

Anything else that is raised is a bug. A bug is none of these and is never caught here.
"""

from collections.abc import Iterable

from incomingd.model import Problem


class Rejected(Exception):
    """The upload is at fault; ``problems`` says in what, and is never empty."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        if not self.problems:
            raise ValueError("a rejection needs at least one problem")
        super().__init__("; ".join(f"{p.code}: {p.message}" for p in self.problems))


class Retry(Exception):
    """The environment is at fault; the same step may succeed later with the same input."""


class ProgramKilled(Retry):
    """Something outside has ended a program that reads an upload, such as the kernel when memory is short."""


class Obstructed(Exception):
    """Something about this upload alone is in its own way; ``problem`` says what, and is told if that lasts."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(f"{problem.file}: {problem.message}" if problem.file else problem.message)


class WorkerKilled(Obstructed):
    """Something outside, such as the kernel when memory is short, has ended the worker that read this upload.

    ``found`` is what ``problem`` says, without what to do.
    """

    def __init__(self, problem: Problem, found: str) -> None:
        super().__init__(problem)
        self.found = found


class Halt(Exception):
    """The operator has to act before anything more may be published."""


class ConfigError(Exception):
    """The configuration cannot be used; ``errors`` holds one line for each fault, all of them."""

    def __init__(self, errors: Iterable[str]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join(self.errors))
