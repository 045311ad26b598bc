"""The configuration: TOML in, one frozen :class:`Config` out, or every fault at once.

Rules: an unknown table or key, a wrong type, a value out of range and a contradiction between tables are errors,
each one line that names file, table, key, what was found and what is allowed. Nothing is guessed. Relative paths count
from the config file's folder. Reading the file is the only I/O; whether the folders exist and can be used is the
daemon's to find out.

A setting is one field of one dataclass below: its default is there, its parser is in the field's metadata, and
``docs/config.md`` says what it is for.
"""

import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from incomingd.errors import ConfigError
from incomingd.model import plain

_T = TypeVar("_T")
_Parser = Callable[[Any], Any]

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~_-]{0,99}", re.ASCII)
_COMPONENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~_-]{0,99}(/[A-Za-z0-9][A-Za-z0-9.+~_-]{0,99})?", re.ASCII)
_ARCHITECTURE = re.compile(r"[a-z0-9][a-z0-9-]{0,49}", re.ASCII)
_FINGERPRINT = re.compile(r"[0-9A-F]{40}", re.ASCII)
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)([kKMGT]?)i?B?", re.ASCII)
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|min|h|d|w)?", re.ASCII)
_SIZE_UNITS = {"": 1, "k": 1 << 10, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_DURATION_UNITS = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}


class BadValueError(ValueError):
    """What is allowed, said by a parser that was given something else."""


def size(value: Any) -> int:
    """``"4G"`` or a plain number, as bytes; k, M, G and T are powers of 1024."""
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match:
        return int(float(match[1]) * _SIZE_UNITS[match[2]])
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise BadValueError('a size in bytes, or a string such as "64M" or "4G"')


def duration(value: Any) -> float:
    """``"1d"``, ``"10s"``, ``"500ms"`` or a plain number of seconds, as seconds."""
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match:
        return float(match[1]) * _DURATION_UNITS[match[2] or "s"]
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf"):
        return float(value)
    raise BadValueError('seconds, or a string such as "30s", "10m", "12h" or "1d"')


def text(value: Any) -> str:
    """One line of text without control characters: it may end up in a Release file."""
    if isinstance(value, str) and value.isprintable():
        return value
    raise BadValueError("one line of text")


def word(value: Any) -> str:
    """A suite, codename or queue: one path component."""
    if isinstance(value, str) and _WORD.fullmatch(value):
        return value
    raise BadValueError("a name of letters, digits and . + ~ _ -, the first a letter or digit")


def component(value: Any) -> str:
    """A component, perhaps with one slash (``updates/main``)."""
    if isinstance(value, str) and _COMPONENT.fullmatch(value):
        return value
    raise BadValueError('a component such as "main"')


def architecture(value: Any) -> str:
    """A Debian architecture that packages can be built for."""
    if isinstance(value, str) and _ARCHITECTURE.fullmatch(value) and value != "any":
        return value
    raise BadValueError('an architecture such as "amd64"')


def fingerprint(value: Any) -> str:
    """A full OpenPGP fingerprint; blanks between the groups are allowed, short key ids never are."""
    squeezed = value.replace(" ", "").upper() if isinstance(value, str) else ""
    if _FINGERPRINT.fullmatch(squeezed):
        return squeezed
    raise BadValueError("a full fingerprint of 40 hex digits")


def flag(value: Any) -> bool:
    """true or false."""
    if isinstance(value, bool):
        return value
    raise BadValueError("true or false")


def count(low: int = 1, high: int = 1_000_000_000) -> _Parser:
    """A whole number from ``low`` to ``high``."""

    def parse(value: Any) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        raise BadValueError(f"a whole number from {low} to {high}")

    return parse


def one_of(*choices: str) -> _Parser:
    """One of the given words."""

    def parse(value: Any) -> str:
        if isinstance(value, str) and value in choices:
            return value
        raise BadValueError("one of " + ", ".join(f'"{c}"' for c in choices))

    return parse


def list_of(parse_one: _Parser, *, at_least: int = 0) -> _Parser:
    """A list, none twice, with each item parsed."""

    def parse(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) < at_least:
            raise BadValueError(f"a list of at least {at_least}" if at_least else "a list")
        items = tuple(_item(parse_one, item) for item in value)
        if len(set(items)) < len(items):
            raise BadValueError("a list with nothing in it twice")
        return items

    return parse


def _item(parse_one: _Parser, item: Any) -> Any:
    try:
        return parse_one(item)
    except BadValueError as bad:
        raise BadValueError(f"a list, each {bad} ({_shown(item)} is not)") from None


def _setting(parse: _Parser, default: Any = MISSING) -> Any:
    if default is MISSING:
        return field(metadata={"parse": parse})
    return field(default=default, metadata={"parse": parse})


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveConfig:
    """``[archive]``: what is served, and who signs it."""

    root: Path = _setting(text, Path("archive"))
    origin: str = _setting(text, "incomingd")
    label: str = _setting(text, "incomingd")
    description: str = _setting(text, "")
    signing_keys: tuple[str, ...] = _setting(list_of(fingerprint), ())


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceConfig:
    """``[service]``: where the daemon keeps its own things, and how often it looks without being told."""

    state: Path = _setting(text, Path("state"))
    status: Path = _setting(text, Path("status"))
    scan_interval: float = _setting(duration, 10.0)
    workers: int = _setting(count(0, 256), 0)  # 0: as many as there are cores


@dataclass(frozen=True, slots=True, kw_only=True)
class ChecksConfig:
    """``[checks]``, and ``[suites.NAME.checks]`` over it: the rules that can be set."""

    max_text_file: int = _setting(size, 1 << 20)
    max_signature_age: float = _setting(duration, 0.0)  # 0: any age
    require_dsc_signature: bool = _setting(flag, False)
    require_source: bool = _setting(flag, False)
    source_formats: tuple[str, ...] = _setting(
        list_of(one_of("1.0", "3.0 (native)", "3.0 (quilt)"), at_least=1), ("1.0", "3.0 (native)", "3.0 (quilt)")
    )
    extra_sections: tuple[str, ...] = _setting(list_of(word), ())
    worker_cpu: float = _setting(duration, 120.0)
    worker_time: float = _setting(duration, 600.0)
    worker_memory: int = _setting(size, 512 << 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteConfig:
    """``[suites.NAME]``: one suite of the archive."""

    name: str
    codename: str = _setting(word, "")
    accepts: tuple[str, ...] = _setting(list_of(word), ())
    components: tuple[str, ...] = _setting(list_of(component, at_least=1), ("main",))
    architectures: tuple[str, ...] = _setting(list_of(architecture, at_least=1), ("amd64", "arm64"))
    checks: ChecksConfig = ChecksConfig()

    @property
    def binary_architectures(self) -> tuple[str, ...]:
        """The architectures that have an index of their own: all but ``source`` and ``all``."""
        return tuple(a for a in self.architectures if a not in ("source", "all"))


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueConfig:
    """``[incoming.NAME]``: one directory that uploads are dropped into."""

    name: str
    path: Path = _setting(text)
    settle: float = _setting(duration, 2.0)
    abandon_after: float = _setting(duration, 86400.0)
    signatures: str = _setting(one_of("required", "optional"), "required")
    max_upload: int = _setting(size, 4 << 30)
    max_files: int = _setting(count(), 2000)
    max_changes: int = _setting(count(), 50)
    watch: str = _setting(one_of("inotify", "pyinotify", "polling"), "inotify")
    claims: Path | None = _setting(text, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class UploaderRule:
    """``[[uploaders]]``: what one key may upload. ``suites`` and ``sources`` are shell globs."""

    key: str = _setting(fingerprint)
    name: str = _setting(text, "")
    suites: tuple[str, ...] = _setting(list_of(text, at_least=1), ("*",))
    sources: tuple[str, ...] = _setting(list_of(text, at_least=1), ("*",))
    binaries_only: bool = _setting(flag, False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishConfig:
    """``[publish]``: how generations are made and how long old ones stay."""

    keep_generations: int = _setting(count(), 10)
    grace: float = _setting(duration, 86400.0)
    batch: int = _setting(count(), 500)
    md5sum: bool = _setting(flag, True)
    sha1: bool = _setting(flag, True)
    sha512: bool = _setting(flag, False)
    zstd: bool = _setting(flag, False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole configuration; every path in it is absolute."""

    file: Path
    archive: ArchiveConfig
    service: ServiceConfig
    suites: tuple[SuiteConfig, ...]
    queues: tuple[QueueConfig, ...]
    uploaders: tuple[UploaderRule, ...]
    publish: PublishConfig
    checks: ChecksConfig

    def suite(self, name: str) -> SuiteConfig | None:
        """The suite of that table name."""
        return next((s for s in self.suites if s.name == name), None)

    def suite_for(self, distribution: str) -> SuiteConfig | None:
        """The suite where that word of a .changes' Distribution lands."""
        return next((s for s in self.suites if distribution in s.accepts), None)

    def queue(self, name: str) -> QueueConfig | None:
        """The queue of that table name."""
        return next((q for q in self.queues if q.name == name), None)


def find(given: Path | None) -> Path:
    """The configuration file: ``given``, ``$INCOMINGD_CONFIG``, ``./incomingd.toml``, the one in /etc/incomingd.

    Raises :class:`ConfigError` where none is there.
    """
    named = given or (Path(os.environ["INCOMINGD_CONFIG"]) if os.environ.get("INCOMINGD_CONFIG") else None)
    if named is not None:
        return named
    usual = (Path("incomingd.toml"), Path("/etc/incomingd/incomingd.toml"))
    for file in usual:
        if file.exists():
            return file
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


def _shown(value: Any) -> str:
    return f'"{plain(value)}"' if isinstance(value, str) else plain(value)


class _Reader:
    """Walks a document once and gathers the faults on the way."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.errors: list[str] = []

    def config(self, document: Mapping[str, Any]) -> Config:
        tables = ("archive", "suites", "incoming", "uploaders", "publish", "service", "checks")
        for key in document:
            if key not in tables:
                self.fault(plain(key), "", f"is not a table of this configuration; allowed are {', '.join(tables)}")
        checks = self.table(ChecksConfig, document.get("checks", {}), "checks")
        config = Config(
            file=self.file,
            archive=self.table(ArchiveConfig, document.get("archive", {}), "archive"),
            service=self.table(ServiceConfig, document.get("service", {}), "service"),
            suites=tuple(self.suites(document, checks)),
            queues=tuple(
                self.table(QueueConfig, table, f"incoming.{name}", name=name)
                for name, table in self.named(document, "incoming")
            ),
            uploaders=tuple(self.uploaders(document)),
            publish=self.table(PublishConfig, document.get("publish", {}), "publish"),
            checks=checks,
        )
        self.contradictions(config)
        if self.errors:
            raise ConfigError(self.errors)
        return config

    def fault(self, table: str, key: str, what: str) -> None:
        where = f"{self.file}: [{table}]" + (f" {key}:" if key else "")
        self.errors.append(f"{where} {what}")

    def named(self, document: Mapping[str, Any], table: str) -> Iterable[tuple[str, Any]]:
        entries = document.get(table, {})
        if not isinstance(entries, dict) or not entries:
            self.fault(table, "", f"there must be at least one [{table}.NAME] table")
            return
        for name, entry in entries.items():
            if not _WORD.fullmatch(name):
                self.fault(f"{table}.{plain(name)}", "", "the table's name must be letters, digits and . + ~ _ -")
            yield name, entry

    def suites(self, document: Mapping[str, Any], checks: ChecksConfig) -> Iterable[SuiteConfig]:
        for name, entry in self.named(document, "suites"):
            own = entry.get("checks", {}) if isinstance(entry, dict) else {}
            rest = {k: v for k, v in entry.items() if k != "checks"} if isinstance(entry, dict) else entry
            suite = self.table(SuiteConfig, rest, f"suites.{name}", name=name)
            codename = suite.codename or name
            yield replace(
                suite,
                codename=codename,
                accepts=suite.accepts or tuple(dict.fromkeys((name, codename))),
                checks=self.table(ChecksConfig, own, f"suites.{name}.checks", defaults=checks),
            )

    def uploaders(self, document: Mapping[str, Any]) -> Iterable[UploaderRule]:
        entries = document.get("uploaders", [])
        if not isinstance(entries, list):
            self.fault("uploaders", "", "must be written [[uploaders]], one table for each key")
            return
        for number, entry in enumerate(entries, 1):
            yield self.table(UploaderRule, entry, f"uploaders #{number}")

    def table(
        self, kind: type[_T], entry: Any, where: str, *, name: str | None = None, defaults: _T | None = None
    ) -> _T:
        """One table as one dataclass; a faulty or missing key is noted and filled with something of the right type."""
        if not isinstance(entry, dict):
            self.fault(where, "", f"must be a table, not {_shown(entry)}")
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

    def value(self, parse_value: _Parser, entry: Mapping[str, Any], where: str, key: str, default: Any) -> Any:
        if key not in entry:
            if default is MISSING:
                self.fault(where, key, "is missing and has no default")
                return ""
            return default
        try:
            return parse_value(entry[key])
        except BadValueError as bad:
            self.fault(where, key, f"is {_shown(entry[key])}; must be {bad}")
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
            if not suite.binary_architectures:
                self.fault(f"suites.{suite.name}", "architectures", 'needs one besides "all" and "source"')
        names = {s.name for s in config.suites}
        codenames: dict[str, str] = {}
        for suite in config.suites:
            if suite.codename != suite.name and suite.codename in names:
                self.fault(f"suites.{suite.name}", "codename", f'"{suite.codename}" is another suite\'s name')
            if suite.codename in codenames:
                self.fault(
                    f"suites.{suite.name}", "codename", f"is that of [suites.{codenames[suite.codename]}] already"
                )
            codenames.setdefault(suite.codename, suite.name)
        if not self.errors:  # else a path may be missing, and the folders not those that were meant
            self.separate_folders(config)

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
