"""Makes many small packages and signed uploads quickly: 50,000 by dpkg-deb would take as long as what is measured.

The containers are written here byte by byte; a test holds them against dpkg-deb.
"""

import gzip
import hashlib
import io
import subprocess
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

WORDS = (
    *("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "inlet", "joint"),
    *("kneel", "larch", "maple", "north", "ocean", "pearl", "quilt", "ridge"),
)


def control(name: str, version: str) -> str:
    """A control file of the usual size: some dependencies, a description of several lines."""
    seed = hashlib.sha256(name.encode()).digest()
    words = [WORDS[byte % len(WORDS)] for byte in seed]
    depends = ", ".join(f"lib{words[i]}{seed[i] % 9} (>= {seed[i + 1] % 20}.{seed[i + 2] % 30})" for i in range(6))
    lines = "\n".join(f" {' '.join(words[i : i + 9])} {name} {' '.join(words[-i - 5 :])}." for i in range(5))
    return (
        f"Package: {name}\nVersion: {version}\nArchitecture: amd64\n"
        "Maintainer: Benchmark Builders <builders@example.org>\n"
        f"Installed-Size: {seed[0] + 20}\nDepends: {depends}\nSection: utils\nPriority: optional\n"
        f"Homepage: https://{words[0]}.example.org/{name}\nDescription: {' '.join(words[:5])}\n{lines}\n"
    )


def _tar_gz(members: list[tuple[str, bytes]]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as tar:
        top = tarfile.TarInfo("./")
        top.type, top.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(top)
        for member, data in members:
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return gzip.compress(raw.getvalue(), compresslevel=1, mtime=0)


def deb(name: str, version: str) -> bytes:
    """A whole .deb (deb(5))."""
    parts = (
        ("debian-binary", b"2.0\n"),
        ("control.tar.gz", _tar_gz([("./control", control(name, version).encode())])),
        ("data.tar.gz", _tar_gz([(f"./usr-share-{name}", name.encode() * 20)])),
    )
    out = io.BytesIO(b"!<arch>\n")
    out.seek(0, io.SEEK_END)
    for member, data in parts:
        out.write(f"{member:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode())
        out.write(data + b"\n" * (len(data) % 2))
    return out.getvalue()


def changes(name: str, version: str, file: str, data: bytes) -> str:
    """The .changes of one .deb, unsigned (deb-changes(5))."""
    md5, sha1, sha256 = (hashlib.new(algorithm, data).hexdigest() for algorithm in ("md5", "sha1", "sha256"))
    return (
        "Format: 1.8\nDate: Mon, 23 Nov 2026 08:00:00 +0000\n"
        f"Source: {name}\nBinary: {name}\nArchitecture: amd64\nVersion: {version}\nDistribution: stable\n"
        "Urgency: medium\nMaintainer: Benchmark Builders <builders@example.org>\n"
        "Changed-By: Benchmark Builders <builders@example.org>\n"
        f"Description:\n {name} - measured\nChanges:\n {name} ({version}) stable; urgency=medium\n .\n   * Built.\n"
        f"Checksums-Sha1:\n {sha1} {len(data)} {file}\nChecksums-Sha256:\n {sha256} {len(data)} {file}\n"
        f"Files:\n {md5} {len(data)} utils optional {file}\n"
    )


def sign(home: Path, text: str) -> bytes:
    """Clear-sign with the only secret key in ``home``."""
    command = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--clearsign", "--output", "-"]
    return subprocess.run(command, input=text.encode(), stdout=subprocess.PIPE, check=True).stdout


def make_key(home: Path) -> Path:
    """A signing key in a new gnupg home, of the kind that gpg makes by default; the path of its public half."""
    home.mkdir(mode=0o700, parents=True)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet"]
    subprocess.run([*gpg, "--passphrase", "", "--quick-gen-key", "bench@example.org", "default", "sign"], check=True)
    public = home / "public.asc"
    public.write_bytes(subprocess.run([*gpg, "--armor", "--export"], stdout=subprocess.PIPE, check=True).stdout)
    return public


def make_uploads(folder: Path, home: Path, names: list[str], version: str = "1.0") -> list[Path]:
    """One directory below ``folder`` for each name, with a .deb and its signed .changes."""

    def make(name: str) -> Path:
        upload = folder / f"{name}-{version}"
        upload.mkdir(parents=True)
        file, data = f"{name}_{version}_amd64.deb", deb(name, version)
        (upload / file).write_bytes(data)
        (upload / f"{name}_{version}_amd64.changes").write_bytes(sign(home, changes(name, version, file, data)))
        return upload

    with ThreadPoolExecutor(4) as threads:
        return list(threads.map(make, names))


def spread_name(number: int, kind: str) -> str:
    """A package name; those of many numbers lie all over the alphabet of names, in no order."""
    return f"pkg{hashlib.sha256(f'{kind}{number}'.encode()).hexdigest()[:6]}-{kind}{number}"


def make_tree(folder: Path, count: int) -> Path:
    """A tree of ``count`` packages, a thousand in each folder."""
    for number in range(count):
        name = spread_name(number, "tree")
        parent = folder / f"{number // 1000:03d}"
        if number % 1000 == 0:
            parent.mkdir(parents=True)
        (parent / f"{name}_1.0_amd64.deb").write_bytes(deb(name, "1.0"))
    return folder
