"""The operator's own checks, after all others: lintian, and any program."""

import os
from pathlib import Path

import pytest

from tests.support.instance import Instance, until
from tests.support.processes import family
from tests.support.uploads import Builder

LOOKS = """#!/bin/sh
# Says what it is given, by the upload's own words.
case $(cat "${1%.changes}.changes") in
*good*) echo "has a README, and it is short" ;;
*broken*) echo "the data base is away" >&2; exit 2 ;;
*slow*) sleep 1000 & sleep 1000 ;;
*loud*) yes ;;
*silent*) exit 1 ;;
*) echo "$(basename "$1"): names no ticket"; echo "; rm -rf / $(id)" ; exit 1 ;;
esac
"""


def arguments(pid: int) -> str:
    """The words of a process; none if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def script(idle: Instance, text: str, **settings: object) -> Path:
    """A check called ``tickets``."""
    program = idle.root / "check"
    program.write_text(text)
    program.chmod(0o755)
    idle.set("checks.commands.tickets", command=[str(program)], **settings)
    return program


def test_a_command_refuses_an_upload_line_by_line(idle: Instance, builder: Builder) -> None:
    script(idle, LOOKS)
    idle.start()
    bad, good = builder.upload("hello"), builder.upload("good-hello")
    assert idle.failed(bad.send_directory(idle.incoming)) == ["external-check", "external-check"]
    problems = (idle.status(bad.name) or {})["problems"]
    assert problems[0]["message"] == "tickets: names no ticket; mend what it has found"
    assert problems[0]["file"] == bad.changes.name
    found = idle.succeeded(good.send_directory(idle.incoming))
    assert [warning["code"] for warning in found["warnings"]] == ["external-check"]
    assert "has a README" in found["warnings"][0]["message"]
    assert idle.failed(builder.upload("silent-hello").send_directory(idle.incoming)) == ["external-check"]


def test_a_command_that_only_warns(idle: Instance, builder: Builder) -> None:
    script(idle, LOOKS, findings="warnings")
    idle.start()
    found = idle.succeeded(builder.upload("hello").send_directory(idle.incoming))
    assert [warning["code"] for warning in found["warnings"]] == ["external-check"] * 2


@pytest.mark.parametrize("name", ["slow", "loud"])
def test_a_command_is_ended_at_its_limits(idle: Instance, builder: Builder, name: str) -> None:
    script(idle, LOOKS, time="1s")
    idle.start()
    assert idle.failed(builder.upload(f"{name}-hello").send_directory(idle.incoming)) == ["external-check-limit"]


def test_an_upload_waits_until_the_check_works_again(idle: Instance, builder: Builder) -> None:
    program = script(idle, LOOKS)
    idle.start()
    name = builder.upload("broken-hello").send_directory(idle.incoming)
    until(lambda: "the data base is away" in str((idle.status(name) or {}).get("log")), "the reason in its log")
    assert (idle.status(name) or {})["state_name"] == "PENDING"
    program.write_text("#!/bin/sh\n")
    assert idle.succeeded(name)["warnings"] == []


def test_a_program_that_is_not_there_is_the_operators_fault(idle: Instance, builder: Builder) -> None:
    idle.set("checks.commands.tickets", command=["/nowhere/check"], failure="warn")
    idle.start()
    found = idle.succeeded(builder.upload("hello").send_directory(idle.incoming))
    assert [warning["code"] for warning in found["warnings"]] == ["external-check-failed"]
    assert "/nowhere/check cannot be started: No such file" in found["warnings"][0]["message"]


def test_what_a_command_is_given(idle: Instance, builder: Builder) -> None:
    script(
        idle,
        '#!/bin/bash\nexec 2>&1\npwd; echo "$HOME"; ls -A; ls "$(dirname "$2")"; echo "$1"; cat; ulimit -v\n'
        "(: </dev/tcp/127.0.0.1/9) | head -c 300; tail -n +3 /proc/net/dev | wc -l\n",
    )
    idle.set("checks.commands.tickets", command=[str(idle.root / "check"), "$(id); a b"], memory="1G")
    idle.start()
    upload = builder.upload("hello", source="quilt")
    found = idle.succeeded(upload.send_directory(idle.incoming))
    said = [warning["message"] for warning in found["warnings"]]
    lines = [message.removeprefix("tickets: ").partition("; mend")[0] for message in said]
    assert "incomingd-check-" in lines[0]
    assert not Path(lines[0]).exists()
    names = sorted(file.name for file in upload.files)
    # Its home is the same folder, which is empty; a finding is told once.
    assert sorted(lines[1 : 1 + len(names)]) == names
    assert lines[1 + len(names) : 3 + len(names)] == ["$(id); a b", str(1 << 20)]
    assert lines[-1] == "1", "there is more than a loopback interface"


def test_a_stop_does_not_wait_for_a_check(idle: Instance, builder: Builder) -> None:
    script(idle, "#!/bin/sh\nexec sleep 987654321\n")
    idle.start()
    assert idle.daemon is not None
    daemon = idle.daemon.pid
    name = builder.upload("hello").send_directory(idle.incoming)
    [pid] = until(lambda: [one for one in family(daemon) if "987654321" in arguments(one)], "the check")
    assert idle.stop() == 0
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    (idle.root / "check").write_text("#!/bin/sh\n")
    idle.start()
    idle.succeeded(name)


def test_a_check_of_one_suite_leaves_the_others_alone(idle: Instance, builder: Builder) -> None:
    idle.set("suites.testing", components=["main"], architectures=["amd64"])
    script(idle, LOOKS, suites=["testing"])
    idle.start()
    upload = builder.upload("hello", upload_name="one")
    assert idle.succeeded(upload.send_directory(idle.incoming))["warnings"] == []
    upload = builder.upload("other", upload_name="two", distribution="testing")
    assert set(idle.failed(upload.send_directory(idle.incoming))) == {"external-check"}
    # One that is for both has to please both.
    upload = builder.upload("third", upload_name="three", distribution="stable testing")
    assert set(idle.failed(upload.send_directory(idle.incoming))) == {"external-check"}


def test_commands_are_no_upload_to_be_looked_at(idle: Instance, builder: Builder) -> None:
    script(idle, '#!/bin/sh\necho "looked at $# files"\n')
    idle.start()
    assert idle.ctl("hold").returncode == 0
    upload = builder.upload("hello")
    upload.send_flat(idle.incoming)
    until(lambda: (idle.status(upload.flat_name) or {}).get("stage") == "queued", "the queue")
    text = f"Archive: a\nUploader: Joan Builder <joan@example.org>\nCommands:\n  rm {upload.changes.name}\n"
    (idle.incoming / "joan.commands").write_bytes(builder.keys.sign(text, builder.key))
    idle.succeeded("joan")
    looked = "tickets: looked at 1 files"
    assert (idle.status("joan") or {})["warnings"] == []
    assert [one["message"].partition(";")[0] for one in idle.wait(upload.flat_name)["warnings"]] == [looked]


def test_lintian(idle: Instance, builder: Builder) -> None:
    idle.set("checks.lintian", reject=["no-copyright-file"], warn=["error"])
    idle.start()
    bad = builder.upload("hello")
    assert idle.failed(bad.send_directory(idle.incoming)) == ["lintian"]
    status = idle.status(bad.name) or {}
    assert "error no-copyright-file in hello" in status["problems"][0]["message"]
    assert status["warnings"]
    assert all(warning["code"] == "lintian" for warning in status["warnings"])
    idle.set("checks.lintian", reject=["embedded-library"], warn=[])
    idle.reload()
    until(lambda: "the new configuration is in force" in idle.log(), "the reload")
    assert idle.succeeded(builder.upload("hello", "1.0-2").send_directory(idle.incoming))["warnings"] == []
