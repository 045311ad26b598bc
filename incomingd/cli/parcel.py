"""What ``incomingctl submit`` sends: files, and the .changes that list them, as dpkg-genchanges and debsign make them.

A .changes that is given goes with all that it lists. Packages without one get one for each source version among them:

* A package is sent under the name that its control file gives it, Package_Version_Architecture, whatever it is called.
* Section and Priority are those of the package; if it has none, or none of one word, the defaults of the archive.
* Maintainer is that of the package; if that is no address, the user id of the key that signs, else $DEBEMAIL, $EMAIL.

Nothing that is given is changed: what is written or signed is written into a folder of the parcel's own.
"""

import filecmp
import getpass
import hashlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import click
import gnupg
from debian.deb822 import Changes, Deb822, Dsc
from debian.debfile import DebFile

from incomingd import fsio
from incomingd.model import FILE_NAME, plain, without_epoch

BINARIES = (".deb", ".udeb", ".ddeb")
_GIVEN = (".changes", *BINARIES, ".dsc", ".buildinfo")
_SIGNED = b"-----BEGIN PGP SIGNED MESSAGE-----"
_DIGESTS = (("Checksums-Sha1", "sha1"), ("Checksums-Sha256", "sha256"))

_S = TypeVar("_S", bound=Deb822)
#: What a package that says nothing of these is listed with.
_SECTION, _PRIORITY = "misc", "optional"
#: A name with an address, or an address alone (Debian Policy 5.6.2).
_ADDRESS = re.compile(r"[^<>\n]*<[^<>@\s]+@[^<>@\s]+>|[^<>@\s]+@[^<>@\s]+")


class ParcelError(click.ClickException):
    """What was given cannot be sent; says what was found and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """One upload: its files, the .changes last, and a name for it that says what it is."""

    files: tuple[Path, ...]
    stem: str

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(file.stat().st_size for file in self.files)


class Signer:
    """Signs with ``key`` of the caller's own keyring; gpg's agent may ask for a passphrase."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._gpg = gnupg.GPG()

    def sign(self, text: bytes) -> bytes:
        """``text``, clear-signed. Raises :class:`ParcelError`."""
        # Not keyid: gpg takes that as a default, and another key if it has no such one.
        signed = self._gpg.sign(text, clearsign=True, extra_args=["--local-user", self._key])
        if not signed.data or not signed.fingerprint:
            raise ParcelError(
                f"gpg cannot sign with {plain(self._key)}: {signed.status or 'it has no such secret key'}"
            )
        return bytes(signed.data)

    def address(self) -> str:
        """The first user id of the key that is an address; empty if it has none."""
        found = (user for key in self._gpg.list_keys(True, keys=[self._key]) for user in key["uids"])
        return next((user for user in found if _ADDRESS.fullmatch(user)), "")


def pack(given: Sequence[Path], suite: str | None, signer: Signer | None, folder: Path) -> Parcel:
    """The parcel of these files, or of what is in one directory. ``folder`` is empty, and takes what has to be made."""
    files = _chosen(given)
    changes = [file for file in files if file.suffix == ".changes"]
    if changes:
        if suite is not None:
            raise click.UsageError("--suite is for packages without a .changes; this one says itself where it is to go")
        listed = dict.fromkeys(file for one in changes for file in _listed(one, Changes(one.read_bytes())))
        written = [_signed_copy(one, signer, folder) for one in changes]
    else:
        if suite is None:
            raise click.UsageError("there is no .changes; name the suite that the packages are for with --suite")
        sources = [_signed_copy(file, signer, folder) for file in files if file.suffix == ".dsc"]
        others = [
            _well_named(file, folder) if file.suffix in BINARIES else file for file in files if file.suffix != ".dsc"
        ]
        beside = [one for file in files if file.suffix == ".dsc" for one in _listed(file, Dsc(file.read_bytes()))]
        listed = dict.fromkeys((*others, *beside, *sources))
        groups = _groups(list(listed), _Sender(signer))
        for file in listed.keys() - {file for group in groups for file, _, _ in group.files}:
            raise ParcelError(f"{file}: belongs to none of the packages; leave it out, or name its package too")
        written = [_write(group, suite, signer, folder) for group in groups]
    whole = _each_once((*(file for file in listed if file not in changes), *written))
    return Parcel(files=whole, stem=written[0].stem)


def _chosen(given: Sequence[Path]) -> list[Path]:
    """The files that were named; of a directory its .changes, or else its packages."""
    files: dict[Path, None] = {}
    for path in given:
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix in _GIVEN)
            found = [file for file in inside if file.suffix == ".changes"] or inside
            if not found:
                raise ParcelError(f"{path}: holds no .changes and no packages; build them first")
            files.update(dict.fromkeys(found))
        elif path.suffix in _GIVEN:
            files[path] = None
        else:
            raise ParcelError(f"{path}: is none of {', '.join(_GIVEN)}; what a .changes or .dsc lists goes with it")
    _check_links(files)
    if any(file.suffix == ".changes" for file in files):
        return list(files)
    if all(file.suffix == ".buildinfo" for file in files):
        raise ParcelError("there is no package among the files; name a .changes, .deb or .dsc")
    return list(files)


def _listed(file: Path, stanza: Deb822) -> list[Path]:
    """The files that a .changes or a .dsc lists, beside it. An orig that is not there may be in the archive."""
    names = [row["name"] for row in stanza.get("Files", [])]
    if not names:
        raise ParcelError(f"{file}: lists no files; is it whole?")
    found = [file.parent / Path(name).name for name in names]
    missing = [path for path in found if not path.is_file() and ".orig" not in path.name]
    if missing:
        raise ParcelError(f"{file}: lists {missing[0].name}, which is not beside it; build again, or copy it there")
    there = [path for path in found if path.is_file()]
    _check_links(there)
    return there


def _check_links(files: Iterable[Path]) -> None:
    """Raises :class:`ParcelError` for a link by which another account would have one of the caller's files sent.

    A link counts if it belongs to the caller, to root, or to the account whose file it leads to.
    """
    for file in files:
        link = file.lstat()
        if link.st_uid not in (os.geteuid(), 0, file.stat().st_uid):
            raise ParcelError(
                f"{file}: is a link that uid {link.st_uid} has made to a file of another account; if it is the one "
                "that you mean, copy it there"
            )


def _signed_copy(file: Path, signer: Signer | None, folder: Path) -> Path:
    """``file`` itself if it is signed already, or is to stay unsigned."""
    text = file.read_bytes()
    if signer is None or text.startswith(_SIGNED):
        return file
    copy = folder / file.name
    copy.write_bytes(signer.sign(text))
    return copy


def _each_once(files: Iterable[Path]) -> tuple[Path, ...]:
    """One file of each name: two .changes may list the same orig tarball."""
    seen: dict[str, Path] = {}
    for file in files:
        other = seen.setdefault(file.name, file)
        if other != file and not filecmp.cmp(file, other, shallow=False):
            raise ParcelError(f"{file} and {other} have the same name and other content; send them apart")
    return tuple(seen.values())


# -- writing a .changes -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """The files of one source package in one version, each with the section and priority that Files lists."""

    source: str
    version: str
    maintainer: str
    architectures: tuple[str, ...]
    binaries: tuple[Deb822, ...]
    files: tuple[tuple[Path, str, str], ...]


def _groups(files: list[Path], sender: "_Sender") -> list[_Group]:
    """By source and version, in the order in which they were given."""
    controls = {file: _control(file) for file in files if file.suffix in BINARIES}
    sources = {file: _stanza(file, Dsc(file.read_bytes())) for file in files if file.suffix == ".dsc"}
    keys = {file: source_of(control) for file, control in controls.items()}
    keys |= {file: (dsc["Source"], dsc["Version"]) for file, dsc in sources.items()}
    groups = []
    for source, version in dict.fromkeys(keys.values()):
        mine = [
            file for file in files if keys.get(file) == (source, version) or _is_part(file, source, version, sources)
        ]
        debs = [controls[file] for file in mine if file in controls]
        dsc = [sources[file] for file in mine if file in sources]
        groups.append(
            _Group(
                source=source,
                version=version,
                maintainer=_maintainer((dsc or debs)[0], sender),
                architectures=(*(["source"] if dsc else []), *dict.fromkeys(deb["Architecture"] for deb in debs)),
                binaries=tuple(debs),
                files=tuple((file, *_place(file, controls, dsc)) for file in mine),
            )
        )
    return groups


def _control(file: Path) -> Deb822:
    text = _control_file(file)
    try:
        return _stanza(file, Deb822(text))
    except ValueError as error:
        raise ParcelError(f"{file}: its control file cannot be read: {plain(error)}; build it again") from error


def _control_file(file: Path) -> bytes:
    """The control file of a package: by dpkg-deb if it is installed, since it reads whatever dpkg installs."""
    if shutil.which("dpkg-deb"):
        answer = subprocess.run(["dpkg-deb", "--info", file.absolute(), "control"], capture_output=True, check=False)
        if answer.returncode == 0:
            return answer.stdout
        raise ParcelError(f"{file}: is no Debian package that dpkg-deb can read: {_last_line(answer.stderr)}")
    try:
        with DebFile(str(file)) as deb:
            content = deb.control.get_content("control")
    except Exception as error:  # of many kinds: of python-debian, tarfile, lzma …
        raise ParcelError(f"{file}: is no Debian package that can be read ({plain(error)}); build it again") from error
    return content.encode() if isinstance(content, str) else bytes(content or b"")


def _last_line(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return plain(lines[-1].removeprefix("dpkg-deb: error: ")) if lines else "it does not say why"


def _well_named(file: Path, folder: Path) -> Path:
    """The package under the name that its control file gives it: itself, or a second name or a copy in ``folder``."""
    control = _control(file)
    name = f"{control['Package']}_{without_epoch(control['Version'])}_{control['Architecture']}{file.suffix}"
    if name == file.name:
        return file
    if not FILE_NAME.fullmatch(name):
        raise ParcelError(f"{file}: its control file names it {plain(name)}, which is no file name; build it again")
    named = folder / name
    if named.exists():
        raise ParcelError(f"{file}: another package that is given has its name and version; send them apart")
    try:
        fsio.link(file.resolve(), named)
    except OSError:  # another file system, or one without links
        shutil.copyfile(file, named)
    return named


def _stanza(file: Path, stanza: _S) -> _S:
    """``stanza``, where it has what its .changes needs."""
    needed = ("Source" if file.suffix == ".dsc" else "Package", "Version", "Architecture")
    missing = [field for field in needed if not stanza.get(field, "").strip()]
    if missing:
        raise ParcelError(f"{file}: has no {missing[0]}; build it again")
    return stanza


def source_of(control: Deb822) -> tuple[str, str]:
    """The source package of a binary, and its version (Debian Policy 5.6.1)."""
    source, _, version = control.get("Source", control["Package"]).partition(" ")
    return source, version.strip(" ()") or control["Version"]


def _is_part(file: Path, source: str, version: str, sources: dict[Path, Dsc]) -> bool:
    """True for a file of that source package besides its .dsc, and for its .buildinfo."""
    if file.suffix == ".buildinfo":
        return file.name.startswith(f"{source}_{without_epoch(version)}_")
    return any(
        file.name in (row["name"] for row in dsc["Files"])
        for dsc in sources.values()
        if (dsc["Source"], dsc["Version"]) == (source, version)
    )


def _place(file: Path, controls: dict[Path, Deb822], dsc: Sequence[Deb822]) -> tuple[str, str]:
    """Section and priority, as Files has them; those of a source package are those of its first binary."""
    if file in controls:
        return _word(controls[file].get("Section", ""), _SECTION), _word(controls[file].get("Priority", ""), _PRIORITY)
    for row in dsc[0].get("Package-List", []) if dsc else []:
        return row["section"], row["priority"]
    return _SECTION, _PRIORITY


def _word(value: str, default: str) -> str:
    """One column of Files: a value that is not just one word cannot stand there."""
    words = value.split()
    return words[0] if len(words) == 1 else default


class _Sender:
    """Who stands as Maintainer of a .changes, if its packages name no address: looked up once, if at all."""

    def __init__(self, signer: Signer | None) -> None:
        self._signer = signer

    @cached_property
    def address(self) -> str:
        """The signing key's user id, else what devscripts take: $DEBEMAIL or $EMAIL, else the account."""
        signing = self._signer.address() if self._signer else ""
        if signing:
            return signing
        mail = os.environ.get("DEBEMAIL") or os.environ.get("EMAIL") or f"{getpass.getuser()}@{socket.getfqdn()}"
        name = os.environ.get("DEBFULLNAME", "")
        named = f"{name} <{mail}>" if name and "<" not in mail else mail
        return named if _ADDRESS.fullmatch(named) else "incomingctl <incomingctl@localhost>"


def _maintainer(stanza: Deb822, sender: _Sender) -> str:
    own = str(stanza.get("Maintainer", "")).strip()
    return own if _ADDRESS.fullmatch(own) else sender.address


def _write(group: _Group, suite: str, signer: Signer | None, folder: Path) -> Path:
    """The .changes of a group (deb-changes(5)), with the name that dpkg-genchanges would give it."""
    suffix = next((word for word in group.architectures if word != "source"), "source")
    file = folder / f"{group.source}_{without_epoch(group.version)}_{suffix}.changes"
    text = str(_changes(group, suite)).encode()
    file.write_bytes(signer.sign(text) if signer else text)
    return file


def _changes(group: _Group, suite: str) -> Deb822:
    names = dict.fromkeys(control["Package"] for control in group.binaries)
    stanza = Deb822()
    stanza["Format"] = "1.8"
    stanza["Date"] = format_datetime(datetime.now(UTC))
    stanza["Source"] = group.source
    if names:
        stanza["Binary"] = " ".join(names)
    stanza["Architecture"] = " ".join(group.architectures)
    stanza["Version"] = group.version
    stanza["Distribution"] = suite
    stanza["Urgency"] = "medium"
    stanza["Maintainer"] = stanza["Changed-By"] = group.maintainer
    if names:
        stanza["Description"] = _lines(_described(control) for control in group.binaries)
    stanza["Changes"] = _lines(
        (f"{group.source} ({group.version}) {suite}; urgency=medium", ".", "  * Sent with incomingctl submit.")
    )
    for field, algorithm in _DIGESTS:
        stanza[field] = _lines(f"{_digest(f, algorithm)} {f.stat().st_size} {f.name}" for f, _, _ in group.files)
    stanza["Files"] = _lines(
        f"{_digest(file, 'md5')} {file.stat().st_size} {section} {priority} {file.name}"
        for file, section, priority in group.files
    )
    return stanza


def _lines(lines: Iterable[str]) -> str:
    """A field of several lines, none twice."""
    return "".join(f"\n {line}" for line in dict.fromkeys(lines))


def _described(control: Deb822) -> str:
    return f"{control['Package']} - {control.get('Description', '').partition(chr(10))[0]}"


def _digest(file: Path, algorithm: str) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, algorithm).hexdigest()
