"""The operator's own checks (``[checks.lintian]``, ``[checks.commands.NAME]``), after all others have passed.

Each runs over the sealed upload in a process of its own (:mod:`.confined`), with the path of the .changes as its last
argument, once for each .changes that is for one of its suites; where there is none, with those of the packages.

What a command says: exit status 0, the upload is good, and each line on standard output is a warning; 1, it is not,
and each line is a problem; a line may begin with the name of one of the upload's files and a colon. Any other end means
that the check itself has failed: by ``failure``, the upload waits and is tried again, or goes on with a warning.
"""

import logging
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from incomingd import rules
from incomingd.config import CommandConfig, Config, LintianConfig
from incomingd.errors import Retry
from incomingd.model import CheckReport, Problem, Seal, plain
from incomingd.verify.confined import ClosedError, Ended, Runner, Terms

log = logging.getLogger(__name__)

#: More findings than anybody reads.
_MOST = 200
_SEVERITIES = {"E": "error", "W": "warning", "I": "info", "P": "pedantic", "X": "experimental", "C": "classification"}
#: ``E: hello source: some-tag more`` (lintian(1)); what begins with N is a remark, with O an overridden tag.
_TAG = re.compile(r"([EWIPXC]): (\S+(?: [a-z]+)?): (\S+)(.*)", re.ASCII)
_LINTIAN = ("lintian", "--no-cfg", "--allow-root", "--fail-on=none", "--color=never", "--display-info", "--pedantic")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Findings:
    """What one check has found in one upload."""

    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()


class External:
    """Runs what is configured. :meth:`check` may be called by several threads at once."""

    def __init__(self) -> None:
        self._runner = Runner()

    def check(self, folder: Path, seal: Seal, report: CheckReport, config: Config) -> CheckReport:
        """The report of the sealed upload in ``folder``, with what the checks of ``config`` find. Raises ``Retry``."""
        found = list(self._all(folder, seal, report, config)) if not report.problems else []
        problems = [problem for one in found for problem in one.problems]
        warnings = [problem for one in found for problem in one.warnings]
        return replace(
            report,
            changes=() if problems else report.changes,
            problems=(*report.problems, *_bounded(problems)),
            warnings=(*report.warnings, *_bounded(warnings)),
        )

    def _all(self, folder: Path, seal: Seal, report: CheckReport, config: Config) -> Iterator[_Findings]:
        for arguments, suites in _arguments(folder, seal, report):
            if config.lintian and _asked(config.lintian, suites):
                yield self._lintian(config.lintian, arguments, _terms(config, config.lintian, folder))
            for command in config.commands:
                if _asked(command, suites):
                    names = {entry.name for entry in seal.files}
                    yield self._command(command, arguments, names, _terms(config, command, folder))

    def _lintian(self, settings: LintianConfig, arguments: Sequence[str], terms: Terms) -> _Findings:
        overridden = () if settings.overrides else ("--no-override",)
        ended = self._run([*_LINTIAN, *overridden, *arguments], "lintian", terms, settings.time)
        if ended.over:
            problem = rules.EXTERNAL_CHECK_LIMIT.problem(f"lintian {ended.over}")
            return _Findings(problems=(problem,))
        if ended.status != 0:
            return _failed(ended, "lintian", settings)
        tags = [match for line in ended.output.splitlines() if (match := _TAG.fullmatch(line))]
        return _Findings(
            problems=tuple(_tag(match) for match in tags if _listed(match, settings.reject)),
            warnings=tuple(
                _tag(match) for match in tags if _listed(match, settings.warn) and not _listed(match, settings.reject)
            ),
        )

    def _command(self, settings: CommandConfig, arguments: Sequence[str], names: set[str], terms: Terms) -> _Findings:
        ended = self._run([*settings.command, *arguments], settings.name, terms, settings.time)
        if ended.over:
            found = [rules.EXTERNAL_CHECK_LIMIT.problem(f"{settings.name} {ended.over}")]
        elif ended.status not in (0, 1):
            return _failed(ended, settings.name, settings)
        else:
            lines = [line for line in ended.output.splitlines() if line.strip()]
            found = [_line(line, settings.name, names) for line in lines]
            if not found and ended.status == 1:
                found = [rules.EXTERNAL_CHECK.problem(f"{settings.name} refuses the upload and does not say why")]
        if settings.findings == "warnings" or (ended.status == 0 and not ended.over):
            return _Findings(warnings=tuple(found))
        return _Findings(problems=tuple(found))

    def _run(self, command: Sequence[str], name: str, terms: Terms, seconds: float) -> Ended:
        try:
            return self._runner.run(command, terms, seconds)
        except ClosedError:
            raise Retry("the daemon ends") from None
        except OSError as error:
            raise Retry(f"the check {name} cannot be started: {error}") from error

    def close(self) -> None:
        """End what runs; its checks end with ``Retry``."""
        self._runner.close()


def _arguments(folder: Path, seal: Seal, report: CheckReport) -> Iterator[tuple[list[str], set[str]]]:
    """What is handed over at each run, and the suites that it is for."""
    sealed = {entry.name for entry in seal.files}
    for one in report.changes:
        if one.file.name in sealed:
            yield [str(folder / one.file.name)], set(one.suites)
    bare = [one for one in report.changes if one.file.name not in sealed]
    if bare:
        names = sorted(package.file.name for one in bare for package in one.binaries)
        yield [str(folder / name) for name in names], {suite for one in bare for suite in one.suites}


def _terms(config: Config, settings: LintianConfig | CommandConfig, folder: Path) -> Terms:
    """What a program may use. Neither the state nor what other accounts send is for it."""
    queues = (path for queue in config.queues for path in (queue.path, queue.claims) if path)
    hidden = (config.service.state, *queues)
    return Terms(memory=settings.memory, folder=folder, hidden=tuple(dict.fromkeys(path.resolve() for path in hidden)))


def _asked(settings: LintianConfig | CommandConfig, suites: Collection[str]) -> bool:
    """The check is for one of these suites, or for all."""
    return not settings.suites or not set(settings.suites).isdisjoint(suites)


def _listed(tag: re.Match[str], wanted: Sequence[str]) -> bool:
    return tag[3] in wanted or _SEVERITIES[tag[1]] in wanted


def _tag(match: re.Match[str]) -> Problem:
    severity, package, tag, more = match.groups()
    return rules.LINTIAN.problem(f"{_SEVERITIES[severity]} {tag} in {plain(package)}{plain(more)}")


def _line(line: str, name: str, names: set[str]) -> Problem:
    file, _, rest = line.partition(":")
    if file in names and rest.strip():
        return rules.EXTERNAL_CHECK.problem(f"{name}: {plain(rest.strip())}", file=file)
    return rules.EXTERNAL_CHECK.problem(f"{name}: {plain(line.strip())}")


def _failed(ended: Ended, name: str, settings: LintianConfig | CommandConfig) -> _Findings:
    """The check is at fault, or the machine; never the upload."""
    said = (ended.errors.strip() or ended.output.strip() or "it says nothing").splitlines()[-1]
    found = f"the check {name} failed with the status {ended.status}: {plain(said)}"
    if settings.failure == "retry":
        raise Retry(found)
    log.warning("%s", found)
    return _Findings(warnings=(rules.EXTERNAL_CHECK_FAILED.problem(found),))


def _bounded(problems: list[Problem]) -> list[Problem]:
    every = list(dict.fromkeys(problems))
    if len(every) <= _MOST:
        return every
    return [*every[:_MOST], rules.MORE_PROBLEMS.problem(f"there are {len(every) - _MOST} more")]
