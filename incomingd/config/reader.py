"""Reads a configuration file.

Rules: an unknown table or key, a wrong type, a value out of range and a contradiction between tables are errors,
each one line that names file, table, key, what was found and what is allowed. Nothing is guessed. Relative paths count
from the config file's folder. Reading the file is the only I/O; whether the folders exist and can be used is the
daemon's to find out.
"""

import os
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from incomingd.config import (
    ArchiveConfig,
    ChecksConfig,
    CommandConfig,
    Config,
    LimitsConfig,
    LintianConfig,
    PublishConfig,
    QueueConfig,
    ServiceConfig,
    SuiteConfig,
    UploaderRule,
)
from incomingd.config.found import check_found
from incomingd.config.values import WORD, BadValueError, Parser, shown
from incomingd.errors import ConfigError
from incomingd.model import plain

_T = TypeVar("_T")


def find(given: Path | None) -> Path:
    """The configuration file: ``given``, ``$INCOMINGD_CONFIG``, ``./incomingd.toml``, the one in /etc/incomingd.

    Raises :class:`ConfigError` if none is there, or if the one in the current directory may not be obeyed.
    """
    named = given or (Path(os.environ["INCOMINGD_CONFIG"]) if os.environ.get("INCOMINGD_CONFIG") else None)
    if named is not None:
        return named
    usual = (Path("incomingd.toml"), Path("/etc/incomingd/incomingd.toml"))
    if os.path.lexists(usual[0]):
        check_found(usual[0])
        return usual[0]
    if usual[1].exists():
        return usual[1]
    raise ConfigError(
        [
            f"no configuration: --config and $INCOMINGD_CONFIG name none, and {' and '.join(map(str, usual))} "
            "are not there; make an instance with: incomingctl init DIR"
        ]
    )


def load(file: Path) -> Config:
    """Read and check ``file``. Raises :class:`ConfigError` with every fault."""
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError([f"{file}: cannot be read: {error.strerror}"]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError([f"{file}: is not TOML: {error}"]) from error
    return parse(document, file.absolute())


def parse(document: Mapping[str, Any], file: Path) -> Config:
    """Turn a TOML document into a :class:`Config`. ``file`` is absolute and need not exist."""
    return _Reader(file).config(document)


class _Reader:
    """Walks a document once and gathers the faults on the way."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.errors: list[str] = []

    def config(self, document: Mapping[str, Any]) -> Config:
        tables = ("archive", "suites", "incoming", "uploaders", "publish", "service", "checks", "limits")
        for key in document:
            if key not in tables:
                self.fault(plain(key), "", f"is not a table of this configuration; allowed are {', '.join(tables)}")
        checks, lintian, commands = self.checks(document.get("checks", {}))
        archive = self.table(ArchiveConfig, document.get("archive", {}), "archive")
        config = Config(
            file=self.file,
            archive=archive,
            service=self.table(ServiceConfig, document.get("service", {}), "service"),
            suites=tuple(self.suites(document, checks, archive)),
            queues=tuple(
                self.table(QueueConfig, table, f"incoming.{name}", name=name)
                for name, table in self.named(document, "incoming")
            ),
            uploaders=tuple(self.uploaders(document)),
            publish=self.table(PublishConfig, document.get("publish", {}), "publish"),
            checks=checks,
            limits=self.table(LimitsConfig, document.get("limits", {}), "limits"),
            lintian=lintian,
            commands=commands,
        )
        self.contradictions(config)
        if self.errors:
            raise ConfigError(self.errors)
        return config

    def fault(self, table: str, key: str, what: str) -> None:
        where = f"{self.file}: [{table}]" + (f" {key}:" if key else "")
        self.errors.append(f"{where} {what}")

    def named(self, document: Mapping[str, Any], key: str, table: str = "") -> Iterable[tuple[str, Any]]:
        """The tables below ``document[key]``; ``table`` is the whole name of that one, where it is another."""
        entries, table = document.get(key, {}), table or key
        if not isinstance(entries, dict) or not entries:
            self.fault(table, "", f"there must be at least one [{table}.NAME] table")
            return
        for name, entry in entries.items():
            if not WORD.fullmatch(name):
                self.fault(f"{table}.{plain(name)}", "", "the table's name must be letters, digits and . + ~ _ -")
            yield name, entry

    def checks(self, entry: Any) -> tuple[ChecksConfig, LintianConfig | None, tuple[CommandConfig, ...]]:
        """The rules that can be set, and the checks that are the operator's own: there where their tables are."""
        if not isinstance(entry, dict):
            return self.table(ChecksConfig, entry, "checks"), None, ()
        rest = {key: value for key, value in entry.items() if key not in ("lintian", "commands")}
        commands = self.named(entry, "commands", "checks.commands") if "commands" in entry else ()
        return (
            self.table(ChecksConfig, rest, "checks"),
            self.table(LintianConfig, entry["lintian"], "checks.lintian") if "lintian" in entry else None,
            tuple(self.table(CommandConfig, one, f"checks.commands.{name}", name=name) for name, one in commands),
        )

    def suites(
        self, document: Mapping[str, Any], checks: ChecksConfig, archive: ArchiveConfig
    ) -> Iterable[SuiteConfig]:
        for name, entry in self.named(document, "suites"):
            own = entry.get("checks", {}) if isinstance(entry, dict) else {}
            rest = {k: v for k, v in entry.items() if k != "checks"} if isinstance(entry, dict) else entry
            suite = self.table(SuiteConfig, rest, f"suites.{name}", name=name)
            shown, codename = suite.suite or name, suite.codename or name
            yield replace(
                suite,
                suite=shown,
                codename=codename,
                origin=archive.origin if suite.origin is None else suite.origin,
                label=archive.label if suite.label is None else suite.label,
                description=archive.description if suite.description is None else suite.description,
                accepts=suite.accepts or tuple(dict.fromkeys((name, shown, codename))),
                checks=self.table(ChecksConfig, own, f"suites.{name}.checks", defaults=checks),
            )

    def uploaders(self, document: Mapping[str, Any]) -> Iterable[UploaderRule]:
        entries = document.get("uploaders", [])
        if not isinstance(entries, list):
            self.fault("uploaders", "", "must be written [[uploaders]], one table for each rule")
            return
        for number, entry in enumerate(entries, 1):
            where = f"uploaders #{number}"
            if isinstance(entry, dict) and ("key" in entry) == ("token" in entry):
                found = "stands beside token; a rule has one of them" if "key" in entry else "is missing"
                self.fault(where, "key", f'{found}: key = "FINGERPRINT", or token = "NAME"')
            yield self.table(UploaderRule, entry, where)

    def table(
        self, kind: type[_T], entry: Any, where: str, *, name: str | None = None, defaults: _T | None = None
    ) -> _T:
        """One table as one dataclass; a faulty or missing key is noted and filled with something of the right type."""
        if not isinstance(entry, dict):
            self.fault(where, "", f"must be a table, not {shown(entry)}")
            entry = {}
        values: dict[str, Any] = {} if name is None else {"name": name}
        settings = {f.name: f for f in fields(kind) if "parse" in f.metadata}  # type: ignore[arg-type]  # a dataclass
        for key in entry:
            if key not in settings:
                self.fault(where, plain(key), f"unknown; allowed are {', '.join(settings)}")
        for key, setting in settings.items():
            default = getattr(defaults, key) if defaults is not None else setting.default
            values[key] = self.value(setting.metadata["parse"], entry, where, key, default)
        return kind(**{k: self.path(v) if _is_path(kind, k) else v for k, v in values.items()})

    def value(self, parse_value: Parser, entry: Mapping[str, Any], where: str, key: str, default: Any) -> Any:
        if key not in entry:
            if default is MISSING:
                self.fault(where, key, "is missing and has no default")
                return ""
            return default
        try:
            return parse_value(entry[key])
        except BadValueError as bad:
            self.fault(where, key, f"is {shown(entry[key])}; must be {bad}")
            return "" if default is MISSING else default

    def path(self, value: Any) -> Any:
        return None if value is None else self.file.parent / value

    def contradictions(self, config: Config) -> None:
        """What no single key shows."""
        taken: dict[str, str] = {}
        for suite in config.suites:
            for distribution in suite.accepts:
                if distribution in taken:
                    self.fault(
                        f"suites.{suite.name}",
                        "accepts",
                        f'"{distribution}" lands in [suites.{taken[distribution]}] already; only one may accept it',
                    )
                taken.setdefault(distribution, suite.name)
            if suite.debug_component and suite.debug_component not in suite.components:
                wanted = f"must be one of its components: {', '.join(suite.components)}"
                self.fault(f"suites.{suite.name}", "debug_component", f'is "{plain(suite.debug_component)}"; {wanted}')
            if not suite.binary_architectures:
                self.fault(f"suites.{suite.name}", "architectures", 'needs one besides "all" and "source"')
        names = {s.name for s in config.suites}
        self.other_names(config.suites)
        for queue in config.queues:
            self.queue_suites(queue, config.suites)
        for one in (*([config.lintian] if config.lintian else ()), *config.commands):
            where = f"checks.commands.{one.name}" if isinstance(one, CommandConfig) else "checks.lintian"
            self.known_suites(where, one.suites, names)
        if not self.errors:  # else a path may be missing, and the folders not those that were meant
            self.separate_folders(config)

    def other_names(self, suites: Iterable[SuiteConfig]) -> None:
        """What clients may call a suite leads to that one alone."""
        taken = {suite.name: suite.name for suite in suites}
        for suite in suites:
            for key in ("suite", "codename"):
                value = getattr(suite, key)
                if taken.setdefault(value, suite.name) != suite.name:
                    self.fault(
                        f"suites.{suite.name}",
                        key,
                        f'"{value}" is a name of [suites.{taken[value]}] already; name tables by codename, and give '
                        "each suite and codename to one table",
                    )

    def queue_suites(self, queue: QueueConfig, suites: Collection[SuiteConfig]) -> None:
        """What a queue says of suites, and of packages that have nothing else to say where they go."""
        names = {suite.name for suite in suites}
        where, known = f"incoming.{queue.name}", ", ".join(sorted(names))
        self.known_suites(where, queue.suites, names)
        if queue.default_suite and queue.default_suite not in names:
            self.fault(where, "default_suite", f'is "{plain(queue.default_suite)}"; must be a suite: {known}')
        elif any(one.retired for one in suites if one.name == queue.default_suite):
            self.fault(where, "default_suite", f'is "{plain(queue.default_suite)}", which is retired')
        elif queue.default_suite and queue.suites and queue.default_suite not in queue.suites:
            self.fault(where, "default_suite", f'is "{plain(queue.default_suite)}", which is none of its suites')
        if not queue.allow_bare_debs:
            return
        if not queue.default_suite:
            self.fault(where, "default_suite", f"is missing, and allow_bare_debs needs it; must be a suite: {known}")
        if queue.signatures != "optional":
            self.fault(
                where,
                "allow_bare_debs",
                'is true, and signatures is "required"; without a .changes there is no signature: set signatures to '
                '"optional", or allow_bare_debs to false',
            )

    def known_suites(self, where: str, named: Iterable[str], suites: Collection[str]) -> None:
        """A table is for suites that there are."""
        for name in named:
            if name not in suites:
                known = ", ".join(sorted(suites))
                self.fault(where, "suites", f'has "{plain(name)}"; each must be a suite: {known}')

    def separate_folders(self, config: Config) -> None:
        """No folder may lie in another: what uploaders can write must never be served or trusted."""
        folders = [("archive", "root", config.archive.root), ("service", "state", config.service.state)]
        folders.append(("service", "status", config.service.status))
        folders += [(f"incoming.{q.name}", "path", q.path) for q in config.queues]
        folders += [(f"incoming.{q.name}", "claims", q.claims) for q in config.queues if q.claims]
        for number, (table, key, folder) in enumerate(folders):
            for other_table, other_key, other in folders[:number]:
                nested = folder == other or folder in other.parents or other in folder.parents
                # A claims folder may lie below state, which no uploader reaches.
                if nested and not (key == "claims" and other_key == "state" and folder != other):
                    self.fault(
                        table, key, f"{folder} and [{other_table}] {other_key} {other} must not lie in each other"
                    )


def _is_path(kind: type[Any], key: str) -> bool:
    return next(f.type for f in fields(kind) if f.name == key) in (Path, Path | None)
