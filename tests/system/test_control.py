"""An operator's hand on the queue: hold and release, queue, cancel, retry, with a daemon and without one."""

import json
import re
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


def test_versions_that_wait_together_are_told_which_one_is_listed(instance: Instance, builder: Builder) -> None:
    done(instance, "hold")
    names = []
    for version in ("1.0-1", "1.0-2", "1.0-3"):
        names.append(builder.upload("hello", version).send_directory(instance.incoming))
        queued(instance, names[-1])
    other = builder.upload("other", "1.0-1").send_directory(instance.incoming)
    queued(instance, other)
    done(instance, "release")
    ended = [instance.succeeded(name) for name in (*names, other)]
    assert [one.get("superseded_by") for one in ended] == ["1.0-3", "1.0-3", None, None]
    assert len({one["published"]["suites"]["stable"]["generation"] for one in ended}) == 1
    assert ended[0]["log"][-1]["message"].endswith("; superseded by 1.0-3 in the same generation")
    # What was published alone was listed for a time, and stays as it is told.
    later = builder.upload("hello", "1.0-4").send_directory(instance.incoming)
    assert "superseded_by" not in instance.succeeded(later)
    assert "superseded_by" not in instance.status(names[-1])  # type: ignore[operator]


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


def test_an_upload_by_a_key_that_is_trusted_now_is_sent_again(instance: Instance, builder: Builder) -> None:
    """Only its .changes is kept of one that was not authorised."""
    stranger = builder.keys.make("Carl Newcomer")
    upload = builder.upload("hello", "1.0-1", key=stranger)
    name = upload.send_directory(instance.incoming)
    assert instance.failed(name)
    done(instance, "trust", str(builder.keys.public(stranger)))
    retried = instance.ctl("retry", name)
    assert retried.returncode == 1
    assert "send the whole upload again" in retried.stderr
    upload.send_directory(instance.incoming)
    until(lambda: (instance.status(name) or {}).get("stage") == "published", "it to be published")


def test_retry_of_a_rejected_upload_when_its_suite_is_there(instance: Instance, builder: Builder) -> None:
    name = builder.upload("hello", "1.0-1", distribution="rare").send_directory(instance.incoming)
    assert instance.failed(name) == ["unknown-distribution"]
    old = instance.status(name)
    assert old
    instance.set("suites.stable", accepts=["stable", "rare"])
    done(instance, "reload")
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


def test_reload_returns_when_the_configuration_is_in_force(instance: Instance, builder: Builder) -> None:
    refused = builder.upload("hello", "1.0-1", distribution="mars")
    assert instance.failed(refused.send_directory(instance.incoming)) == ["unknown-distribution"]
    instance.set("suites.stable", accepts=["stable", "mars"])
    done = instance.ctl("reload")
    assert (done.returncode, done.stdout) == (0, "the configuration is in force\n")
    instance.succeeded(builder.upload("world", "1.0-1", distribution="mars").send_directory(instance.incoming))


def test_reload_of_a_broken_configuration_says_what_is_wrong(instance: Instance) -> None:
    before = instance.config.read_text()
    instance.set("publish", batch=0)
    done = instance.ctl("reload")
    assert done.returncode == 2
    assert "batch: is 0; must be a whole number" in done.stderr
    assert instance.health() == "ok: "
    instance.config.write_text(before)
    assert instance.ctl("reload").returncode == 0


def test_reload_while_the_service_is_halted(instance: Instance) -> None:
    before = instance.config.read_text()
    instance.set("archive", signing_keys=["0" * 40])
    assert instance.ctl("reload").returncode == 0
    until(lambda: instance.health().startswith("halted"), "the halt")
    instance.config.write_text(before)
    assert instance.ctl("reload").returncode == 0
    until(lambda: instance.health() == "ok: ", "the mending")


def test_reload_without_a_daemon(idle: Instance) -> None:
    done = idle.ctl("reload")
    assert done.returncode == 1
    assert "no incomingd runs" in done.stderr


def test_wait_and_status_say_why_nothing_moves(instance: Instance, builder: Builder) -> None:
    done(instance, "hold", "the mirror is being copied")
    upload = builder.upload("hello")
    until(lambda: instance.index()["health"]["state"] == "held", "the hold")
    name = upload.send_directory(instance.incoming)
    until(lambda: (instance.status(name) or {}).get("stage") == "queued", "the upload in the line")
    words = "the service is held: publishing is on hold since"
    shown = instance.ctl("status", name)
    assert shown.returncode == 0
    assert f"  waits: {words}" in shown.stdout
    assert "the mirror is being copied" in shown.stdout
    waited = instance.ctl("wait", name, "--timeout", "0.5")
    assert waited.returncode == 3
    assert words in waited.stderr
    done(instance, "release")
    assert instance.ctl("wait", name).returncode == 0
    assert "waits:" not in instance.ctl("status", name).stdout
