"""Packages as other builders than dpkg write them: nfpm, CPack, GNU ar, alien, debsigs, equivs, and one oddity each.

``tests/data/debs/expected.tsv`` says what is right in every way in: accept, reject, or soft (either, with a reason).
"""

import gzip
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.support.apt import Apt
from tests.support.instance import Instance
from tests.support.keys import Keys

DATA = Path(__file__).parents[1] / "data/debs"
EXPECTED = dict(line.split("\t") for line in (DATA / "expected.tsv").read_text().splitlines() if line)
ACCEPTED = sorted(name for name, verdict in EXPECTED.items() if verdict == "accept")
REJECTED = sorted(name for name, verdict in EXPECTED.items() if verdict == "reject")


def debs(name: str) -> list[Path]:
    folder = DATA / "made" / name
    return sorted(folder.iterdir()) if folder.is_dir() else [DATA / "real" / f"{name}.deb"]


@pytest.fixture
def lenient(idle: Instance) -> Instance:
    """An instance whose one queue takes bare packages, running."""
    idle.set("incoming.default", allow_bare_debs=True, default_suite="stable", signatures="optional")
    idle.start()
    return idle


def drop(instance: Instance, names: Iterable[str]) -> None:
    for name in names:
        hidden = instance.incoming / f".{name}"
        hidden.mkdir()
        for deb in debs(name):
            shutil.copy(deb, hidden)
        hidden.rename(instance.incoming / name)


def packages(archive: Path) -> str:
    return gzip.decompress((archive / "dists/stable/main/binary-amd64/Packages.gz").read_bytes()).decode()


#: What would bring packages along that are not in this archive, or keep others away.
RELATIONS = {"Depends", "Pre-Depends", "Conflicts", "Breaks"}


def stanzas(archive: Path) -> dict[str, dict[str, str]]:
    found = {}
    for stanza in packages(archive).strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line and line[0] != " ")
        found[fields["Package"]] = fields
    return found


def listed(archive: Path) -> dict[str, str]:
    """Each package in the index, with the name of its file in the pool."""
    found = {}
    for name, fields in stanzas(archive).items():
        found[name] = fields["Filename"].rpartition("/")[2]
        assert fields["Section"], name
        assert fields["Priority"], name
    return found


def test_there_are_cases_of_every_kind() -> None:
    assert len(ACCEPTED) > 35
    assert len(REJECTED) > 5


def test_in_a_queue_that_takes_packages_alone(lenient: Instance, tmp_path: Path) -> None:
    drop(lenient, EXPECTED)
    for name, verdict in EXPECTED.items():
        found = lenient.wait(name)
        if verdict != "soft":
            assert (found["state_name"] == "SUCCEEDED") == (verdict == "accept"), (name, found["problems"])
        assert found["problems"] or found["state_name"] == "SUCCEEDED"
    files = listed(lenient.archive)
    assert files["mytool"] == "mytool_1.4.2_amd64.deb"
    assert all(" " not in file and ":" not in file for file in files.values())
    apt = Apt(tmp_path / "apt", lenient.archive.as_uri(), lenient.keyring)
    apt.update()
    apt.run("download", *files)
    alone = {name for name, fields in stanzas(lenient.archive).items() if not fields.keys() & RELATIONS}
    assert {"mytool", "b18_under", "c05-colon", "gar-hello", "nf-min"} <= alone
    apt.run("install", "-y", *sorted(alone))


def test_by_submit(idle: Instance, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    key = keys.make("CI")
    monkeypatch.setenv("GNUPGHOME", str(keys.home))
    idle.set("service", workers=os.cpu_count() or 1)
    idle.start()
    assert idle.ctl("trust", keys.public(key)).returncode == 0
    sent = []
    for name, verdict in EXPECTED.items():
        words = ("submit", "--to", idle.incoming, "--suite", "stable", "--key", key, "--name", name, *debs(name))
        done = idle.ctl(*words)
        if done.returncode:
            assert verdict != "accept", done.stderr
            assert name.partition("_")[0] in done.stderr
        else:
            sent.append(name)
    assert set(ACCEPTED) <= set(sent)
    for name in sent:
        found = idle.wait(name)
        if EXPECTED[name] != "soft":
            assert (found["state_name"] == "SUCCEEDED") == (EXPECTED[name] == "accept"), (name, found["problems"])


def test_by_import(idle: Instance, tmp_path: Path) -> None:
    idle.start()
    done = idle.ctl("import", "--suite", "stable", *(deb for name in ACCEPTED for deb in debs(name)))
    assert done.returncode == 0, done.stdout
    assert listed(idle.archive)["mytool"] == "mytool_1.4.2_amd64.deb"
    done = idle.ctl("import", "--suite", "stable", *(deb for name in REJECTED for deb in debs(name)))
    assert done.returncode == 1
    for name in REJECTED:
        assert f"/{name}" in done.stdout
    assert f"{len(REJECTED)} of {len(REJECTED)} packages cannot be imported" in done.stderr


def test_a_strict_suite_takes_what_debian_takes(lenient: Instance) -> None:
    lenient.set("suites.stable.checks", strict=True)
    assert lenient.ctl("reload").returncode == 0
    style = ("MyTool-1.4.2-Linux", "b18-under-package", "b05-section-checkinstall", "c07-space")
    drop(lenient, (*style, "nf-min_0.1.0_amd64"))
    for name in style:
        assert set(lenient.failed(name)) <= {"deb-file-name", "bad-package-name", "unknown-section"}
    lenient.succeeded("nf-min_0.1.0_amd64")


def test_an_override_comes_before_the_section_is_judged(lenient: Instance) -> None:
    overrides = lenient.root / "overrides"
    overrides.write_text("b05-section-checkinstall extra net\n")
    lenient.set("suites.stable", overrides=str(overrides))
    lenient.set("suites.stable.checks", strict=True)
    assert lenient.ctl("reload").returncode == 0
    drop(lenient, ["b05-section-checkinstall"])
    assert lenient.succeeded("b05-section-checkinstall")["warnings"] == []
    assert "\nSection: net\n" in packages(lenient.archive)


def test_every_section_can_be_known(lenient: Instance) -> None:
    lenient.set("suites.stable.checks", strict=True, extra_sections=["*"])
    assert lenient.ctl("reload").returncode == 0
    drop(lenient, ["b05-section-checkinstall"])
    assert lenient.succeeded("b05-section-checkinstall")["warnings"] == []
    assert "\nSection: checkinstall\n" in packages(lenient.archive)
