"""A check worker that an upload has taken over answers as it likes: no answer makes the daemon use its own rights."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.accounts import Guarded
from tests.support.keys import Keys
from tests.support.uploads import Builder

#: Python runs this in every process. In check workers it alters the report, as code that an upload brought could.
_TAKEN_OVER = """
import sys
if "incomingd.verify.worker" in sys.orig_argv:
    import incomingd.verify.check as checking
    from dataclasses import replace
    honest = checking.check
    def check(job, authorisation):
        report = honest(job, authorisation)
        [changes] = report.changes
        [binary] = changes.binaries
        {alter}
        return replace(report, changes=(replace(changes, binaries=(binary,)),))
    checking.check = check
"""


def holds(folder: Path, data: bytes) -> bool:
    """True if a file with these bytes lies anywhere below."""
    return any(path.is_file() and path.read_bytes() == data for path in folder.rglob("*"))


@pytest.mark.parametrize("name", ["{key}", "../../{relative}"], ids=["absolute", "relative"])
def test_the_signing_key_is_not_published_as_a_package(
    name: str, guarded: Callable[..., Guarded], keys: Keys, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = Builder(folder=work / "built", keys=keys, key=keys.make("Mallory"))
    instance = guarded([keys.public(builder.key)])
    [key] = (instance.state / "gnupg/signing/private-keys-v1.d").iterdir()
    name = name.format(key=key, relative=key.relative_to(instance.state))
    (work / "attacker").mkdir()
    alter = f"binary = replace(binary, file=replace(binary.file, name={name!r}))"
    (work / "attacker/sitecustomize.py").write_text(_TAKEN_OVER.format(alter=alter))
    monkeypatch.setenv("PYTHONPATH", str(work / "attacker"))
    instance.start()
    sent = builder.upload("hello").send_directory(instance.incoming)
    assert instance.failed(sent) == ["check-crashed"]
    assert not holds(instance.archive, key.read_bytes())
    assert "is not sealed so" in instance.log()


def test_nothing_is_written_outside_of_the_pool(
    guarded: Callable[..., Guarded], keys: Keys, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = Builder(folder=work / "built", keys=keys, key=keys.make("Mallory"))
    instance = guarded([keys.public(builder.key)])
    (work / "attacker").mkdir()
    alter = 'binary = replace(binary, component="../../state/gnupg")'
    (work / "attacker/sitecustomize.py").write_text(_TAKEN_OVER.format(alter=alter))
    monkeypatch.setenv("PYTHONPATH", str(work / "attacker"))
    instance.start()
    sent = builder.upload("hello").send_directory(instance.incoming)
    assert instance.failed(sent) == ["check-crashed"]
    assert not (instance.state / "gnupg/h").exists()


def test_no_other_signer_is_named(
    guarded: Callable[..., Guarded], keys: Keys, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has signed an upload was found out by a worker that reads no packages: what this one says is compared."""
    builder, other = Builder(folder=work / "built", keys=keys, key=keys.make("Mallory")), keys.make("Alice")
    instance = guarded([keys.public(builder.key), keys.public(other)])
    (work / "attacker").mkdir()
    alter = f"changes = replace(changes, signed_by={other!r}, signing_key={other!r})"
    (work / "attacker/sitecustomize.py").write_text(_TAKEN_OVER.format(alter=alter))
    monkeypatch.setenv("PYTHONPATH", str(work / "attacker"))
    instance.start()
    sent = builder.upload("hello").send_directory(instance.incoming)
    assert instance.failed(sent) == ["check-crashed"]
    assert "than what was authorised" in instance.log()
