"""Packages as dpkg-deb and dpkg-source build them."""

import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

MAINTAINER = "Joan Builder <joan@example.org>"
DATE = "Mon, 05 Jan 2026 08:00:00 +0000"


def upstream(version: str) -> str:
    """A version without epoch and revision."""
    return version.split(":", 1)[-1].rpartition("-")[0] or version.split(":", 1)[-1]


def in_file_name(version: str) -> str:
    """A version without its epoch."""
    return version.split(":", 1)[-1]


def control_text(
    package: str, version: str, architecture: str, source: str | None, fields: Mapping[str, str | None]
) -> str:
    """A binary package's control file; a field that is ``None`` is left out."""
    usual: dict[str, str | None] = {
        "Package": package,
        "Source": source,
        "Version": version,
        "Architecture": architecture,
        "Maintainer": MAINTAINER,
        "Installed-Size": "1",
        "Section": "utils",
        "Priority": "optional",
        "Description": f"{package}, made for a test\n It says so.",
        **fields,
    }
    return "".join(f"{name}: {value}\n" for name, value in usual.items() if value is not None)


def binary(
    folder: Path,
    package: str,
    version: str,
    architecture: str = "amd64",
    *,
    source: str | None = None,
    content: str = "",
    fields: Mapping[str, str | None] | None = None,
    compression: str = "gzip",
) -> Path:
    """A .deb in ``folder``. ``content`` makes it another one of the same name."""
    with tempfile.TemporaryDirectory(prefix="incomingd-deb-") as temporary:
        tree = Path(temporary) / "tree"
        (tree / "DEBIAN").mkdir(parents=True)
        tree.chmod(0o755)
        text = control_text(package, version, architecture, source, fields or {})
        (tree / "DEBIAN/control").write_bytes(text.encode("utf-8", "surrogateescape"))
        doc = tree / f"usr/share/doc/{package}"
        doc.mkdir(parents=True)
        (doc / "README").write_text(f"{package} {version}\n{content}")
        deb = folder / f"{package}_{in_file_name(version)}_{architecture}.deb"
        command = ["dpkg-deb", f"-Z{compression}", "--root-owner-group", "--build", tree, deb]
        subprocess.run(command, check=True, capture_output=True)
    return deb


def source(
    folder: Path, name: str, version: str, *, binaries: tuple[str, ...] = (), form: str = "native", content: str = ""
) -> list[Path]:
    """A source package in ``folder``: its .dsc, then its files. ``form`` is native or quilt."""
    with tempfile.TemporaryDirectory(prefix="incomingd-dsc-") as temporary:
        tree = Path(temporary) / f"{name}-{upstream(version)}"
        tree.mkdir()
        (tree / "hello.c").write_text(f'int main(void) {{ return sizeof "{content}"; }}\n')
        if form == "quilt":
            _orig(folder, tree, name, version)
        _debian(tree, name, version, binaries or (name,), form)
        compression = () if form == "quilt" else ("-Zgzip",)
        before = set(folder.iterdir())
        subprocess.run(["dpkg-source", *compression, "--build", tree], cwd=folder, check=True, capture_output=True)
    orig = list(folder.glob(f"{name}_{upstream(version)}.orig.tar.*"))
    made = sorted({*folder.iterdir()} - before - set(orig), key=lambda file: (file.suffix != ".dsc", file.name))
    return [*made, *orig]


def _orig(folder: Path, tree: Path, name: str, version: str) -> None:
    tar = folder / f"{name}_{upstream(version)}.orig.tar.gz"
    if not tar.exists():
        subprocess.run(["tar", "-czf", tar, "-C", tree.parent, tree.name], check=True)


def _debian(tree: Path, name: str, version: str, binaries: tuple[str, ...], form: str) -> None:
    (tree / "debian/source").mkdir(parents=True)
    (tree / "debian/source/format").write_text(f"3.0 ({form})\n")
    rules = tree / "debian/rules"
    rules.write_text("#!/usr/bin/make -f\n%:\n\tdh $@\n")
    rules.chmod(0o755)
    (tree / "debian/control").write_text(
        f"Source: {name}\nSection: utils\nPriority: optional\nMaintainer: {MAINTAINER}\n"
        "Build-Depends: debhelper-compat (= 13)\nStandards-Version: 4.6.2\n"
        + "".join(f"\nPackage: {one}\nArchitecture: any\nDescription: {one}, made for a test\n" for one in binaries)
    )
    (tree / "debian/changelog").write_text(
        f"{name} ({version}) stable; urgency=medium\n\n  * Built.\n\n -- {MAINTAINER}  {DATE}\n"
    )


def buildinfo(folder: Path, name: str, version: str, architecture: str = "amd64") -> Path:
    """A .buildinfo (deb-buildinfo(5)) of what was built."""
    file = folder / f"{name}_{in_file_name(version)}_{architecture}.buildinfo"
    file.write_text(
        f"Format: 1.0\nSource: {name}\nBinary: {name}\nArchitecture: {architecture}\nVersion: {version}\n"
        f"Build-Origin: Debian\nBuild-Architecture: amd64\nBuild-Date: {DATE}\n"
        'Installed-Build-Depends:\n base-files (= 12.4)\nEnvironment:\n LANG="C.UTF-8"\n'
    )
    return file
