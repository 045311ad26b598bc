"""The packaged unit: as tight as systemd can say, and what is not has its reason in there."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "systemd/incomingd.service"


@pytest.fixture(scope="module")
def verdict() -> str:
    """What systemd-analyze says of it."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd is not installed")
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", UNIT]
    said = subprocess.run(command, capture_output=True, text=True, env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"})
    assert said.returncode == 0, said.stderr
    return said.stdout


def test_its_exposure_is_at_most_1_2(verdict: str) -> None:
    assert float(re.findall(r"Overall exposure level for incomingd.service: ([\d.]+)", verdict)[0]) <= 1.2


def test_all_that_counts_against_it_is_explained(verdict: str) -> None:
    counted = re.findall(r"^✗ (\w+)=", verdict, re.MULTILINE)
    assert "AmbientCapabilities" in counted, "nothing was found"
    comments = "\n".join(line for line in UNIT.read_text().splitlines() if line.startswith("#"))
    explained = {name for name in counted if re.search(rf"\b{name}=", comments)}
    assert set(counted) == explained


def test_workers_may_use_what_they_confine_themselves_with() -> None:
    allowed = " ".join(re.findall(r"^SystemCallFilter=([^~].*)$", UNIT.read_text(), re.MULTILINE)).split()
    assert {"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "seccomp"} <= set(allowed)
