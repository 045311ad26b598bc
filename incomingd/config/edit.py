"""Changes single settings in the text of a configuration, as a person would: comments and order stay.

Pure. It knows the forms that ``conf/incomingd.toml`` and ``incomingctl init`` write: a setting on a line of its own,
or a commented line that shows its default. The caller parses the result before it counts.
"""

import json
import re
from collections.abc import Sequence

Value = str | Sequence[str]
_STRING = r'"(?:[^"\\\n]|\\.)*"'
#: A value of one line.
_VALUE = rf"(?:\[(?:{_STRING}|[^\]\"\n])*\]|{_STRING}|[^\s#\[\"]+)"


def toml(value: Value) -> str:
    """A string, or a list of strings, as TOML has it."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return f"[{', '.join(json.dumps(one, ensure_ascii=False) for one in value)}]"


def header(*names: str) -> str:
    """The header of a table: ``[suites.stable]``."""
    bare = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
    return f"[{'.'.join(name if bare.fullmatch(name) else toml(name) for name in names)}]"


def with_value(text: str, table: str, key: str, value: Value) -> str:
    """``text`` with that setting of the table with the header ``table``, which is there or is added at the end.

    The line that has the key gets the value, else the commented one that shows its default; what is behind it stays.
    """
    before, own, after = _table(text, table)
    line = re.compile(rf"^(?:# ?)?{re.escape(key)}[ \t]*=[ \t]*{_VALUE}", re.MULTILINE)
    found = sorted(line.finditer(own), key=lambda match: match[0].startswith("#"))
    setting = f"{key} = {toml(value)}"
    if found:
        start, end = found[0].span()
        # What is behind it stays where it was, as far as there is room.
        behind = own[end:]
        kept = behind.lstrip(" ")
        pad = max(end - start + len(behind) - len(kept) - len(setting), 1) if kept.startswith("#") else 0
        own = own[:start] + setting + " " * pad + (kept if pad else behind)
    else:
        head, _, rest = own.partition("\n")
        own = f"{head}\n{setting}\n{rest}"
    return before + own + after


def with_table(text: str, table: str, after: str) -> str:
    """``text`` with an empty table of that header, behind the one that ``after`` is the header of."""
    if _find(text, table):
        return text
    before, own, rest = _table(text, after)
    return f"{before}{own.rstrip()}\n\n{table}\n\n{rest}" if own else f"{text.rstrip()}\n\n{table}\n"


def renamed(text: str, table: str, to: str) -> str:
    """``text`` with another header in place of that one."""
    match = _find(text, table)
    return text if match is None else f"{text[: match.start()]}{to}{text[match.start() + len(table) :]}"


def _find(text: str, table: str) -> re.Match[str] | None:
    return re.search(rf"^{re.escape(table)}(?=[ \t]*(?:#.*)?$)", text, re.MULTILINE)


def _table(text: str, table: str) -> tuple[str, str, str]:
    """What is before a table, the table from its header on, and what is behind it."""
    match = _find(text, table)
    if match is None:
        return f"{text.rstrip()}\n\n", f"{table}\n", ""
    following = re.compile(r"^(?:# ?)?\[", re.MULTILINE).search(text, match.end())
    end = following.start() if following else len(text)
    return text[: match.start()], text[match.start() : end], text[end:]
