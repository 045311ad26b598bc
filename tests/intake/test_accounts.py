"""What one account may use of intake while others wait for theirs."""

import os
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from incomingd.intake import folder_faults, incoming_folder, listing, sweep
from incomingd.intake.accounts import Failures, TimeBudget, in_turn
from incomingd.model import Published, SuiteResult, Upload
from incomingd.states import Stage
from tests.intake.conftest import Inbox, changes_text, needs_root

ALICE, MALLORY = 13001, 13002
pytestmark = needs_root


def give(inbox: Inbox, name: str, uid: int) -> None:
    folder = inbox.path / name
    for path in (folder, *folder.iterdir()):
        os.chown(path, uid, 0)


def send(inbox: Inbox, uid: int, *names: str, size: int = 3) -> None:
    for name in names:
        inbox.rename_in(name, hello_deb=b"x" * size)
        give(inbox, name, uid)


def end(inbox: Inbox, name: str) -> None:
    upload = next(one for one in inbox.uploads.open() if one.name == name)
    inbox.uploads.reject(upload, [], upload.seen_at, "cancelled", target=Stage.CANCELLED)


def limits(make_inbox: Callable[..., Inbox], **settings: object) -> Inbox:
    inbox = make_inbox()
    inbox.configure(limits=settings)
    return inbox


def log(inbox: Inbox, name: str) -> list[str]:
    return [line.message for line in inbox.newest(name).log]


def test_turns() -> None:
    assert in_turn(["m1", "m2", "m3", "a1", "a2"], lambda item: item[0]) == ["m1", "a1", "m2", "a2", "m3"]
    assert in_turn(["m1", "m2"], lambda item: item[0]) == ["m1", "m2"]
    assert in_turn([], lambda item: item) == []


# -- sequence numbers -------------------------------------------------------------------------------------------------


def test_accounts_get_their_sequence_numbers_in_turn(inbox: Inbox) -> None:
    send(inbox, MALLORY, *(f"m{number}" for number in range(20)))
    send(inbox, ALICE, "a0", "a1")
    assert inbox.look()[:4] == ["m0", "a0", "m1", "a1"]


# -- uploads and bytes on the way -------------------------------------------------------------------------------------


def test_what_is_beyond_the_limit_waits_and_says_so(make_inbox: Callable[..., Inbox]) -> None:
    inbox = limits(make_inbox, per_account=2)
    send(inbox, MALLORY, "m0", "m1", "m2", "m3")
    send(inbox, ALICE, "a0")
    assert inbox.look() == ["m0", "a0", "m1"]
    for _ in range(5):
        assert inbox.look(after=1) == []
    assert log(inbox, "m2")[1:] == [
        "waits until other uploads of uid 13002 have ended: [limits] allows an account 2 uploads and 21474836480 bytes "
        "on their way"
    ]
    end(inbox, "m0")
    assert inbox.look(after=1) == ["m2"]
    assert inbox.look(after=1) == []


def test_it_is_never_abandoned_for_that_and_health_tells_of_it(make_inbox: Callable[..., Inbox]) -> None:
    inbox = limits(make_inbox, per_account=1)
    send(inbox, MALLORY, "m0", "m1")
    inbox.look()
    assert inbox.faults() == []
    inbox.look(after=100_000)
    assert inbox.stage("m1") == "receiving"
    assert "1 uploads have waited" in inbox.faults()[0]
    end(inbox, "m0")
    assert inbox.look(after=1) == ["m1"]
    assert inbox.faults() == []


def test_bytes_count_and_a_large_one_is_not_overtaken(make_inbox: Callable[..., Inbox]) -> None:
    inbox = limits(make_inbox, bytes_per_account=5000)
    send(inbox, MALLORY, "small")
    send(inbox, MALLORY, "large", size=6000)
    send(inbox, MALLORY, "late")
    assert inbox.look() == ["small"]
    assert inbox.look(after=1) == []
    end(inbox, "small")
    assert inbox.look(after=1) == ["large"]  # with none on its way it may have one, however large
    assert inbox.look(after=1) == []
    end(inbox, "large")
    assert inbox.look(after=1) == ["late"]


def test_a_restart_forgets_nothing(make_inbox: Callable[..., Inbox]) -> None:
    inbox = limits(make_inbox, per_account=2, bytes_per_account=5000)
    send(inbox, MALLORY, "m0", "m1", "m2", size=1000)
    assert inbox.look() == ["m0", "m1"]
    inbox.restart()
    inbox.wall_ahead = 100
    assert inbox.look() == []
    assert inbox.uploads.in_flight()[MALLORY].bytes > 2000
    end(inbox, "m1")
    assert inbox.look(after=3) == ["m2"]


def test_root_has_no_limit(make_inbox: Callable[..., Inbox]) -> None:
    inbox = limits(make_inbox, per_account=1)
    send(inbox, 0, "r0", "r1", "r2")
    assert inbox.look() == ["r0", "r1", "r2"]


# -- time and bytes for looking ---------------------------------------------------------------------------------------


class Counting:
    """A clock that is ahead by so many seconds at each question."""

    def __init__(self, step: float) -> None:
        self.now, self.step, self.asked = 0.0, step, 0

    def __call__(self) -> float:
        self.now += self.step
        self.asked += 1
        return self.now


def test_an_account_is_looked_at_for_a_tenth_of_the_time(inbox: Inbox) -> None:
    clock = Counting(0.01)  # each look at an upload takes so long
    inbox.restart(budget=TimeBudget(clock))
    for number in range(200):
        (inbox.path / f"m{number:03}").mkdir()
        os.chown(inbox.path / f"m{number:03}", MALLORY, 0)
    inbox.fill("alice", hello_deb=b"deb")
    give(inbox, "alice", ALICE)
    inbox.wall_ahead = 100
    assert inbox.look() == ["alice"]
    assert clock.asked // 2 <= 22
    before, began = clock.asked, time.monotonic()
    for _ in range(100):
        inbox.look(after=0.1)
    passed = time.monotonic() - began + 10
    assert (clock.asked - before) // 2 * clock.step <= passed / 10 + 0.3


def test_a_text_with_many_names_is_parsed_once(inbox: Inbox) -> None:
    folder = inbox.path / "m"
    folder.mkdir()
    row = " 00000000000000000000000000000000 1 x y name\n"
    (folder / "0.changes").write_text("Files:\n" + row * (((1 << 20) - 7) // len(row)))
    for number in range(1, 40):
        os.link(folder / "0.changes", folder / f"{number}.changes")
    inbox.look()
    assert inbox.listings.parsed <= 1 << 20


def test_more_texts_than_are_allowed_are_not_parsed_at_all(inbox: Inbox) -> None:
    folder = inbox.path / "m"
    folder.mkdir()
    for number in range(51):
        (folder / f"{number}.changes").write_text(changes_text(hello_deb=1))
    inbox.look()
    assert inbox.listings.parsed == 0
    assert inbox.look(after=3) == ["m"]  # to be refused


def test_texts_of_too_many_bytes_are_not_parsed_at_all(inbox: Inbox) -> None:
    folder = inbox.path / "m"
    folder.mkdir()
    for number in range(9):
        (folder / f"{number}.changes").write_bytes(b"Files:\n" + b"x" * ((1 << 20) - 7))
    inbox.look()
    assert inbox.listings.parsed == 0
    assert inbox.look(after=3) == ["m"]


def test_a_text_that_lists_more_than_is_allowed_is_read_to_there(make_inbox: Callable[..., Inbox]) -> None:
    inbox = make_inbox(max_files=10)
    names = "".join(f" 0 1 a b file{number}\n" for number in range(20_000))
    (inbox.path / "long.changes").write_text("Files:\n" + names)
    inbox.look()
    assert inbox.look(after=3) == ["long"]  # to be refused, whatever is there
    members = inbox.uploads.members(inbox.newest("long").id)
    assert members is not None
    assert len(members) <= 11


def test_what_is_remembered_is_bounded(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_REMEMBERED", 100)
    for number in range(50):
        text = changes_text(**{f"file{row}": 1 for row in range(9)})
        (inbox.path / f"m{number}.changes").write_text(text)
    inbox.look()
    assert inbox.listings.rows <= 100


# -- many entries -----------------------------------------------------------------------------------------------------


@pytest.fixture
def crowded(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> Inbox:
    """Mallory has 500 directories and 500 files there; 50 entries are read in a look, 20 uploads followed."""
    monkeypatch.setattr(sweep, "STEP", 50)
    monkeypatch.setattr(sweep, "followed", lambda _: 20)
    monkeypatch.setattr(incoming_folder, "followed", lambda _: 20)
    for number in range(500):
        (inbox.path / f"m{number:03}").mkdir()
        (inbox.path / f"m{number:03}.deb").touch()
        for name in (f"m{number:03}", f"m{number:03}.deb"):
            os.chown(inbox.path / name, MALLORY, 0)
    return inbox


def look_at_all(inbox: Inbox) -> list[str]:
    """As many looks as all entries take."""
    return [name for _ in range(25) for name in inbox.look(after=0.01)]


def test_what_is_announced_is_found_at_once_however_much_lies_there(crowded: Inbox) -> None:
    send(crowded, ALICE, "a0", "a1")
    assert crowded.look() == ["a0", "a1"]
    (crowded.path / "hello.deb").write_bytes(b"deb")
    (crowded.path / "hello.changes").write_text(changes_text(hello_deb=3))
    crowded.scan_events.arrived("default", "hello.changes")
    crowded.look()
    assert crowded.stage("hello") == "receiving"
    assert "hello" in look_at_all(crowded) + [name for _ in range(3) for name in crowded.look(after=1)]


def test_what_is_not_announced_is_found_by_reading_on(crowded: Inbox) -> None:
    crowded.fill("alice", hello_deb=b"deb")
    give(crowded, "alice", ALICE)
    crowded.wall_ahead = 100
    assert look_at_all(crowded) == ["alice"]


def test_of_one_account_so_many_are_followed_and_the_others_come_later(crowded: Inbox) -> None:
    look_at_all(crowded)
    followed = {upload.name for upload in crowded.uploads.open()}
    assert len(followed) == 20
    assert any("uid 13002 has 480 more uploads" in fault for fault in crowded.faults()), crowded.faults()
    for name in followed:
        (crowded.path / name).rmdir()
    look_at_all(crowded)
    look_at_all(crowded)
    now = {upload.name for upload in crowded.uploads.open()}
    assert len(now) == 20
    assert now.isdisjoint(followed)
    assert {crowded.stage(name) for name in followed} == {"cancelled"}


def test_nothing_counts_as_withdrawn_that_is_there(crowded: Inbox) -> None:
    look_at_all(crowded)
    followed = {upload.id for upload in crowded.uploads.open()}
    look_at_all(crowded)
    look_at_all(crowded)
    assert {upload.id for upload in crowded.uploads.open()} == followed


# -- what will never be taken as it lies there -------------------------------------------------------------------------


def make(inbox: Inbox, uid: int, *names: str) -> None:
    for name in names:
        (inbox.path / name).write_bytes(b"deb")
        os.chown(inbox.path / name, uid, 0)


def until_lone(inbox: Inbox) -> None:
    """As long as it takes for a package to be told of, and no look longer."""
    inbox.look()
    inbox.wall_ahead = 20
    inbox.look(after=11)
    inbox.look()


def test_files_of_no_kind_hide_no_lone_package(inbox: Inbox) -> None:
    make(inbox, MALLORY, *(f"a{number:03}.txt" for number in range(300)))
    make(inbox, ALICE, "z.deb")
    until_lone(inbox)
    assert "waits: no .changes lists it" in log(inbox, "z.deb")[-1]


def test_lone_packages_of_one_account_hide_no_other(inbox: Inbox) -> None:
    make(inbox, MALLORY, *(f"a{number:03}.deb" for number in range(300)))
    make(inbox, ALICE, "z.deb")
    until_lone(inbox)
    assert "waits: no .changes lists it" in log(inbox, "z.deb")[-1]


def test_of_very_many_files_some_of_each_account_are_followed(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_faults, "_MOST", 50)
    make(inbox, MALLORY, *(f"a{number:03}.deb" for number in range(100)))
    make(inbox, ALICE, "z.deb")
    until_lone(inbox)
    assert "waits: no .changes lists it" in log(inbox, "z.deb")[-1]


@pytest.mark.parametrize("kind", ["files", "uploads"])
def test_hidden_names_of_one_account_hide_no_other(kind: str, inbox: Inbox) -> None:
    for number in range(250):
        if kind == "files":
            make(inbox, MALLORY, f".a{number:03}")
        else:
            inbox.fill(f".a{number:03}", hello_deb=b"deb")
            give(inbox, f".a{number:03}", MALLORY)
    inbox.fill(".z", hello_deb=b"deb")
    give(inbox, ".z", ALICE)
    inbox.wall_ahead = 4000
    inbox.look(after=4000)
    (fault,) = inbox.faults()
    assert ".z" in fault
    assert "hold uploads that nobody writes any more" in fault


def test_directories_of_one_account_do_not_hide_where_anothers_file_lies(inbox: Inbox) -> None:
    for number in range(250):
        (inbox.path / f"a{number:03}").mkdir()
        os.chown(inbox.path / f"a{number:03}", MALLORY, 0)
    inbox.look()
    inbox.look()
    (inbox.path / "job").mkdir()
    make(inbox, ALICE, "job/hello.deb")
    (inbox.path / "hello.changes").write_text(changes_text(hello_deb=b"deb"))
    for name in ("job", "hello.changes"):
        os.chown(inbox.path / name, ALICE, 0)
    inbox.wall_ahead = 20
    for _ in range(4):
        inbox.look(after=11)
    assert "hello.deb lies in the directory job beside it: mv hello.changes job/" in log(inbox, "hello")[-1]


# -- uploads that fail ------------------------------------------------------------------------------------------------


class Timer:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Ends:
    """Uploads of accounts, as they have ended."""

    def __init__(self, inbox: Inbox) -> None:
        inbox.fill("hello", hello_deb=b"deb")
        inbox.look()
        self._upload = inbox.newest("hello")

    def failed(self, uid: int | None) -> Upload:
        return replace(self._upload, uid=uid, stage=Stage.REJECTED)

    def published(self, uid: int) -> Upload:
        suites = {"stable": SuiteResult(generation=1, inrelease_sha256="0" * 64)}
        done = Published(suites=suites, files=("pool/hello.deb",))
        return replace(self._upload, uid=uid, stage=Stage.PUBLISHED, published=done)

    def already_published(self, uid: int) -> Upload:
        return replace(self.published(uid), already_published=True)

    def commands(self, uid: int) -> Upload:
        return replace(self.published(uid), published=Published(suites={}, files=()))


@pytest.fixture
def ends(inbox: Inbox) -> Ends:
    return Ends(inbox)


def test_an_account_whose_uploads_fail_again_and_again_is_slowed_down(ends: Ends) -> None:
    timer = Timer()
    failures = Failures(timer)
    for _ in range(500):
        assert failures.wait(MALLORY, timer.now) == 0
        failures.note(ends.failed(MALLORY))
    assert failures.wait(MALLORY, timer.now) == pytest.approx(10)
    assert failures.wait(ALICE, timer.now) == 0
    (said,) = failures.sentences(timer.now)
    assert "uid 13002 fail again and again, or change nothing: one that fails is taken every 10 s" in said
    timer.now = 10
    assert failures.wait(MALLORY, timer.now) == 0
    failures.note(ends.failed(MALLORY))
    assert failures.wait(MALLORY, timer.now) == pytest.approx(10)
    failures.note(ends.published(MALLORY))
    assert failures.wait(MALLORY, timer.now) == 0
    assert failures.sentences(timer.now) == []


def test_one_success_makes_up_for_one_failure(ends: Ends) -> None:
    timer = Timer()
    failures = Failures(timer)
    for _ in range(500):
        failures.note(ends.failed(MALLORY))
    failures.note(ends.published(MALLORY))
    failures.note(ends.failed(MALLORY))
    assert failures.wait(MALLORY, timer.now) == pytest.approx(10)


@pytest.mark.parametrize("kind", ["already_published", "commands"])
def test_what_changes_nothing_makes_up_for_nothing_and_has_a_limit(kind: str, ends: Ends) -> None:
    """The same upload can be sent again without end, by anyone who can read it."""
    timer = Timer()
    failures = Failures(timer)
    same = getattr(ends, kind)(MALLORY)
    for _ in range(499):
        failures.note(ends.failed(MALLORY))
    failures.note(same)
    assert failures.wait(MALLORY, timer.now) == pytest.approx(1)
    timer.now = 100_000
    sent = 0
    while sent < 6000 and not failures.wait(MALLORY, timer.now):
        failures.note(same)
        sent += 1
    assert 4900 < sent < 5100


def test_root_and_the_daemon_are_never_slowed_down(ends: Ends) -> None:
    failures = Failures()
    for uid in (0, os.geteuid(), None):
        for _ in range(1000):
            failures.note(ends.failed(uid))
        assert failures.wait(uid, time.monotonic()) == 0


def test_names_that_are_made_and_removed_again_leave_few_rows(inbox: Inbox) -> None:
    """Each would be a row in the journal, and a status file for months."""
    for number in range(60):
        for name in (f"a-{number}-{more}" for more in range(10)):
            (inbox.path / name).mkdir()
            os.chown(inbox.path / name, MALLORY, 0)
        inbox.look()
        for path in inbox.path.iterdir():
            path.rmdir()
        inbox.look()
    rows = inbox.uploads.last_ended(1000)
    assert 500 <= len(rows) < 520
    # Others are taken as ever; and this account's next one is when it may have one more.
    send(inbox, ALICE, "alice")
    assert inbox.look() == ["alice"]
    send(inbox, MALLORY, "mallory")
    assert inbox.look() == []
    assert inbox.uploads.newest("mallory") is None
    inbox.look(after=120)
    assert inbox.look() == ["mallory"] or inbox.claimed[-1].name == "mallory"


def test_lone_packages_that_are_made_and_removed_again_leave_few_rows(inbox: Inbox) -> None:
    names = [f"{number:03}.deb" for number in range(600)]
    make(inbox, MALLORY, *names)
    inbox.look()
    inbox.wall_ahead = 20
    for _ in range(30):  # each takes up some
        inbox.look(after=11)
    for name in names:
        (inbox.path / name).unlink()
    inbox.look()
    before = len(inbox.uploads.last_ended(1000))
    assert before == 600
    make(inbox, MALLORY, "more.deb")
    make(inbox, ALICE, "hello.deb")
    inbox.look()
    inbox.look(after=11)
    inbox.look()
    assert inbox.uploads.newest("hello.deb") is not None
    assert inbox.uploads.newest("more.deb") is None
