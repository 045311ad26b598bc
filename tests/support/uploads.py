"""Uploads, in one line each: a folder with packages and their signed .changes, and the ways in which it is sent.

::

    builds = Builder(folder, keys, key)
    builds.upload("hello", "1.0-1", source="quilt").send_directory(instance.incoming)
"""

import hashlib
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from debian.deb822 import Dsc
from debian.debfile import DebFile

from tests.support import packages
from tests.support.keys import Keys

_DIGESTS = (("Checksums-Sha1", "sha1"), ("Checksums-Sha256", "sha256"))
_BINARIES = (".deb", ".udeb", ".ddeb")


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A folder that holds one upload. ``name`` is what it is known by when the whole folder is sent."""

    folder: Path
    changes: Path
    name: str

    @property
    def files(self) -> list[Path]:
        """All of them, the .changes last, as dput sends it."""
        return sorted(self.folder.iterdir(), key=lambda file: (file.suffix == ".changes", file.name))

    @property
    def flat_name(self) -> str:
        """What it is known by when it is sent flat."""
        return self.changes.stem

    def file(self, pattern: str) -> Path:
        """The one file of that pattern."""
        (found,) = self.folder.glob(pattern)
        return found

    def send_directory(self, incoming: Path, name: str = "") -> str:
        """Copy it there under a hidden name, then rename it in; its name."""
        name = name or self.name
        hidden = incoming / f".{name}"
        shutil.copytree(self.folder, hidden, symlinks=True)
        hidden.rename(incoming / name)
        return name

    def send_in_place(self, incoming: Path, name: str = "", *, between: Callable[[], None] = lambda: None) -> str:
        """Write it there file by file; ``between`` runs before each. Its name."""
        name = name or self.name
        (incoming / name).mkdir()
        self._write(incoming / name, between)
        return name

    def send_flat(self, incoming: Path, *, between: Callable[[], None] = lambda: None) -> str:
        """Write its files into incoming itself, the .changes last; its name."""
        self._write(incoming, between)
        return self.flat_name

    def _write(self, target: Path, between: Callable[[], None]) -> None:
        for file in self.files:
            between()
            shutil.copy(file, target / file.name, follow_symlinks=False)


@dataclass(frozen=True, kw_only=True)
class Builder:
    """Makes uploads in folders below ``folder``, signed with ``key`` of ``keys``."""

    folder: Path
    keys: Keys
    key: str

    def upload(
        self,
        name: str = "hello",
        version: str = "1.0-1",
        *,
        binaries: Sequence[str] | None = None,
        architectures: Sequence[str] = ("amd64",),
        source: str = "",
        buildinfo: bool = False,
        distribution: str = "stable",
        content: str = "",
        fields: Mapping[str, str | None] | None = None,
        edit: Callable[[str], str] = lambda text: text,
        key: str | None = "",
        upload_name: str = "",
    ) -> Upload:
        """One upload.

        ``binaries`` are package names, ``name`` alone by default, ``()`` for none; ``source`` is ``"native"``,
        ``"quilt"`` or empty for none; ``edit`` changes the .changes before it is signed; ``key`` is another key to
        sign with, or ``None`` for none.
        """
        upload_name = upload_name or f"{name}-{packages.in_file_name(version)}"
        folder = self.folder / upload_name
        folder.mkdir(parents=True)
        of = None if binaries is None else name
        files = [
            packages.binary(
                folder, one, version, architecture, source=of if one != name else None, content=content, fields=fields
            )
            for one in ((name,) if binaries is None else binaries)
            for architecture in architectures
        ]
        if source:
            files += packages.source(
                folder, name, version, binaries=tuple(binaries or ()), form=source, content=content
            )
        if buildinfo:
            files.append(packages.buildinfo(folder, name, version, architectures[0]))
        return self.sign(folder, files, distribution=distribution, edit=edit, key=key, upload_name=upload_name)

    def sign(
        self,
        folder: Path,
        files: Iterable[Path],
        *,
        distribution: str = "stable",
        edit: Callable[[str], str] = lambda text: text,
        key: str | None = "",
        upload_name: str = "",
    ) -> Upload:
        """The upload of files that are in ``folder`` already: signed as by debsign, the .dsc first.

        A .dsc that has a signature keeps it.
        """
        files = list(files)
        for dsc in (file for file in files if file.suffix == ".dsc" and key is not None):
            if not dsc.read_bytes().startswith(b"-----BEGIN"):
                dsc.write_bytes(self.keys.sign(dsc.read_bytes(), key or self.key))
        text, stem = changes_text(files, distribution)
        text = edit(text)
        changes = folder / f"{stem}.changes"
        changes.write_bytes(text.encode() if key is None else self.keys.sign(text, key or self.key))
        return Upload(folder=folder, changes=changes, name=upload_name or folder.name)


def changes_text(files: Sequence[Path], distribution: str = "stable") -> tuple[str, str]:
    """The .changes of packages as dpkg-genchanges writes it (deb-changes(5)), and its name without the ending."""
    debs = [file for file in files if file.suffix in _BINARIES]
    dscs = [file for file in files if file.suffix == ".dsc"]
    controls = {deb: DebFile(str(deb)).debcontrol() for deb in debs}
    if dscs:
        dsc = Dsc(dscs[0].read_bytes())
        source, version, maintainer = dsc["Source"], dsc["Version"], dsc["Maintainer"]
    else:
        first = controls[debs[0]]
        source, _, rest = first.get("Source", first["Package"]).partition(" ")
        version, maintainer = rest.strip("()") or first["Version"], first["Maintainer"]
    architectures = [*(["source"] if dscs else []), *dict.fromkeys(c["Architecture"] for c in controls.values())]
    binary = list(dict.fromkeys(control["Package"] for control in controls.values()))
    head: dict[str, str] = {
        "Format": "1.8",
        "Date": packages.DATE,
        "Source": source,
        **({"Binary": " ".join(binary)} if binary else {}),
        "Architecture": " ".join(architectures),
        "Version": version,
        "Distribution": distribution,
        "Urgency": "medium",
        "Maintainer": maintainer,
        "Changed-By": maintainer,
    }
    lines = [f"{name}: {value}" for name, value in head.items()]
    if binary:
        lines += ["Description:", *dict.fromkeys(_described(control) for control in controls.values())]
    lines += ["Changes:", f" {source} ({version}) {distribution}; urgency=medium", " .", "   * Built."]
    for field, algorithm in _DIGESTS:
        lines += [f"{field}:", *(f" {_digest(file, algorithm)} {file.stat().st_size} {file.name}" for file in files)]
    lines.append("Files:")
    for file in files:
        control = controls.get(file, {})
        section, priority = control.get("Section", "utils"), control.get("Priority", "optional")
        lines.append(f" {_digest(file, 'md5')} {file.stat().st_size} {section} {priority} {file.name}")
    suffix = "source" if architectures == ["source"] else next(a for a in architectures if a != "source")
    return "\n".join(lines) + "\n", f"{source}_{packages.in_file_name(version)}_{suffix}"


def _described(control: Mapping[str, str]) -> str:
    return f" {control['Package']:<10} - {control['Description'].splitlines()[0]}"


def _digest(file: Path, algorithm: str) -> str:
    return hashlib.new(algorithm, file.read_bytes()).hexdigest()
