"""docs/clients.md, as tests read it: its table, and the settings that it gives."""

import json
import re
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PAGE = Path(__file__).parents[2] / "docs/clients.md"
_README = _PAGE.parents[1] / "README.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One client in one mode, what is typed for it, and which name the upload has then."""

    client: str
    mode: str
    typed: tuple[str, ...]
    name: str

    def __str__(self) -> str:
        return f"{self.client}, {self.mode}" if self.mode else self.client


def table() -> list[Row]:
    """All of it."""
    lines = _PAGE.read_text().partition("| client |")[2].partition("\n\n")[0].splitlines()[2:]
    return [_row(line) for line in lines]


def _row(line: str) -> Row:
    what, how, name = (cell.strip() for cell in line.strip("|").split("|"))
    client, _, mode = what.partition(", ")
    return Row(client=client, mode=mode, typed=tuple(re.findall(r"`([^`]*)`", how)), name=name.strip("`"))


def rows(client: str) -> list[Row]:
    """Those of one client."""
    found = [row for row in table() if row.client == client]
    assert found, f"docs/clients.md has no row for {client}"
    return found


def delayed() -> list[tuple[str, tuple[str, ...]]]:
    """The table of delayed uploads: by which client, and what is typed."""
    lines = _PAGE.read_text().partition("| who delays it |")[2].partition("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [(client, tuple(re.findall(r"`([^`]*)`", how))) for client, how in cells]


def around(client: str) -> list[tuple[str, ...]]:
    """The table of what a client runs before and after an upload: what is set or typed for it."""
    lines = _PAGE.read_text().partition("| what is run |")[2].partition("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [tuple(re.findall(r"`([^`]*)`", how)) for what, how in cells if what.partition(", ")[0] == client]


def ci_job() -> str:
    """What the README has for a CI job, after the build."""
    block = _README.read_text().partition("## Upload from a CI job")[2].partition("```sh\n")[2].partition("```")[0]
    _, build, rest = block.partition("\ndpkg-buildpackage")
    assert build
    return rest.partition("\n")[2]


def making_out() -> str:
    """How ``out/`` is made."""
    found = re.search(r"`(mkdir out && dcmd[^`]*)`", _PAGE.read_text())
    assert found
    return found[1]


def dput_settings() -> dict[str, Any]:
    """What is in ~/.dput.cf."""
    parser = ConfigParser()
    parser.read_string(_block("[archive]"))
    return dict(parser["archive"])


def dput_ng_profile() -> dict[str, Any]:
    """The profile ``archive``."""
    profile: dict[str, Any] = json.loads(_block('{"method"'))
    return profile


def nginx_location() -> str:
    """What takes PUT."""
    return _block("location /incoming/")


def dinstall() -> str:
    """What ``run_dinstall`` calls there."""
    return _block("#!/bin/sh")


def web_host() -> str:
    """How ssh is told of a host that a web server's port is named with."""
    return _block("Host ")


def _block(start: str) -> str:
    """The indented block that begins so."""
    lines = _PAGE.read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith(f"    {start}"))
    block = []
    for line in lines[first:]:
        if not line.startswith("    "):
            break
        block.append(line[4:])
    return "\n".join(block) + "\n"
