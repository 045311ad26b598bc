"""``wait`` and ``status`` of a CI job need the status folder alone: an operator's typo stops nobody."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.instance import BIN, Instance
from tests.support.uploads import Builder


@pytest.fixture
def sent(instance: Instance, builder: Builder) -> str:
    name = builder.upload("hello", "1.0-1").send_directory(instance.incoming)
    instance.succeeded(name)
    return name


def ctl(where: Path, *words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """As a CI job calls it, in a folder without a configuration."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("INCOMINGD_")}
    return subprocess.run(
        [BIN / "incomingctl", *words], cwd=where, env=environment | variables, capture_output=True, text=True
    )


@pytest.mark.parametrize("verb", ["wait", "status"])
def test_by_the_folder(instance: Instance, sent: str, tmp_path: Path, verb: str) -> None:
    folder = instance.root / "status"
    for done in (
        ctl(tmp_path, verb, sent, "--status", folder),
        ctl(tmp_path, verb, sent, INCOMINGD_STATUS=str(folder)),
    ):
        assert done.returncode == 0, done.stderr
        assert "published in stable" in done.stdout
    assert ctl(tmp_path, verb, sent).returncode == 2


def test_what_failed_and_what_is_not_known(instance: Instance, builder: Builder, tmp_path: Path) -> None:
    folder = instance.root / "status"
    other = builder.upload("hello", "1.0-1", key=builder.keys.make("Mallory"), upload_name="other")
    name = other.send_directory(instance.incoming)
    instance.failed(name)
    done = ctl(tmp_path, "wait", name, "--status", folder)
    assert done.returncode == 1
    assert "[unknown-key]" in done.stdout
    assert ctl(tmp_path, "wait", "nothing", "--timeout", "0.2", "--status", folder).returncode == 3
    assert ctl(tmp_path, "status", "--status", folder).returncode == 0


@pytest.mark.parametrize("verb", ["wait", "status"])
def test_a_typo_in_the_configuration(instance: Instance, sent: str, tmp_path: Path, verb: str) -> None:
    instance.config.write_text(instance.config.read_text().replace("[archive]", "[archve]"))
    done = ctl(tmp_path, "--config", instance.config, verb, sent)
    assert done.returncode == 0, done.stderr
    assert "published in stable" in done.stdout
    assert "warning:" in done.stderr
    assert "archve" in done.stderr
    assert f"the status is read from {instance.root / 'status'}" in done.stderr
    assert ctl(tmp_path, "--config", instance.config, "queue").returncode == 2  # others need it
