"""Every rule that checks can find broken: one upload that is right but for one thing, and the code that it gets."""

import ast
import base64
import bz2
import gzip
import io
import lzma
import re
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import zstandard

import incomingd
from incomingd import rules
from tests.verify.builders import (
    NOW,
    SIGNATURE,
    Bench,
    Members,
    Upload,
    add,
    codes,
    data_tar,
    drop,
    lead,
    put,
    swap,
    tar,
    tar_member,
    told,
)

#: Codes of other rooms, and where they are tested.
ELSEWHERE = {
    "bad-upload-name": "intake",
    "not-regular-file": "intake",
    "unreadable-file": "intake",
    "file-busy": "intake",
    "too-many-changes": "intake",
    "changed-while-read": "intake",
    "upload-incomplete": "intake",
    "upload-withdrawn": "intake",
    "upload-lost": "intake",
    "upload-cancelled": "system",
    "journal-restored": "system",
    "commands-refused": "system",
    "commands-repeated": "system",
    "foreign-file": "attacks",
    "binary-of-other-source": "publish",
    "binary-not-allowed": "publish",
    "binary-taken-over": "publish",
    "essential-not-allowed": "publish",
    "essential-package": "publish",
    "name-taken": "attacks",
    "suite-retired": "system",
    "bad-index-entry": "attacks",
    "pool-conflict": "publish",
    "same-version-other-content": "publish",
    "version-not-newer": "publish",
    "missing-source": "publish",
    "missing-orig": "publish",
    "replayed": "publish",
    "not-in-suite": "system",
    "unknown-generation": "system",
    "pool-file-gone": "system",
    "import-gone": "system",
    "lintian": "system",
    "external-check": "system",
    "external-check-limit": "system",
    "external-check-failed": "system",
    # These need a worker of their own.
    "check-timeout": "verify/test_pool.py",
    "check-crashed": "verify/test_pool.py",
    "check-memory": "verify/test_pool.py",
    # This one a keyring of its own.
    "key-of-two-owners": "verify/test_key_owners.py",
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One upload and all the codes that it gets: ``code`` and those that cannot but go with it."""

    code: str
    upload: Upload
    also: tuple[str, ...] = ()
    warning: bool = False


ROWS: dict[str, Row] = {}


def row(name: str, code: str, *, also: tuple[str, ...] = (), warning: bool = False, **upload: Any) -> None:
    assert name not in ROWS
    ROWS[name] = Row(code=code, upload=Upload(**upload), also=also, warning=warning)


# -- what alters an upload --------------------------------------------------------------------------------------------

DEB, DSC, ORIG = "hello_1.0-1_amd64.deb", "hello_1.0-1.dsc", "hello_1.0.orig.tar.gz"
CHANGES, BUILDINFO = "hello_1.0-1_amd64.changes", "hello_1.0-1_amd64.buildinfo"


def rename(old: str, new: str) -> Callable[[dict[str, bytes]], Any]:
    return lambda files: files.update({new: files.pop(old)})


def lose(name: str) -> Callable[[dict[str, bytes]], Any]:
    return lambda files: files.pop(name)


def gain(name: str, data: bytes = b"something\n") -> Callable[[dict[str, bytes]], Any]:
    return lambda files: files.update({name: data})


def alter(name: str, how: Callable[[bytes], bytes]) -> Callable[[dict[str, bytes]], Any]:
    return lambda files: files.update({name: how(files[name])})


def both(*steps: Callable[[dict[str, bytes]], Any]) -> Callable[[dict[str, bytes]], Any]:
    return lambda files: [step(files) for step in steps]


def flip(at: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def cut(count: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:-count]


def compressed(packets: bytes) -> bytes:
    body = b"\x02" + zlib.compress(packets)
    return b"\xc8\xff" + len(body).to_bytes(4, "big") + body


def other_packets(packets: bytes, *, more: bool = False) -> Callable[[bytes], bytes]:
    """Put other packets in the place of a signature, or, with ``more``, before it."""

    def how(signed: bytes) -> bytes:
        head, armor = signed.split(b"\n-----BEGIN PGP SIGNATURE-----\n\n")
        own = base64.b64decode(armor.split(b"\n=")[0]) if more else b""
        text = base64.encodebytes(packets + own)
        return head + b"\n-----BEGIN PGP SIGNATURE-----\n\n" + text + b"-----END PGP SIGNATURE-----\n"

    return how


def match(pattern: str, new: str) -> Callable[[str], str]:
    """Replace the first place that fits."""

    def how(text: str) -> str:
        changed, count = re.subn(pattern, new, text, count=1, flags=re.M)
        assert count, pattern
        return changed

    return how


def member(number: int, name: str | None = None, how: Callable[[bytes], bytes] = bytes) -> Callable[[Members], Members]:
    """Another name or other bytes for one member of the .deb."""

    def altered(members: Members) -> Members:
        old, data = members[number]
        return [*members[:number], (name or old, how(data)), *members[number + 1 :]]

    return altered


def control(*others: tuple[str, Any], mtime: float = 1e9) -> Callable[[Members], Members]:
    """A control.tar with other members beside the control file."""

    def altered(members: Members) -> Members:
        with tarfile.open(fileobj=io.BytesIO(members[1][1])) as before:
            content = before.extractfile("./control")
            assert content
            data = tar(("./control", content.read()), *others, mtime=mtime)
        return [members[0], ("control.tar.gz", data), *members[2:]]

    return altered


def raw_control(more: Callable[[bytes], bytes]) -> Callable[[Members], Members]:
    """A control.tar with more behind the control file; ``more`` makes it of another control file."""

    def altered(members: Members) -> Members:
        text = Upload().control_text().encode()
        raw = tar_member("./control", text) + more(text.replace(b"says hello", b"evil")) + bytes(1024)
        return [members[0], ("control.tar", raw), *members[2:]]

    return altered


def packed_data(ending: str, how: Callable[[bytes], bytes]) -> Callable[[Members], Members]:
    """A data.tar that ``how`` has packed."""
    return lambda members: [*members[:2], (f"data.tar{ending}", how(data_tar()))]


#: How dpkg-deb reads but the first stream.
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".lzma": lambda raw: lzma.compress(raw, lzma.FORMAT_ALONE),
    ".zst": zstandard.ZstdCompressor().compress,
}


def data(*files: tuple[str, Any], **options: Any) -> Callable[[Members], Members]:
    """Another data.tar."""
    return lambda members: [*members[:2], ("data.tar.gz", tar(*files, **options))]


def insert(at: int, name: str, content: bytes = b"x") -> Callable[[Members], Members]:
    return lambda members: [*members[:at], (name, content), *members[at:]]


def pax(name: str) -> bytes:
    """A tar of the kind that dpkg refuses to unpack."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as out:
        info = tarfile.TarInfo(name)
        info.mtime = 1e9 + 0.5
        out.addfile(info)
    return buffer.getvalue()


def orig(*members: tuple[str, Any], **options: Any) -> Callable[[dict[str, bytes]], Any]:
    """Another orig tarball."""
    return gain(ORIG, tar(("hello-1.0/hello.c", b""), *members, **options))


ORIG_BZ2 = "hello_1.0.orig.tar.bz2"
TWO_NAMES = gzip.compress(
    tar_member("././@LongLink", b"./x\0", kind=b"L")
    + tar_member("././@LongLink", b"../x\0", kind=b"L")
    + tar_member("y", b"")
    + bytes(1024)
)
SIGNED_BADLY = b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nFormat: 1.0\n-----BEGIN PGP SIGNATURE-----\n"
BINARY = {"sourceful": False}
SOURCE = {"binary": False, "suffix": "source"}
GONE = {f"no{n}_1_amd64.deb": b"" for n in range(300)}

# -- the upload -------------------------------------------------------------------------------------------------------

row("a name with a colon", "bad-file-name", listed=gain("a:b.deb"), sent=lose("a:b.deb"))
row("a name with a colon, and the file is there", "bad-file-name", listed=gain("a:b.deb"))
row("a name with a blank, and the file is there", "bad-file-list", listed=gain("a b.deb"))
row("a name with a leading dash", "bad-file-name", listed=gain("-rf.deb"), sent=lose("-rf.deb"))
row("a name of 256 bytes", "bad-file-name", listed=gain("a" * 252 + ".deb"), sent=lambda f: f.pop("a" * 252 + ".deb"))
row("a name with a slash", "bad-file-name", listed=gain("a/b.deb"), sent=lose("a/b.deb"))
row("a name with a leading dot", "bad-file-name", listed=gain(".b.deb"), sent=lose(".b.deb"))
row("a name outside of ASCII", "bad-file-name", listed=gain("ä.deb"), sent=lose("ä.deb"))
row("no .changes", "no-changes", sent=lose(CHANGES))
row("more bytes than allowed", "upload-too-large", settings={"incoming.default.max_upload": 2000})
row("more files than allowed", "too-many-files", settings={"incoming.default.max_files": 3})
row(
    "a .changes too large",
    "text-too-large",
    settings={"checks.max_text_file": 600},
    **BINARY,
)
row("a .dsc too large", "text-too-large", dsc=put("X-Odd", "y" * 5000), settings={"checks.max_text_file": 4000})
row(
    "a .buildinfo too large",
    "text-too-large",
    listed=gain(BUILDINFO, b"Format: 1.0\n" + b"A: b\n" * 1000),
    settings={"checks.max_text_file": 4000},
)
row("too large for the suite", "text-too-large", settings={"suites.stable.checks.max_text_file": 500}, **BINARY)

# -- signature --------------------------------------------------------------------------------------------------------

row("no signature", "unsigned", by="")
row("text changed after it was signed", "bad-signature", signed=lambda d: d.replace(b"medium", b"urgent"))
row("a damaged signature", "bad-signature", signed=lambda d: re.sub(rb"\n=[^\n]{4}\n", b"\n=AAAA\n", d))
row("signed twice over", "not-one-signature", signed=lambda d: d + d)
row("a block cut off before its END", "not-one-signature", signed=lambda d: d[: d.index(b"-----END")])
row("a detached signature", "not-one-signature", signed=lambda d: d[d.index(b"-----BEGIN PGP SIGNATURE") :])
row("two signatures in one block", "not-one-signature", options=("--local-user", "bob@example.org"))
row("text before the block", "text-outside-signature", signed=lead(b"Source: evil\n"))
row("text after the block", "text-outside-signature", signed=add(b"Source: evil\n"))
row("a key that nobody trusts", "unknown-key", by="mallory")
row("a key that has expired", "expired-key", by="eve", made="20200601T000000!")
row("a key that is revoked", "revoked-key", by="ron")
row("a subkey that has expired", "expired-key", by="sue", made="20200601T000000!")
row("a subkey that is revoked", "revoked-key", by="tom")
row("a key that is disabled", "revoked-key", by="dan")
row("a signature with SHA-1", "weak-digest", by="rsa", options=("--digest-algo", "SHA1"))
row("a signature with RIPEMD-160", "weak-digest", by="rsa", options=("--digest-algo", "RIPEMD160"))
row("a signature with MD5", "weak-digest", by="rsa", options=("--digest-algo", "MD5", "--allow-weak-digest-algos"))
row("a block that is not dash-escaped", "not-one-signature", options=("--not-dash-escaped",))
row(
    "a field among the Hash lines",
    "not-one-signature",
    signed=lambda d: d.replace(b"\nHash:", b"\nComment: evil\nHash:"),
)
row(
    "compressed packets in place of the signature",
    "bad-signature",
    signed=other_packets(compressed(b"\x88\x02\x04\x01")),
)
row(
    "a signature of a version that gpg does not know", "bad-signature", signed=other_packets(b"\x88\x0a\x06" + bytes(9))
)
row("a text and its signature in one armor", "bad-signature", signed=other_packets(b"\xcb\x07b\0\0\0\0\0x", more=True))
row("a marker before the signature", "bad-signature", signed=other_packets(b"\xca\x03PGP", more=True))
row(
    "a critical notation that gpg does not know",
    "bad-signature",
    options=("--sig-notation", "!must@example.org=be understood"),
)
row("a line of which gpg reads but the first part", "text-limit", changes=put("X-Odd", "a" * 25_000))
row("a signature of the day after tomorrow", "future-signature", made="20260303T120000!")
row("a signature of 2099", "future-signature", made="20990101T120000!")
row("a signature with an end", "expired-signature", made="20260101T000000!", options=("--default-sig-expire", "10d"))
row("an old signature", "old-signature", made="20260101T000000!", settings={"checks.max_signature_age": "30d"})

# -- text -------------------------------------------------------------------------------------------------------------

row("Latin-1", "not-utf8", changes=put("Changed-By", "Ren\udce9 <rene@example.org>"))
row(
    "carriage returns",
    "crlf",
    changes=lambda text: text.replace("\n", "\r\n"),
    by="",
    settings={"incoming.default.signatures": "optional"},
)
row("a lone carriage return", "control-character", changes=put("X-Odd", "a\rSource: evil"))
row("a form feed", "control-character", changes=put("X-Odd", "a\fb"))
row("a NUL", "control-character", dsc=put("X-Odd", "a\0b"))
row(
    "a NUL at the end of a line, which gpgv leaves out",
    "control-character",
    signed=lambda d: d.replace(b"medium\n", b"medium\0\n", 1),
)
row("a C1 control", "control-character", control=put("X-Odd", "a\x85b"))
row("a line separator", "control-character", control=put("X-Odd", "a\u2028b"))
row("a line that is no field", "bad-syntax", changes=lead("hello\n"))
row("a comment", "bad-syntax", changes=lead("# hello\n"))
row("a line of blanks", "bad-syntax", control=add("  \n X\n"))
row("a control file without its last newline", "bad-control-file", control=lambda text: text[:-1])
row("a control file with an empty field at its end", "bad-control-file", control=add("Bugs:\n"))
row("a field with a name of one letter", "bad-control-file", control=put("X", "y"))
row("Essential: maybe", "bad-control-file", control=put("Essential", "maybe"))
row("Multi-Arch: all", "bad-control-file", control=put("Multi-Arch", "all"))
row("a field of dpkg's status file", "bad-control-file", control=put("Status", "install ok installed"))
row("a first line that continues", "bad-syntax", control=lead(" hello\n"))
row("two stanzas in a .changes", "not-one-stanza", changes=swap("Urgency", "\nUrgency"))
row("two stanzas in a .dsc", "not-one-stanza", dsc=add("\nPackage: evil\n"))
row("two stanzas in a control file", "not-one-stanza", control=add("\nPackage: evil\n"))
row("no text at all", "not-one-stanza", control=lambda _: "\n")
row("a field twice", "repeated-field", changes=add("SOURCE: hello\n"))
row("a field twice in a .dsc", "repeated-field", dsc=lead("source: hello\n"))
row("a field twice in a control file", "repeated-field", control=lead("package: hello\n"))
row("a line of 65 KiB", "text-limit", dsc=put("X-Odd", "a" * 66560))
row("1,100 fields", "text-limit", changes=lead("".join(f"X-{n}: a\n" for n in range(1100))))
row("a .changes without Architecture", "missing-field", changes=drop("Architecture"), also=("architecture-mismatch",))
row("a .changes without Binary", "missing-field", changes=drop("Binary"), also=("binary-not-listed",))
for name in ("Format", "Date", "Source", "Version", "Distribution", "Maintainer", "Changes", "Description"):
    row(f"a .changes without {name}", "missing-field", changes=drop(name))
row("a .changes with an empty field", "missing-field", changes=put("Distribution", ""))
row("a .changes without Files", "missing-field", changes=drop("Files"))
row(
    "a .changes without SHA256",
    "missing-field",
    changes=drop("Checksums-Sha256"),
)
row("a .dsc without SHA256", "missing-field", dsc=drop("Checksums-Sha256"))
row("a .dsc without Source", "missing-field", dsc=drop("Source"))
row("a .dsc without Version", "missing-field", dsc=drop("Version"))
for name in ("Format", "Maintainer", "Architecture"):
    row(f"a .dsc without {name}", "missing-field", dsc=drop(name))
for name in ("Package", "Version", "Architecture", "Maintainer", "Description"):
    row(f"a control file without {name}", "missing-field", control=drop(name))

# -- .changes ---------------------------------------------------------------------------------------------------------

row("an old format", "bad-format", changes=put("Format", "1.5"))
row("a package in upper case", "bad-package-name", package="Hello")
row("a capital in Binary", "bad-package-name", changes=put("Binary", "hello Hello"))
for strict in (False, True):
    style = {"warning": not strict, "settings": {"suites.stable.checks.strict": strict}}
    how = "" if not strict else ", in a strict suite"
    row(f"a name of one letter{how}", "bad-package-name", package="h", **style)
    row(f"a name with an underscore{how}", "bad-package-name", package="hello_world", **style)
    row(f"an unknown section{how}", "unknown-section", section="oddities", **style)
    row(
        f"an unknown priority{how}",
        "unknown-priority",
        changes=lambda text: text.replace(" optional ", " urgent "),
        **style,
    )
    row(f"a .deb of another name{how}", "deb-file-name", deb_name="Hello-1.0-Linux.deb", **style)
    row(
        f"a .deb with its epoch{how}",
        "deb-file-name",
        version="1:1.0-1",
        deb_name="hello_1.1.0-1_amd64.deb",
        **BINARY | style,
    )
row("a Source with more behind it", "bad-package-name", control=put("Source", "hello (1.0-1) evil"))
row("a version with an underscore", "bad-version", version="1.0_1", **BINARY)
row("a version that begins with a letter", "bad-version", version="v1.0", **BINARY)
row("a source version that is none", "bad-version", changes=put("Source", "hello (one)"), **BINARY)
row("a maintainer without address", "bad-address", changes=put("Maintainer", "Ada Lovelace"))
row("an address without host", "bad-address", changes=put("Changed-By", "Ada <ada>"))
row("a .dsc's maintainer without address", "bad-address", dsc=put("Maintainer", "Ada Lovelace"))
row("a date that is none", "bad-date", changes=put("Date", "today"))
row("a bug that is no number", "bad-closes", changes=lead("Closes: 123 one\n"))
row("a .changes of another name", "changes-file-name", sent=rename(CHANGES, "hello_1.0-2_amd64.changes"))
row("a .changes of another source", "changes-file-name", sent=rename(CHANGES, "other_1.0-1_amd64.changes"))
row("a row that lacks a column", "bad-file-list", changes=match(r"^ [0-9a-f]{40} \d+ hello", " hello"))
row("a digest that is none", "bad-file-list", changes=match(r"^ [0-9a-f]{40} ", " xyz "))
row("a size that is none", "bad-file-list", changes=match(r"^( [0-9a-f]{40}) \d+", r"\1 -1"))
row("a list that lacks a file", "file-lists-differ", changes=match(r"^ [0-9a-f]{40} .*\n", ""))
row("lists with other sizes", "file-lists-differ", changes=match(r"^( [0-9a-f]{40}) \d+", r"\1 7"))
row("a file listed twice", "file-lists-differ", changes=match(r"^( [0-9a-f]{40} .*\n)", r"\1\1"))
row(
    "two lists with other digests",
    "file-lists-differ",
    changes=lambda t: (
        t
        + re.sub("[0-9a-f]{64}", "0" * 32, "".join(re.findall(r"^Checksums-Sha256:\n(?: .*\n)*", t, re.M))).replace(
            "Sha256", "Md5"
        )
    ),
)
row("an unknown list that differs", "file-lists-differ", changes=lead(f"Checksums-Sha512:\n {'0' * 128} 1 x.deb\n"))
row("a .changes that lists itself", "lists-itself", listed=gain(CHANGES))

# -- files ------------------------------------------------------------------------------------------------------------

row("a .deb that did not come", "missing-file", sent=lose(DEB))
row("a part of the source that did not come", "missing-file", sent=lose("hello_1.0-1.debian.tar.xz"))
row("a .deb that grew", "size-mismatch", sent=alter(DEB, add(b"\n")))
row("a .deb with another byte", "checksum-mismatch", sent=alter(DEB, flip(200)))
row("a wrong SHA-1", "checksum-mismatch", changes=match(r"^ [0-9a-f]{40} ", f" {'0' * 40} "))
row("a wrong MD5", "checksum-mismatch", changes=match(r"^ [0-9a-f]{32} ", f" {'0' * 32} "))
row("a wrong SHA-256", "checksum-mismatch", changes=match(r"^ [0-9a-f]{64} (.*deb)", rf" {'0' * 64} \1"))
row("a file for nobody", "byhand", listed=gain("hello_1.0-1_notes.txt"))
row("an installer image", "byhand", listed=gain("hello_1.0-1_amd64.iso"))
row("source without the word", "architecture-mismatch", changes=put("Architecture", "amd64"))
row(
    "two .dsc", "architecture-mismatch", listed=lambda f: f.update({"hello_1.0-2.dsc": f[DSC]}), also=("dsc-file-name",)
)
row("the word without source", "architecture-mismatch", changes=put("Architecture", "source amd64"), **BINARY)
row("an architecture without binary", "architecture-mismatch", changes=put("Architecture", "source amd64 all"))
row("a binary without its architecture", "architecture-mismatch", changes=put("Architecture", "source"))
row("a file that no .changes lists", "unlisted-file", warning=True, sent=gain("notes.txt"))
row("one with a blank in its name", "unlisted-file", warning=True, sent=gain("build log.txt"))
row("one with a name outside of ASCII", "unlisted-file", warning=True, sent=gain("Übersicht.txt"))
row("one that looks like a package", "unlisted-file", warning=True, sent=gain("a:b.deb"))

# -- distribution and rights ------------------------------------------------------------------------------------------

row("an unknown distribution", "unknown-distribution", changes=put("Distribution", "UNRELEASED"))
row(
    "a suite of another queue",
    "suite-not-here",
    settings={"incoming.default.suites": ["testing"], "suites.testing.components": ["main"]},
)
row("one of two is unknown", "unknown-distribution", changes=put("Distribution", "stable sid"))
row("a component that is not there", "unknown-component", section="non-free/devel")
row("an architecture that is not there", "unknown-architecture", architecture="riscv64")
row("a key that no row names", "key-not-allowed", settings={"uploaders": [{"key": "bob"}]})
row(
    "a source that is not the key's", "key-not-allowed", settings={"uploaders": [{"key": "ada", "sources": ["team-*"]}]}
)
row("a suite that is not the key's", "key-not-allowed", settings={"uploaders": [{"key": "ada", "suites": ["testing"]}]})
row(
    "a component that is not the key's",
    "key-not-allowed",
    settings={"uploaders": [{"key": "ada", "components": ["contrib"]}]},
)
row("source, binaries only", "key-not-allowed", settings={"uploaders": [{"key": "ada", "binaries_only": True}]})

# -- source packages --------------------------------------------------------------------------------------------------

row("a .dsc of another version", "dsc-field-mismatch", dsc=put("Version", "1:1.0-1"))
row("a .dsc of another source", "dsc-field-mismatch", dsc=put("Source", "other"), also=("source-file-set",))
row("a .dsc of another name", "dsc-file-name", listed=rename(DSC, "hello_1.0-2.dsc"))
row("a format that is not allowed", "source-format", settings={"checks.source_formats": ["3.0 (native)"]})
row("a format that nobody knows", "source-format", dsc=put("Format", "3.0 (git)"))
row("quilt without orig", "source-file-set", tarballs=lose(ORIG))
row("quilt with two origs", "source-file-set", tarballs=gain("hello_1.0.orig.tar.bz2", tar(("a", b""), form="bz2")))
row("quilt without its debian.tar", "source-file-set", tarballs=lose("hello_1.0-1.debian.tar.xz"))
row("quilt with two debian.tars", "source-file-set", tarballs=gain("hello_1.0-1.debian.tar.gz", tar(("debian/a", b""))))
row(
    "quilt with a component twice",
    "source-file-set",
    components=True,
    tarballs=gain("hello_1.0.orig-doc.tar.bz2", tar(("doc/a", b""), form="bz2")),
)
row(
    "native with two tarballs",
    "source-file-set",
    form="3.0 (native)",
    version="1.0",
    tarballs=gain("hello_1.0.tar.gz", tar(("hello-1.0/a", b""))),
)
row("1.0 with an orig and no diff", "source-file-set", form="1.0", tarballs=lose("hello_1.0-1.diff.gz"))
row("quilt with a diff", "source-file-set", tarballs=gain("hello_1.0-1.diff.gz", gzip.compress(b"x")))
row("native with orig", "source-file-set", form="3.0 (native)", version="1.0", tarballs=orig())
row("1.0 with an xz tarball", "source-file-set", dsc=put("Format", "1.0"), version="1.0", form="3.0 (native)")
row("a file of another source", "source-file-set", tarballs=gain("other_1.0.orig.tar.gz", tar(("a", b""))))
row("a file of another upstream version", "source-file-set", tarballs=rename(ORIG, "hello_1.1.orig.tar.gz"))
row("a signature of nothing", "source-file-set", tarballs=gain("hello_1.0.orig-doc.tar.gz.asc", SIGNATURE))
row("a text by a signature's name", "bad-upstream-signature", tarballs=gain(f"{ORIG}.asc", b"root:x:0:0:root\n"))
row(
    "a key by a signature's name",
    "bad-upstream-signature",
    tarballs=gain(f"{ORIG}.asc", SIGNATURE.replace(b"SIGNATURE", b"PUBLIC KEY BLOCK")),
)
row("a text behind a signature", "bad-upstream-signature", tarballs=gain(f"{ORIG}.asc", SIGNATURE + b"and more\n"))
row("a signature that is cut off", "bad-upstream-signature", tarballs=gain(f"{ORIG}.asc", SIGNATURE[:-30]))
row("a signature of a megabyte", "bad-upstream-signature", tarballs=gain(f"{ORIG}.asc", SIGNATURE * 3000))
row("a part that the .dsc does not list", "source-file-set", listed=gain("hello_1.0.orig-doc.tar.gz", tar(("a", b""))))
row("a .dsc that lists its file otherwise", "source-file-mismatch", dsc=match(r"^ [0-9a-f]{64} ", f" {'0' * 64} "))
row(
    "a .dsc with another size",
    "source-file-mismatch",
    dsc=lambda t: re.sub(r"\d+ hello_1.0.orig", "7 hello_1.0.orig", t),
)
row(
    "an orig that is elsewhere, told in two ways",
    "source-file-mismatch",
    dsc=match(r"^ [0-9a-f]{64} ", f" {'0' * 64} "),
    sent=lose(ORIG),
)
row("a Build-Depends without operator", "bad-relation", dsc=put("Build-Depends", "gcc (13)"))
row("an empty Build-Depends", "bad-relation", dsc=put("Build-Depends-Indep", ""))
row("an orig that is no tarball", "bad-tar", tarballs=gain(ORIG, gzip.compress(b"hello" * 999)))
row("an orig that is cut off", "bad-tar", tarballs=alter(ORIG, cut(20)))
row("an orig with something behind it", "bad-tar", tarballs=alter(ORIG, add(b"evil")))
row("a diff that is cut off", "bad-compression", form="1.0", tarballs=alter("hello_1.0-1.diff.gz", cut(9)))
row("a member with an absolute name", "tar-outside", tarballs=orig(("/etc/passwd", b"")))
row("a member above the tree", "tar-outside", tarballs=orig(("hello-1.0/../../x", b"")))
row("a long name behind another", "bad-tar", tarballs=gain(ORIG, TWO_NAMES))
row(
    "a prefix that hides the name",
    "bad-tar",
    tarballs=gain(ORIG, gzip.compress(tar_member("../x", b"", prefix=b"x/y"))),
)
row(
    "a bzip2 orig with something behind it",
    "bad-tar",
    tarballs=both(lose(ORIG), gain(ORIG_BZ2, tar(("a", b""), form="bz2") + b"evil")),
)
row("a link out of the tree", "tar-outside", tarballs=orig(("hello-1.0/x", "../../../etc/passwd")))
row(
    "a hard link out of the tree",
    "tar-outside",
    tarballs=orig(("hello-1.0/x", "/etc/passwd"), types={"hello-1.0/x": tarfile.LNKTYPE}),
)
row("a member that goes up inside of the tree", "tar-outside", tarballs=orig(("hello-1.0/a/../x", b"")))
row(
    "a member below a hard link to a link",
    "tar-outside",
    tarballs=orig(
        ("hello-1.0/x", "/etc"),
        ("hello-1.0/y", "hello-1.0/x"),
        ("hello-1.0/y/passwd", b""),
        types={"hello-1.0/y": tarfile.LNKTYPE},
    ),
)
row(
    "a link that leads out through another",
    "tar-outside",
    tarballs=orig(("hello-1.0/a/b", ".."), ("hello-1.0/a/c", "b/../../x"), ("hello-1.0/x", b"")),
)
row("a member below a link", "tar-outside", tarballs=orig(("hello-1.0/x", "/etc"), ("hello-1.0/x/passwd", b"")))
row("a file called . in the tree", "bad-tar", tarballs=orig((".", b"x")))
row("a FIFO in the tree", "tar-outside", tarballs=orig(("hello-1.0/x", b""), types={"hello-1.0/x": tarfile.FIFOTYPE}))
row("a .dsc without signature", "unsigned-dsc", settings={"checks.require_dsc_signature": True})
row("a .dsc by a key that nobody trusts", "unknown-key", warning=True, dsc_by="mallory")
row(
    "a .dsc by nobody's key, required", "unknown-key", dsc_by="mallory", settings={"checks.require_dsc_signature": True}
)
row(
    "a .dsc with a bad signature",
    "bad-signature",
    dsc_by="ada",
    dsc_signed=lambda d: d.replace(b"debhelper", b"evilhelper"),
)
row("a .dsc with text before it", "text-outside-signature", dsc_by="ada", dsc_signed=lead(b"Package: evil\n"))
row("a .buildinfo of two stanzas", "not-one-stanza", listed=gain(BUILDINFO, b"Format: 1.0\n\nA: b\n"))
row("a .buildinfo with a signature that is cut off", "not-one-signature", listed=gain(BUILDINFO, SIGNED_BADLY))

# -- binary packages --------------------------------------------------------------------------------------------------

row("a .deb that is no ar", "bad-deb", deb=lambda _: b"PK\3\4" * 50)
row("a .deb that is cut off", "bad-deb", deb=cut(10))
row("a .deb with something behind it", "bad-deb", deb=add(b"evil"))
row("an ar header that lies", "bad-deb", deb=lambda d: d.replace(b"4         `\n", b"4000000000`\n", 1))
row("members in another order", "bad-deb", parts=lambda m: [m[0], m[2], m[1]])
row("a member before data.tar", "bad-deb", parts=insert(2, "evil"))
row("a member behind that could be read", "bad-deb", parts=insert(3, "data.tar.zst"))
row("a member behind that could be read first", "bad-deb", parts=insert(3, "control.tar.lzma"))
row("a member that is there twice", "bad-deb", parts=lambda p: [*p, ("_evil", b"x"), ("_evil", b"y")])
row("a member with a slash", "bad-deb", parts=insert(1, "_/evil"))
row(
    "a damaged header in the midst of data.tar",
    "bad-deb",
    parts=member(2, "data.tar", lambda _: tar(("a", b"x"), ("b", b"y"), form="")[:1024] + b"junk" * 128 + bytes(2048)),
)
row(
    "a second archive behind control.tar's end",
    "bad-deb",
    parts=member(1, "control.tar", lambda d: 2 * gzip.decompress(d)),
)
row("a PAX header in data.tar", "bad-deb", parts=member(2, "data.tar", lambda _: pax("./x")))
row("a PAX header in control.tar", "bad-deb", parts=member(1, "control.tar", lambda _: pax("./control")))
row("a sparse file", "bad-deb", parts=data(("./x", b""), types={"./x": tarfile.GNUTYPE_SPARSE}))
# What tarfile and tar, or dpkg, read differently: each would show one control file here and another to dpkg-deb.
row("a prefix that only tarfile reads", "bad-deb", parts=raw_control(lambda t: tar_member("./control", t, prefix=b"x")))
row(
    "two long names",
    "bad-deb",
    parts=raw_control(
        lambda t: (
            tar_member("././@LongLink", b"./x\0", kind=b"L")
            + tar_member("././@LongLink", b"./control\0", kind=b"L")
            + tar_member("y", t)
        )
    ),
)
row(
    "a link with content",
    "bad-deb",
    parts=raw_control(lambda t: tar_member("./d", kind=b"2", hidden=tar_member("./control", t))),
)
row("a file that is called a folder", "bad-deb", parts=raw_control(lambda t: tar_member("./x/", t)))
row("a file called . in control.tar", "bad-deb", parts=raw_control(lambda t: tar_member(".", t)))
row("a file called . in data.tar", "bad-deb", parts=data((".", b"x")))
row("a link called . in data.tar", "bad-deb", parts=data((".", "/etc")))
row("a size with _", "bad-deb", parts=raw_control(lambda t: tar_member("./x", t, size=f"000000_{len(t):04o}\0")))
row("a size with 0o", "bad-deb", parts=raw_control(lambda t: tar_member("./x", t, size=f"0o{len(t):09o}\0")))
row("a member without name", "bad-deb", parts=raw_control(lambda t: tar_member("", t)))
row(
    "a member with an empty long name",
    "bad-deb",
    parts=raw_control(lambda t: tar_member("././@LongLink", b"\0", kind=b"L") + tar_member("./x", t)),
)
row("no data.tar", "bad-deb", parts=lambda m: m[:2])
row("format 3.0", "bad-deb", parts=member(0, how=lambda _: b"3.0\n"))
row("format 2.x", "bad-deb", parts=member(0, how=lambda _: b"2.x\n"))
row("a hundred members", "bad-deb", parts=lambda m: [m[0], *[("_x", b"")] * 100, *m[1:]])
row("a data.tar of an unknown kind", "bad-deb", parts=member(2, "data.tar.lz4"))
row("a data.tar that is no tar", "bad-deb", parts=member(2, "data.tar", lambda _: b"hello" * 1000))
row("a control.tar that is cut off", "bad-compression", parts=member(1, how=cut(12)))
row("a data.tar that is cut off", "bad-compression", parts=member(2, how=cut(12)))
row("a data.tar with another ending", "bad-compression", parts=member(2, "data.tar.gz"))
for ending, pack in PACKERS.items():
    row(
        f"two streams in data.tar{ending}",
        "bad-compression",
        parts=packed_data(ending, lambda d, p=pack: p(d[:700]) + p(d[700:])),
    )
    row(
        f"something behind data.tar{ending}",
        "bad-compression",
        parts=packed_data(ending, lambda d, p=pack: p(d) + b"evil"),
    )
    row(f"an empty data.tar{ending}", "bad-compression", parts=packed_data(ending, lambda _: b""))
row("a bomb in control.tar", "bad-compression", parts=control(("./x", bytes(33 << 20))))
row("a bomb in data.tar", "bad-compression", parts=member(2, "data.tar.zst", lambda _: zstd_bomb()))
row("two control files", "bad-control-archive", parts=control(("control", b"Package: evil\n")))
row("two control files, one spelled oddly", "bad-control-archive", parts=control(("././control", b"Package: evil\n")))
row("no control file", "bad-control-archive", parts=lambda m: [m[0], ("control.tar.gz", tar(("./md5sums", b""))), m[2]])
row(
    "a control file that is a link",
    "bad-control-archive",
    parts=lambda m: [m[0], ("control.tar.gz", tar(("./control", "/etc/passwd"))), m[2]],
)
row("control by an absolute name", "bad-control-archive", parts=raw_control(lambda t: tar_member("/x", t)))
row("a file in a folder of control.tar", "bad-control-archive", parts=control(("./x/", b""), ("./x/y", b"")))
row("a file twice in control.tar", "bad-control-archive", parts=control(("./postinst", b"a"), ("./postinst", b"b")))
row("a control file through a link", "bad-control-archive", parts=control(("./x", "."), ("./x/control", b"A: evil\n")))
row("a maintainer script that is a link", "bad-control-archive", parts=control(("./postinst", "/bin/true")))
row("a FIFO in control.tar", "bad-control-archive", parts=raw_control(lambda _: tar_member("./x", kind=b"6")))
row("a control file of 2 MiB", "stanza-too-large", control=put("X-Odd", "\n" + " a\n" * 700_000 + " b"))
row("a control file too large", "stanza-too-large", settings={"checks.max_stanza": 100})
row(
    "a .dsc too large for Sources",
    "stanza-too-large",
    dsc=put("X-Odd", "\n" + " a\n" * 2000 + " b"),
    settings={"checks.max_stanza": 4000},
)
row(
    "a control file too large for the suite",
    "stanza-too-large",
    settings={"suites.stable.checks.max_stanza": 100},
    **BINARY,
)
for field in ("Filename", "size", "MD5Sum", "SHA1", "SHA256", "SHA512", "Checksum-FileSize", "Description-md5"):
    row(f"a {field} in control", "index-field", warning=True, control=put(field, "1"))
row("a size in a .dsc", "index-field", warning=True, dsc=put("Checksum-FileSize", "1"))
row("a list of sizes in a .dsc", "bad-file-list", dsc=put("Checksums-Checksum-FileSize", "\n 1 1 hello_1.0-1.dsc"))
row("1,100 members in control.tar", "bad-control-archive", parts=control(*((f"./x{n}", b"") for n in range(1100))))
row("a member above the root", "tar-outside", parts=data(("./../../etc/passwd", b"")))
row("a maintainer script above the root", "tar-outside", parts=control(("../postinst", b"")))
row(
    "a .deb of another version",
    "deb-version-mismatch",
    control=put("Version", "1.0-2"),
    deb_name="hello_1.0-2_amd64.deb",
)
row("a .deb of another version of the source", "deb-version-mismatch", control=put("Source", "hello (0.9)"))
row(
    "a binNMU of another source than it says",
    "deb-version-mismatch",
    version="1.0-1+b1",
    control=put("Source", "hello (0.9)"),
    changes=put("Source", "hello (1.0-1)"),
    **BINARY,
)
row("a udeb in a .deb", "deb-file-name", control=put("Package-Type", "udeb"))
row("a deb in a .udeb", "deb-file-name", kind="udeb", control=put("Package-Type", "deb"))
row("a .deb of another source", "deb-source-mismatch", control=put("Source", "other (1.0-1)"))
row("a .deb that Binary lacks", "binary-not-listed", changes=put("Binary", "other"))
row("a .deb for any", "bad-binary-architecture", control=put("Architecture", "any"))
row("a .deb for every Linux", "bad-binary-architecture", control=put("Architecture", "linux-any"))
row("a .deb for source", "bad-binary-architecture", control=put("Architecture", "source"))
row("a .deb for two", "bad-binary-architecture", control=put("Architecture", "amd64 arm64"))
row("a .deb of another section", "section-mismatch", control=put("Section", "net"))
row("a .deb of another component", "section-mismatch", control=put("Section", "contrib/devel"))
row("a control file of tomorrow's tomorrow", "future-timestamp", parts=control(mtime=NOW.timestamp() + 90_000))
row("a file of 2099", "future-timestamp", parts=data(("./x", b""), mtime=4.1e9))
row("an ar of 2099", "future-timestamp", deb=lambda d: d.replace(b"1000000000 ", b"4100000000 "))
row("a Depends without operator", "bad-relation", control=put("Depends", "libc6 (2.36)"))
row("an empty Depends", "bad-relation", control=put("Depends", ""))
row("a hole in Depends", "bad-relation", control=put("Depends", "libc6,, gcc"))
row("a Priority with something behind it", "bad-control-file", control=put("Priority", "optional:"))
row("a Priority of two lines", "bad-control-file", control=swap("Priority: optional\n", "Priority: optional\n x\n"))
for name in ("Conflicts", "Breaks", "Replaces", "Provides"):
    row(f"an alternative in {name}", "bad-relation", control=put(name, "aa | bb"))
row("a comma at the end of Depends", "bad-relation", control=put("Depends", "libc6, gcc,"))
row("an alternative in Build-Conflicts", "bad-relation", dsc=put("Build-Conflicts", "aa | bb"))
row("a Depends in capitals", "bad-relation", control=put("Depends", "Foo"))
row("a Depends that dpkg finds empty", "bad-relation", control=swap("Depends: ", "Depends:\n "))
row("a Provides with more than =", "bad-relation", control=put("Provides", "hi (>= 1)"))
row("a build profile in a binary", "bad-relation", control=put("Depends", "libc6 <!nocheck>"))

# -- the whole --------------------------------------------------------------------------------------------------------

row(
    "300 files that did not come",
    "more-problems",
    also=("missing-file",),
    listed=lambda f: f.update(GONE),
    sent=lambda f: [f.pop(n) for n in GONE],
)


row(
    "a package that unpacks to more than is set",
    "bad-compression",
    parts=data(("./x", bytes(5 << 20))),
    settings={"checks.max_unpacked": "2M"},
)
row(
    "a control file of more than is set in one line",
    "stanza-too-large",
    control=put("X-Odd", "a" * 40_000),
    settings={"checks.max_stanza": "30K"},
)


def zstd_bomb() -> bytes:
    """Some 200 KiB that hold 4 GiB."""
    compressor = zstandard.ZstdCompressor().compressobj()
    zeros = bytes(1 << 24)
    return b"".join([*(compressor.compress(zeros) for _ in range(256)), compressor.flush()])


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_one_rule_is_broken_and_one_code_is_told(bench: Bench, row: Row) -> None:
    report = bench.check(row.upload)
    found = report.warnings if row.warning else report.problems
    assert sorted(codes(found)) == sorted({row.code, *row.also}), "\n".join(told(report))
    assert not (row.warning and report.problems)
    assert (report.changes == ()) == (not row.warning)
    advice = {rule.code: rule.advice for rule in rules.every()}
    assert all(problem.message.endswith(f"; {advice[problem.code]}") for problem in found)


def used_by_checks() -> set[str]:
    """The codes of the rules that some module of the room makes problems of."""
    found = set()
    for path in Path(incomingd.__file__).parent.joinpath("verify").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "rules":
                rule = getattr(rules, node.attr)
                if isinstance(rule, rules.Rule):
                    found.add(rule.code)
    return found


def test_every_rule_has_a_row() -> None:
    rows = {row.code for row in ROWS.values()}
    assert rows | ELSEWHERE.keys() == {rule.code for rule in rules.every()}
    assert used_by_checks() - rows <= ELSEWHERE.keys()


def test_the_other_rooms_test_their_codes() -> None:
    root = Path(__file__).parent.parent
    for code, place in ELSEWHERE.items():
        where = root / place
        names = {code, next(name for name, rule in vars(rules).items() if getattr(rule, "code", "") == code)}
        texts = [path.read_text() for path in ([where] if where.is_file() else where.rglob("*.py"))]
        assert any(name in text for text in texts for name in names), f"{code} is not in tests/{place}"


def test_the_reference_page_is_current() -> None:
    page = Path(incomingd.__file__).parent.parent / "docs/problems.md"
    assert page.read_text() == rules.reference(), "write it anew: python -m incomingd.rules >docs/problems.md"
