"""200 uploads by 16 writers at once, a tenth of them bad, while apt looks on. And again, with the daemon killed.

Both print their seed; ``INCOMINGD_TEST_SEED`` repeats one.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from debian.debian_support import Version

from incomingd.journal import Journal
from incomingd.journal.uploads import Uploads
from incomingd.model import Upload
from tests.support.apt import Apt, served
from tests.support.instance import Instance, until
from tests.support.keys import Keys
from tests.system.storm import Case, default_seed, gather, pauses

COUNT, WRITERS, KILLS = 200, 16, 20
#: The daemon is killed within the one time (seconds) after it was started, or within the other after it was seen at
#: work on what has just been sent.
BLIND_LIFE, BUSY_LIFE = 1.5, 0.2


@pytest.fixture(scope="module")
def seed() -> int:
    return default_seed()


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory, keys: Keys, builder_key: str, seed: int) -> list[Case]:
    return gather(tmp_path_factory.mktemp("storm"), keys, builder_key, count=COUNT, seed=seed)


@pytest.fixture
def storm(tmp_path: Path, keys: Keys, builder_key: str, cases: list[Case], seed: int) -> Iterator[Instance]:
    """An instance that trusts the builders, one of whose keys has expired."""
    print(f"INCOMINGD_TEST_SEED={seed}")
    assert len(cases) == COUNT  # they are made, and the keys with them, before these are trusted
    made = Instance(tmp_path / "instance", trust=[keys.public(builder_key), keys.public("Expired")])
    yield made
    made.close()


class Onlooker:
    """An apt that updates over and over. What was told to be published before an update must be there after it."""

    def __init__(self, instance: Instance, clients: list[Apt], cases: list[Case]) -> None:
        self.instance, self.clients = instance, clients
        self.cases = [case for case in cases if not case.expected and not case.races]
        self.looks = 0
        self.faults: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_on, name="onlooker")

    def __enter__(self) -> "Onlooker":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look_on(self) -> None:
        while not self._over.is_set():
            apt = self.clients[self.looks % len(self.clients)]
            self.looks += 1
            try:
                told = {(case.package, case.version) for case in self.cases if self._published(case)}
                apt.update()
                if missing := told - apt.packages():
                    self.faults.append(f"told to be published, and apt does not see {sorted(missing)}")
            except AssertionError as error:
                self.faults.append(str(error))

    def _published(self, case: Case) -> bool:
        status = self.instance.status(case.name)
        return status is not None and status["state"] == 2


@pytest.fixture
def onlooker(storm: Instance, cases: list[Case], tmp_path: Path) -> Iterator[Onlooker]:
    with served(storm.archive) as address:
        over_http = Apt(tmp_path / "apt-http", address, storm.keyring)
        over_file = Apt(tmp_path / "apt-file", f"file://{storm.archive}", storm.keyring)
        yield Onlooker(storm, [over_http, over_file], cases)


def send_all(cases: list[Case], instance: Instance, seed: int) -> None:
    """Sixteen writers, each with its share."""

    def write(number: int) -> None:
        pause = pauses(seed + number)
        for case in cases[number::WRITERS]:
            case.send(instance.incoming, lambda: time.sleep(pause()))

    with ThreadPoolExecutor(WRITERS) as writers:
        list(writers.map(write, range(WRITERS)))


def uploads_in_hand(instance: Instance) -> int:
    """How many uploads have been taken and have not ended."""
    journal = Journal(instance.state / "journal.db")
    try:
        return sum(upload.sequence is not None for upload in Uploads(journal).open())
    finally:
        journal.close()


def state(instance: Instance, case: Case) -> int:
    return (instance.status(case.name) or {"state": 0})["state"]


def wait_for_work(instance: Instance, cases: list[Case]) -> None:
    until(lambda: any(state(instance, case) == 1 for case in cases) or all_ended(instance, cases), "any work")


def all_ended(instance: Instance, cases: list[Case]) -> bool:
    return all(state(instance, case) >= 2 for case in cases)


def wait_for_all(instance: Instance, cases: list[Case]) -> None:
    try:
        until(lambda: all_ended(instance, cases), "the end of the storm", 120)
    except AssertionError as error:
        waiting = [case for case in cases if not all_ended(instance, [case])]
        lines = [f"{case.name} {case.way} {case.expected}: {instance.status(case.name)}" for case in waiting]
        raise AssertionError("\n".join([str(error), *lines, instance.log()[-4000:]])) from None


def judge(instance: Instance, cases: list[Case], onlooker: Onlooker, *, killed: bool = False) -> None:
    """The end is the same however it came about: see the title of each step."""
    journal = Journal(instance.state / "journal.db")
    uploads = Uploads(journal)
    rows = {case.name: uploads.newest(case.name) for case in cases}
    ended = {name: row for name, row in rows.items() if row is not None}
    assert len(ended) == len(cases)
    try:
        _the_bad_were_rejected_for_what_was_wrong_with_them(instance, cases, killed=killed)
        _the_good_were_published_once(instance, cases, ended)
        _whoever_raced_was_judged_in_the_order_of_the_claims(instance, cases, ended)
        _generations_follow_the_claims(instance, ended)
        _statuses_say_what_the_journal_says(instance, ended)
    finally:
        journal.close()
    _nothing_is_left(instance)
    assert onlooker.faults == []
    assert onlooker.looks > 2


def _the_bad_were_rejected_for_what_was_wrong_with_them(instance: Instance, cases: list[Case], *, killed: bool) -> None:
    found = {case.name: (case.expected, instance.failed(case.name)) for case in cases if case.expected}
    # One that was renamed in while no daemon ran looks as if it were written in place: the rest is waited for.
    incomplete = {case.name for case in cases if case.only_renamed and killed}
    wrong = {
        name: (expected, codes)
        for name, (expected, codes) in found.items()
        if expected not in codes and not (name in incomplete and codes == ["upload-incomplete"])
    }
    assert not wrong


def _the_good_were_published_once(instance: Instance, cases: list[Case], ended: dict[str, Upload]) -> None:
    good = [case for case in cases if not case.expected and not case.races]
    for case in good:
        status = instance.succeeded(case.name)
        assert not status["already_published"], case.name
        assert [Path(file).name for file in status["published"]["files"]] == [f"{case.package}_1.0_amd64.deb"]
    pool = Counter(file.name for file in (instance.archive / "pool").rglob("*.deb"))
    expected = {f"{case.package}_1.0_amd64.deb" for case in good}
    assert {name: count for name, count in pool.items() if not name.startswith("racer")} == dict.fromkeys(expected, 1)


def _whoever_raced_was_judged_in_the_order_of_the_claims(
    instance: Instance, cases: list[Case], ended: dict[str, Upload]
) -> None:
    newest: dict[str, Version] = {}
    racing = [case for case in cases if case.races]
    for case in sorted(racing, key=lambda case: ended[case.name].sequence or 0):
        version = Version(case.version)
        if case.package not in newest or version > newest[case.package]:
            instance.succeeded(case.name)
            newest[case.package] = version
        else:
            assert instance.failed(case.name) == ["version-not-newer"]


def _generations_follow_the_claims(instance: Instance, ended: dict[str, Upload]) -> None:
    published = [upload for upload in ended.values() if upload.stage == "published"]
    in_order = sorted(published, key=lambda upload: upload.sequence or 0)
    numbers = [upload.published.suites["stable"].generation for upload in in_order if upload.published]
    assert len(numbers) == len(published)
    assert numbers == sorted(numbers)
    sequences = [upload.sequence for upload in in_order]
    assert len(set(sequences)) == len(sequences)


def _statuses_say_what_the_journal_says(instance: Instance, ended: dict[str, Upload]) -> None:
    for name, upload in ended.items():
        status = instance.status(name)
        assert status is not None
        assert (status["id"], status["stage"]) == (upload.id, str(upload.stage))
    shown = {row["name"]: row["stage"] for row in instance.index()["ended"]}
    assert shown == {name: str(upload.stage) for name, upload in ended.items()}
    assert instance.index()["in_flight"] == []


def _nothing_is_left(instance: Instance) -> None:
    assert list(instance.incoming.iterdir()) == []
    for folder in ("claims/default", "sealed"):
        assert list((instance.state / folder).iterdir()) == []
    done = instance.ctl("fsck", "--deep")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_storm(storm: Instance, cases: list[Case], onlooker: Onlooker, seed: int) -> None:
    storm.start()
    with onlooker:
        send_all(cases, storm, seed)
        wait_for_all(storm, cases)
    assert storm.stop() == 0
    judge(storm, cases, onlooker)


def test_a_storm_with_kills_at_random_moments(
    storm: Instance, cases: list[Case], onlooker: Onlooker, seed: int
) -> None:
    dice, pause = random.Random(seed), pauses(seed)
    storm.set("incoming.default", abandon_after="10s")
    in_hand, sending = [], []
    with onlooker, ThreadPoolExecutor(WRITERS) as writers:
        for life in range(KILLS):
            share = cases[life::KILLS]
            busy = dice.random() < 0.7
            storm.start(wait=busy)
            for case in share:
                sending.append(writers.submit(case.send, storm.incoming, lambda: time.sleep(pause())))
            if busy:
                wait_for_work(storm, share)
                time.sleep(dice.uniform(0.0, BUSY_LIFE))
            else:
                time.sleep(dice.uniform(0.0, BLIND_LIFE))
            storm.kill()
            in_hand.append(uploads_in_hand(storm))
        storm.start()
        for sent in sending:
            sent.result()
        wait_for_all(storm, cases)
    print(f"uploads in hand at each kill: {in_hand}")
    assert any(in_hand), "the kills came when nothing was going on"
    assert storm.stop() == 0
    judge(storm, cases, onlooker, killed=True)
