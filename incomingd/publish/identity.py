"""Holds a configuration against what clients read now: a suite must not vanish, or become another, without a word."""

from collections.abc import Collection, Iterator

from debian.deb822 import Release

from incomingd.config import Config
from incomingd.errors import ConfigError
from incomingd.places import Places

#: What apt holds a Release against: one that has changed stops apt-get update until each machine is told.
_WATCHED = ("Origin", "Label", "Suite", "Codename")


def missing_tables(config: Config, published: Collection[str]) -> list[str]:
    """An error for each suite that is published and has no table."""
    return [
        f"{config.file}: [suites.{name}] is missing, and clients read that suite; to call it something else keep the "
        f'table and set its suite and codename (suite = "NEW"); to serve it on unchanged write [suites.{name}] with '
        f"retired = true; to end it run: incomingctl drop-suite {name}"
        for name in sorted(set(published) - {suite.name for suite in config.suites})
    ]


def check_tables(config: Config, published: Collection[str]) -> None:
    """Raises :class:`ConfigError` if a published suite has no table."""
    if missing := missing_tables(config, published):
        raise ConfigError(missing)


def changes(config: Config) -> Iterator[str]:
    """A warning for each field of a published Release that the configuration changes and that apt stops for."""
    for suite in config.suites:
        wanted = {"Origin": suite.origin, "Label": suite.label, "Suite": suite.suite, "Codename": suite.codename}
        try:
            with (Places(config).suite_link(suite.name) / "Release").open("rb") as file:
                published = Release(file, _WATCHED)
        except OSError:  # it has none yet
            continue
        for field in _WATCHED:
            before, after = published.get(field, ""), (wanted[field] or "").strip()
            if before != after and not suite.retired:
                yield (
                    f'{config.file}: [suites.{suite.name}] {field.lower()}: clients read {field} "{before}", and it '
                    f'becomes "{after}"; apt-get update stops for that on each client until it is run once with '
                    "--allow-releaseinfo-change"
                )
