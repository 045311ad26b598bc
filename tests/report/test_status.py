"""What a script that polls the status folder sees: late perhaps, wrong never."""

import contextlib
import json
import os
import stat
import threading
from datetime import timedelta
from functools import partial

import pytest

from incomingd.model import Operation, OperationKind, Upload
from incomingd.report import reporter
from incomingd.states import Stage
from tests.report.conftest import Desk
from tests.support.instance import until


def test_an_upload_has_its_files_from_the_first_sight_on(desk: Desk) -> None:
    upload = desk.see("job-1234")
    desk.reporter.report()
    assert desk.file("job-1234") == desk.by_id(upload)
    assert desk.file("job-1234") == {
        "schema": 1,
        "name": "job-1234",
        "id": upload.id,
        "queue": "default",
        "uploader": None,
        "state": 0,
        "state_name": "PENDING",
        "stage": "receiving",
        "position": None,
        "seen_at": "2026-01-02T03:04:06.678Z",
        "claimed_at": None,
        "due_at": None,
        "started_at": None,
        "finished_at": None,
        "changes": [],
        "published": None,
        "already_published": False,
        "warnings": [],
        "problems": [],
        "log": [{"at": "2026-01-02T03:04:06.678Z", "message": "seen"}],
    }


def test_the_files_can_be_read_by_everybody_and_nothing_else_lies_there(desk: Desk) -> None:
    previous = os.umask(0o077)
    try:
        upload = desk.see("job-1")
        desk.reporter.report()
    finally:
        os.umask(previous)
    files = [path for path in desk.status.rglob("*") if path.is_file()]
    assert {str(path.relative_to(desk.status)) for path in files} == {
        "job-1.json",
        f"by-id/{upload.id}.json",
        "index.json",
    }
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o644}


def test_a_success_says_where_the_package_is(desk: Desk) -> None:
    desk.publish(desk.queue("job-1"))
    desk.reporter.report()
    told = desk.file("job-1")
    assert (told["state"], told["state_name"], told["stage"]) == (2, "SUCCEEDED", "published")
    assert told["published"]["suites"]["stable"] == {"generation": 17, "inrelease_sha256": "ab" * 32}
    assert told["published"]["files"] == ["pool/main/h/hello/x.deb"]
    assert told["changes"][0]["source"] == "hello"
    assert [line["message"] for line in told["log"]] == ["seen", "claimed", "checking", "checked", "published"]


def test_a_failure_names_every_problem(desk: Desk) -> None:
    desk.reject(desk.check("job-1"))
    desk.reporter.report()
    told = desk.file("job-1")
    assert (told["state_name"], told["stage"]) == ("FAILED", "rejected")
    assert told["problems"] == [
        {"code": "checksum-mismatch", "file": "x.deb", "message": "found a, expected b; build it again"}
    ]


def test_nobody_is_told_of_a_success_before_clients_see_it(desk: Desk) -> None:
    queued, other = desk.queue("job-1"), desk.check("bad")
    desk.reporter.report(whole=True)
    desk.switched = False
    desk.publish(queued)
    desk.reject(other)
    desk.reporter.report(whole=True)
    assert desk.file("job-1")["state_name"] == "RUNNING"
    assert desk.file("bad")["state_name"] == "FAILED"
    assert desk.names("ended") == ["bad"]
    desk.switched = True
    desk.reporter.report(whole=True)
    assert desk.file("job-1")["state_name"] == "SUCCEEDED"
    assert desk.names("ended") == ["bad", "job-1"]


def test_a_restart_between_commit_and_switch_tells_nobody_either(desk: Desk) -> None:
    desk.publish(desk.queue("job-1"))
    desk.switched = False
    desk.restart()
    desk.reporter.report()
    assert not (desk.status / "job-1.json").exists()
    assert desk.names("ended") == []
    desk.switched = True
    desk.reporter.report()
    assert desk.file("job-1")["state_name"] == "SUCCEEDED"


def test_what_is_told_is_what_the_journal_says_whoever_tells_last(desk: Desk) -> None:
    before = desk.queue("job-1")
    after = desk.publish(before)
    desk.reporter.tell([after])
    desk.reporter.tell([before])  # a thread that was held up between its move and its word
    desk.reporter.report(whole=True)
    assert desk.by_id(before)["stage"] == "published"


def test_the_name_is_that_of_the_newest_upload(desk: Desk) -> None:
    first = desk.check("job-1")
    again = desk.check("job-1")
    desk.reporter.report(whole=True)
    desk.reject(first)
    desk.reporter.report(whole=True)
    assert desk.file("job-1")["id"] == again.id
    assert desk.by_id(first)["state_name"] == "FAILED"


def test_an_upload_called_index_does_not_take_the_index_away(desk: Desk) -> None:
    upload = desk.see("index")
    desk.reporter.report()
    assert desk.by_id(upload)["name"] == "index"
    assert desk.names("in_flight") == ["index"]


def test_positions_count_the_uploads_ahead(desk: Desk) -> None:
    slow, *waiting = desk.check("slow"), desk.queue("a"), desk.queue("b")
    desk.reporter.report(whole=True)
    assert [desk.by_id(upload)["position"] for upload in (slow, *waiting)] == [None, 1, 2]
    desk.reject(slow)
    desk.publish(waiting[0])
    desk.restart()  # so that nothing waits for its time
    desk.reporter.report(whole=True)
    assert [desk.by_id(upload)["position"] for upload in waiting] == [None, 0]


def test_the_index_lists_who_is_on_the_way_and_the_last_that_ended(desk: Desk) -> None:
    for number in range(203):
        desk.reject(desk.check(f"old-{number}"))
    desk.queue("queued")
    desk.see("arriving")
    desk.reporter.report(whole=True)
    index = desk.file("index")
    assert index["schema"] == 1
    assert index["health"]["state"] == "ok"
    assert desk.names("in_flight") == ["queued", "arriving"]
    assert desk.names("ended") == [f"old-{number}" for number in reversed(range(3, 203))]
    assert index["ended"][0]["state_name"] == "FAILED"
    assert index["in_flight"][0]["stage"] == "queued"


def test_an_operators_request_that_another_process_wrote_is_listed(desk: Desk) -> None:
    desk.reporter.report(whole=True)
    rollback = Operation(kind=OperationKind.ROLLBACK, suite="stable", generation=3)
    upload = desk.uploads.ask("rollback-stable-3", rollback, desk.now(), "asked for")
    desk.reporter.report(whole=True)
    assert desk.by_id(upload)["stage"] == "queued"
    assert desk.names("in_flight") == ["rollback-stable-3"]


def test_after_a_power_cut_the_files_are_made_anew(desk: Desk) -> None:
    ended, queued = desk.reject(desk.check("bad")), desk.queue("good")
    desk.reporter.report(whole=True)
    for path in desk.status.rglob("*.json"):
        path.write_bytes(b"")
    desk.restart()
    desk.reporter.report(whole=True)
    assert desk.by_id(ended) == desk.file("bad")
    assert desk.by_id(queued)["stage"] == "queued"
    assert desk.names("ended") == ["bad"]


def test_one_file_that_cannot_be_written_holds_up_no_other_and_comes_later(desk: Desk) -> None:
    (desk.status / "job-1.json").mkdir(parents=True)
    desk.see("job-1")
    other = desk.see("job-2")
    desk.reporter.report()
    assert desk.file("job-2")["id"] == other.id
    assert "status files cannot be written" in str(desk.health_state.trouble)
    (desk.status / "job-1.json").rmdir()
    desk.reporter.report()
    assert desk.file("job-1")["stage"] == "receiving"
    assert desk.health_state.trouble is None


def test_a_reader_never_sees_a_part_of_a_file(desk: Desk) -> None:
    upload = desk.claim("job-1")
    desk.reporter.report(whole=True)
    done, torn = threading.Event(), []

    def read() -> None:
        while not done.is_set():
            for name in ("job-1", f"by-id/{upload.id}", "index"):
                try:
                    desk.file(name)
                except (json.JSONDecodeError, OSError) as error:
                    torn.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    moved = upload
    for _ in range(100):
        moved = desk.uploads.move(moved, Stage.CHECKING, desk.now(), "checking")
        desk.reporter.tell([moved])
        moved = desk.uploads.move(moved, Stage.CLAIMED, desk.now(), "tried again")
        desk.reporter.tell([moved])
        desk.reporter.report(whole=True)
    done.set()
    reader.join()
    assert torn == []
    assert len(desk.file("job-1")["log"]) == 202


def test_a_script_that_waits_is_not_kept_waiting(desk: Desk) -> None:
    """With the loop as the daemon runs it: who is seen or has ended is told without any further event."""
    stop = threading.Event()

    def loop() -> None:
        while not stop.is_set():
            desk.reporter.wait(3600.0)
            desk.reporter.report()

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        for stage, act in (
            ("receiving", lambda: desk.see("a")),
            ("queued", lambda: desk.queue("a")),
            ("rejected", lambda: desk.reject(desk.check("a"))),
        ):
            until(partial(is_told, desk, act(), stage), f"the file that says {stage}")
    finally:
        stop.set()
        desk.reporter.wake(now=True)
        thread.join()


def is_told(desk: Desk, upload: Upload, stage: str) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return bool(desk.by_id(upload)["stage"] == stage)
    return False


def test_files_of_uploads_that_ended_long_ago_leave_some_at_a_time(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporter, "_ROUND", 0.0)  # there is no pause between two rounds
    for number in range(120):
        desk.reject(desk.check(f"old-{number}"))
    again = desk.queue("old-7")  # the name is in use again
    desk.reporter.report(whole=True)
    for rounds in (1, 2, 3):
        desk.reporter.tidy(86400.0, desk.now() + timedelta(days=1, seconds=1))
        left = len(list((desk.status / "by-id").iterdir()))
        assert left == max(121 - 50 * rounds, 1)
    assert sorted(path.name for path in desk.status.iterdir()) == ["by-id", "index.json", "old-7.json"]
    assert desk.file("old-7") == desk.by_id(again)
    desk.restart()
    desk.reporter.report(whole=True)
    assert [path.name for path in (desk.status / "by-id").iterdir()] == [f"{again.id}.json"]
    assert len(desk.names("ended")) == 120


def test_files_stay_for_good_where_that_is_wanted(desk: Desk) -> None:
    upload = desk.reject(desk.check("old"))
    desk.reporter.report(whole=True)
    desk.reporter.tidy(0.0, desk.now() + timedelta(days=10_000))
    assert desk.by_id(upload) == desk.file("old")
