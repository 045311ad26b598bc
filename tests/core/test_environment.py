"""What processes that read packages get of this one's environment."""

from pathlib import Path

import pytest

from incomingd.sandbox.environment import bare


def test_no_secret_is_passed_on_and_pythonpath_holds_in_another_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", ".::lib:/srv/lib")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("https_proxy", "http://proxy")
    found = bare("https_proxy", LC_ALL="C.UTF-8")
    assert found["PYTHONPATH"] == f"{tmp_path}:{tmp_path}/lib:/srv/lib"
    assert (found["https_proxy"], found["LC_ALL"]) == ("http://proxy", "C.UTF-8")
    assert "AWS_SECRET_ACCESS_KEY" not in found
    monkeypatch.setenv("PYTHONPATH", "")
    assert "PYTHONPATH" not in bare()
