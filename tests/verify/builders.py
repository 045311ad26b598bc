"""Uploads made by the real tools, with one thing altered where a test says so.

An :class:`Upload` is right in everything, unless a field says otherwise. Each of its hooks alters one step of the
making: what comes later is made from what was altered, so that lists and digests fit.
"""

import base64
import gzip
import hashlib
import io
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from incomingd import fsio
from incomingd.config import Config, QueueConfig, reader
from incomingd.model import FILE_NAME, CheckReport, Problem, Seal, without_epoch
from incomingd.verify import files
from incomingd.verify.authorise import Authorisation, authorise
from incomingd.verify.check import check
from incomingd.verify.job import Job
from incomingd.verify.keyring import Keyring
from incomingd.verify.pool import Checkers, Task

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
_MADE = "20260301T110000!"
_LONG_AGO = ("--faked-system-time=20200101T000000",)
#: That clock goes on: a key that took a second to make would be one from the future.
_A_DAY_LATER = ("--faked-system-time=20200102T000000",)
Text = Callable[[str], str]
Bytes = Callable[[bytes], bytes]
#: The members of an ar archive, in order: names and bytes.
Members = list[tuple[str, bytes]]


def same(value: Any) -> Any:
    return value


# -- alterations ------------------------------------------------------------------------------------------------------


def put(name: str, value: str) -> Text:
    """Give a field another value, or add it at the front."""

    def alter(text: str) -> str:
        pattern = re.compile(rf"^{name}:.*\n(?:[ \t].*\n)*", re.M)
        line = f"{name}: {value}\n" if not value.startswith("\n") else f"{name}:{value}\n"
        return pattern.sub(lambda _: line, text) if pattern.search(text) else line + text

    return alter


def drop(*names: str) -> Text:
    """Leave fields out."""

    def alter(text: str) -> str:
        for name in names:
            text = re.sub(rf"^{name}:.*\n(?:[ \t].*\n)*", "", text, flags=re.M)
        return text

    return alter


def swap(old: str, new: str, count: int = -1) -> Text:
    """Replace a piece of text that is there."""

    def alter(text: str) -> str:
        assert old in text, f"{old!r} is not in {text!r}"
        return text.replace(old, new, count)

    return alter


def add(text_or_bytes: Any) -> Callable[[Any], Any]:
    """Put something at the end."""
    return lambda before: before + text_or_bytes


def lead(text_or_bytes: Any) -> Callable[[Any], Any]:
    """Put something at the front."""
    return lambda before: text_or_bytes + before


def every(*steps: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def alter(value: Any) -> Any:
        for step in steps:
            value = step(value)
        return value

    return alter


# -- archives ---------------------------------------------------------------------------------------------------------


def tar(
    *members: tuple[str, bytes | str], mtime: float = 1e9, form: str = "gz", types: Mapping[str, bytes] = {}
) -> bytes:
    """A tarball: files by their bytes, links by where they lead (see ``types``), directories end with a slash."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{form}", format=tarfile.GNU_FORMAT) as out:
        for name, content in members:
            info = tarfile.TarInfo(name.rstrip("/"))
            info.mtime = int(mtime)
            if name.endswith("/"):
                info.type = tarfile.DIRTYPE
                out.addfile(info)
            elif isinstance(content, str):
                info.type, info.linkname = types.get(name, tarfile.SYMTYPE), content
                out.addfile(info)
            else:
                info.type, info.size = types.get(name, tarfile.REGTYPE), len(content)
                out.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def tar_member(
    name: str,
    content: bytes = b"",
    *,
    kind: bytes = b"0",
    size: str = "",
    prefix: bytes = b"",
    hidden: bytes = b"",
    others: Mapping[int, bytes] = {},
) -> bytes:
    """One member of a tar in GNU's format, with what tarfile would not write.

    ``size`` as it is to be spelled; a ``prefix``, which that format has not; a ``kind`` that has no content and is
    followed by ``hidden`` all the same; ``others`` are bytes at their places in the header.
    """
    head = bytearray(512)
    for at, text in (
        *((0, name.encode()), (100, b"0000644\0"), (108, b"0000000\0"), (116, b"0000000\0")),
        *((124, size.encode() or b"%011o\0" % len(content or hidden)), (136, b"%011o\0" % 10**9), (148, b" " * 8)),
        *((156, kind), (257, b"ustar  \0"), (345, prefix), *others.items()),
    ):
        head[at : at + len(text)] = text
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + content + bytes(-len(content) % 512) + hidden


def ar(members: Iterable[tuple[str, bytes]], *, mtime: int = 10**9) -> bytes:
    """An ar archive as dpkg-deb writes it."""
    pieces = [b"!<arch>\n"]
    for name, content in members:
        pieces.append(f"{name:<16}{mtime:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode())
        pieces += [content, b"\n" * (len(content) % 2)]
    return b"".join(pieces)


def ar_parts(deb: bytes) -> Members:
    """The members of a .deb."""
    members, at = [], 8
    while at < len(deb):
        size = int(deb[at + 48 : at + 58])
        members.append((deb[at : at + 16].decode().rstrip(), deb[at + 60 : at + 60 + size]))
        at += 60 + size + size % 2
    return members


def control_tar(members: Members) -> bytes:
    """control.tar of a .deb that :class:`Upload` made, not compressed."""
    return gzip.decompress(members[1][1])


def data_tar() -> bytes:
    """A data.tar, not compressed."""
    return tar(("./", b""), ("./usr/", b""), ("./usr/hello", b"hello\n"), form="")


@cache
def dpkg_deb(control: str, compression: str = "xz") -> bytes:
    """A .deb with that control file, built by dpkg-deb."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "DEBIAN/control").write_text(control)
        (tree / "usr/share/doc/hello").mkdir(parents=True)
        (tree / "usr/share/doc/hello/copyright").write_text("public domain\n")
        command = ["dpkg-deb", "--root-owner-group", f"-Z{compression}", "-b", str(tree), f"{folder}/x.deb"]
        subprocess.run(command, check=True, capture_output=True, env=os.environ | {"SOURCE_DATE_EPOCH": "1000000000"})
        return Path(folder, "x.deb").read_bytes()


@cache
def dpkg_source(source: str, version: str, form: str, *, components: bool = False) -> tuple[tuple[str, bytes], ...]:
    """The .dsc and its files, built by dpkg-source."""
    upstream = without_epoch(version).rpartition("-")[0] or without_epoch(version)
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, f"{source}-{upstream}")
        tree.mkdir()
        (tree / "hello.c").write_text("int main(void) { return 0; }\n")
        if form != "3.0 (native)" and "-" in version:
            orig = tar((f"{source}-{upstream}/hello.c", b"int main(void) { return 0; }\n"))
            Path(folder, f"{source}_{upstream}.orig.tar.gz").write_bytes(orig)
            if components:
                extra = tar(("doc/manual", b"none\n"))
                Path(folder, f"{source}_{upstream}.orig-doc.tar.gz").write_bytes(extra)
                (tree / "doc").mkdir()
                (tree / "doc/manual").write_text("none\n")
        (tree / "debian/source").mkdir(parents=True)
        (tree / "debian/source/format").write_text(form + "\n")
        (tree / "debian/changelog").write_text(
            f"{source} ({version}) stable; urgency=medium\n\n  * New.\n\n"
            " -- Ada Lovelace <ada@example.org>  Sun, 01 Mar 2026 11:00:00 +0000\n"
        )
        (tree / "debian/control").write_text(
            f"Source: {source}\nSection: devel\nPriority: optional\nMaintainer: Ada Lovelace <ada@example.org>\n"
            f"Build-Depends: debhelper (>= 13), gcc [amd64] <!nocheck>\nStandards-Version: 4.6.2\n\n"
            f"Package: {source}\nArchitecture: any\nDescription: says hello\n It does.\n"
        )
        (tree / "debian/rules").write_text("#!/usr/bin/make -f\n")
        subprocess.run(["dpkg-source", "-b", tree.name], cwd=folder, check=True, capture_output=True)
        return tuple((path.name, path.read_bytes()) for path in sorted(Path(folder).iterdir()) if path.is_file())


# -- lists of files ---------------------------------------------------------------------------------------------------


def digests(files: Mapping[str, bytes], *, section: str = "", sections: Mapping[str, str] = {}) -> str:
    """Files and Checksums-*; with ``section``, the five columns of a .changes."""
    text = ""
    for name, algorithm in (("Checksums-Sha1", "sha1"), ("Checksums-Sha256", "sha256"), ("Files", "md5")):
        text += f"{name}:\n"
        for file, data in files.items():
            middle = f" {sections.get(file, section)} optional" if section and name == "Files" else ""
            text += f" {hashlib.new(algorithm, data).hexdigest()} {len(data)}{middle} {file}\n"
    return text


def relisted(dsc: str, files: Mapping[str, bytes]) -> str:
    """A .dsc with the lists made anew."""
    return drop("Files", "Checksums-Sha1", "Checksums-Sha256")(dsc) + digests(files)


# -- the upload -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Upload:
    """How an upload is made. The hooks, in the order of the making:

    ``control`` the text of the .deb's control file · ``parts`` the members of its ar · ``deb`` its bytes
    ``tarballs`` the .dsc's files · ``dsc`` its text · ``dsc_signed`` its bytes
    ``listed`` all files before they are listed · ``changes`` the text of the .changes · ``signed`` its signed bytes
    ``sent`` all files, the .changes among them, as they arrive
    """

    source: str = "hello"
    version: str = "1.0-1"
    package: str = "hello"
    architecture: str = "amd64"
    kind: str = "deb"
    section: str = "devel"
    form: str = "3.0 (quilt)"
    components: bool = False
    binary: bool = True
    sourceful: bool = True
    deb_name: str = ""
    suffix: str = "amd64"
    control: Text = same
    parts: Callable[[Members], Members] = same
    deb: Bytes = same
    tarballs: Callable[[dict[str, bytes]], Any] = same
    dsc: Text = same
    dsc_by: str = ""
    dsc_signed: Bytes = same
    listed: Callable[[dict[str, bytes]], Any] = same
    changes: Text = same
    by: str = "ada"
    options: tuple[str, ...] = ()
    made: str = _MADE
    signed: Bytes = same
    sent: Callable[[dict[str, bytes]], Any] = same
    settings: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    @property
    def changes_name(self) -> str:
        return f"{self.source}_{without_epoch(self.version)}_{self.suffix}.changes"

    def files(self, keys: "Keys") -> dict[str, bytes]:
        """All files of the upload by name."""
        files: dict[str, bytes] = {}
        if self.sourceful:
            files |= self._source(keys)
        if self.binary:
            files |= self._binary()
        self.listed(files)
        text = self.changes(self._changes(files)).encode("utf-8", "surrogateescape")
        data = keys.sign(text, by=self.by, made=self.made, options=self.options) if self.by else text
        files[self.changes_name] = self.signed(data)
        self.sent(files)
        return files

    def control_text(self) -> str:
        """The control file before it is altered."""
        source = "" if self.package == self.source else f"Source: {self.source}\n"
        return (
            f"Package: {self.package}\n{source}Version: {self.version}\nArchitecture: {self.architecture}\n"
            f"Maintainer: Ada Lovelace <ada@example.org>\nInstalled-Size: 1\nDepends: libc6 (>= 2.36)\n"
            f"Section: {self.section}\nPriority: optional\nDescription: says hello\n It does.\n"
        )

    def _binary(self) -> dict[str, bytes]:
        text = self.control(self.control_text())
        # dpkg-deb refuses much of what tests put there: its own sound package is taken apart and put together again.
        members = ar_parts(dpkg_deb(_SOUND))
        members[1] = ("control.tar.gz", tar(("./", b""), ("./control", text.encode("utf-8", "surrogateescape"))))
        altered = self.parts(members)
        data = self.deb(ar(altered))
        name = f"{self.package}_{without_epoch(self.version)}_{self.architecture}.{self.kind}"
        return {self.deb_name or name: data}

    def _source(self, keys: "Keys") -> dict[str, bytes]:
        files = dict(dpkg_source(self.source, self.version, self.form, components=self.components))
        name = next(name for name in files if name.endswith(".dsc"))
        text = files.pop(name).decode()
        before = dict(files)
        self.tarballs(files)
        if files != before:
            text = relisted(text, files)
        data = self.dsc(text).encode("utf-8", "surrogateescape")
        if self.dsc_by:
            data = keys.sign(data, by=self.dsc_by, made=self.made)
        return {name: self.dsc_signed(data), **files}

    def _changes(self, files: Mapping[str, bytes]) -> str:
        words = ["source"] * self.sourceful + [self.architecture] * self.binary
        binary = f"Binary: {self.package}\nDescription:\n {self.package} - says hello\n" if self.binary else ""
        return (
            f"Format: 1.8\nDate: Sun, 01 Mar 2026 11:00:00 +0000\nSource: {self.source}\n{binary}"
            f"Architecture: {' '.join(words)}\nVersion: {self.version}\nDistribution: stable\nUrgency: medium\n"
            "Maintainer: Ada Lovelace <ada@example.org>\nChanged-By: Ada Lovelace <ada@example.org>\nChanges:\n"
            f" {self.source} ({self.version}) stable; urgency=medium\n .\n   * New.\n"
        ) + digests(files, section=self.section)


_SOUND = (
    "Package: hello\nVersion: 1.0-1\nArchitecture: amd64\nMaintainer: Ada Lovelace <ada@example.org>\n"
    "Description: says hello\n It does.\n"
)


# -- keys -------------------------------------------------------------------------------------------------------------


class Keys:
    """The people of these tests and their keys, in a gnupg home with an agent of its own.

    ada, bob (with a subkey that signs) and rsa are trusted; eve (expired), ron (revoked) and dan (disabled) were, and
    so were sue and tom, of whom only the subkeys that sign are over (expired, revoked); mallory never was.
    """

    PEOPLE = ("ada", "bob", "sue", "tom", "rsa", "eve", "ron", "dan", "mallory")

    def __init__(self, folder: Path) -> None:
        self.home = folder / "people"
        self.home.mkdir(mode=0o700)
        self.fingerprints: dict[str, str] = {}
        for name in self.PEOPLE:
            expiry = "1y" if name == "eve" else "never"
            # Only with RSA does gpg make signatures with any digest.
            kind = "rsa2048" if name == "rsa" else "ed25519"
            usage = "cert" if name in ("bob", "sue", "tom") else "sign"
            who = f"{name.title()} Tester <{name}@example.org>"
            self.gpg(*_LONG_AGO, "--quick-generate-key", who, kind, usage, expiry)
            self.fingerprints[name] = self._fingerprints(name)[0]
        for name, expiry in (("bob", "never"), ("sue", "1y"), ("tom", "never")):
            self.gpg(*_A_DAY_LATER, "--quick-add-key", self.fingerprints[name], "ed25519", "sign", expiry)
            self.fingerprints[f"{name}-subkey"] = self._fingerprints(name)[1]
        self.keyring = Keyring(folder / "trusted" / "gnupg")
        self.keyring.trust(b"".join(self.public(name) for name in self.PEOPLE if name != "mallory"))
        self._revoke("ron")
        self._revoke_subkey("tom", folder / "later")
        self._disable("dan")
        self.keyring.prepare()

    def gpg(self, *arguments: str, data: bytes = b"") -> bytes:
        command = ["gpg", "--homedir", str(self.home), "--batch", "--yes", "--pinentry-mode", "loopback"]
        command += ["--passphrase", "", *arguments]
        done = subprocess.run(command, input=data, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def _fingerprints(self, name: str) -> list[str]:
        listing = self.gpg("--with-colons", "--with-subkey-fingerprint", "--list-keys", f"{name}@example.org").decode()
        return [line.split(":")[9] for line in listing.split("\n") if line.startswith("fpr:")]

    def public(self, name: str) -> bytes:
        return self.gpg("--export", self.fingerprints[name])

    def _revoke(self, name: str) -> None:
        certificate = (self.home / "openpgp-revocs.d" / f"{self.fingerprints[name]}.rev").read_text()
        certificate = certificate[certificate.index(":-----BEGIN") + 1 :]
        command = ["gpg", "--homedir", str(self.keyring.home), "--batch", "--no-autostart", "--import"]
        subprocess.run(command, input=certificate.encode(), capture_output=True, check=True)

    def _revoke_subkey(self, name: str, later: Path) -> None:
        """In a copy of the home: here it goes on signing."""
        shutil.copytree(self.home, later, ignore=shutil.ignore_patterns("S.*"))
        command = ["gpg", "--homedir", str(later), "--no-tty", "--pinentry-mode", "loopback", "--passphrase", ""]
        answers = b"key 1\nrevkey\ny\n0\n\ny\nsave\n"
        edit = [*command, "--command-fd", "0", "--edit-key", self.fingerprints[name]]
        subprocess.run(edit, input=answers, capture_output=True, check=True)
        found = subprocess.run([*command, "--export", self.fingerprints[name]], capture_output=True, check=True)
        self.keyring.trust(found.stdout)
        subprocess.run(["gpgconf", "--homedir", str(later), "--kill", "gpg-agent"], capture_output=True)

    def _disable(self, name: str) -> None:
        command = ["gpg", "--homedir", str(self.keyring.home), "--no-autostart", "--command-fd", "0", "--no-tty"]
        command += ["--edit-key", self.fingerprints[name]]
        subprocess.run(command, input=b"disable\nsave\n", capture_output=True, check=True)

    def sign(self, text: bytes, *, by: str = "ada", made: str = _MADE, options: Iterable[str] = ()) -> bytes:
        """Clear-sign a text, at a time of one's choice."""
        arguments = [*options, f"--faked-system-time={made}", "--local-user", f"{self.fingerprints[by]}"]
        return self.gpg(*arguments, "--clearsign", data=text)

    def close(self) -> None:
        subprocess.run(["gpgconf", "--homedir", str(self.home), "--kill", "gpg-agent"], capture_output=True)


# -- checking ---------------------------------------------------------------------------------------------------------


def make_config(folder: Path, settings: Mapping[str, Any]) -> Config:
    """A suite stable with two components and one architecture, where the settings say nothing else."""
    document: dict[str, Any] = {
        "suites": {"stable": {"components": ["main", "contrib"], "architectures": ["amd64"]}},
        "incoming": {"default": {"path": "incoming"}},
    }
    for path, value in settings.items():
        table, (*names, last) = document, path.split(".")
        for name in names:
            table = table.setdefault(name, {})
        table[last] = value
    return reader.parse(document, folder / "incomingd.toml")


def sealed(folder: Path, files: Mapping[str, bytes], problems: tuple[Problem, ...] = ()) -> Seal:
    """The files as sealing leaves them in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    names = sorted(name for name in files if FILE_NAME.fullmatch(name))
    for name in names:
        (folder / name).write_bytes(files[name])
    return Seal(
        files=tuple(fsio.hash_file(folder / name) for name in names),
        problems=problems,
        left_out=tuple(sorted(files.keys() - names)),
    )


def armored(packets: bytes) -> bytes:
    """A detached signature as gpg writes it."""
    lines = [b"-----BEGIN PGP SIGNATURE-----", b"", base64.b64encode(packets), b"-----END PGP SIGNATURE-----", b""]
    return b"\n".join(lines)


#: A signature of an old tarball by a key that nobody here knows: two packets, the first of version 3.
SIGNATURE = armored(b"\x88\x03\x03ab" + b"\xc2\x03\x04ab")


def in_steps(
    seal: Seal,
    queue: QueueConfig,
    decide: Callable[[Seal], Authorisation],
    look: Callable[[Seal, Authorisation | None], CheckReport],
) -> CheckReport:
    """What the pipeline does with an upload, if all that it could ever seal is in ``seal``: ``decide`` on its .changes,
    and ``look`` into what they list."""
    early = tuple(one for one in seal.problems if one.file is None or one.file.endswith(".changes"))
    texts = tuple(entry for entry in seal.files if entry.name.endswith(".changes"))
    bare = queue.allow_bare_debs and not texts and not early
    authorisation = None if bare else decide(replace(seal, files=texts, problems=early, left_out=()))
    if authorisation and authorisation.refused:
        return authorisation.refusal()

    def counts(name: str) -> bool:
        listed = {*authorisation.listed(), *(entry.name for entry in texts)} if authorisation else ()
        return name in listed if authorisation else files.kind(name) is files.Kind.BINARY

    others = sorted({*seal.left_out, *(entry.name for entry in seal.files if not counts(entry.name))})
    whole = tuple(entry for entry in seal.files if counts(entry.name))
    return look(replace(seal, files=whole, left_out=tuple(others)), authorisation)


def in_pool(checkers: Checkers, folder: Path, seal: Seal, queue: QueueConfig) -> CheckReport:
    """The same with workers."""
    task = Task(folder=folder, seal=seal, queue=queue, now=NOW)
    return in_steps(
        seal,
        queue,
        lambda texts: checkers.authorise(replace(task, seal=texts)),
        lambda whole, authorisation: checkers.check(replace(task, seal=whole), authorisation),
    )


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Makes an upload and checks it, in this process."""

    folder: Path
    keys: Keys

    def control(self) -> str:
        """The control file of an upload in which nothing is altered."""
        return Upload().control_text()

    def check(self, upload: Upload, *, keyring: Keyring | None = None, now: datetime = NOW) -> CheckReport:
        return self.check_files(upload.files(self.keys), upload, keyring=keyring, now=now)

    def check_files(
        self,
        files: Mapping[str, bytes],
        upload: Upload = Upload(),
        *,
        keyring: Keyring | None = None,
        now: datetime = NOW,
    ) -> CheckReport:
        trusted = keyring or self.keys.keyring
        config = make_config(self.folder, self._resolved(upload.settings))
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        job = Job(
            folder=folder,
            seal=sealed(folder, files, upload.problems),
            queue=config.queues[0],
            config=config,
            keyring=trusted.public,
            keys=trusted.load(),
            now=now,
            reading=lambda _: None,
        )
        return in_steps(
            job.seal,
            job.queue,
            lambda texts: authorise(replace(job, seal=texts)),
            lambda whole, authorisation: check(replace(job, seal=whole), authorisation),
        )

    def _resolved(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The uploaders table may name people instead of fingerprints."""
        resolved = dict(settings)
        if "uploaders" in resolved:
            names = self.keys.fingerprints
            resolved["uploaders"] = [{**row, "key": names[row["key"]]} for row in resolved["uploaders"]]
        return resolved


def codes(problems: Iterable[Problem]) -> list[str]:
    """The codes, each once."""
    return list(dict.fromkeys(problem.code for problem in problems))


def told(report: CheckReport) -> Iterator[str]:
    """Problems and warnings, for the message of a test that fails."""
    for problem in (*report.problems, *report.warnings):
        yield f"{problem.code}: {problem.file}: {problem.message}"
