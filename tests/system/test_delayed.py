"""Delayed uploads, as dput and dput-ng send them: checked now, published when their days are over."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support import clocked
from tests.support.client_docs import delayed
from tests.support.clients import Home
from tests.support.instance import Instance, until
from tests.support.keys import Keys
from tests.support.sshd import Sshd, sshd
from tests.support.uploads import Builder, Upload


class Calendar:
    """What day it is for the daemon."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.ahead(0.0)

    def ahead(self, days: float) -> None:
        new = self.file.with_suffix(".new")
        new.write_text(str(days))
        new.replace(self.file)


@pytest.fixture
def calendar(tmp_path: Path) -> Calendar:
    return Calendar(tmp_path / "days-ahead")


@pytest.fixture
def idle(idle: Instance, calendar: Calendar) -> Instance:
    """An instance with delays of up to 7 days, whose clock the test moves."""
    idle.set("incoming.default", delayed=7)
    idle.set("service", scan_interval="200ms")
    idle.prefix = (sys.executable, "-P", clocked.__file__, calendar.file)
    return idle


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("sshd") / "sshd") as one:
        yield one


@pytest.fixture
def home(tmp_path: Path, builder: Builder, server: Sshd) -> Home:
    return Home(tmp_path / "home", builder.keys.home, server)


def stage(instance: Instance, name: str) -> str:
    return str((instance.status(name) or {}).get("stage"))


def delay(instance: Instance, upload: Upload, days: int) -> dict[str, Any]:
    """Send it, flat, and wait until it waits."""
    upload.send_flat(until(lambda: next(instance.incoming.glob(f"DELAYED/{days}-day"), None), "the folder"))
    return waits(instance, upload.flat_name)


def waits(instance: Instance, name: str) -> dict[str, Any]:
    def status() -> dict[str, Any] | None:
        found = instance.status(name)
        assert not found or found["state"] < 3, found["problems"]
        return found if found and found["stage"] == "queued" else None

    found: dict[str, Any] = until(status, f"the delay of {name}")
    assert found["position"] is None
    return found


def days_after_its_claim(status: dict[str, Any]) -> float:
    due, claimed = (datetime.fromisoformat(status[key]) for key in ("due_at", "claimed_at"))
    return (due - claimed) / timedelta(days=1)


# -- the clients ------------------------------------------------------------------------------------------------------


@pytest.fixture
def patient(idle: Instance) -> Instance:
    """With the settle time that is the default: dput logs in a second time, to set modes."""
    idle.set("incoming.default", settle="2s")
    idle.start()
    return idle


WAYS = {"dput": ("local", "scp", "rsync"), "dput-ng": ("local", "scp", "sftp")}
ROWS = [
    pytest.param(client, typed, method, id=f"{client}-{method}")
    for client, typed in delayed()
    for method in WAYS[client.partition(",")[0]]
]


@pytest.mark.parametrize(("client", "typed", "method"), ROWS)
def test_every_row_of_the_table(
    patient: Instance, home: Home, server: Sshd, builder: Builder, client: str, typed: tuple[str, ...], method: str
) -> None:
    upload = builder.upload("hello", "1.0-1", source="quilt")
    there = {"incoming": str(patient.incoming), "fqdn": "127.0.0.1", "login": "root", "method": method}
    program, *words = typed[-1].split()
    words[-1] = str(upload.changes)
    if client.startswith("dput-ng"):
        done = home.dput_ng(program, *words, profile=there | {"port": server.port})
    else:
        more = dict(line.split(" = ") for line in typed[:-1] if "=" in line)
        done = home.dput(*words, settings=there | more)
    assert done.returncode == 0, done.stdout + done.stderr
    status = waits(patient, upload.flat_name)
    assert days_after_its_claim(status) == 3
    assert status["changes"][0]["signed_by"] == builder.key


def test_0_day_is_published_at_once(instance: Instance, home: Home, builder: Builder) -> None:
    upload = builder.upload("hello", "1.0-1")
    settings = {"method": "local", "incoming": instance.incoming, "fqdn": "localhost"}
    assert home.dput("-e", "0", "archive", upload.changes, settings=settings).returncode == 0
    status = instance.succeeded(upload.flat_name)
    assert status["due_at"] == status["claimed_at"]


def test_submit_finds_the_status_also_where_incoming_is_a_link(idle: Instance, builder: Builder) -> None:
    elsewhere = idle.root.with_name("elsewhere")
    idle.incoming.rename(elsewhere)
    idle.incoming.symlink_to(elsewhere)
    idle.start()
    until((elsewhere / "DELAYED/0-day").exists, "the folders")
    upload = builder.upload("hello", "1.0-1")
    for to in (idle.incoming / "DELAYED/0-day", idle.incoming):
        done = idle.ctl("submit", upload.folder, "--to", to, "--wait", "--timeout", "60")
        assert done.returncode == 0, done.stdout + done.stderr


def test_without_the_setting_dput_finds_no_such_folder(instance: Instance, home: Home, builder: Builder) -> None:
    instance.set("incoming.default", delayed=2)
    upload = builder.upload("hello", "1.0-1")
    settings = {"method": "local", "incoming": instance.incoming / "elsewhere", "fqdn": "localhost"}
    assert home.dput("-e", "3", "archive", upload.changes, settings=settings).returncode != 0


# -- what becomes of them ---------------------------------------------------------------------------------------------


def test_it_is_published_when_it_is_due_and_holds_up_nobody(
    instance: Instance, builder: Builder, calendar: Calendar
) -> None:
    late = builder.upload("late", "1.0-1")
    status = delay(instance, late, 3)
    assert status["log"][-1]["message"] == f"checked; delayed until {status['due_at']}"
    other = instance.succeeded(builder.upload("other", "1.0-1").send_directory(instance.incoming))
    assert other["due_at"] is None
    calendar.ahead(2.9)
    instance.succeeded(builder.upload("another", "1.0-1").send_directory(instance.incoming))
    assert stage(instance, late.flat_name) == "queued"
    assert not list(instance.archive.glob("pool/main/l/late/*"))
    calendar.ahead(3.1)
    done = instance.succeeded(late.flat_name)
    assert (done["due_at"], done["claimed_at"]) == (status["due_at"], status["claimed_at"])
    assert any("it is due" in line["message"] for line in done["log"])
    assert instance.stop() == 0
    assert instance.ctl("fsck", "--deep").stdout == ""


def test_problems_are_told_at_once(instance: Instance, builder: Builder) -> None:
    upload = builder.upload("late", "1.0-1", key=None)
    until(lambda: list(instance.incoming.glob("DELAYED/7-day")), "the folder")
    upload.send_flat(instance.incoming / "DELAYED/7-day")
    assert instance.failed(upload.flat_name) == ["unsigned"]


def test_those_that_become_due_are_published_in_that_order(
    instance: Instance, builder: Builder, calendar: Calendar
) -> None:
    """Of two versions the newer one was sent first, to be published last."""
    assert instance.ctl("hold").returncode == 0
    newer, older, now = (builder.upload("hello", version) for version in ("1.2-1", "1.1-1", "1.0-1"))
    delay(instance, newer, 5)
    delay(instance, older, 2)
    now.send_flat(instance.incoming)
    until(lambda: stage(instance, now.flat_name) == "queued", "the queue")
    calendar.ahead(5.1)
    until(lambda: [(instance.status(u.flat_name) or {})["position"] for u in (now, older, newer)] == [0, 1, 2])
    assert instance.ctl("release").returncode == 0
    generations = [
        instance.succeeded(upload.flat_name)["published"]["suites"]["stable"]["generation"]
        for upload in (now, older, newer)
    ]
    assert generations == sorted(generations)
    versions = [row["version"] for row in json.loads(instance.ctl("list", "stable", "--json").stdout)]
    assert versions == ["1.2-1"]


def test_what_depends_on_the_archive_is_decided_when_it_is_due(
    instance: Instance, builder: Builder, calendar: Calendar
) -> None:
    late = builder.upload("hello", "1.0-1")
    delay(instance, late, 3)
    instance.succeeded(builder.upload("hello", "2.0-1").send_directory(instance.incoming))
    calendar.ahead(4)
    assert instance.failed(late.flat_name) == ["version-not-newer"]


def test_a_key_that_is_not_trusted_any_more(
    instance: Instance, builder: Builder, calendar: Calendar, keys: Keys
) -> None:
    key = keys.make("Mark Leaving")
    assert instance.ctl("trust", keys.public(key)).returncode == 0
    late = builder.upload("late", "1.0-1", key=key)
    delay(instance, late, 3)
    assert instance.ctl("untrust", key).returncode == 0
    calendar.ahead(4)
    assert instance.failed(late.flat_name) == ["unknown-key"]


def test_a_restart_and_a_kill(instance: Instance, builder: Builder, calendar: Calendar) -> None:
    late, later = builder.upload("late", "1.0-1"), builder.upload("later", "1.0-1")
    before = delay(instance, late, 3), delay(instance, later, 5)
    assert instance.stop() == 0
    instance.start()
    instance.kill()
    instance.start()
    for upload, status in zip((late, later), before, strict=True):
        until(lambda upload=upload: stage(instance, upload.flat_name) == "queued", "the queue")
        assert waits(instance, upload.flat_name)["due_at"] == status["due_at"]
    instance.kill()
    calendar.ahead(4)  # due while no daemon ran
    instance.start()
    instance.succeeded(late.flat_name)
    assert waits(instance, later.flat_name)["due_at"] == before[1]["due_at"]


def test_a_kill_when_it_has_just_become_due(instance: Instance, builder: Builder, calendar: Calendar) -> None:
    late = builder.upload("late", "1.0-1")
    delay(instance, late, 3)
    calendar.ahead(3.5)
    until(lambda: "it is due" in instance.log(), "the day")
    instance.kill()
    instance.start()
    instance.succeeded(late.flat_name)


def test_once_does_not_wait_for_it(idle: Instance, builder: Builder, calendar: Calendar) -> None:
    assert idle.run("incomingd", "--once").returncode == 0  # makes the folders
    late = builder.upload("late", "1.0-1")
    late.send_flat(idle.incoming / "DELAYED/3-day")
    assert idle.run("incomingd", "--once").returncode == 0
    assert stage(idle, late.flat_name) == "queued"
    calendar.ahead(3.1)
    assert idle.run("incomingd", "--once").returncode == 0
    idle.succeeded(late.flat_name)


def test_an_operator_is_told_and_can_cancel_and_retry(instance: Instance, builder: Builder, calendar: Calendar) -> None:
    late = builder.upload("late", "1.0-1")
    due_at = delay(instance, late, 3)["due_at"]
    shown = instance.ctl("queue").stdout
    assert re.search(rf"{late.flat_name} .*queued .*{due_at[:19]}Z", shown), shown
    assert f"due {due_at}" in instance.ctl("status", late.flat_name).stdout
    until(lambda: due_at in instance.ctl("status").stdout, "the index")
    given_up = instance.ctl("wait", late.flat_name, "--timeout", "0")
    assert (given_up.returncode, f"due {due_at}" in given_up.stderr) == (3, True)
    assert instance.ctl("cancel", late.flat_name).returncode == 0
    assert instance.failed(late.flat_name) == ["upload-cancelled"]
    done = instance.ctl("retry", late.flat_name)
    assert done.returncode == 0, done.stderr
    until(lambda: stage(instance, late.flat_name) == "queued", "the queue")
    assert days_after_its_claim(waits(instance, late.flat_name)) == 3


def test_the_setting_is_taken_up_by_a_reload(instance: Instance, builder: Builder, calendar: Calendar) -> None:
    late = builder.upload("late", "1.0-1")
    delay(instance, late, 7)
    instance.set("incoming.default", delayed=0)
    instance.reload()
    until(lambda: "the new configuration is in force" in instance.log(), "the reload")
    calendar.ahead(7.1)
    instance.succeeded(late.flat_name)  # what was taken before is published all the same
    assert not (instance.incoming / "DELAYED").exists()


# -- another day, or none ---------------------------------------------------------------------------------------------


def ends_in_days(instance: Instance, name: str, days: float) -> bool:
    """Whether the daemon's own clock has it due so many days after somebody asked."""
    status = waits(instance, name)
    asked = next(line["at"] for line in reversed(status["log"]) if "its sender delayed it until" in line["message"])
    return (datetime.fromisoformat(status["due_at"]) - datetime.fromisoformat(asked)) / timedelta(days=1) == days


def is_rescheduled(instance: Instance, name: str) -> bool:
    return any("its sender delayed it until" in line["message"] for line in (instance.status(name) or {})["log"])


def test_dcut_of_dput(instance: Instance, home: Home, builder: Builder, calendar: Calendar) -> None:
    late, other = builder.upload("late", "1.0-1"), builder.upload("other", "1.0-1")
    delay(instance, late, 3)
    delay(instance, other, 1)
    settings = {"method": "local", "incoming": instance.incoming, "fqdn": "localhost", "allow_dcut": 1}
    words = ["-k", builder.key, "archive", "reschedule", late.changes.name, "7-day", ",", "cancel", other.changes.name]
    done = home.dcut(*words, settings=settings)
    assert done.returncode == 0, done.stdout + done.stderr
    until(lambda: is_rescheduled(instance, late.flat_name), "another day")
    assert ends_in_days(instance, late.flat_name, 7)
    assert instance.failed(other.flat_name) == ["upload-cancelled"]
    calendar.ahead(3.5)
    instance.succeeded(builder.upload("third", "1.0-1").send_directory(instance.incoming))
    assert stage(instance, late.flat_name) == "queued"
    calendar.ahead(7.5)
    instance.succeeded(late.flat_name)


@pytest.mark.parametrize("days", [0, 7])
def test_dcut_of_dput_ng(instance: Instance, home: Home, server: Sshd, builder: Builder, days: int) -> None:
    late = builder.upload("late", "1.0-1")
    delay(instance, late, 3)
    profile = {
        "method": "sftp",
        "incoming": str(instance.incoming),
        "fqdn": "127.0.0.1",
        "login": "root",
        "port": server.port,
        "allow_dcut": True,
        "valid_commands": ["rm", "cancel", "reschedule"],
    }
    words = ["-k", builder.key, "archive", "reschedule", "-f", late.changes.name, "-d", str(days)]
    done = home.dput_ng("dcut", *words, profile=profile)
    assert done.returncode == 0, done.stdout + done.stderr
    if days:
        until(lambda: is_rescheduled(instance, late.flat_name), "another day")
        assert ends_in_days(instance, late.flat_name, days)
    else:
        instance.succeeded(late.flat_name)


@pytest.fixture
def commands(instance: Instance, keys: Keys, builder_key: str) -> Callable[..., str]:
    """Sign commands and put them into incoming; the name of their status."""

    def send(*lines: str, key: str = builder_key, name: str = "joan") -> str:
        text = "Commands:\n" + "".join(f" {line}\n" for line in lines)
        (instance.incoming / f"{name}.commands").write_bytes(keys.sign(text, key))
        return name

    return send


def test_by_the_sender_alone(instance: Instance, builder: Builder, keys: Keys, commands: Callable[..., str]) -> None:
    other = keys.make("Nina Stranger")
    assert instance.ctl("trust", keys.public(other)).returncode == 0
    late = builder.upload("late", "1.0-1")
    before = delay(instance, late, 3)
    assert instance.failed(commands(f"reschedule {late.changes.name} 0-day", key=other)) == ["commands-refused"]
    assert waits(instance, late.flat_name)["due_at"] == before["due_at"]


def test_the_same_file_once_more_is_refused(
    instance: Instance, builder: Builder, keys: Keys, commands: Callable[..., str]
) -> None:
    late = builder.upload("late", "1.0-1")
    delay(instance, late, 3)
    signed = keys.sign(f"Commands:\n reschedule {late.changes.name} 7-day\n", builder.key)
    (instance.incoming / "first.commands").write_bytes(signed)
    done = instance.succeeded("first")
    due_at = waits(instance, late.flat_name)["due_at"]
    assert due_at in done["log"][-1]["message"]
    (instance.incoming / "second.commands").write_bytes(signed)
    assert instance.failed("second") == ["commands-repeated"]
    assert waits(instance, late.flat_name)["due_at"] == due_at


@pytest.mark.parametrize(
    "lines",
    [
        ["reschedule {} 8-day"],
        ["reschedule {} 3"],
        ["reschedule {} 3-day 4-day"],
        ["reschedule DELAYED/2-day/{} 3-day"],
        ["reschedule {} 2-day", "cancel {}"],
        ["reschedule {} 2-day", "reschedule other_1.0-1_amd64.changes 2-day"],
    ],
    ids=["too late", "no day", "two days", "another folder", "contradiction", "not delayed"],
)
def test_what_cannot_be_asked(
    instance: Instance, builder: Builder, commands: Callable[..., str], lines: list[str]
) -> None:
    assert instance.ctl("hold").returncode == 0
    other = builder.upload("other", "1.0-1")
    other.send_flat(instance.incoming)
    late = builder.upload("late", "1.0-1")
    before = delay(instance, late, 3)
    until(lambda: stage(instance, other.flat_name) == "queued", "the queue")
    asked = commands(*(line.format(late.changes.name) for line in lines))
    assert set(instance.failed(asked)) == {"commands-refused"}
    assert waits(instance, late.flat_name)["due_at"] == before["due_at"]


def test_the_folder_tells_two_of_one_name_apart(
    instance: Instance, builder: Builder, commands: Callable[..., str]
) -> None:
    """By path, as debianqueued has it; the status of the name is that of the newer one."""
    late = builder.upload("late", "1.0-1")
    first, second = delay(instance, late, 3)["id"], delay(instance, late, 5)["id"]
    until(lambda: (instance.status(late.flat_name) or {})["id"] != first, "the second")
    instance.succeeded(commands(f"rm DELAYED/3-day/{late.changes.name}"))
    until(lambda: stage(instance, f"by-id/{first}") == "cancelled", "the cancelling")
    assert stage(instance, late.flat_name) == "queued", second
