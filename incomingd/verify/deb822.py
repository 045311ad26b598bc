"""The strict pass over the text of a .changes, a .dsc, a .buildinfo and a control file.

Rules (Debian Policy 5.1, made stricter): UTF-8; no control character but newline and tab; exactly one stanza; no field
twice, whatever its case; no comment; no line of blanks only, which some parsers take for the end of the stanza. What
passes here reads the same to every parser, and no value can open a second stanza in an index.

python-debian takes the last of two equal fields and splits a line at a lone carriage return (measured), so it never
sees text that has not passed here.
"""

import re
import unicodedata
from collections.abc import Iterator

from incomingd import rules
from incomingd.model import Fields, Problem, plain

#: A name of printable ASCII without a colon that begins with neither # nor - (Debian Policy 5.1), then its value.
_FIELD = re.compile(r"([!\"$-,.-9;-~][!-9;-~]{0,99}):(.*)", re.ASCII | re.DOTALL)
#: C0 but newline and tab, DEL, C1, and the two characters by which Unicode parts lines and paragraphs.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_MAX_LINE, _MAX_FIELDS = 64 << 10, 1000
#: Text that breaks the syntax in more places is something else altogether.
_MAX_PROBLEMS = 10


class Stanza:
    """The fields of one stanza, to be asked by name whatever its case."""

    __slots__ = ("_values", "fields")

    def __init__(self, fields: Fields) -> None:
        self.fields = fields
        self._values = {name.lower(): value for name, value in fields}

    def get(self, name: str) -> str:
        """The field's value, empty where it is not there."""
        return self._values.get(name.lower(), "")

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._values

    def lines(self, name: str) -> list[str]:
        """The lines of a multi-line field that are not empty, without the blanks around them."""
        return [line.strip() for line in self.get(name).split("\n") if line.strip()]

    def words(self, name: str) -> tuple[str, ...]:
        """The words of a field, parted by blanks and line ends."""
        return tuple(self.get(name).split())


def parse(raw: bytes, file: str, *, max_line: int = _MAX_LINE) -> tuple[Stanza | None, list[Problem]]:
    """The one stanza in ``raw``, or None, and all that is wrong with it. ``file`` is named in the problems.

    The caller has limited the size of ``raw``.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        number = raw.count(b"\n", 0, error.start) + 1
        found = f"line {number} has the byte 0x{raw[error.start]:02x}, which is not UTF-8"
        return None, [rules.NOT_UTF8.problem(found, file=file)]
    problems = _characters(text, file)
    if problems:
        return None, problems
    text = text.strip("\n")
    if not text:
        return None, [rules.NOT_ONE_STANZA.problem("there is no field at all", file=file)]
    reader = _Reader(file, max_line)
    for number, line in enumerate(text.split("\n"), 1):
        if not reader.take(number, line):
            break
    problems = reader.problems + list(_repeated(reader.fields, file))
    return (None if problems else Stanza(reader.result())), problems


def _characters(text: str, file: str) -> list[Problem]:
    problems = []
    if "\r\n" in text:
        problems.append(rules.CRLF.problem("lines end with carriage return and newline", file=file))
        text = text.replace("\r\n", "\n")
    found = _CONTROL.search(text)
    if found is not None:
        line = text.count("\n", 0, found.start()) + 1
        name = unicodedata.name(found[0], f"U+{ord(found[0]):04X}")
        problems.append(rules.CONTROL_CHARACTER.problem(f"line {line} has the control character {name}", file=file))
    return problems


class _Reader:
    """Takes lines into fields, and notes what is wrong with them."""

    def __init__(self, file: str, max_line: int) -> None:
        self.file = file
        self._max_line = max_line
        self.fields: list[tuple[str, list[str]]] = []
        self.problems: list[Problem] = []

    def result(self) -> Fields:
        return tuple((name, "\n".join(lines)) for name, lines in self.fields)

    def take(self, number: int, line: str) -> bool:
        """Take one line; False where the rest need not be read."""
        if not line:
            self._wrong(rules.NOT_ONE_STANZA, f"line {number} is empty, and a second stanza follows")
            return False
        if len(line) > self._max_line:
            found = f"line {number} has {len(line)} characters, and {self._max_line} are allowed"
            self._wrong(rules.TEXT_LIMIT, found)
        elif not line.strip():
            self._wrong(rules.BAD_SYNTAX, f'line {number} has blanks only; an empty line in a field is " ."')
        elif line[0] in " \t":
            self._continue(number, line.rstrip(" \t"))
        else:
            self._field(number, line)
        return len(self.problems) < _MAX_PROBLEMS and len(self.fields) <= _MAX_FIELDS

    def _continue(self, number: int, line: str) -> None:
        if self.fields:
            self.fields[-1][1].append(line)
        else:
            self._wrong(rules.BAD_SYNTAX, f"line {number} begins with a blank, and there is no field before it")

    def _field(self, number: int, line: str) -> None:
        match = _FIELD.fullmatch(line)
        if match is None:
            self._wrong(rules.BAD_SYNTAX, f'line {number} is no field: "{plain(line[:60])}"')
            return
        self.fields.append((match[1], [match[2].strip(" \t")]))
        if len(self.fields) > _MAX_FIELDS:
            self._wrong(rules.TEXT_LIMIT, f"there are more than {_MAX_FIELDS} fields")

    def _wrong(self, rule: rules.Rule, found: str) -> None:
        self.problems.append(rule.problem(found, file=self.file))


def _repeated(fields: list[tuple[str, list[str]]], file: str) -> Iterator[Problem]:
    seen: set[str] = set()
    told: set[str] = set()
    for name, _ in fields:
        key = name.lower()
        if key in seen and key not in told and len(told) < _MAX_PROBLEMS:
            told.add(key)
            yield rules.REPEATED_FIELD.problem(f"the field {plain(name)} stands twice", file=file)
        seen.add(key)


def missing(stanza: Stanza, names: tuple[str, ...], file: str) -> Iterator[Problem]:
    """A problem for each of the fields that is not there or is empty."""
    for name in names:
        if not stanza.get(name).strip():
            yield rules.MISSING_FIELD.problem(f"the field {name} is missing or empty", file=file)
