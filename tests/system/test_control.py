"""An operator's hand on the queue: hold and release, queue, cancel, retry, with a daemon and without one."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.instance import Instance, until
from tests.support.uploads import Builder


def queued(instance: Instance, name: str) -> None:
    """Wait until it has been checked and waits to be published."""
    until(lambda: (instance.status(name) or {}).get("stage") == "queued", f"{name} queued")


def done(instance: Instance, *words: str) -> str:
    """``incomingctl`` with these words, which succeeds; what it printed."""
    found = instance.ctl(*words)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def published(instance: Instance) -> list[str]:
    return [line["name"] for line in json.loads(done(instance, "list", "--json"))]


# -- hold and release -----------------------------------------------------------------------------------------------


def test_uploads_come_in_and_wait_while_publishing_is_on_hold(instance: Instance, builder: Builder) -> None:
    done(instance, "hold", "the", "mirror", "is", "being", "copied")
    name = builder.upload("hello", "1.0-1").send_directory(instance.incoming)
    queued(instance, name)
    shown = instance.ctl("status")
    assert shown.returncode == 0
    assert "held" in shown.stdout
    assert "the mirror is being copied" in shown.stdout
    assert instance.health().startswith("held: publishing is on hold since")
    assert published(instance) == []
    done(instance, "release")
    instance.succeeded(name)
    until(lambda: instance.health() == "ok: ", "the end of the hold")


def test_what_is_wrong_with_an_upload_is_told_while_on_hold(instance: Instance, builder: Builder) -> None:
    done(instance, "hold")
    assert instance.failed(builder.upload("hello", "1.0-1", key=None).send_directory(instance.incoming)) == ["unsigned"]


def test_a_hold_outlives_a_restart(instance: Instance, builder: Builder) -> None:
    done(instance, "hold")
    instance.kill()
    name = builder.upload("hello", "1.0-1").send_directory(instance.incoming)
    instance.start()
    queued(instance, name)
    until(lambda: instance.health().startswith("held"), "the hold in health")
    done(instance, "release")
    instance.succeeded(name)


def test_hold_and_release_without_a_daemon(idle: Instance, builder: Builder) -> None:
    done(idle, "hold", "not yet")
    name = builder.upload("hello", "1.0-1").send_directory(idle.incoming)
    once = idle.run("incomingd", "--once")
    assert once.returncode == 0, once.stderr
    assert "on hold" in once.stderr
    assert (idle.status(name) or {})["stage"] == "queued"
    assert "nothing" not in done(idle, "release")
    assert "not on hold" in done(idle, "release")
    assert idle.run("incomingd", "--once").returncode == 0
    idle.succeeded(name)


# -- the queue --------------------------------------------------------------------------------------------------------


def test_the_queue_in_its_order(instance: Instance, builder: Builder) -> None:
    assert "nothing waits" in done(instance, "queue")
    done(instance, "hold")
    names = [builder.upload(f"hello{number}", "1.0").send_directory(instance.incoming) for number in range(3)]
    for name in names:
        queued(instance, name)
    (instance.incoming / "half").mkdir()
    until(lambda: instance.status("half"), "half to be seen")
    found = json.loads(done(instance, "queue", "--json"))
    assert found["hold"]["reason"] == ""
    assert [(one["name"], one["position"]) for one in found["uploads"]] == [
        *((name, ahead) for ahead, name in enumerate(names)),
        ("half", None),
    ]
    shown = done(instance, "queue").splitlines()
    assert "on hold" in shown[0]
    assert [line.split()[2] for line in shown[2:5]] == names


# -- cancel -----------------------------------------------------------------------------------------------------------


def test_each_says_its_facts_to_scripts(instance: Instance, builder: Builder) -> None:
    def said(*words: str) -> Any:
        return json.loads(done(instance, *words, "--json"))

    hold = said("hold", "moving", "the", "disks")["hold"]
    assert hold["reason"] == "moving the disks"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", hold["at"])
    assert said("queue") == {"hold": hold, "uploads": []}
    name = builder.upload("hello", "1.0-1").send_directory(instance.incoming)
    queued(instance, name)
    late = instance.ctl("wait", name, "--timeout", "0.1", "--json")
    assert (late.returncode, [one["stage"] for one in json.loads(late.stdout)]) == (3, ["queued"])
    cancelled = said("cancel", name)
    assert (cancelled["state_name"], cancelled["stage"]) == ("FAILED", "cancelled")
    assert said("retry", name) == {"name": name, "retry_of": cancelled["id"]}
    queued(instance, name)
    assert said("release") == {"was_held": True, "waiting": 1}
    assert said("release")["was_held"] is False
    instance.succeeded(name)
    assert said("untrust", builder.key.lower()) == {"fingerprint": builder.key}


def test_cancel_one_that_waits_to_be_published(instance: Instance, builder: Builder) -> None:
    done(instance, "hold")
    first = builder.upload("first", "1.0").send_directory(instance.incoming)
    second = builder.upload("second", "1.0").send_directory(instance.incoming)
    queued(instance, first)
    queued(instance, second)
    done(instance, "cancel", first, "--reason", "built from the wrong branch")
    found = instance.status(first)
    assert found
    assert (found["state_name"], found["stage"]) == ("FAILED", "cancelled")
    assert [problem["code"] for problem in found["problems"]] == ["upload-cancelled"]
    assert "built from the wrong branch" in found["problems"][0]["message"]
    kept = instance.state / "rejected" / str(found["id"])
    until(lambda: kept.is_dir() and len(list(kept.iterdir())) == 2, "its files to be kept")
    done(instance, "release")
    instance.succeeded(second)
    assert published(instance) == ["second"]


def test_cancel_one_that_is_still_being_received(instance: Instance, builder: Builder) -> None:
    upload = builder.upload("hello", "1.0-1")
    (instance.incoming / "slow").mkdir()
    until(lambda: instance.status("slow"), "it to be seen")
    done(instance, "cancel", "slow")
    assert (instance.status("slow") or {})["stage"] == "cancelled"
    assert not (instance.incoming / "slow").exists()
    # Another of that name is another upload.
    upload.send_directory(instance.incoming, "slow")
    until(lambda: (instance.status("slow") or {})["stage"] == "published", "the second one")


def test_cancel_a_flat_upload_whose_files_are_missing(instance: Instance, builder: Builder) -> None:
    upload = builder.upload("hello", "1.0-1")
    (instance.incoming / upload.changes.name).write_bytes(upload.changes.read_bytes())
    name = upload.flat_name
    until(lambda: instance.status(name), "it to be seen")
    done(instance, "cancel", name)
    found = instance.status(name)
    assert found
    assert found["stage"] == "cancelled"
    until(lambda: not list(instance.incoming.iterdir()), "incoming to be empty")
    assert "bug" not in instance.log()


def test_a_cancel_that_comes_too_late_says_so(instance: Instance, builder: Builder) -> None:
    name = builder.upload("hello", "1.0-1").send_directory(instance.incoming)
    instance.succeeded(name)
    late = instance.ctl("cancel", name)
    assert late.returncode == 1
    assert "too late, it is published already" in late.stderr
    unknown = instance.ctl("cancel", "nobody")
    assert unknown.returncode == 1
    assert "no upload has the name" in unknown.stderr


def test_cancel_without_a_daemon(instance: Instance, builder: Builder) -> None:
    done(instance, "hold")
    name = builder.upload("hello", "1.0-1").send_directory(instance.incoming)
    queued(instance, name)
    instance.stop()
    done(instance, "cancel", name)
    found = instance.status(name)
    assert found
    assert found["stage"] == "cancelled"
    assert len(list((instance.state / "rejected" / str(found["id"])).iterdir())) == 2
    done(instance, "release")
    instance.start()
    assert published(instance) == []


def test_cancels_at_any_moment_of_a_busy_service(instance: Instance, builder: Builder) -> None:
    uploads = [builder.upload(f"hello{number}", "1.0") for number in range(12)]
    names = [upload.send_directory(instance.incoming) for upload in uploads]
    answers = {}
    for name in names[::2]:
        until(lambda name=name: instance.status(name), "it to be seen")  # type: ignore[misc]
        answers[name] = instance.ctl("cancel", name).returncode
    for name in names:
        found = instance.wait(name)
        expected = "cancelled" if answers.get(name) == 0 else "published"
        assert found["stage"] == expected
    cancelled = {name.rsplit("-", 1)[0] for name, code in answers.items() if code == 0}
    assert set(published(instance)) == {f"hello{number}" for number in range(12)} - cancelled
    assert instance.daemon
    assert instance.daemon.poll() is None
    assert done(instance, "fsck").strip() == ""


# -- retry ------------------------------------------------------------------------------------------------------------


def test_retry_of_an_upload_that_was_cancelled_by_mistake(instance: Instance, builder: Builder) -> None:
    done(instance, "hold")
    name = builder.upload("hello", "1.0-1").send_directory(instance.incoming)
    queued(instance, name)
    old = instance.status(name)
    done(instance, "cancel", name)
    done(instance, "release")
    done(instance, "retry", name)
    until(lambda: (instance.status(name) or {}).get("stage") == "published", "it to be published")
    new = instance.status(name)
    assert old
    assert new
    assert new["id"] > old["id"]
    assert published(instance) == ["hello"]
    assert not (instance.state / "rejected" / str(old["id"])).exists()


def test_a_retry_has_a_sequence_number_of_its_own(instance: Instance, builder: Builder) -> None:
    """It goes behind those that were taken meanwhile: a newer version of the same package among them goes first."""
    done(instance, "hold")
    first, second = (builder.upload("hello", version) for version in ("1.0-1", "1.0-2"))
    queued(instance, first.send_directory(instance.incoming, "first"))
    done(instance, "cancel", "first")
    queued(instance, second.send_directory(instance.incoming, "second"))
    done(instance, "retry", "first")
    queued(instance, "first")
    assert [one["name"] for one in json.loads(done(instance, "queue", "--json"))["uploads"]] == ["second", "first"]
    done(instance, "release")
    instance.succeeded("second")
    assert instance.failed("first") == ["version-not-newer"]


def test_retry_of_a_rejected_upload_when_its_key_is_trusted(
    instance: Instance, builder: Builder, tmp_path: Path
) -> None:
    stranger = builder.keys.make("Carl Newcomer")
    name = builder.upload("hello", "1.0-1", key=stranger).send_directory(instance.incoming)
    assert instance.failed(name)
    done(instance, "trust", str(builder.keys.public(stranger)))
    old = instance.status(name)
    assert old
    done(instance, "retry", f"#{old['id']}")
    until(lambda: (instance.status(name) or {}).get("stage") == "published", "it to be published")
    again = instance.ctl("retry", name)
    assert again.returncode == 1
    assert "only what FAILED" in again.stderr


@pytest.mark.parametrize("gone", [False, True], ids=["in the way", "not kept"])
def test_a_retry_that_cannot_be(instance: Instance, builder: Builder, gone: bool) -> None:
    name = builder.upload("hello", "1.0-1", key=None).send_directory(instance.incoming)
    instance.failed(name)
    found = instance.status(name)
    assert found
    kept = instance.state / "rejected" / str(found["id"])
    until(kept.is_dir, "its files to be kept")
    if gone:
        kept.rename(kept.with_name("elsewhere"))
        instance.stop()
    else:
        instance.stop()
        (instance.incoming / name).mkdir()
    refused = instance.ctl("retry", name)
    assert refused.returncode == 1
    assert ("nothing is kept" if gone else "is there already") in refused.stderr
