"""Applies what the archive itself says of a package's section and priority (``overrides``, ``source_overrides``).

Rules: the files are apt-ftparchive(1)'s, as Debian's: ``package priority section``, and of sources ``package section``;
what follows on the line, and what follows a #, is not read. A section names the component too (``contrib/net``). Of
several suites the first that has a package counts. A file that cannot be read, or has a line that is none, is the
operator's to mend: ``Retry``.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from incomingd.config import SuiteConfig
from incomingd.errors import Retry
from incomingd.model import PACKAGE_NAME, BinaryPackage, SourcePackage, plain
from incomingd.verify import files

_SECTION = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9.+~_-]*/){0,2}[a-z0-9][a-z0-9+.-]*", re.ASCII)

_Package = TypeVar("_Package", BinaryPackage, SourcePackage)
#: By package its section and priority; None where the file does not say.
_Table = Mapping[str, tuple[str, str | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """What is said of binary packages and of sources, by name."""

    binaries: _Table = field(default_factory=dict)
    sources: _Table = field(default_factory=dict)

    def placed(self, package: _Package, component: Callable[[str, str], str]) -> _Package:
        """The package, where and as the archive has it. ``component`` gives that of a section and a file's name."""
        if isinstance(package, BinaryPackage):
            said, file = self.binaries.get(package.package), package.file.name
        else:
            said, file = self.sources.get(package.source), package.dsc.name
        if said is None:
            return package
        section, priority = said
        return replace(
            package, section=section, priority=priority or package.priority, component=component(section, file)
        )

    def section(self, file: str, section: str) -> str:
        """The section of a file of that name, which comes with ``section``."""
        return self.of_file(file, section, "")[0]

    def of_file(self, file: str, section: str, priority: str) -> tuple[str, str]:
        """Section and priority of a file of that name, which comes with these."""
        table = self.sources if files.kind(file) is files.Kind.DSC else self.binaries
        return _of(table, files.package(file), section, priority)

    def of_binary(self, package: str, section: str, priority: str) -> tuple[str, str]:
        """Section and priority of a binary package, which comes with these."""
        return _of(self.binaries, package, section, priority)


def _of(table: _Table, name: str, section: str, priority: str) -> tuple[str, str]:
    said = table.get(name, (section, priority))
    return said[0], said[1] or priority


def load(suites: Iterable[SuiteConfig]) -> Overrides:
    """What the files of these suites say now. Raises ``Retry``."""
    binaries: dict[str, tuple[str, str | None]] = {}
    sources: dict[str, tuple[str, str | None]] = {}
    for suite in suites:
        binaries = {**_table(suite.overrides, with_priority=True), **binaries}
        sources = {**_table(suite.source_overrides, with_priority=False), **sources}
    return Overrides(binaries=binaries, sources=sources)


def _table(path: Path | None, *, with_priority: bool) -> _Table:
    if path is None:
        return {}
    try:
        now = path.stat()
        return _read(path, with_priority, now.st_mtime_ns, now.st_size, now.st_ino)
    except (OSError, UnicodeDecodeError) as error:
        raise Retry(f"the override file {path} cannot be read: {error}") from error


@lru_cache(maxsize=32)
def _read(path: Path, with_priority: bool, *_version: int) -> _Table:
    """``_version`` tells one state of the file from the next."""
    return dict(_lines(path, with_priority=with_priority))


def _lines(path: Path, *, with_priority: bool) -> Iterator[tuple[str, tuple[str, str | None]]]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        name, priority, section = (*words, "", "")[:3] if with_priority else (words[0], None, (*words, "")[1])
        good = PACKAGE_NAME.fullmatch(name) and _SECTION.fullmatch(section)
        if not good or priority not in (None, *files.PRIORITIES):
            wanted = "package priority section" if with_priority else "package section"
            raise Retry(f'the override file {path} has in line {number} "{plain(line)}"; a line is: {wanted}')
        yield name, (section, priority)
