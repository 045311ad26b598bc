"""What nfpm, CPack, alien, checkinstall, equivs, debsigs and electron-installer-debian build now goes every way in.

``test_builders.py`` has what they built once, and what none of them builds by itself.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.apt import Apt
from tests.support.instance import Instance
from tests.support.keys import Keys
from tests.support.package_builders import PackageBuilders

#: One for each way.
SUITES = ("bare", "submitted", "imported")


def field(deb: Path, name: str) -> str:
    done = subprocess.run(["dpkg-deb", "--field", deb, name], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_what_real_builders_build_is_taken_and_installed(
    tmp_path: Path, keys: Keys, builder_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GNUPGHOME", str(keys.home))
    built, missing = PackageBuilders(tmp_path / "built", keys, builder_key).build()
    assert all(built.values()), built
    debs = {field(deb, "Package"): deb for found in built.values() for deb in found}
    options = [word for suite in SUITES for word in ("--suite", suite)]
    instance = Instance(tmp_path / "instance", trust=[keys.public(builder_key)], options=options)
    instance.set("incoming.default", allow_bare_debs=True, default_suite="bare", signatures="optional")
    with instance:
        send_bare(instance, debs)
        submit(instance, debs, builder_key)
        done = instance.ctl("import", "--suite", "imported", *debs.values())
        assert done.returncode == 0, done.stdout + done.stderr
        for suite in SUITES:
            install(Apt(tmp_path / suite, instance.archive.as_uri(), instance.keyring, suite=suite), debs)
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def send_bare(instance: Instance, debs: dict[str, Path]) -> None:
    for name, deb in debs.items():
        hidden = instance.incoming / f".bare-{name}"
        hidden.mkdir()
        shutil.copy(deb, hidden)
        hidden.rename(instance.incoming / f"bare-{name}")
    for name in debs:
        instance.succeeded(f"bare-{name}")


def submit(instance: Instance, debs: dict[str, Path], key: str) -> None:
    for name, deb in debs.items():
        words = ("--to", instance.incoming, "--suite", "submitted", "--key", key, "--name", f"by-submit-{name}")
        done = instance.ctl("submit", *words, deb)
        assert done.returncode == 0, f"{deb.name}: {done.stderr}"
    for name in debs:
        instance.succeeded(f"by-submit-{name}")


def install(apt: Apt, debs: dict[str, Path]) -> None:
    """All of them, whatever else they need being there."""
    for deb in debs.values():
        for relation in filter(None, field(deb, "Depends").split(",")):
            apt.pretend_installed(relation.split("|")[0].split()[0], "99:1")
    apt.update()
    versions = {(name, field(deb, "Version")) for name, deb in debs.items()}
    assert apt.packages() == versions
    root = apt.install(*debs)
    status = (root / "var/lib/dpkg/status").read_text()
    assert all(f"Package: {name}\nStatus: install ok installed\n" in status for name in debs)
    for name in debs:
        if name.startswith("nfpm-"):
            assert (root / "usr/bin" / name).stat().st_mode & 0o777 == 0o755
