"""Builders of packages other than Debian's own, each run as its users do; what each one's name gives is its .deb files.

A builder is run in a folder of its own, and makes packages whose names begin with its own, of one small script.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.support.keys import Keys

_ELECTRON = Path(__file__).parents[2] / ".cache/electron-installer-debian/node_modules/.bin/electron-installer-debian"
_MAINTAINER = "Joan Builder <joan@example.org>"


class PackageBuilders:
    """The builders, all below ``root``; ``key`` of ``keys`` signs what can be signed."""

    def __init__(self, root: Path, keys: Keys, key: str) -> None:
        self._root, self._keys, self._key = root, keys, key
        (root / "home").mkdir(parents=True)
        self._environment = {**os.environ, "HOME": str(root / "home"), "LC_ALL": "C.UTF-8", "GNUPGHOME": str(keys.home)}
        self._script = root / "hello"
        self._script.write_text("#!/bin/sh\necho hello\n")
        self._script.chmod(0o755)

    def build(self) -> tuple[dict[str, list[Path]], list[str]]:
        """The packages by the program that built them, and the programs that are not here."""
        every: dict[str, tuple[str | Path, Callable[[Path, str], None]]] = {
            "nfpm": (Path(sys.prefix) / "bin/nfpm", self._nfpm),
            "cpack": ("cpack", self._cpack),
            "alien": ("alien", self._alien),
            "checkinstall": ("checkinstall", self._checkinstall),
            "equivs": ("equivs-build", self._equivs),
            "debsigs": ("debsigs", self._debsigs),
            "electron-installer-debian": (_ELECTRON, self._electron),
        }
        built: dict[str, list[Path]] = {}
        missing = []
        for name, (program, make) in every.items():
            found = shutil.which(program)
            if found is None:
                missing.append(name)
                continue
            folder = self._root / name
            folder.mkdir()
            make(folder, found)
            built[name] = sorted(folder.rglob("*.deb"))
        return built, missing

    def _run(self, folder: Path, *command: str | Path, as_root: bool = False) -> None:
        """``as_root``: it thinks that root runs it."""
        before = ["fakeroot"] if as_root and os.geteuid() else []
        done = subprocess.run(
            [*before, *command],
            cwd=folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}"

    # -- one after the other ------------------------------------------------------------------------------------------

    def _nfpm(self, folder: Path, program: str) -> None:
        """Each compression, a package without all that may be left out, a signed one, and one with all of a version."""
        described = {"maintainer": _MAINTAINER, "description": "hello"}
        for compression in ("gzip", "xz", "zstd", "none"):
            self._nfpm_one(folder, program, f"nfpm-{compression}", {**described, "deb": {"compression": compression}})
        self._nfpm_one(folder, program, "nfpm-least", {})
        numbers = {"version": "v2.0.0-rc1", "epoch": "1", "release": "3", "arch": "all", "section": "default"}
        self._nfpm_one(folder, program, "nfpm-version", described | numbers)
        secret = folder / "key.asc"
        export = ["gpg", "--batch", "--pinentry-mode", "loopback", "--passphrase", "", "--armor"]
        self._run(folder, *export, "--output", secret, "--export-secret-keys", self._key)
        signature = {"method": "debsign", "key_file": str(secret), "type": "origin"}
        self._nfpm_one(folder, program, "nfpm-signed", {**described, "deb": {"signature": signature}})

    def _nfpm_one(
        self, folder: Path, program: str, name: str, settings: Mapping[str, object], kind: str = "deb"
    ) -> None:
        contents = [{"src": str(self._script), "dst": f"/usr/bin/{name}"}]
        # What JSON writes is YAML, too.
        told = {"name": name, "arch": "amd64", "version": "1.2.3", "contents": contents, **settings}
        (folder / f"{name}.yaml").write_text(json.dumps(told))
        self._run(folder, program, "package", "--config", f"{name}.yaml", "--packager", kind, "--target", folder)

    def _cpack(self, folder: Path, program: str) -> None:
        """Each compression, its own file name and Debian's, a package for each component."""
        (folder / "CMakeLists.txt").write_text(
            "cmake_minimum_required(VERSION 3.20)\nproject(cpack-hello VERSION 1.4.2 LANGUAGES NONE)\n"
            f'install(PROGRAMS "{self._script}" DESTINATION bin RENAME ${{CPACK_PACKAGE_NAME}} COMPONENT tools)\n'
            f'install(FILES "{self._script}" DESTINATION share/${{CPACK_PACKAGE_NAME}} COMPONENT data)\n'
            f'set(CPACK_PACKAGE_CONTACT "{_MAINTAINER}")\ninclude(CPack)\n'
        )
        settings: dict[str, list[str]] = {
            f"cpack-{one}": [f"CPACK_DEBIAN_COMPRESSION_TYPE={one}"] for one in ("gzip", "bzip2", "lzma", "xz", "zstd")
        }
        settings["CPack-Debian-Name"] = ["CPACK_DEBIAN_FILE_NAME=DEB-DEFAULT", "CPACK_DEBIAN_PACKAGE_RELEASE=1"]
        settings["cpack-parts"] = ["CPACK_DEB_COMPONENT_INSTALL=ON"]
        for name, options in settings.items():
            build = folder / name
            self._run(folder, "cmake", "-S", ".", "-B", build, f"-DCPACK_PACKAGE_NAME={name}")
            words = [word for option in options for word in ("-D", option)]
            self._run(build, program, "-G", "DEB", *words)
            shutil.rmtree(build / "_CPack_Packages")

    def _alien(self, folder: Path, program: str) -> None:
        """What was an RPM, where nfpm can make one, and what was a tarball."""
        self._run(folder, "tar", "-C", self._root, "-czf", "alien-tar-1.0.tar.gz", "hello")
        nfpm = shutil.which(Path(sys.prefix) / "bin/nfpm")
        if nfpm is not None:
            self._nfpm_one(folder, nfpm, "alien-rpm", {"license": "MIT", "maintainer": _MAINTAINER}, kind="rpm")
        self._run(folder, program, "--to-deb", *folder.glob("*.rpm"), *folder.glob("*.tar.gz"), as_root=True)

    def _checkinstall(self, folder: Path, program: str) -> None:
        # --fstrans: nothing is installed here.
        (folder / "Makefile").write_text("install:\n\tinstall -m 755 ../hello /usr/local/bin/checkinstall-hello\n")
        words = ["--install=no", "--fstrans=yes", "--nodoc", "--default", "--type=debian"]
        self._run(folder, program, *words, "--pkgname=checkinstall-hello", "--pkgversion=1.0", as_root=True)
        assert not Path("/usr/local/bin/checkinstall-hello").exists()

    def _equivs(self, folder: Path, program: str) -> None:
        (folder / "control").write_text("Package: equivs-hello\nDescription: hello\n")
        self._run(folder, program, "control")

    def _debsigs(self, folder: Path, program: str) -> None:
        """What dpkg-deb has built, signed twice."""
        control = folder / "tree/DEBIAN/control"
        control.parent.mkdir(parents=True)
        control.write_text(
            f"Package: debsigs-hello\nVersion: 1.0\nArchitecture: all\nMaintainer: {_MAINTAINER}\nDescription: hello\n"
        )
        deb = folder / "debsigs-hello_1.0_all.deb"
        self._run(folder, "dpkg-deb", "--root-owner-group", "--build", "tree", deb)
        for kind in ("origin", "maint"):
            self._run(folder, program, f"--sign={kind}", f"--default-key={self._key}", deb)

    def _electron(self, folder: Path, program: str) -> None:
        """Of what an application consists as far as the builder looks."""
        app = folder / "app"
        (app / "resources/app").mkdir(parents=True)
        shutil.copy(self._script, app / "electron-hello")
        described = {"name": "electron-hello", "version": "1.0.0-beta.2", "description": "Hello", "author": _MAINTAINER}
        (app / "resources/app/package.json").write_text(json.dumps(described))
        (app / "version").write_text("38.0.0")
        (app / "LICENSE").write_text("none\n")
        self._run(folder, program, "--src", app, "--dest", folder / "out", "--arch", "amd64")
