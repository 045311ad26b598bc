"""What incomingctl prints on a terminal, and that in a pipe it prints what scripts have always read."""

import json
import os
import re
import shlex
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from incomingd.codec import timestamp
from tests.support.instance import BIN, Instance, until
from tests.support.terminal import Terminal, on_terminal
from tests.support.uploads import Builder

GREEN, RED, YELLOW = "\x1b[32m", "\x1b[31m", "\x1b[33m"
COLOUR = re.compile(r"\x1b\[3\dm")
#: What rich or a terminal would obey.
EVIL = ("[red]x[/red]", "x\x1b[31m", "x\u202ey", "[link=http://a.example]y[/link]")
EXACT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")

#: A service that has stopped, as its status folder tells of it: the times and the process are those of any run.
ENDED = "2026-01-02T03:04:07.000Z"
UPLOAD: dict[str, Any] = {
    "schema": 1,
    "name": "job-41",
    "id": 7,
    "queue": "default",
    "uploader": {"uid": 0, "account": "root"},
    "state": 3,
    "state_name": "FAILED",
    "stage": "rejected",
    "position": None,
    "seen_at": "2026-01-02T03:04:05.678Z",
    "due_at": None,
    "finished_at": ENDED,
    "changes": [
        {
            "file": "hello_1.0-1_amd64.changes",
            "source": "hello",
            "version": "1.0-1",
            "distribution": "nowhere",
            "signed_by": "A" * 40,
        }
    ],
    "published": None,
    "already_published": False,
    "warnings": [{"code": "odd", "file": None, "message": "is odd"}],
    "problems": [{"code": "unsigned", "file": "hello.changes", "message": "is not signed"}],
    "log": [
        {"at": "2026-01-02T03:04:05.678Z", "message": "seen"},
        {"at": ENDED, "message": "rejected with 1 problem"},
    ],
}
GOOD = {**UPLOAD, "name": "job-40", "id": 6, "state": 2, "state_name": "SUCCEEDED", "stage": "published"}
GOOD |= {
    "problems": [],
    "published": {"suites": {"stable": {"generation": 3}}, "files": ["pool/main/h/hello/hello_1.0-1_amd64.deb"]},
}
DELAYED = {**UPLOAD, "name": "job-39", "id": 5, "state": 1, "state_name": "RUNNING", "stage": "queued"}
DELAYED |= {"problems": [], "warnings": [], "finished_at": None, "due_at": "2026-01-05T03:04:05.678Z", "position": 2}
HEALTH = {
    "state": "stopped",
    "version": "0.1.0",
    "pid": 123,
    "reasons": [],
    "doing": "",
    "disk": {
        "pool": 1 << 20,
        "indexes": 4096,
        "rejected": 0,
        "journal": 4096,
        "free": None,
        "superseded_indexes": 0,
        "index_space": 1 << 30,
    },
}
#: What is asked, and all that was printed before there was anything else on a terminal, byte for byte.
IN_A_PIPE = Path(__file__).parents[1] / "data/in-a-pipe"
ASKED = [["status"], ["status", "job-41"], ["status", "job-40"], ["status", "job-39"], ["wait", "job-40", "job-41"]]


def tell(folder: Path) -> Path:
    """Write the status folder."""
    (folder / "by-id").mkdir(parents=True)
    for upload in (UPLOAD, GOOD, DELAYED):
        text = json.dumps(upload)
        (folder / f"{upload['name']}.json").write_text(text)
        (folder / "by-id" / f"{upload['id']}.json").write_text(text)
    index = {"schema": 1, "health": HEALTH, "in_flight": [DELAYED], "ended": [UPLOAD, GOOD]}
    (folder / "index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture
def told(tmp_path: Path) -> Path:
    return tell(tmp_path / "status")


def words(told: Path, verb: str, *rest: str) -> list[str | Path]:
    return [BIN / "incomingctl", verb, "--status", told, *rest]


@pytest.mark.parametrize("asked", ASKED, ids=" ".join)
@pytest.mark.parametrize("env", [{}, {"FORCE_COLOR": "1"}, {"TERM": "xterm", "COLUMNS": "40"}], ids=str)
def test_a_pipe_gets_what_it_always_got(told: Path, asked: list[str], env: dict[str, str]) -> None:
    done = subprocess.run(words(told, *asked), capture_output=True, text=True, env={**os.environ, **env})
    assert (done.stdout, done.stderr) == ((IN_A_PIPE / f"{'-'.join(asked)}.txt").read_text(), "")


def test_states_have_colours(told: Path) -> None:
    shown = on_terminal(*words(told, "status"))
    assert f"{GREEN}SUCCEEDED" in shown.raw
    assert f"{RED}FAILED" in shown.raw
    assert not COLOUR.search(next(line for line in shown.raw.splitlines() if "job-39" in line))
    waited = on_terminal(*words(told, "wait", "job-40", "job-41"))
    assert f"job-40: {GREEN}SUCCEEDED\x1b[0m: " in waited.raw
    assert f"job-41: {RED}FAILED\x1b[0m: " in waited.raw
    assert f"{YELLOW}warning:\x1b[0m job-40: is odd" in waited.raw
    one = on_terminal(*words(told, "status", "job-41"))
    assert f"job-41 (#7): {RED}FAILED\x1b[0m, rejected" in one.raw
    assert f"{RED}problem:\x1b[0m hello.changes: is not signed [unsigned]" in one.raw
    assert (shown.code, waited.code, one.code) == (0, 1, 1)


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_without_colours(told: Path, env: dict[str, str]) -> None:
    for asked in ASKED:
        shown = on_terminal(*words(told, *asked), env=env)
        assert not COLOUR.search(shown.raw), shown.raw


def test_json_is_the_same_on_a_terminal(told: Path) -> None:
    for asked in ASKED:
        piped = subprocess.run(words(told, *asked, "--json"), capture_output=True, text=True)
        shown = on_terminal(*words(told, *asked, "--json"))
        assert (shown.raw.replace("\r\n", "\n"), shown.code) == (piped.stdout, piped.returncode)


def test_the_service_has_a_colour(told: Path) -> None:
    index = json.loads((told / "index.json").read_text())
    for state, colour in {"ok": GREEN, "degraded": YELLOW, "held": YELLOW, "halted": RED}.items():
        index["health"] |= {"state": state, "pid": os.getpid(), "doing": "doing [red]this[/red]"}
        (told / "index.json").write_text(json.dumps(index))
        assert f"pid {os.getpid()}, {colour}{state}\x1b[0m" in on_terminal(*words(told, "status")).raw
    with subprocess.Popen(["true"]) as gone:
        pass
    index["health"] |= {"state": "ok", "pid": gone.pid}
    (told / "index.json").write_text(json.dumps(index))
    shown = on_terminal(*words(told, "status"))
    assert f"{RED}died\x1b[0m" in shown.raw
    assert shown.code == 1


def test_times_are_told_by_their_distance(told: Path) -> None:
    now = datetime.now(UTC)
    upload = {**UPLOAD, "finished_at": timestamp(now - timedelta(minutes=2, seconds=5))}
    upload["log"] = [
        {"at": timestamp(now - timedelta(hours=3)), "message": "seen"},
        {"at": upload["finished_at"], "message": "rejected"},
    ]
    delayed = {**DELAYED, "due_at": timestamp(now + timedelta(hours=3)), "seen_at": timestamp(now)}
    index = {"schema": 1, "health": HEALTH, "in_flight": [delayed], "ended": [upload]}
    (told / "index.json").write_text(json.dumps(index))
    for one in (upload, delayed):
        (told / f"{one['name']}.json").write_text(json.dumps(one))
    shown = on_terminal(*words(told, "status")).text
    assert re.search(r"job-41 .* 2 min ago", shown), shown
    assert re.search(r"job-39 .* (now|\d+ s ago) +in 3 h", shown), shown
    assert not EXACT.search(shown)
    one = on_terminal(*words(told, "status", "job-41")).text
    assert "\n  3 h ago    seen\n  2 min ago  rejected\n" in one
    assert "2 ahead of it, due in 3 h\n" in on_terminal(*words(told, "status", "job-39")).text


def test_a_narrow_terminal_loses_nothing(told: Path) -> None:
    index = json.loads((told / "index.json").read_text())
    long = "hello-world-2.0-1-0123456789abcdef"
    index["ended"][0]["name"] = long
    (told / "index.json").write_text(json.dumps(index))
    shown = on_terminal(*words(told, "status"), columns=60).text
    assert "…" not in shown
    assert long not in shown  # or nothing had to be folded
    assert long in "".join(re.findall(r"^(?:7| ) +(\S+)", shown, re.MULTILINE)), shown


@pytest.mark.parametrize("evil", EVIL, ids=ascii)
def test_what_an_upload_says_paints_nothing(told: Path, evil: str) -> None:
    """In every text of a status file, even one that the daemon has not written."""
    names = ("name", "stage")
    upload = {**UPLOAD, **dict.fromkeys(names, evil), "uploader": {"uid": 0, "account": evil}}
    upload["problems"] = [{"code": evil, "file": evil, "message": evil}]
    upload["warnings"] = [{"code": evil, "file": evil, "message": evil}]
    upload["log"] = [{"at": evil, "message": evil}]
    health = {**HEALTH, "state": "ok", "pid": os.getpid(), "reasons": [evil], "doing": evil, "version": evil}
    (told / "index.json").write_text(
        json.dumps({"schema": 1, "health": health, "in_flight": [], "ended": [{**upload, "seen_at": evil}]})
    )
    (told / "by-id" / "7.json").write_text(json.dumps(upload))
    for asked in (["status"], ["status", "#7"], ["wait", "#7"], ["status", "nothing"]):
        shown = on_terminal(*words(told, *asked))
        harmless = re.sub(r"\x1b\[(0|1|3[123]|1;3[123])?m", "", shown.raw.replace("\r\n", "\n"))
        if asked[0] == "status":  # wait moves the cursor
            assert all(c.isprintable() or c == "\n" for c in harmless), shown.raw
        assert "\u202e" not in shown.raw
        assert "http://a.example\x1b" not in shown.raw
        painted = re.findall(r"\x1b\[3\dm(\w.*?)\x1b\[0m", shown.raw)  # wait's spinner is none
        assert set(painted) <= {"FAILED", "ok", "problem:", "warning:"}, painted
        assert "Traceback" not in shown.raw


# -- while something is waited for ------------------------------------------------------------------------------------


def test_what_moves_leaves_no_trace(instance: Instance, builder: Builder) -> None:
    assert instance.ctl("hold").returncode == 0
    names = [builder.upload(f"hello{number}").send_directory(instance.incoming) for number in range(2)]
    for name in names:
        until(lambda name=name: (instance.status(name) or {}).get("stage") == "queued")
    command = [BIN / "incomingctl", "--config", instance.config, "wait", *names]
    with Terminal(command, env={}) as terminal:
        terminal.until(f"{names[1]}: RUNNING, queued")
        assert instance.ctl("release").returncode == 0
        raw = terminal.rest()
        assert terminal.code == 0
    for name in names:
        # What was drawn is wiped before, or it is another such line.
        assert re.search(rf"(\x1b\[2K|\x1b\[\?25[hl]|\n){name}: {re.escape(GREEN)}SUCCEEDED", raw), raw
    assert raw.count("SUCCEEDED") == 2


def test_what_is_waited_for_goes_into_a_file_as_it_is(told: Path, tmp_path: Path) -> None:
    """While the terminal has what moves."""
    out = tmp_path / "out"
    command = shlex.join(map(str, words(told, "wait", "job-40", "job-41", "job-39", "--timeout", "1")))
    shown = on_terminal("sh", "-c", f"{command} >{shlex.quote(str(out))}")
    assert shown.code == 3
    assert "job-39: RUNNING, queued, 2 ahead of it, due 2026-01-05" in shown.text
    assert out.read_text() == (IN_A_PIPE / "wait-job-40-job-41.txt").read_text()


# -- what reads the journal -------------------------------------------------------------------------------------------


def test_the_queue_and_uploads_and_keys(instance: Instance, builder: Builder) -> None:
    good = builder.upload("good").send_directory(instance.incoming)
    instance.succeeded(good)
    bad = builder.upload("bad", key=None).send_directory(instance.incoming)
    instance.failed(bad)
    assert instance.ctl("hold", "a release").returncode == 0
    waits = builder.upload("waits").send_directory(instance.incoming)
    until(lambda: (instance.status(waits) or {}).get("stage") == "queued")
    ctl = (BIN / "incomingctl", "--config", instance.config)
    queued = on_terminal(*ctl, "queue")
    assert re.search(rf"{waits} .*queued +(now|\d+ s ago)", queued.text), queued.text
    assert re.search(rf"{waits} .*queued +\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\dZ", instance.ctl("queue").stdout)
    listed = on_terminal(*ctl, "list", "--uploads")
    assert f"{GREEN}SUCCEEDED" in listed.raw
    assert f"{RED}FAILED" in listed.raw
    assert re.search(rf"{good} .*(now|s ago|min ago)", listed.text)
    piped = instance.ctl("list", "--uploads").stdout
    assert re.search(rf"{good} +SUCCEEDED +published +(\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d +){{2}}", piped), piped
    assert "\x1b" not in piped + instance.ctl("queue").stdout
    assert f"{RED}FAILED\x1b[0m, rejected" in on_terminal(*ctl, "show", bad).raw


# -- words that are not known -----------------------------------------------------------------------------------------


def test_no_verb_at_all_prints_the_help() -> None:
    done = subprocess.run([BIN / "incomingctl"], capture_output=True, text=True)
    assert "Usage: incomingctl" in done.stdout + done.stderr
    assert "wait " in done.stdout + done.stderr
    assert done.returncode in (0, 2)  # click has changed its mind in 8.2
    assert on_terminal(BIN / "incomingctl").code == done.returncode


def test_an_option_that_is_misspelt(told: Path) -> None:
    for asked in (["wait", "x", "--timeot", "3"], ["status", "--jsn"], ["list", "--packge", "x"]):
        done = subprocess.run([BIN / "incomingctl", *asked], capture_output=True, text=True)
        assert done.returncode == 2
        assert re.search(r"[Nn]o such option.*[Dd]id you mean.*--(timeout|json|package)", done.stderr, re.DOTALL), done
    odd = subprocess.run([BIN / "incomingctl", "--\x1b[31m", "status"], capture_output=True, text=True)
    assert odd.returncode == 2
    assert "\x1b" not in odd.stderr


def test_a_name_that_is_misspelt(told: Path) -> None:
    near = subprocess.run(words(told, "status", "jbo-41"), capture_output=True, text=True)
    assert near.returncode == 1
    assert near.stderr == 'incomingctl: jbo-41: no upload has that name; did you mean "job-41"?\n'
    waited = subprocess.run(words(told, "wait", "--timeout", "0.1", "jbo-41.changes"), capture_output=True, text=True)
    assert waited.returncode == 3
    assert 'nothing of that name is in incoming; did you mean "job-41"?' in waited.stderr
    for other in ("frobnicate", "#99"):
        far = subprocess.run(words(told, "status", other), capture_output=True, text=True)
        assert far.stderr == f"incomingctl: {other}: no upload has that name\n"
    (told / "index.json").write_text("{")
    broken = subprocess.run(words(told, "status", "jbo-41"), capture_output=True, text=True)
    assert broken.stderr == "incomingctl: jbo-41: no upload has that name\n"


def test_a_name_or_a_suite_that_is_misspelt(instance: Instance, builder: Builder) -> None:
    name = builder.upload("hello").send_directory(instance.incoming, "job-41")
    instance.succeeded(name)
    for verb in ("cancel", "retry", "show", "status"):
        assert 'did you mean "job-41"?' in instance.ctl(verb, "jbo-41").stderr, verb
    for asked in (
        ["list", "stabel"],
        ["history", "stabel"],
        ["remove", "hello", "stabel"],
        ["copy", "hello", "stabel", "stable"],
        ["rollback", "stabel", "1"],
        ["import", "--suite", "stabel", "/nowhere"],
        ["drop-suite", "stabel"],
    ):
        done = instance.ctl(*asked)
        assert done.returncode == 2
        assert 'there are stable; did you mean "stable"?\n' in done.stderr, done.stderr
