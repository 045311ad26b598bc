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
#: A binNMU's Source carries the source's version too: "hello (1.0-1)" (Debian Policy 5.6.1).
_SOURCE = re.compile(r"(?P<source>[^\s()]+)(?:[ \t]+\((?P<version>[^\s()]+)\))?")
ADDRESS = re.compile(r"[^<>\n]*<[^<>@\s]+@[^<>@\s]+>|[^<>@\s]+@[^<>@\s]+")
_NUMBER = re.compile(r"[0-9]{1,12}", re.ASCII)
_REQUIRED = (
    *("Format", "Date", "Source", "Architecture", "Version", "Distribution", "Maintainer", "Changes"),
    *("Checksums-Sha256", "Files"),
)
_FORMATS = ("1.7", "1.8")
_HEX = {
    "md5": re.compile(r"[0-9a-f]{32}", re.ASCII),
    "sha1": re.compile(r"[0-9a-f]{40}", re.ASCII),
    "sha256": re.compile(r"[0-9a-f]{64}", re.ASCII),
    # Of a digest that is not known here only the form, the names and the sizes are looked at.
    "": re.compile(r"[0-9a-f]{16,256}", re.ASCII),
}
_SIZE = re.compile(r"0|[1-9][0-9]{0,14}", re.ASCII)
#: A list that is wrong in more rows is something else altogether.
_MAX_ROW_PROBLEMS = 20


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
    """What a .changes says; a text that is missing is empty. ``binaries`` is its Binary field.

    ``source_version`` differs from ``version`` in a binNMU only.
    """

    source: str
    source_version: str
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
    if any(row.name == file for row in rows):
        problems.append(rules.LISTS_ITSELF.problem("the .changes lists itself", file=file))
    source = _SOURCE.fullmatch(stanza.get("Source"))
    version = stanza.get("Version")
    changes = Changes(
        source=source["source"] if source else "",
        source_version=(source["version"] if source else None) or version,
        version=version,
        distributions=tuple(dict.fromkeys(stanza.words("Distribution"))),
        architectures=tuple(dict.fromkeys(stanza.words("Architecture"))),
        binaries=frozenset(stanza.words("Binary")),
        rows=tuple(row for row in rows if row.name != file),
    )
    if source is None and stanza.get("Source"):
        problems.append(rules.BAD_PACKAGE_NAME.problem(f'Source is "{plain(stanza.get("Source"))}"', file=file))
    problems += _names(changes, file)
    problems += _other_fields(stanza, changes, file)
    problems += _own_name(changes, file)
    return changes, problems


def _names(changes: Changes, file: str) -> Iterator[Problem]:
    if changes.source and not PACKAGE_NAME.fullmatch(changes.source):
        yield rules.BAD_PACKAGE_NAME.problem(f'Source is "{plain(changes.source)}"', file=file)
    for version in dict.fromkeys((changes.version, changes.source_version)):
        if version and not VERSION.fullmatch(version):
            yield rules.BAD_VERSION.problem(f'the version is "{plain(version)}"', file=file)
    odd = sorted(name for name in changes.binaries if not PACKAGE_NAME.fullmatch(name))
    for name in odd[:_MAX_ROW_PROBLEMS]:
        yield rules.BAD_PACKAGE_NAME.problem(f'Binary names "{plain(name)}"', file=file)


def _other_fields(stanza: Stanza, changes: Changes, file: str) -> Iterator[Problem]:
    if stanza.get("Format") and stanza.get("Format") not in _FORMATS:
        yield rules.BAD_FORMAT.problem(f'Format is "{plain(stanza.get("Format"))}"', file=file)
    for field in ("Maintainer", "Changed-By"):
        value = stanza.get(field)
        if field in stanza and value and not ADDRESS.fullmatch(value):
            yield rules.BAD_ADDRESS.problem(f'{field} is "{plain(value)}"', file=file)
    if stanza.get("Date") and not _is_date(stanza.get("Date")):
        yield rules.BAD_DATE.problem(f'Date is "{plain(stanza.get("Date"))}"', file=file)
    closes = next((word for word in stanza.words("Closes") if not _NUMBER.fullmatch(word)), None)
    if closes is not None:
        yield rules.BAD_CLOSES.problem(f'Closes has "{plain(closes)}"', file=file)
    if any(architecture != "source" for architecture in changes.architectures):
        yield from missing(stanza, ("Binary", "Description"), file)


def _is_date(value: str) -> bool:
    try:
        parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError, IndexError):
        return False
    return True


def _own_name(changes: Changes, file: str) -> Iterator[Problem]:
    wanted = f"{changes.source}_{without_epoch(changes.version)}"
    if changes.source and changes.version and not file.startswith((f"{wanted}_", f"{wanted}.changes")):
        yield rules.CHANGES_FILE_NAME.problem(
            f"Source and Version make it {plain(wanted)}_….changes, and it is {file}", file=file
        )


def read_rows(stanza: Stanza, file: str, *, columns: int) -> tuple[tuple[Row, ...], list[Problem]]:
    """The files of Files (``columns`` wide: 5 in a .changes, 3 in a .dsc) and of Checksums-*, by Checksums-Sha256."""
    tables: dict[str, dict[str, list[str]]] = {}
    problems: list[Problem] = []
    for field, algorithm in _list_fields(stanza):
        tables[field], found = _table(stanza, field, algorithm, columns if field == "Files" else 3, file)
        problems += found
    sha256 = tables.get("Checksums-Sha256", {})
    md5, sha1 = tables.get("Files", {}), tables.get("Checksums-Sha1", {})
    if not problems:
        problems += _differences(tables, file)
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


def _list_fields(stanza: Stanza) -> Iterator[tuple[str, str]]:
    """The fields that list files, each in its usual spelling, with the digest that it gives."""
    known = {"files": ("Files", "md5"), "checksums-md5": ("Checksums-Md5", "md5")}
    known |= {"checksums-sha1": ("Checksums-Sha1", "sha1"), "checksums-sha256": ("Checksums-Sha256", "sha256")}
    for name, _ in stanza.fields:
        if name.lower() in known:
            yield known[name.lower()]
        elif name.lower().startswith("checksums-"):
            yield plain(name), ""


def _differences(tables: dict[str, dict[str, list[str]]], file: str) -> Iterator[Problem]:
    """Each list against Checksums-Sha256, the one that has to be there."""
    wanted = {name: cells[1] for name, cells in tables.get("Checksums-Sha256", {}).items()}
    for field, table in tables.items():
        sizes = {name: cells[1] for name, cells in table.items()}
        odd = sorted({name for name, _ in sizes.items() ^ wanted.items()})
        if wanted and odd:
            shown = ", ".join(odd[:5]) + (f" and {len(odd) - 5} more" if len(odd) > 5 else "")
            yield rules.FILE_LISTS_DIFFER.problem(
                f"{field} and Checksums-Sha256 differ in the name or the size of {shown}", file=file
            )
    files = tables.get("Files", {})
    for name, cells in tables.get("Checksums-Md5", {}).items():
        if name in files and files[name][0] != cells[0]:
            yield rules.FILE_LISTS_DIFFER.problem(f"Files and Checksums-Md5 differ in the MD5 of {name}", file=file)


def _table(
    stanza: Stanza, field: str, algorithm: str, columns: int, file: str
) -> tuple[dict[str, list[str]], list[Problem]]:
    """The rows of one field by file name, and what is wrong with it."""
    table: dict[str, list[str]] = {}
    problems: list[Problem] = []
    for line in stanza.lines(field):
        cells = line.split()
        if len(cells) != columns or not _HEX[algorithm].fullmatch(cells[0]) or not _SIZE.fullmatch(cells[1]):
            problems.append(rules.BAD_FILE_LIST.problem(f'{field} has the row "{plain(line)}"', file=file))
        elif not FILE_NAME.fullmatch(cells[-1]):
            problems.append(rules.BAD_FILE_NAME.problem(f'{field} names "{plain(cells[-1])}"', file=file))
        elif cells[-1] in table:
            problems.append(rules.FILE_LISTS_DIFFER.problem(f"{field} lists {cells[-1]} twice", file=file))
        else:
            table[cells[-1]] = cells
        if len(problems) >= _MAX_ROW_PROBLEMS:
            break
    return table, problems
