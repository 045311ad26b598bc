"""Workers that die, hang, eat memory or talk nonsense: the one upload is rejected, and the next is fine."""

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from incomingd.config import Config
from incomingd.errors import Retry, WorkerKilled
from incomingd.model import CheckReport, Seal
from incomingd.verify.pool import Checkers
from incomingd.verify.protocol import Note, receive_with, send_with
from tests.support.instance import until
from tests.verify.builders import Keys, Members, Upload, codes, in_pool, make_config, sealed, tar, told

#: A worker that does something odd where the name of a file asks for it, and its work otherwise.
_ODD = """
import ctypes, os, signal, sys, time
from incomingd.verify import check, worker

real = check.check_binary

def odd(path, entry, context):
    word = path.with_name(path.name + ".odd")
    what = word.read_text() if word.exists() else ""
    # 0: its own group, which is all that a worker may signal.
    if what == "killed": os.kill(0, signal.SIGKILL)
    if what == "segfault": ctypes.string_at(0)
    if what == "exit": os._exit(7)
    if what == "hang": time.sleep(3600)
    if what == "spin":
        while True: pass
    if what == "memory": bytearray(1 << 40)
    if what == "writes":
        with word.with_name("output").open("wb", buffering=0) as file:
            while True: file.write(bytes(1 << 16))
    if what == "bug": raise AssertionError("a bug")
    if what == "denied":
        while word.exists(): time.sleep(0.01)
        raise PermissionError(13, "Permission denied")
    if what == "full": raise OSError(28, "No space left on device")
    return real(path, entry, context)

check.check_binary = odd
worker.main()
"""
#: What is no worker's answer.
_NONSENSE = """
import os, socket, struct
from incomingd.verify import worker

def work(s, note, known):
    def send(kind, data): s.sendall(struct.pack(">Ic", len(data), kind) + data)
    send(b"H", b"")
    while True:
        n, kind = struct.unpack(">Ic", s.recv(5, socket.MSG_WAITALL))
        job = s.recv(n, socket.MSG_WAITALL)
        {answer}

worker._work = work
worker.main()
"""


class Pool:
    """Checkers, and uploads for them."""

    def __init__(self, folder: Path, keys: Keys, *, script: str = "", **settings: object) -> None:
        self.folder, self.keys = folder, keys
        self.config: Config = make_config(folder, {"service.workers": 1, **settings})
        command = (sys.executable, "-P", "-c", script) if script else None
        home = keys.keyring.home
        more = {"command": command} if command else {}
        self.checkers = Checkers(self.config, home, [folder], **more)
        self.count = 0

    def send(self, upload: Upload = Upload(), *, odd: str = "") -> CheckReport:  # noqa: B008
        folder, seal = self.seal(upload, odd=odd)
        return in_pool(self.checkers, folder, seal, self.config.queues[0])

    def seal(self, upload: Upload, *, odd: str = "") -> tuple[Path, Seal]:
        self.count += 1
        folder = self.folder / str(self.count)
        seal = sealed(folder, upload.files(self.keys))
        if odd:
            (folder / "hello_1.0-1_amd64.deb.odd").write_text(odd)
        return folder, seal

    def fine(self) -> bool:
        report = self.send()
        assert not report.problems, "\n".join(told(report))
        return len(report.changes) == 1


Make = Callable[..., Pool]


@pytest.fixture
def make(tmp_path: Path, keys: Keys) -> Iterator[Make]:
    made: list[Pool] = []

    def make_one(**options: object) -> Pool:
        made.append(Pool(tmp_path, keys, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make_one
    for pool in made:
        pool.checkers.close()


def children(of: int | str = "self") -> set[int]:
    """The processes that one has started."""
    tasks = Path(f"/proc/{of}/task").glob("*/children")
    return {int(word) for path in tasks for word in path.read_text().split()}


def workers(before: set[int]) -> set[int]:
    """Those that were forked from what this process has started."""
    return {worker for server in children() - before for worker in children(server)}


def test_a_worker_checks_one_upload_after_the_other(make: Make) -> None:
    pool = make()
    before = children()
    assert pool.fine()
    two = workers(before)  # one that verifies the signature, one that reads the package
    assert len(two) == 2
    assert codes(pool.send(Upload(by="mallory")).problems) == ["unknown-key"]
    assert pool.fine()
    assert workers(before) == two


@pytest.mark.parametrize(
    ("odd", "code", "found"),
    [
        ("segfault", "check-crashed", "ended with the signal SIGSEGV"),
        ("exit", "check-crashed", "ended with the status 7"),
        ("bug", "check-crashed", "an internal error of incomingd"),
        ("hang", "check-timeout", "longer than 2 s"),
        ("spin", "check-timeout", "more than 1 s of processor time"),
        ("writes", "check-crashed", "an internal error of incomingd"),
        ("memory", "check-memory", "more than 512 MiB of memory"),
    ],
)
def test_one_upload_is_lost_and_the_next_is_fine(make: Make, odd: str, code: str, found: str) -> None:
    limits = {"hang": {"checks.worker_time": 2}, "spin": {"checks.worker_cpu": 1}}
    pool = make(script=_ODD, **limits.get(odd, {}))
    assert pool.fine() if odd not in limits else True
    report = pool.send(odd=odd)
    assert codes(report.problems) == [code]
    assert found in report.problems[0].message
    assert report.problems[0].file == "hello_1.0-1_amd64.deb"
    assert [summary.file for summary in report.summaries] == ["hello_1.0-1_amd64.changes"]
    assert report.changes == ()
    assert pool.fine()


def test_a_worker_that_is_ended_from_outside_costs_no_upload(make: Make) -> None:
    """Perhaps the kernel had no memory left: whether it is tried again is for the pipeline."""
    pool = make(script=_ODD)
    with pytest.raises(WorkerKilled) as raised:
        pool.send(odd="killed")
    problem = raised.value.problem
    assert (problem.code, problem.file) == ("check-crashed", "hello_1.0-1_amd64.deb")
    assert "ended with the signal SIGKILL" in problem.message
    assert pool.fine()


def test_what_sealing_found_is_told_too_when_a_worker_dies(make: Make) -> None:
    pool = make(script=_ODD)
    folder, seal = pool.seal(Upload(), odd="segfault")
    problem = pool.send(Upload(by="mallory")).problems[0]
    seal = replace(seal, problems=(replace(problem, file="other.deb"),))
    report = in_pool(pool.checkers, folder, seal, pool.config.queues[0])
    assert codes(report.problems) == ["unknown-key", "check-crashed"]


def replace_keyring(keys: Keys) -> None:
    """By another file with the same bytes, as ``incomingctl trust`` does."""
    public = keys.keyring.public
    shutil.copy(public, public.with_name("copy"))
    public.with_name("copy").rename(public)


def test_a_worker_is_replaced_if_the_keyring_was(make: Make, keys: Keys) -> None:
    pool = make()
    before = children()
    assert pool.fine()
    worker = workers(before)
    replace_keyring(keys)
    assert pool.fine()
    assert not workers(before) & worker


def test_a_check_that_fails_while_the_keyring_is_replaced_is_made_again(make: Make, keys: Keys) -> None:
    pool = make(script=_ODD)
    before = children()
    reports: list[CheckReport] = []
    thread = threading.Thread(target=lambda: reports.append(pool.send(odd="denied")))
    thread.start()
    odd = pool.folder / "1/hello_1.0-1_amd64.deb.odd"
    until(lambda: odd.exists() and workers(before), "a check")
    replace_keyring(keys)
    odd.unlink()
    thread.join()
    assert not reports[0].problems


def test_a_full_disk_is_not_the_uploads_fault(make: Make) -> None:
    pool = make(script=_ODD)
    with pytest.raises(Retry, match="No space left"):
        pool.send(odd="full")
    assert pool.fine()


@pytest.mark.parametrize(
    "answer",
    [
        'send(b"R", b"nonsense")',
        'send(b"R", b"{}")',
        'send(b"R", b"[" * 100000)',
        'send(b"R", b\'{"summaries":[],"changes":[],"problems":[],"warnings":[],"commands":null}\')',
        'send(b"?", b"")',
        's.sendall(b"\\xff" * 1000)',
        "os._exit(0)",
    ],
)
def test_nonsense_is_no_report(make: Make, answer: str) -> None:
    pool = make(script=_NONSENSE.format(answer=answer))
    for _ in range(2):
        report = pool.send()
        assert codes(report.problems) == ["check-crashed"]
        assert report.changes == ()


def test_what_a_worker_says_in_words_is_bounded_and_of_one_line(make: Make) -> None:
    pool = make(script=_NONSENSE.format(answer='send(b"T", b"hello#3: published\\n" * 1000000)'))
    with pytest.raises(Retry) as raised:
        pool.send()
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 10_000


def test_a_trace_cannot_look_like_other_lines_of_the_log(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    pool = make(script=_NONSENSE.format(answer='send(b"C", b"x\\nhello#3: published\\x1b[2J\\n" * 1000000)'))
    assert codes(pool.send().problems) == ["check-crashed"]
    assert "\nhello#3" not in caplog.text
    assert "\x1b" not in caplog.text
    assert len(caplog.text) < 50_000


def test_a_worker_that_cannot_start_is_not_the_uploads_fault(make: Make) -> None:
    with pytest.raises(Retry):
        make(script="raise SystemExit(1)").send()


def test_a_bomb_meets_the_limit_on_memory(make: Make) -> None:
    def bomb(members: Members) -> Members:
        # One pax header of 600 MB, which tarfile reads at once.
        header = tar(("x", b""), form="")[:512].replace(b"x\0", b"x\0", 1)
        head = bytearray(header)
        head[124:136] = b"%011o\0" % (600 << 20)
        head[156:157] = b"x"
        head[148:156] = b" " * 8
        head[148:156] = b"%06o\0 " % sum(head)
        made = subprocess.run(
            ["zstd", "-c", "-q"], input=bytes(head) + bytes(600 << 20), capture_output=True, check=True
        )
        return [*members[:2], ("data.tar.zst", made.stdout)]

    pool = make(**{"checks.worker_memory": "300M"})
    assert codes(pool.send(Upload(parts=bomb)).problems) in (["check-memory"], ["bad-compression"], ["bad-deb"])
    assert pool.fine()


def test_limits_hold_for_one_upload_and_not_for_all_together(make: Make) -> None:
    """The processor time of a worker is counted anew for each upload."""
    pool = make(script=_ODD, **{"checks.worker_cpu": 2})
    for _ in range(3):
        assert pool.fine()
    assert codes(pool.send(odd="spin").problems) == ["check-timeout"]


@pytest.mark.parametrize("orphan", [False, True], ids=["", "whose parent has gone"])
def test_closing_ends_what_is_under_way_without_blame(make: Make, orphan: bool) -> None:
    pool = make(script=_ODD)
    before = children()
    outcome: list[object] = []

    def wait() -> None:
        try:
            outcome.append(pool.send(odd="hang"))
        except Retry as retry:
            outcome.append(retry)

    folder = pool.folder / "1"
    thread = threading.Thread(target=wait)
    thread.start()
    while not ((folder / "hello_1.0-1_amd64.deb.odd").exists() and workers(before)):
        thread.join(0.01)
    if orphan:
        time.sleep(0.5)  # until it hangs
        [server] = children() - before
        os.kill(server, signal.SIGKILL)
    pool.checkers.close()
    thread.join(20)
    assert isinstance(outcome[0], Retry)
    assert not children() - before


def test_two_at_once_where_two_are_allowed(make: Make) -> None:
    pool = make(script=_ODD, **{"service.workers": 2, "checks.worker_time": 5})
    reports: list[CheckReport] = []
    thread = threading.Thread(target=lambda: reports.append(pool.send(odd="hang")))
    thread.start()
    assert pool.fine()
    assert thread.is_alive()
    thread.join()
    assert codes(reports[0].problems) == ["check-timeout"]


def test_a_worker_ends_with_its_parent(tmp_path: Path, keys: Keys) -> None:
    """A daemon that is killed leaves no process behind."""
    script = (
        "import sys, time; from pathlib import Path; from incomingd.config import reader\n"
        "from incomingd.verify.pool import ForkServer, _Worker, _COMMAND\n"
        "from incomingd.verify.pool import Settings, _Terms; from tests.verify.builders import make_config\n"
        f"config = make_config(Path({str(tmp_path)!r}), {{}})\n"
        "terms = _Terms(settings=Settings(config=config, home=Path('/nowhere'), folders=()), files=())\n"
        "worker = _Worker(ForkServer(_COMMAND), terms, texts=True); worker.start(); print(worker._pid, flush=True)\n"
        "time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    worker = int(parent.stdout.readline())
    handle = os.pidfd_open(worker)
    try:
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        assert select.select([handle], [], [], 20)[0]
    finally:
        os.close(handle)
        parent.stdout.close()


def test_workers_outlive_what_they_were_forked_from(make: Make) -> None:
    pool = make(script=_ODD)
    before = children()
    assert pool.fine()
    [server] = children() - before
    os.kill(server, signal.SIGKILL)
    assert pool.fine()
    with pytest.raises(WorkerKilled, match="a status that is not known"):
        pool.send(odd="killed")
    assert pool.fine()
    assert len(workers(before)) == 1


def test_what_a_worker_was_passed_no_program_below_it_has() -> None:
    """gpgv, if a signature takes it over, could answer in its worker's place."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        note = Note()
        send_with(ours, b"N", ours.fileno(), note.fd)
        kind, data, passed = receive_with(theirs)
        note.close()
    assert (kind, data, len(passed)) == (b"N", b"", 2)
    for fd in passed:
        assert not os.get_inheritable(fd)
        os.close(fd)
