"""The configuration: TOML in, one frozen :class:`Config` out, or every fault at once.

A setting is one field of one dataclass below: its default is there, its parser (:mod:`.values`) is in the field's
metadata, and ``docs/config.md`` says what it is for. :mod:`.reader` reads a file.
"""

from dataclasses import MISSING, dataclass, field, replace
from pathlib import Path
from typing import Any

from incomingd.config.values import (
    Parser,
    architecture,
    command,
    component,
    count,
    duration,
    fingerprint,
    flag,
    list_of,
    one_of,
    size,
    text,
    word,
)

#: What holds the folders for delayed uploads.
DELAYED = "DELAYED"


def _setting(parse: Parser, default: Any = MISSING) -> Any:
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
class LintianConfig:
    """``[checks.lintian]``: lintian over each upload that has passed all other checks."""

    suites: tuple[str, ...] = _setting(list_of(text), ())  # none: every suite
    reject: tuple[str, ...] = _setting(list_of(text), ())
    warn: tuple[str, ...] = _setting(list_of(text), ("error", "warning"))
    overrides: bool = _setting(flag, True)
    time: float = _setting(duration, 300.0)
    memory: int = _setting(size, 2 << 30)
    failure: str = _setting(one_of("retry", "warn"), "retry")


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandConfig:
    """``[checks.commands.NAME]``: a program of the operator's over each upload that has passed all other checks."""

    name: str
    command: tuple[str, ...] = _setting(command)
    suites: tuple[str, ...] = _setting(list_of(text), ())  # none: every suite
    findings: str = _setting(one_of("problems", "warnings"), "problems")
    time: float = _setting(duration, 300.0)
    memory: int = _setting(size, 2 << 30)
    failure: str = _setting(one_of("retry", "warn"), "retry")


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteConfig:
    """``[suites.NAME]``: one suite of the archive."""

    name: str
    codename: str = _setting(word, "")
    accepts: tuple[str, ...] = _setting(list_of(word), ())
    components: tuple[str, ...] = _setting(list_of(component, at_least=1), ("main",))
    architectures: tuple[str, ...] = _setting(list_of(architecture, at_least=1), ("amd64", "arm64"))
    debug_component: str = _setting(text, "")
    overrides: Path | None = _setting(text, None)
    source_overrides: Path | None = _setting(text, None)
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
    stray_after: float = _setting(duration, 604800.0)  # 0: never
    suites: tuple[str, ...] = _setting(list_of(text), ())  # none: every suite
    allow_bare_debs: bool = _setting(flag, False)
    default_suite: str = _setting(text, "")
    watch: str = _setting(one_of("inotify", "pyinotify", "polling"), "inotify")
    claims: Path | None = _setting(text, None)
    delayed: int = _setting(count(0, 15), 0)
    #: Days that uploads in this folder wait; None in the queue itself. See :meth:`delayed_by`.
    delay: int | None = None

    def delayed_by(self, days: int | None) -> "QueueConfig":
        """The queue as its folder ``DELAYED/N-day``, as dput and debianqueued name it; None is the queue itself."""
        return self if days is None else replace(self, path=self.path / DELAYED / f"{days}-day", delay=days)

    def folders(self) -> "tuple[QueueConfig, ...]":
        """The queue itself and, where it has them, its folders for delayed uploads."""
        return self, *(self.delayed_by(days) for days in (range(self.delayed + 1) if self.delayed else ()))


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
    translations: bool = _setting(flag, False)


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
    lintian: LintianConfig | None = None
    commands: tuple[CommandConfig, ...] = ()

    def suite(self, name: str) -> SuiteConfig | None:
        """The suite of that table name."""
        return next((s for s in self.suites if s.name == name), None)

    def suite_for(self, distribution: str) -> SuiteConfig | None:
        """The suite where that word of a .changes' Distribution lands."""
        return next((s for s in self.suites if distribution in s.accepts), None)

    def queue(self, name: str, delay: int | None = None) -> QueueConfig | None:
        """The queue of that table name, or its folder for uploads that wait for so many days."""
        return next((q.delayed_by(delay) for q in self.queues if q.name == name), None)
