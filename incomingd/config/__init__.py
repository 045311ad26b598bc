"""The configuration: TOML in, one frozen :class:`Config` out, or every fault at once.

A setting is one field of one dataclass below: its default is there, its parser (:mod:`.values`) is in the field's
metadata, and ``docs/config.md`` says what it is for. :mod:`.reader` reads a file; :mod:`.warnings` says what is allowed
and seldom meant.
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
    section,
    size,
    stanza_size,
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
    max_stanza: int = _setting(stanza_size, 1 << 20)
    max_unpacked: int = _setting(size, 1 << 30)
    max_signature_age: float = _setting(duration, 0.0)  # 0: any age
    require_dsc_signature: bool = _setting(flag, False)
    require_source: bool = _setting(flag, False)
    source_formats: tuple[str, ...] = _setting(
        list_of(one_of("1.0", "3.0 (native)", "3.0 (quilt)"), at_least=1), ("1.0", "3.0 (native)", "3.0 (quilt)")
    )
    extra_sections: tuple[str, ...] = _setting(list_of(section), ())
    strict: bool = _setting(flag, False)
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
    """``[suites.NAME]``: one suite of the archive. The table's name is its identity; clients may know it by others."""

    name: str
    suite: str = _setting(word, "")
    codename: str = _setting(word, "")
    origin: str | None = _setting(text, None)  # None: that of the archive
    label: str | None = _setting(text, None)
    description: str | None = _setting(text, None)
    accepts: tuple[str, ...] = _setting(list_of(word), ())
    components: tuple[str, ...] = _setting(list_of(component, at_least=1), ("main",))
    architectures: tuple[str, ...] = _setting(list_of(architecture, at_least=1), ("amd64", "arm64"))
    debug_component: str = _setting(text, "")
    overrides: Path | None = _setting(text, None)
    source_overrides: Path | None = _setting(text, None)
    retired: bool = _setting(flag, False)
    checks: ChecksConfig = ChecksConfig()

    @property
    def links(self) -> tuple[str, ...]:
        """The names besides its own by which clients find it."""
        return tuple(dict.fromkeys(name for name in (self.suite, self.codename) if name != self.name))

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
    """``[[uploaders]]``: what one key, or one caller of the web program, may upload. It has ``key`` or ``token``.

    ``suites``, ``components``, ``sources`` and ``binaries`` are shell globs. Without ``binaries`` those of ``sources``
    count, and the names that a suite lists already from a source that the key may upload (:mod:`incomingd.rights`).
    """

    key: str | None = _setting(fingerprint, None)
    token: str | None = _setting(word, None)
    name: str = _setting(text, "")
    suites: tuple[str, ...] = _setting(list_of(text, at_least=1), ("*",))
    components: tuple[str, ...] = _setting(list_of(text, at_least=1), ("*",))
    sources: tuple[str, ...] = _setting(list_of(text, at_least=1), ("*",))
    binaries: tuple[str, ...] = _setting(list_of(text, at_least=1), ())
    binaries_only: bool = _setting(flag, False)
    essential: bool = _setting(flag, False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishConfig:
    """``[publish]``: how generations are made and how long old ones stay."""

    keep_generations: int = _setting(count(), 10)
    grace: float = _setting(duration, 86400.0)
    index_grace: float = _setting(duration, 1800.0)
    index_space: int = _setting(size, 20 << 30)
    batch: int = _setting(count(), 500)
    md5sum: bool = _setting(flag, True)
    sha1: bool = _setting(flag, True)
    sha512: bool = _setting(flag, False)
    zstd: bool = _setting(flag, False)
    translations: bool = _setting(flag, False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig:
    """``[limits]``: what one account may have on its way, and how much is kept of what has ended."""

    per_account: int = _setting(count(), 1000)
    bytes_per_account: int = _setting(size, 20 << 30)
    rejected_max: int = _setting(size, 5 << 30)
    rejected_for: float = _setting(duration, 30 * 86400.0)  # 0: for good
    status_for: float = _setting(duration, 180 * 86400.0)  # 0: for good


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
    limits: LimitsConfig = LimitsConfig()
    lintian: LintianConfig | None = None
    commands: tuple[CommandConfig, ...] = ()

    @property
    def max_text(self) -> int:
        """The size of a text file of which the suite is not known yet: the most generous limit holds."""
        return max(checks.max_text_file for checks in (self.checks, *(suite.checks for suite in self.suites)))

    def suite(self, name: str) -> SuiteConfig | None:
        """The suite of that table name."""
        return next((s for s in self.suites if s.name == name), None)

    def suite_for(self, distribution: str) -> SuiteConfig | None:
        """The suite where that word of a .changes' Distribution lands."""
        return next((s for s in self.suites if distribution in s.accepts), None)

    def queue(self, name: str, delay: int | None = None) -> QueueConfig | None:
        """The queue of that table name, or its folder for uploads that wait for so many days."""
        return next((q.delayed_by(delay) for q in self.queues if q.name == name), None)
