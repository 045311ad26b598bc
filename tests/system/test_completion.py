"""What the shells complete, asked of real ones; and that a completion never says anything but names."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tests.support.accounts import become, readable_python
from tests.support.instance import BIN, Instance
from tests.support.terminal import Terminal
from tests.support.uploads import Builder

SCRIPTS = Path(__file__).parents[2] / "conf/completion"
FILES = {"bash": "incomingctl.bash", "zsh": "_incomingctl", "fish": "incomingctl.fish"}
PATH = f"{BIN}:/usr/bin:/bin"


def upload(number: int, name: str, state: str, **more: Any) -> dict[str, Any]:
    states = ["PENDING", "RUNNING", "SUCCEEDED", "FAILED"]
    ended = state in ("SUCCEEDED", "FAILED")
    finished = "2026-01-02T03:04:05.678Z" if ended else None
    return {"id": number, "name": name, "state": states.index(state), "state_name": state, "finished_at": finished}


IN_FLIGHT = [upload(44, "job-44", "RUNNING"), upload(45, "job-45", "PENDING")]
ENDED = [
    *(upload(43, "job-43", "FAILED"), upload(42, "job-42", "SUCCEEDED"), upload(41, "job-42", "FAILED")),
    *(upload(40, "tests-1.0+b1~x", "SUCCEEDED"), upload(39, "$(touch pwned)", "FAILED"), upload(38, "*", "FAILED")),
    *(upload(37, "-job", "FAILED"), upload(36, "job\\x1b[31m", "FAILED"), upload(35, "job 35", "FAILED")),
]


@pytest.fixture
def told(tmp_path: Path) -> Path:
    folder = tmp_path / "status"
    folder.mkdir()
    (folder / "index.json").write_text(json.dumps({"schema": 1, "health": {}, "in_flight": IN_FLIGHT, "ended": ENDED}))
    return folder


def asked(
    *words: str, shell: str = "bash", env: Mapping[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """What ``incomingctl`` answers the script of that shell; the last word is the one to complete."""
    number = words[-1] if shell == "fish" else str(len(words))
    variables = {"COMP_WORDS": " ".join(("incomingctl", *words)), "COMP_CWORD": number, "PATH": PATH}
    command = {"_INCOMINGCTL_COMPLETE": f"{shell}_complete", **variables, **(env or {})}
    return subprocess.run([BIN / "incomingctl"], capture_output=True, text=True, env=command, **options)


def completed(*words: str, env: Mapping[str, str] | None = None) -> list[str]:
    done = asked(*words, env=env)
    assert done.stderr == ""
    return [line.removeprefix("plain,") for line in done.stdout.splitlines() if line]


# -- what is offered --------------------------------------------------------------------------------------------------


def test_uploads(told: Path) -> None:
    env = {"INCOMINGD_STATUS": str(told)}
    everything = ["job-44", "job-45", "job-43", "job-42", "tests-1.0+b1~x"]
    assert completed("status", "", env=env) == everything
    assert completed("status", "job-4", env=env) == everything[:4]
    assert completed("status", "--status", str(told), "t", env={}) == ["tests-1.0+b1~x"]
    assert completed("wait", "job-44", "job-42", "job", env=env) == ["job-45", "job-43"]
    assert completed("--config", "/nowhere", "wait", "job-44", "job-4", env=env) == ["job-45", "job-43", "job-42"]


def test_states_are_told_beside_the_names(told: Path) -> None:
    env = {"INCOMINGD_STATUS": str(told)}
    assert "plain\njob-43\nFAILED\n" in asked("status", "job", shell="zsh", env=env).stdout
    assert "plain,job-44\tRUNNING\n" in asked("status", "job", shell="fish", env=env).stdout


def test_names_of_a_real_instance(instance: Instance, builder: Builder) -> None:
    env = {"INCOMINGD_CONFIG": str(instance.config)}
    good = builder.upload("good", "1.0", source="native").send_directory(instance.incoming, "job-1")
    instance.succeeded(good)
    bad = builder.upload("bad", key=None).send_directory(instance.incoming, "job-2")
    instance.failed(bad)
    assert instance.ctl("hold").returncode == 0
    waits = builder.upload("waits").send_directory(instance.incoming, "job-3")
    instance.ctl("wait", "--timeout", "5", waits)
    assert completed("cancel", "", env=env) == [waits]
    assert completed("retry", "", env=env) == [bad]
    assert completed("wait", "", env=env) == [waits, bad, good]
    assert completed("show", "", env=env) == [waits, bad, good, "good"]
    for words in (["remove", "g"], ["copy", "g"]):
        assert completed(*words, env=env) == ["good"]
    suites = (["list", "s"], ["history", ""], ["copy", "good", ""], ["copy", "good", "stable", ""], ["rollback", "st"])
    for words in (*suites, ["remove", "good", ""], ["import", "--suite", ""], ["import", "--suite", "s"]):
        assert completed(*words, env=env) == ["stable"]
    assert completed("list", "stable", "", env=env) == []
    assert completed("import", "--suite", "x", env=env) == []
    assert "status" in completed("st")
    assert completed("status", "--js") == ["--json"]


def test_one_who_may_not_read_the_journal_completes_uploads(instance: Instance, builder: Builder) -> None:
    if os.getuid() or not readable_python():
        pytest.skip("needs root, and a Python that other accounts can run")
    instance.succeeded(builder.upload("good").send_directory(instance.incoming, "job-1"))
    for folder in (instance.root, *instance.root.parents):
        if folder.stat().st_uid == 0 and folder not in (Path("/"), Path("/tmp")):
            folder.chmod(0o755)
    variables = {"COMP_WORDS": "incomingctl show ", "COMP_CWORD": "2", "INCOMINGD_CONFIG": str(instance.config)}
    done = subprocess.run(
        [*become(65534), BIN / "incomingctl"],
        capture_output=True,
        text=True,
        env={"PATH": PATH, "_INCOMINGCTL_COMPLETE": "bash_complete", **variables},
        cwd="/",
    )
    assert (done.stdout, done.stderr) == ("plain,job-1\n", "")


# -- nothing but names ------------------------------------------------------------------------------------------------

INDEXES = {
    "no JSON": "{",
    "empty": "",
    "a list": "[]",
    "no lists": '{"schema": 1}',
    "numbers": '{"in_flight": 3, "ended": [3]}',
    "no names": '{"in_flight": [{}], "ended": []}',
    "odd names": '{"in_flight": [{"name": 3, "id": 3, "state": 9, "finished_at": 3}], "ended": []}',
    "bytes": "\udcff",
}


@pytest.mark.parametrize("shell", FILES)
@pytest.mark.parametrize("index", INDEXES.values(), ids=INDEXES)
def test_a_status_folder_that_is_broken_is_not_told_of(told: Path, index: str, shell: str) -> None:
    (told / "index.json").write_bytes(index.encode(errors="surrogateescape"))
    done = asked("wait", "jo", shell=shell, env={"INCOMINGD_STATUS": str(told)})
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_whatever_is_broken_is_not_told_of(idle: Instance, tmp_path: Path) -> None:
    env = {"INCOMINGD_CONFIG": str(idle.config)}
    broken = tmp_path / "broken.toml"
    broken.write_text("[[[")
    (idle.state / "journal.db").write_bytes(b"not a journal")
    gone = {"INCOMINGD_STATUS": str(tmp_path / "gone")}
    verbs = set(asked("").stdout.splitlines())  # are known whatever is broken
    for done in (
        *(asked("show", "x", env=env), asked("remove", "x", env=env), asked("copy", "", env=env)),
        *(asked(verb, "", env=gone, cwd="/") for verb in ("wait", "list", "cancel", "retry", "show", "remove")),
        *(asked(verb, "", env={"INCOMINGD_CONFIG": str(broken)}) for verb in ("wait", "list", "cancel")),
        *(asked("list", "", env={"INCOMINGD_CONFIG": str(tmp_path)}), asked("--config", "/dev/null", "list", "")),
        *(asked("stauts", "--x", "y"), asked("wait", "--timeot", ""), asked("--nonsense", "wait", "")),
        *(asked("list", '"'), asked("wait", "it's", "x"), asked("\x1b[31m", ""), asked("wait", "--timeout", "x", "")),
        *(asked("list", "", env={"COMP_CWORD": "many"}), asked("list", "", env={"COMP_CWORD": "99"})),
        *(asked("list", "", shell="csh"), asked("list", "", env={"COMP_WORDS": ""})),
    ):
        assert done.stderr == "", done
        assert set(done.stdout.splitlines()) - {""} <= verbs, done
    variables = {"PATH": PATH, "_INCOMINGCTL_COMPLETE": "bash_complete"}
    bare = subprocess.run([BIN / "incomingctl"], capture_output=True, env=variables)
    assert (bare.stdout.strip(), bare.stderr) == (b"", b"")


# -- real shells ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", FILES)
def test_the_scripts_are_those_of_click(shell: str) -> None:
    if int(version("click").split(".")[1]) < 5 and version("click").startswith("8."):
        pytest.skip("a click before 8.5 makes others; it answers these, too")
    environment = {"PATH": PATH, "_INCOMINGCTL_COMPLETE": f"{shell}_source"}
    made = subprocess.run([BIN / "incomingctl"], capture_output=True, text=True, env=environment)
    told = f"make it again: _INCOMINGCTL_COMPLETE={shell}_source incomingctl >conf/completion/{FILES[shell]}"
    assert made.stdout == (SCRIPTS / FILES[shell]).read_text(), told


def typed(words: list[str], begin: list[str], env: Mapping[str, str]) -> None:
    """Type into a shell on a terminal what a user types, and see what it becomes."""
    for word in (*words[:1], "setsid"):
        if not shutil.which(word):
            pytest.skip(f"{word} is not installed")
    with Terminal(words, env={"PATH": PATH, **env}) as shell:
        for line in (*begin, 'PS1="rea""dy> "'):
            shell.type(f"{line}\n")
        shell.until(r"ready> ")
        shell.type("incomingctl stat\t")
        shell.until(r"incomingctl status ")
        shell.type("tes\t")
        shell.until(r"ts-1\.0\+b1\\?~x ")
        shell.type("\x15")  # the line is cleared
        shell.type("incomingctl retry \t")  # one only: what is refused for its name is not offered
        shell.until(r"incomingctl retry job-43 ")
        shell.type("\x15incomingctl wait job\t\t")
        shell.until(r"-4")
        shell.type("4\t")
        shell.until(r"4 ")
        shell.type("\x15incomingctl list x\t\x15echo do''ne\n")
        shell.until(r"\ndone\n")


@pytest.fixture
def home(told: Path) -> dict[str, str]:
    """The environment of a user whose status folder is in the configuration."""
    config = told.parent / "incomingd.toml"
    config.write_text("not read: the status folder lies beside it\n")
    (told.parent / "home").mkdir()
    return {"INCOMINGD_CONFIG": str(config), "HOME": str(told.parent / "home"), "HISTFILE": "/dev/null"}


def test_bash(home: dict[str, str]) -> None:
    typed(["bash", "--norc", "--noprofile", "-i"], [f"source {SCRIPTS / FILES['bash']}"], home)
    assert not (Path.cwd() / "pwned").exists()


def test_zsh(home: dict[str, str]) -> None:
    load = [f"fpath=({SCRIPTS} $fpath)", "autoload -Uz compinit", "compinit -u -D", "bindkey '^U' kill-whole-line"]
    typed(["zsh", "-f", "-i"], load, home)


def test_fish(home: dict[str, str]) -> None:
    if not shutil.which("fish"):
        pytest.skip("fish is not installed")
    folder = Path(home["HOME"]) / ".config/fish/completions"
    folder.mkdir(parents=True)
    shutil.copy(SCRIPTS / FILES["fish"], folder)

    def complete(line: str) -> list[str]:
        words = ["fish", "--command", f"complete --do-complete '{line}'"]
        done = subprocess.run(words, capture_output=True, text=True, env={"PATH": PATH, **home})
        assert done.stderr == ""
        return done.stdout.splitlines()

    assert complete("incomingctl wait job-44 job-") == ["job-42\tSUCCEEDED", "job-43\tFAILED", "job-45\tPENDING"]
    assert complete("incomingctl retry ") == ["job-43\tFAILED"]
    assert [line.split("\t")[0] for line in complete("incomingctl stat")] == ["status"]
    assert complete("incomingctl list ") == []
