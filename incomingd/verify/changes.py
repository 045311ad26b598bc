"""What a .changes promises (deb-changes(5), Debian Policy 5.5), read from text that has passed the strict pass.

Everything that is wrong is told at once; a value that is wrong is left out of the result.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from incomingd import rules
from incomingd.model import FILE_NAME, PACKAGE_NAME, Digests, Problem, plain, without_epoch
from incomingd.verify.deb822 import Stanza, missing

#: Debian Policy 5.6.12: [epoch:]upstream[-revision], upstream beginning with a digit as dpkg demands.
VERSION = re.compile(r"(?:[0-9]{1,9}:)?[0-9][A-Za-z0-9.+~]*(?:-[A-Za-z0-9.+~-]*[A-Za-z0-9.+~])?", re.ASCII)
_ADDRESS = re.compile(r"[^<>\n]*<[^<>@\s]+@[^<>@\s]+>", re.UNICODE)
_REQUIRED = (
    *("Format", "Date", "Source", "Architecture", "Version", "Distribution", "Maintainer", "Changes"),
    *("Checksums-Sha256", "Files"),
)
_HEX = {
    "md5": re.compile(r"[0-9a-f]{32}", re.ASCII),
    "sha1": re.compile(r"[0-9a-f]{40}", re.ASCII),
    "sha256": re.compile(r"[0-9a-f]{64}", re.ASCII),
}
_SIZE = re.compile(r"0|[1-9][0-9]{0,14}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One file as Files and Checksums-* list it; a digest that is not given is empty."""

    name: str
    size: int
    digests: Digests
    section: str = ""
    priority: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What a .changes says. ``binaries`` is its Binary field."""

    source: str
    version: str
    distributions: tuple[str, ...]
    architectures: tuple[str, ...]
    binaries: frozenset[str]
    rows: tuple[Row, ...]


def read(stanza: Stanza, file: str) -> tuple[Changes, list[Problem]]:
    """The promise of the .changes named ``file``, and all that is wrong with it."""
    problems = list(missing(stanza, _REQUIRED, file))
    rows, row_problems = read_rows(stanza, file, columns=5)
    problems += row_problems
    changes = Changes(
        # A binNMU's Source carries the source's version too: "hello (1.0)".
        source=stanza.get("Source").split(" ", 1)[0],
        version=stanza.get("Version"),
        distributions=stanza.words("Distribution"),
        architectures=stanza.words("Architecture"),
        binaries=frozenset(stanza.words("Binary")),
        rows=rows,
    )
    problems += _fields(stanza, changes, file)
    problems += _own_name(changes, file)
    return changes, problems


def _fields(stanza: Stanza, changes: Changes, file: str) -> Iterator[Problem]:
    if stanza.get("Format") not in ("", "1.7", "1.8"):
        yield rules.BAD_FORMAT.problem(f"Format is {plain(stanza.get('Format'))}", file=file)
    if changes.source and not PACKAGE_NAME.fullmatch(changes.source):
        yield rules.BAD_PACKAGE_NAME.problem(f'Source is "{plain(changes.source)}"', file=file)
    if changes.version and not VERSION.fullmatch(changes.version):
        yield rules.BAD_VERSION.problem(f'Version is "{plain(changes.version)}"', file=file)
    for name in changes.binaries:
        if not PACKAGE_NAME.fullmatch(name):
            yield rules.BAD_PACKAGE_NAME.problem(f'Binary names "{plain(name)}"', file=file)
    for field in ("Maintainer", "Changed-By"):
        value = stanza.get(field)
        if value and not _ADDRESS.fullmatch(value.strip()):
            yield rules.BAD_ADDRESS.problem(f'{field} is "{plain(value)}"', file=file)
    if stanza.get("Date") and not _is_date(stanza.get("Date")):
        yield rules.BAD_DATE.problem(f'Date is "{plain(stanza.get("Date"))}"', file=file)
    closes = [word for word in stanza.words("Closes") if not word.isdecimal()]
    if closes:
        yield rules.BAD_CLOSES.problem(f'Closes has "{plain(closes[0])}"', file=file)
    if any(architecture != "source" for architecture in changes.architectures):
        yield from missing(stanza, ("Binary", "Description"), file)


def _is_date(value: str) -> bool:
    try:
        parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return False
    return True


def _own_name(changes: Changes, file: str) -> Iterator[Problem]:
    wanted = f"{changes.source}_{without_epoch(changes.version)}"
    if changes.source and changes.version and not file.startswith((f"{wanted}_", f"{wanted}.changes")):
        yield rules.CHANGES_FILE_NAME.problem(f"the file is not named {plain(wanted)}_….changes", file=file)
    if any(row.name == file for row in changes.rows):
        yield rules.LISTS_ITSELF.problem("the .changes lists itself", file=file)


def read_rows(stanza: Stanza, file: str, *, columns: int) -> tuple[tuple[Row, ...], list[Problem]]:
    """The files of Files (``columns`` wide: 5 in a .changes, 3 in a .dsc) and of Checksums-Sha1 and -Sha256."""
    problems: list[Problem] = []
    md5 = _table(stanza, "Files", "md5", columns, file, problems)
    sha1 = _table(stanza, "Checksums-Sha1", "sha1", 3, file, problems)
    sha256 = _table(stanza, "Checksums-Sha256", "sha256", 3, file, problems)
    listed = {name: cells[1] for name, cells in sha256.items()}
    for field, table in (("Files", md5), ("Checksums-Sha1", sha1)):
        if field in stanza and {name: cells[1] for name, cells in table.items()} != listed and not problems:
            odd = sorted({(n, c[1]) for n, c in table.items()} ^ set(listed.items()))
            problems.append(
                rules.FILE_LISTS_DIFFER.problem(f"{field} and Checksums-Sha256 differ in {plain(odd[0][0])}", file=file)
            )
    rows = [
        Row(
            name=name,
            size=int(cells[1]),
            digests=Digests(
                md5=md5[name][0] if name in md5 else "", sha1=sha1[name][0] if name in sha1 else "", sha256=cells[0]
            ),
            section=md5[name][2] if columns == 5 and name in md5 else "",
            priority=md5[name][3] if columns == 5 and name in md5 else "",
        )
        for name, cells in sha256.items()
    ]
    return tuple(rows), problems


def _table(
    stanza: Stanza, field: str, algorithm: str, columns: int, file: str, problems: list[Problem]
) -> dict[str, list[str]]:
    """The rows of one field by file name; what is wrong with it goes into ``problems``."""
    table: dict[str, list[str]] = {}
    for line in stanza.lines(field):
        cells = line.split()
        fits = len(cells) == columns and _HEX[algorithm].fullmatch(cells[0]) and _SIZE.fullmatch(cells[1])
        if not fits:
            problems.append(rules.BAD_FILE_LIST.problem(f'{field} has the row "{plain(line)}"', file=file))
        elif not FILE_NAME.fullmatch(cells[-1]):
            problems.append(rules.BAD_FILE_NAME.problem(f'{field} names "{plain(cells[-1])}"', file=file))
        elif cells[-1] in table:
            problems.append(rules.FILE_LISTS_DIFFER.problem(f"{field} lists {cells[-1]} twice", file=file))
        else:
            table[cells[-1]] = cells
    return table
