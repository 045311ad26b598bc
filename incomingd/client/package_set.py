"""What ``incomingctl submit`` sends: files, and the .changes that list them, as dpkg-genchanges and debsign make them.

A .changes that is given goes with all that it lists. Packages without one get one for each source version among them:

* A package is sent under the name that its control file gives it, Package_Version_Architecture, whatever it is called.
* Section and Priority are those of the package; if it has none, or none of one word, the defaults of the archive.
* Maintainer is that of the package; if that is no address, the user id of the key that signs, else $DEBEMAIL, $EMAIL.

Nothing that is given is changed: what is written or signed is written into a folder of the set's own.
"""

from __future__ import annotations

import filecmp
import getpass
import hashlib
import os
import re
import shutil
import socket
import subprocess
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import format_datetime
from functools import cached_property
from pathlib import Path
from typing import Dict, Iterable, List, Sequence, Tuple

from incomingd.client.control import SIGNED, Stanza, control_file, stanza_of, write
from incomingd.client.errors import PackageError, UsageError
from incomingd.client.text import FILE_NAME, plain, without_epoch

BINARIES = (".deb", ".udeb", ".ddeb")
_GIVEN = (".changes", *BINARIES, ".dsc", ".buildinfo")
_DIGESTS = (("Checksums-Sha1", "sha1"), ("Checksums-Sha256", "sha256"))

#: What a package that says nothing of these is listed with.
_SECTION, _PRIORITY = "misc", "optional"
#: A name with an address, or an address alone (Debian Policy 5.6.2).
_ADDRESS = re.compile(r"[^<>\n]*<[^<>@\s]+@[^<>@\s]+>|[^<>@\s]+@[^<>@\s]+")


@dataclass(frozen=True)
class PackageSet:
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

    def sign(self, text: bytes) -> bytes:
        """``text``, clear-signed. Raises :class:`PackageError`."""
        # Not --default-key: gpg would take another key if it has no such one.
        done = self._gpg(["--status-fd", "2", "--local-user", self._key, "--clearsign"], text)
        if done.returncode or not done.stdout or b"[GNUPG:] SIG_CREATED " not in done.stderr:
            said = [line for line in done.stderr.decode(errors="replace").splitlines() if line.startswith("gpg: ")]
            why = plain(said[-1].rpartition(": ")[2]) if said else "it has no such secret key"
            raise PackageError(f"gpg cannot sign with {plain(self._key)}: {why}")
        return done.stdout

    def address(self) -> str:
        """The first user id of the key that is an address; empty if it has none."""
        listed = self._gpg(["--with-colons", "--list-secret-keys", self._key], b"").stdout
        records = (line.split(":") for line in listed.decode(errors="replace").splitlines())
        users = (_unescaped(record[9]) for record in records if record[0] == "uid")
        return next((user for user in users if _ADDRESS.fullmatch(user)), "")

    def _gpg(self, options: List[str], given: bytes) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(
                ["gpg", "--batch", "--quiet", *options],
                input=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, "LC_ALL": "C.UTF-8"},
                check=False,
            )
        except FileNotFoundError as error:
            raise PackageError("gpg is not installed; install Debian's package gnupg") from error


def _unescaped(user: str) -> str:
    r"""A user id of gpg's ``--with-colons``, which has ``:`` and others as ``\x3a``."""
    return re.sub(r"\\x([0-9a-f]{2})", lambda match: chr(int(match[1], 16)), user)


def pack(given: Sequence[Path], suite: str | None, signer: Signer | None, folder: Path) -> PackageSet:
    """The set of these files, or of what is in one directory. ``folder`` is empty, and takes what has to be made."""
    files = _chosen(given)
    changes = [file for file in files if file.suffix == ".changes"]
    if changes:
        if suite is not None:
            raise UsageError("--suite is for packages without a .changes; this one says itself where it is to go")
        listed = dict.fromkeys(file for one in changes for file in _listed(one))
        _check_names((*changes, *listed))
        written = [_signed_copy(one, signer, folder) for one in changes]
    else:
        if suite is None:
            raise UsageError("there is no .changes; name the suite that the packages are for with --suite")
        sources = [_signed_copy(file, signer, folder) for file in files if file.suffix == ".dsc"]
        others = [
            _well_named(file, folder) if file.suffix in BINARIES else file for file in files if file.suffix != ".dsc"
        ]
        beside = [one for file in files if file.suffix == ".dsc" for one in _listed(file)]
        listed = dict.fromkeys((*others, *beside, *sources))
        _check_names(listed)
        groups = _groups(list(listed), _Sender(signer))
        for file in listed.keys() - {file for group in groups for file, _, _ in group.files}:
            raise PackageError(f"{file}: belongs to none of the packages; leave it out, or name its package too")
        written = [_write(group, suite, signer, folder) for group in groups]
    whole = _each_once((*(file for file in listed if file not in changes), *written))
    return PackageSet(files=whole, stem=written[0].stem)


def _chosen(given: Sequence[Path]) -> list[Path]:
    """The files that were named; of a directory its .changes, or else its packages."""
    files: dict[Path, None] = {}
    for path in given:
        _check_links([path, *path.absolute().parents])
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix in _GIVEN)
            found = [file for file in inside if file.suffix == ".changes"] or inside
            if not found:
                raise PackageError(f"{path}: holds no .changes and no packages; build them first")
            files.update(dict.fromkeys(found))
        elif path.suffix in _GIVEN:
            files[path] = None
        else:
            raise PackageError(f"{path}: is none of {', '.join(_GIVEN)}; what a .changes or .dsc lists goes with it")
    for file in files:
        if not file.is_file():  # opening a FIFO would wait for a writer
            raise PackageError(f"{file}: is not a regular file; remove it, or name the files that are to be sent")
    _check_links(files)
    if any(file.suffix == ".changes" for file in files):
        return list(files)
    if all(file.suffix == ".buildinfo" for file in files):
        raise PackageError("there is no package among the files; name a .changes, .deb or .dsc")
    return list(files)


def _listed(file: Path) -> List[Path]:
    """The files that a .changes or a .dsc lists, beside it. An orig that is not there may be in the archive."""
    names = [row[-1] for row in _text(file).rows("Files")]
    if not names:
        raise PackageError(f"{file}: lists no files; is it whole?")
    found = [file.parent / Path(name).name for name in names]
    missing = [path for path in found if not path.is_file() and ".orig" not in path.name]
    if missing:
        raise PackageError(f"{file}: lists {missing[0].name}, which is not beside it; build again, or copy it there")
    there = [path for path in found if path.is_file()]
    _check_links(there)
    return there


def _check_names(files: Iterable[Path]) -> None:
    """Raises :class:`PackageError` for a name that the daemon would refuse.

    Names are also written into a .changes and passed to sftp and rsync, which could read more than a name in them.
    """
    for file in files:
        if not FILE_NAME.fullmatch(file.name):
            raise PackageError(
                f"{file}: its name is not one that an upload's file can have: a letter or digit, then at most 254 "
                "letters, digits and . + ~ _ -; rename it, and build the .changes again"
            )


def _check_links(files: Iterable[Path]) -> None:
    """Raises :class:`PackageError` for a link by which another account would have one of the caller's files sent.

    A link counts if it belongs to the caller, to root, or to the account whose file it leads to.
    """
    for file in files:
        link = file.lstat()
        if link.st_uid not in (os.geteuid(), 0, file.stat().st_uid):
            raise PackageError(
                f"{file}: is a link that uid {link.st_uid} has made to a file of another account; if it is the one "
                "that you mean, copy it there"
            )


def _signed_copy(file: Path, signer: Signer | None, folder: Path) -> Path:
    """``file`` itself if it is signed already, or is to stay unsigned."""
    text = file.read_bytes()
    if signer is None or text.startswith(SIGNED):
        return file
    return _written(folder / file.name, signer.sign(text), "two files of that name are to be signed; send them apart")


def _written(file: Path, data: bytes, taken: str) -> Path:
    """A new file. ``taken`` says what is wrong if its name is in use."""
    try:
        with file.open("xb") as new:
            new.write(data)
    except FileExistsError as error:
        raise PackageError(f"{file.name}: {taken}") from error
    return file


def _each_once(files: Iterable[Path]) -> tuple[Path, ...]:
    """One file of each name: two .changes may list the same orig tarball."""
    seen: dict[str, Path] = {}
    for file in files:
        other = seen.setdefault(file.name, file)
        if other != file and not filecmp.cmp(file, other, shallow=False):
            raise PackageError(f"{file} and {other} have the same name and other content; send them apart")
    return tuple(seen.values())


# -- writing a .changes -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Group:
    """The files of one source package in one version, each with the section and priority that Files lists."""

    source: str
    version: str
    maintainer: str
    architectures: tuple[str, ...]
    binaries: tuple[Stanza, ...]
    files: tuple[tuple[Path, str, str], ...]


def _groups(files: list[Path], sender: _Sender) -> list[_Group]:
    """By source and version, in the order in which they were given."""
    controls = {file: _control(file) for file in files if file.suffix in BINARIES}
    sources = {file: _whole(file, _text(file)) for file in files if file.suffix == ".dsc"}
    keys = {file: source_of(control) for file, control in controls.items()}
    keys.update({file: (dsc.field("Source"), dsc.field("Version")) for file, dsc in sources.items()})
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
                architectures=(*(["source"] if dsc else []), *dict.fromkeys(deb.field("Architecture") for deb in debs)),
                binaries=tuple(debs),
                files=tuple((file, *_place(file, controls, dsc)) for file in mine),
            )
        )
    return groups


def _control(file: Path) -> Stanza:
    text = control_file(file)
    try:
        return _whole(file, stanza_of(text))
    except ValueError as error:
        raise PackageError(f"{file}: its control file cannot be read: {plain(error)}; build it again") from error


def _text(file: Path) -> Stanza:
    """The stanza of a .changes or .dsc."""
    try:
        return stanza_of(file.read_bytes())
    except ValueError as error:
        raise PackageError(f"{file}: cannot be read: {plain(error)}; build it again") from error


def _well_named(file: Path, folder: Path) -> Path:
    """The package under the name that its control file gives it: itself, or a second name or a copy in ``folder``."""
    control = _control(file)
    name = f"{control.field('Package')}_{without_epoch(control.field('Version'))}_{control.field('Architecture')}"
    name += file.suffix
    if name == file.name:
        return file
    if not FILE_NAME.fullmatch(name):
        raise PackageError(f"{file}: its control file names it {plain(name)}, which is no file name; build it again")
    named = folder / name
    if named.exists():
        raise PackageError(f"{file}: another package that is given has its name and version; send them apart")
    try:
        os.link(file.resolve(), named)
    except OSError:  # another file system, or one without links
        shutil.copyfile(file, named)
    return named


def _whole(file: Path, stanza: Stanza) -> Stanza:
    """``stanza``, if it has what its .changes needs."""
    needed = ("Source" if file.suffix == ".dsc" else "Package", "Version", "Architecture")
    missing = [field for field in needed if not stanza.field(field)]
    if missing:
        raise PackageError(f"{file}: has no {missing[0]}; build it again")
    return stanza


def source_of(control: Stanza) -> Tuple[str, str]:
    """The source package of a binary, and its version (Debian Policy 5.6.1)."""
    source, _, version = (control.field("Source") or control.field("Package")).partition(" ")
    return source, version.strip(" ()") or control.field("Version")


def _is_part(file: Path, source: str, version: str, sources: Dict[Path, Stanza]) -> bool:
    """True for a file of that source package besides its .dsc, and for its .buildinfo."""
    if file.suffix == ".buildinfo":
        return file.name.startswith(f"{source}_{without_epoch(version)}_")
    return any(
        file.name in (row[-1] for row in dsc.rows("Files"))
        for dsc in sources.values()
        if (dsc.field("Source"), dsc.field("Version")) == (source, version)
    )


def _place(file: Path, controls: Dict[Path, Stanza], dsc: Sequence[Stanza]) -> tuple[str, str]:
    """Section and priority, as Files has them; those of a source package are those of its first binary."""
    if file in controls:
        return _word(controls[file].field("Section"), _SECTION), _word(controls[file].field("Priority"), _PRIORITY)
    for row in dsc[0].rows("Package-List") if dsc else []:
        if len(row) > 3:
            return row[2], row[3]
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


def _maintainer(stanza: Stanza, sender: _Sender) -> str:
    own = stanza.field("Maintainer")
    return own if _ADDRESS.fullmatch(own) else sender.address


def _write(group: _Group, suite: str, signer: Signer | None, folder: Path) -> Path:
    """The .changes of a group (deb-changes(5)), with the name that dpkg-genchanges would give it."""
    suffix = next((word for word in group.architectures if word != "source"), "source")
    name = f"{group.source}_{without_epoch(group.version)}_{suffix}.changes"
    if not FILE_NAME.fullmatch(name):  # it comes from the package, and could lead out of the folder
        raise PackageError(f"{plain(group.source)}: its .changes would be {plain(name)}, which is no file name")
    text = write(_changes(group, suite))
    return _written(
        folder / name,
        signer.sign(text) if signer else text,
        f"two versions of {group.source} that are given differ in nothing but their epoch; send them apart",
    )


def _changes(group: _Group, suite: str) -> OrderedDict[str, str]:
    names = dict.fromkeys(control.field("Package") for control in group.binaries)
    stanza: OrderedDict[str, str] = OrderedDict()
    stanza["Format"] = "1.8"
    stanza["Date"] = format_datetime(datetime.now(timezone.utc))
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


def _described(control: Stanza) -> str:
    return f"{control.field('Package')} - {control.get('description', '').partition(chr(10))[0]}"


def _digest(file: Path, algorithm: str) -> str:
    found = hashlib.new(algorithm)
    with file.open("rb") as data:
        while chunk := data.read(1 << 20):
            found.update(chunk)
    return found.hexdigest()
