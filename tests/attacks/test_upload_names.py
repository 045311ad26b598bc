"""Another account's upload gets the name of one that is on its way: what the scripts that poll that name are told."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.accounts import ALICE, DAEMON, MALLORY, Guarded, become, own, run_as
from tests.support.instance import BIN, until
from tests.support.keys import Keys
from tests.support.uploads import Builder, Upload


@pytest.fixture
def builder(work: Path, keys: Keys) -> Builder:
    return Builder(folder=work / "built", keys=keys, key=keys.make("Alice"))


@pytest.fixture
def instance(guarded: Callable[..., Guarded], keys: Keys, builder: Builder) -> Guarded:
    """Two queues, with folders for delayed uploads; publishing is on hold."""
    made = guarded([keys.public(builder.key)])
    other = made.root / "other"
    other.mkdir()
    own(other, DAEMON, 0o3770)
    made.set("incoming.default", delayed=2)
    made.set("incoming.other", path="other", settle="0.3s")
    made.set("service", scan_interval="200ms")
    made.hand_over()
    made.start()
    assert made.ctl("hold").returncode == 0
    return made


def send(uid: int, upload: Upload, incoming: Path, name: str) -> None:
    done = run_as(uid, f"cp -r {upload.folder} {incoming}/.{name} && mv -T {incoming}/.{name} {incoming}/{name}")
    assert done.returncode == 0, done.stderr


def by_id(instance: Guarded, number: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((instance.root / f"status/by-id/{number}.json").read_bytes())
    return found


def ended(instance: Guarded, uid: int) -> dict[str, Any]:
    """The last upload of that account that index.json has among those that ended."""

    def look() -> dict[str, Any] | None:
        found = [one for one in instance.index()["ended"] if one["uploader"] and one["uploader"]["uid"] == uid]
        return found[0] if found else None

    found: dict[str, Any] = until(look, f"the end of an upload of {uid}")
    return found


def waiting(instance: Guarded, uid: int, name: str) -> subprocess.Popen[str]:
    """``incomingctl wait`` as another account."""
    command = (BIN / "incomingctl", "--config", instance.config, "wait", name, "--timeout", "50")
    return subprocess.Popen([*become(uid), *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


KINDS = {
    "directory": "mkdir {incoming}/job",
    "flat": "echo nothing > {incoming}/job.changes",
    "commands": "echo nothing > {incoming}/job.commands",
    "another queue": "mkdir {root}/other/job",
    "another queue, flat": "echo nothing > {root}/other/job.changes",
    "delayed": "mkdir {incoming}/DELAYED/1-day/job",
}


@pytest.mark.parametrize("how", KINDS)
def test_the_name_of_a_queued_upload_stays_its_own(instance: Guarded, builder: Builder, how: str) -> None:
    send(ALICE, builder.upload(), instance.incoming, "job")
    mine = until(lambda: (s := instance.status("job")) and s["stage"] == "queued" and s, "the queue")
    wait = waiting(instance, ALICE, "job")
    done = run_as(MALLORY, KINDS[how].format(incoming=instance.incoming, root=instance.root))
    assert done.returncode == 0, done.stderr
    refused = ended(instance, MALLORY)
    assert [problem["code"] for problem in refused["problems"]] == ["name-taken"]
    assert f"upload #{mine['id']} of uid {ALICE}" in refused["problems"][0]["message"]
    assert by_id(instance, refused["id"])["uploader"] == {"uid": MALLORY, "account": None}
    until((instance.state / f"rejected/{refused['id']}").exists, "what was kept of it")
    status = instance.status("job")
    assert status
    assert (status["id"], status["stage"], status["uploader"]["uid"]) == (mine["id"], "queued", ALICE)
    assert instance.ctl("release").returncode == 0
    assert wait.communicate()[0].startswith("job: SUCCEEDED: ")
    assert wait.returncode == 0
    assert instance.succeeded("job")["id"] == mine["id"]


def test_one_that_failed_is_not_covered_by_a_success_of_another(instance: Guarded, builder: Builder) -> None:
    """And a restart between the two changes nothing."""
    unsigned = builder.upload("hello", key=None, upload_name="unsigned")
    send(ALICE, unsigned, instance.incoming, "job")
    assert instance.failed("job") == ["unsigned"]
    instance.stop()
    instance.start()
    instance.ctl("release")
    send(MALLORY, builder.upload(), instance.root / "other", "job")
    assert [problem["code"] for problem in ended(instance, MALLORY)["problems"]] == ["name-taken"]
    assert instance.failed("job") == ["unsigned"]


def test_a_name_that_was_squatted_beforehand_is_told_as_it_is(instance: Guarded, builder: Builder) -> None:
    """The name is gone, and neither status nor wait take the squatter's upload for the sender's."""
    run_as(MALLORY, f"mkdir {instance.incoming}/job")
    until(lambda: instance.status("job"), "the sight of it")
    wait = waiting(instance, ALICE, "job")
    send(ALICE, builder.upload(), instance.root / "other", "job")
    said, _ = wait.communicate()
    assert (wait.returncode, "[name-taken]" in said) == (1, True), said
    assert instance.status("job")["uploader"]["uid"] == MALLORY  # type: ignore[index]
    mine = run_as(ALICE, f"{BIN}/incomingctl --config {instance.config} status job --json")
    assert json.loads(mine.stdout)["uploader"]["uid"] == ALICE
    others = run_as(MALLORY, f"{BIN}/incomingctl --config {instance.config} status job --json")
    assert json.loads(others.stdout)["uploader"]["uid"] == MALLORY


def test_the_same_account_takes_its_name_over(instance: Guarded, builder: Builder) -> None:
    send(ALICE, builder.upload("hello", key=None, upload_name="unsigned"), instance.incoming, "job")
    assert instance.failed("job") == ["unsigned"]
    instance.ctl("release")
    send(ALICE, builder.upload(), instance.incoming, "job")
    until(lambda: instance.status("job")["state"] == 2, "the success of the second")  # type: ignore[index]


def test_an_operators_request_is_done_whatever_holds_its_name(instance: Guarded, builder: Builder) -> None:
    instance.ctl("release")
    send(ALICE, builder.upload(), instance.incoming, "hello")
    instance.succeeded("hello")
    run_as(MALLORY, f"mkdir {instance.incoming}/remove-hello-from-stable")
    until(lambda: instance.status("remove-hello-from-stable"), "the sight of it")
    done = instance.ctl("remove", "hello", "stable", "--json")
    assert done.returncode == 0, done.stderr
    (told,) = json.loads(done.stdout)
    assert (told["state_name"], told["uploader"]) == ("SUCCEEDED", None)
    assert instance.status("remove-hello-from-stable")["uploader"]["uid"] == MALLORY  # type: ignore[index]


def test_retry_sends_a_flat_upload_in_again_under_its_accounts_name(instance: Guarded, builder: Builder) -> None:
    # Refused after it was authorised: of what is refused before, only the .changes is kept.
    upload = builder.upload("hello")
    deb = upload.file("*.deb")
    deb.write_bytes(deb.read_bytes()[:-1] + b"x")
    run_as(ALICE, f"cp {' '.join(map(str, upload.files))} {instance.incoming}/")
    assert set(instance.failed(upload.flat_name)) == {"checksum-mismatch"}
    first = instance.status(upload.flat_name)
    assert instance.ctl("retry", upload.flat_name).returncode == 0
    until(lambda: instance.status(upload.flat_name)["id"] > first["id"], "the second try")  # type: ignore[index]
    assert set(instance.failed(upload.flat_name)) == {"checksum-mismatch"}
    run_as(MALLORY, f"mkdir {instance.incoming}/{upload.flat_name}")
    assert [problem["code"] for problem in ended(instance, MALLORY)["problems"]] == ["name-taken"]


@pytest.fixture
def at_the_last_moment(instance: Guarded) -> Path:
    """A directory of Mallory's, under the name that Alice is about to use."""
    made = instance.incoming / "job"
    run_as(MALLORY, f"mkdir -m 0777 {made} && touch {made}/there")
    return made


def test_the_documented_rename_does_not_go_into_anothers_directory(
    instance: Guarded, builder: Builder, at_the_last_moment: Path
) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    line = next(line for line in readme.splitlines() if "mv -T $IN/.job-$ID $IN/job-$ID" in line)
    command = line.partition("#")[0].partition("apt@repo ")[2].replace("-$ID", "")
    upload = builder.upload()
    done = run_as(ALICE, f"IN={instance.incoming}; cp -r {upload.folder} $IN/.job && {command}")
    assert done.returncode != 0
    assert [path.name for path in at_the_last_moment.iterdir()] == ["there"]
    assert (instance.incoming / ".job").is_dir()


def test_submit_does_not_go_into_anothers_directory(
    instance: Guarded, builder: Builder, at_the_last_moment: Path
) -> None:
    upload = builder.upload()
    done = run_as(ALICE, f"{BIN}/incomingctl submit {upload.folder} --to {instance.incoming} --name job --wait")
    assert (done.returncode, done.stdout) == (5, "")
    assert [path.name for path in at_the_last_moment.iterdir()] == ["there"]


def test_submit_does_not_take_anothers_success_for_its_own(instance: Guarded, builder: Builder, work: Path) -> None:
    instance.ctl("release")
    other = builder.upload("other", upload_name="others")
    send(MALLORY, other, instance.root / "other", "job")
    instance.succeeded("job")
    mine = builder.upload("hello")
    # Until now it was passed over as an older one; now the name is taken while the upload is sent.
    run_as(MALLORY, f"cp {other.changes} {instance.root}/other/job.changes")
    done = run_as(
        ALICE, f"{BIN}/incomingctl submit {mine.folder} --to {instance.incoming} --name job --wait --timeout 50"
    )
    assert done.returncode != 0, done.stdout
