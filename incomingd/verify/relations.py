"""Dependency fields (Debian Policy 7.1): a strict grammar, since python-debian only warns."""

import re

from incomingd.verify.changes import VERSION
from incomingd.verify.deb822 import Stanza

BINARY_FIELDS = (
    *("Pre-Depends", "Depends", "Recommends", "Suggests", "Enhances", "Breaks", "Conflicts", "Replaces", "Provides"),
    *("Built-Using", "Static-Built-Using"),
)
SOURCE_FIELDS = (
    *("Build-Depends", "Build-Depends-Indep", "Build-Depends-Arch", "Build-Conflicts", "Build-Conflicts-Indep"),
    "Build-Conflicts-Arch",
)
#: In the others "or" has no meaning, and dpkg refuses it in most of them.
_WITH_ALTERNATIVES = (
    *("Pre-Depends", "Depends", "Recommends", "Suggests", "Enhances"),
    *("Build-Depends", "Build-Depends-Indep", "Build-Depends-Arch"),
)
_WORD = r"!?[a-z0-9][a-z0-9-]*"
_ONE = re.compile(
    # In lower case only: dpkg would read "Foo" as "foo", and apt would look for "Foo".
    r"[a-z0-9][a-z0-9+._-]*(?::[a-z0-9][a-z0-9-]*)?"
    r"(?:\s*\(\s*(?P<operator><<|<=|=|>=|>>|<|>)\s*(?P<version>[^()\s]+)\s*\))?"
    rf"(?P<arches>\s*\[\s*{_WORD}(?:\s+{_WORD})*\s*\])?"
    r"(?P<profiles>(?:\s*<\s*!?[a-z0-9][a-z0-9.+-]*(?:\s+!?[a-z0-9][a-z0-9.+-]*)*\s*>)*)",
    re.ASCII,
)


def faults(stanza: Stanza, fields: tuple[str, ...], *, source: bool) -> list[str]:
    """What is wrong with the dependency fields, a sentence each. ``source`` allows architectures and profiles."""
    found = []
    for field in fields:
        if field not in stanza:
            continue
        value = stanza.get(field).strip()
        if not value:
            found.append(f"{field} is empty")
            continue
        if not source and stanza.get(field).startswith("\n"):
            found.append(f"{field} has nothing on its first line, where dpkg looks for a package")
        found += [f'{field} has "{one.strip()[:80]}"' for one in _wrong(field, value, source=source)]
    return found


def _wrong(field: str, value: str, *, source: bool) -> list[str]:
    # dpkg-gencontrol drops a comma at the end, and dpkg refuses a package that has one (measured).
    groups = (value.removesuffix(",") if source else value).split(",")
    if field not in _WITH_ALTERNATIVES:
        return [one for one in groups if not _fits(field, one.strip(), source=source)]
    return [one for group in groups for one in group.split("|") if not _fits(field, one.strip(), source=source)]


def _fits(field: str, one: str, *, source: bool) -> bool:
    match = _ONE.fullmatch(one)
    if match is None or (match["version"] and not VERSION.fullmatch(match["version"])):
        return False
    if not source and (match["arches"] or match["profiles"]):
        return False
    return field != "Provides" or match["operator"] in (None, "=")
