"""Checks that have gone blind: the service halts before it checks anything, and goes on when they see again."""

from pathlib import Path

import pytest

from tests.support import packages
from tests.support.instance import Instance, until
from tests.support.uploads import Builder

#: Loaded by every Python that starts: what stands behind the end of a tar archive is no longer looked at.
BLIND = """
from incomingd.verify import tar
tar._Blocks.end = lambda self: None
"""


@pytest.fixture
def blind(instance: Instance, tmp_path: Path) -> Path:
    """The instance as it is not started yet, with such checks; remove the file that is returned to mend them."""
    instance.stop()
    (tmp_path / "blind").mkdir()
    module = tmp_path / "blind/sitecustomize.py"
    module.write_text(BLIND)
    instance.prefix = ("env", f"PYTHONPATH={module.parent}", "PYTHONDONTWRITEBYTECODE=1")
    return module


def test_the_service_halts_and_goes_on_when_the_checks_are_mended(
    instance: Instance, blind: Path, builder: Builder
) -> None:
    upload = builder.upload("hello", "1.0-1")
    upload.send_directory(instance.incoming)
    instance.start()
    until(lambda: instance.health().startswith("halted: the self-test of the checks failed"), "the halt")
    assert "a second archive behind the end" in instance.health()
    until(lambda: (instance.status(upload.name) or {}).get("stage") == "claimed", "the claim")
    assert instance.ctl("status").returncode == 4
    assert instance.status(upload.name)["state"] < 2  # type: ignore[index]  # it is there
    blind.unlink()
    instance.reload()
    instance.succeeded(upload.name)
    until(lambda: not instance.health().startswith("halted"), "the end of the halt")


def test_it_halts_without_any_upload(instance: Instance, blind: Path) -> None:
    instance.start()
    until(lambda: instance.health().startswith("halted: the self-test of the checks failed"), "the halt")


def test_once_exits_with_4(instance: Instance, blind: Path, builder: Builder) -> None:
    upload = builder.upload("hello", "1.0-1")
    upload.send_directory(instance.incoming)
    done = instance.run("incomingd", "--once")
    assert done.returncode == 4, done.stderr
    assert "self-test of the checks failed" in done.stderr
    blind.unlink()
    assert instance.run("incomingd", "--once").returncode == 0
    instance.succeeded(upload.name)


def test_an_import_exits_with_4(instance: Instance, blind: Path, tmp_path: Path) -> None:
    instance.start()
    packages.binary(tmp_path, "hello", "1.0")
    done = instance.ctl("import", "--suite", "stable", tmp_path)
    assert done.returncode == 4, done.stdout + done.stderr
    assert "self-test of the checks failed" in done.stderr
