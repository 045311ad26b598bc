"""Control data as a sender needs it: the first stanza of a text (deb822(5)), and a package's control file (deb(5)).

Read leniently: the daemon checks. ``ValueError`` says what is no stanza.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile
from collections import OrderedDict
from pathlib import Path
from typing import Dict, Iterator, List

from incomingd.client.errors import PackageError
from incomingd.client.text import plain, without_prefix

SIGNED = b"-----BEGIN PGP SIGNED MESSAGE-----"
_SIGNATURE = "-----BEGIN PGP SIGNATURE-----"
_FIELD = re.compile(r"(?P<name>[!-9;-~]+)[ \t]*:[ \t]*(?P<value>.*)", re.ASCII)
_AR, _AR_HEADER = b"!<arch>\n", 60


class Stanza(Dict[str, str]):
    """Fields by their names in small letters. Lines after the first of a value begin with their blank."""

    def field(self, name: str) -> str:
        """A value without blanks around it; empty if there is none."""
        return self.get(name.lower(), "").strip()

    def rows(self, name: str) -> List[List[str]]:
        """The lines of a field that is a table, each as its columns."""
        return [line.split() for line in self.get(name.lower(), "").split("\n") if line.strip()]


def stanza_of(data: bytes) -> Stanza:
    """The first stanza of a text, signed or not."""
    found = Stanza()
    name = ""
    for line in _lines(data):
        if not line.strip():
            if found:
                break
        elif line[0] in " \t":
            if not name:
                raise ValueError(f"its first line is no field: {plain(line)}")
            found[name] += f"\n{line}"
        elif not line.startswith("#"):
            match = _FIELD.fullmatch(line)
            if match is None:
                raise ValueError(f"this line is no field: {plain(line)}")
            name = match["name"].lower()
            found[name] = match["value"].rstrip()
    return found


def _lines(data: bytes) -> Iterator[str]:
    lines = data.decode("utf-8-sig", "surrogateescape").replace("\r\n", "\n").split("\n")
    if not data.startswith(SIGNED):
        yield from lines
        return
    inside = lines[lines.index("") + 1 :] if "" in lines else []
    for line in inside:
        if line.startswith(_SIGNATURE):
            return
        yield without_prefix(line, "- ")


def write(fields: OrderedDict[str, str]) -> bytes:
    """A stanza's text. A value that begins with a newline has all its lines below the name."""
    text = "".join(f"{name}:{value if value.startswith(chr(10)) else ' ' + value}\n" for name, value in fields.items())
    return text.encode("utf-8", "surrogateescape")


# -- the control file of a package ------------------------------------------------------------------------------------


def control_file(file: Path) -> bytes:
    """The control file of a package: by dpkg-deb if it is installed, since it reads whatever dpkg installs."""
    if shutil.which("dpkg-deb"):
        command = ["dpkg-deb", "--info", str(file.absolute()), "control"]
        answer = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        if answer.returncode == 0:
            return answer.stdout
        raise PackageError(f"{file}: is no Debian package that dpkg-deb can read: {_last_line(answer.stderr)}")
    try:
        return _control_in(file)
    except (OSError, EOFError, ValueError, KeyError, tarfile.TarError) as error:
        raise PackageError(f"{file}: is no Debian package that can be read ({plain(error)}); build it again") from error


def _control_in(file: Path) -> bytes:
    for name, data in _ar_members(file):
        if name.startswith("control.tar"):
            with tarfile.open(fileobj=io.BytesIO(_unpacked(name, data))) as tar:
                for member in tar:
                    if member.name in ("control", "./control") and member.isreg():
                        content = tar.extractfile(member)
                        return content.read() if content else b""
            raise ValueError(f"{name} holds no control file")
    raise ValueError("it has no control.tar")


def _ar_members(file: Path) -> Iterator[tuple[str, bytes]]:
    with file.open("rb") as ar:
        if ar.read(len(_AR)) != _AR:
            raise ValueError("it is no ar archive")
        while True:
            header = ar.read(_AR_HEADER)
            if len(header) < _AR_HEADER:
                return
            size = int(header[48:58])
            name = header[:16].decode("ascii", "replace").rstrip().rstrip("/")
            if name.startswith("data.tar"):
                return  # control is before it, and nothing behind it is needed
            yield name, ar.read(size)
            if size % 2:
                ar.read(1)


def _unpacked(name: str, data: bytes) -> bytes:
    """What tarfile reads by itself stays as it is."""
    if not name.endswith(".zst"):
        return data
    if not shutil.which("zstd"):
        raise ValueError("it is packed with zstd; install zstd or dpkg")
    done = subprocess.run(["zstd", "-dc"], input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    if done.returncode:
        raise ValueError(f"zstd: {_last_line(done.stderr)}")
    return done.stdout


def _last_line(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return plain(without_prefix(lines[-1], "dpkg-deb: error: ")) if lines else "it does not say why"
