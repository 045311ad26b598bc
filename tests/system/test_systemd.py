"""The unit in the hands of a real systemd: it starts, tells, reloads, stops, and goes on when it dies or hangs."""

import contextlib
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.instance import until
from tests.support.keys import Keys
from tests.support.packaged import CONFIG, INCOMING, SIGNING, UNIT, Packaged
from tests.support.private_systemd import PrivateSystemd, UnavailableError
from tests.support.uploads import Builder

KEYRING = "/srv/incomingd/archive/archive-keyring.asc"
HUNG = "[Service]\nWatchdogSec=2s\nTimeoutAbortSec=2s\n"


@pytest.fixture(scope="module")
def systemd() -> Iterator[PrivateSystemd]:
    try:
        booted = PrivateSystemd()
    except UnavailableError as reason:
        pytest.skip(str(reason))
    with booted:
        yield booted


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    with Keys() as keys:
        yield Builder(folder=tmp_path_factory.mktemp("builds"), keys=keys, key=keys.make())


@pytest.fixture
def service(systemd: PrivateSystemd, builds: Builder) -> Iterator[Packaged]:
    """Installed, and not started."""
    packaged = Packaged(systemd, builds.keys.public(builds.key))
    yield packaged
    print(packaged.show("ActiveState"), packaged.show("Result"), packaged.show("StatusText"), packaged.log(), sep="\n")
    systemd.run("systemctl", "stop", UNIT, check=False)
    systemd.run("systemctl", "reset-failed", UNIT, check=False)
    systemd.run("journalctl", "--rotate", "--vacuum-size=1", check=False)


@pytest.fixture
def running(service: Packaged) -> Packaged:
    service.start()
    return service


@contextlib.contextmanager
def publishing_hangs(service: Packaged) -> Iterator[None]:
    """The publish loop waits for storage that does not answer: it reads a file that never gives a byte."""
    keyring, fifo = service.path(KEYRING), service.path(f"{KEYRING}.fifo")
    os.mkfifo(fifo)
    fifo.chmod(0o666)
    fifo.replace(keyring)
    service.kill("HUP")  # after a reload everything is looked at anew
    reader = until(lambda: _writer(keyring), "a look at the hanging file")
    try:
        yield
    finally:
        keyring.rename(fifo)
        os.close(reader)

        def is_up() -> bool:
            # Whoever still waits for a byte is told that there is none.
            with contextlib.suppress(OSError):
                os.close(_writer(fifo) or os.open("/dev/null", os.O_RDONLY))
            return service.show("ActiveState") in ("active", "inactive", "failed")

        until(is_up, "a daemon that goes on")


def _writer(fifo: Path) -> int:
    """A descriptor to write to it; 0 while nobody reads it."""
    try:
        return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return 0


def capabilities(service: Packaged, pid: str) -> int:
    line = next(x for x in service.path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("CapEff"))
    return int(line.split()[1], 16)


def children(service: Packaged, pid: str) -> list[str]:
    tasks = service.path(f"/proc/{pid}/task").iterdir()
    return [child for task in tasks for child in (task / "children").read_text().split()]


def test_a_start_returns_when_it_is_ready_and_status_tells_what_it_does(running: Packaged) -> None:
    assert running.show("ActiveState") == "active"
    assert running.path(KEYRING).exists()
    until(lambda: running.show("StatusText") == "waiting for uploads; 0 in the queue", "the status line")
    assert "waiting for uploads" in running.systemd.systemctl("status", UNIT)
    assert running.show("User") == "incomingd"


def test_an_upload_of_another_account_is_published(running: Packaged, builds: Builder) -> None:
    name = running.send(builds.upload("hello", "1.0-1"))
    assert running.succeeded(name)["published"]["files"] == ["pool/main/h/hello/hello_1.0-1_amd64.deb"]
    published = running.path("/srv/incomingd/archive/pool/main/h/hello/hello_1.0-1_amd64.deb").stat()
    assert published.st_uid == running.path("/srv/incomingd/archive").stat().st_uid
    assert stat.S_IMODE(published.st_mode) == 0o644
    assert not list(running.path(INCOMING).iterdir())
    until(lambda: not list(running.path("/srv/incomingd/claims").iterdir()), "the clearing away")


@pytest.mark.parametrize(
    "how",
    [
        pytest.param("rsync -a ./ {incoming}/{name}/", id="rsync -a"),
        pytest.param("umask 077; mkdir {incoming}/{name}; cp * {incoming}/{name}", id="a private umask"),
        pytest.param("mkdir {incoming}/.{name}; cp * {incoming}/.{name}; chmod 1755 {incoming}/.{name}; "
                     "mv {incoming}/.{name} {incoming}/{name}", id="a sticky directory"),
    ],
)  # fmt: skip
def test_it_takes_what_other_accounts_write_whatever_its_mode(
    running: Packaged, builds: Builder, how: str, request: pytest.FixtureRequest
) -> None:
    word = request.node.callspec.id.split()[-2]
    upload = builds.upload(f"modes-{word}", "1.0-1")
    running.send(upload, how.format(incoming=INCOMING, name=upload.name))
    running.succeeded(upload.name)
    until(lambda: not list(running.path("/srv/incomingd/claims").iterdir()), "the clearing away")


def test_it_takes_a_flat_upload_of_another_account(running: Packaged, builds: Builder) -> None:
    upload = builds.upload("flat", "1.0-1")
    running.send(upload, f"cp *.deb {INCOMING}; cp *.changes {INCOMING}")
    running.succeeded(upload.flat_name)


def test_it_waits_for_the_writers_of_other_accounts(service: Packaged, builds: Builder) -> None:
    service.configure('settle = "0.3s"')
    service.start()
    slow, quick = builds.upload("slow", "1.0-1"), builds.upload("quick", "1.0-1")
    folder, deb = f"{INCOMING}/{slow.name}", slow.file("*.deb").name
    writer = f"(while [ ! -e {INCOMING}/.written ]; do sleep 0.1; done) < /dev/null > /dev/null 2>&1 &"
    service.send(slow, f"mkdir {folder}; cp {deb} {folder}; exec 3>> {folder}/{deb}; cp *.changes {folder}; {writer}")
    service.send(quick, f"mkdir {INCOMING}/{quick.name}; cp * {INCOMING}/{quick.name}")
    service.succeeded(quick.name)
    assert service.status(slow.name)["stage"] == "receiving"
    service.systemd.run("touch", f"{INCOMING}/.written")
    service.succeeded(slow.name)


def test_an_account_outside_the_group_cannot_upload_and_nobody_touches_what_others_sent(
    running: Packaged, builds: Builder
) -> None:
    with pytest.raises(AssertionError, match="Permission denied"):
        running.send(builds.upload("outsider", "1.0-1"), groups="12345")
    upload = builds.upload("waits", "1.0-1")
    running.send(upload, f"mkdir {INCOMING}/.waits; cp *.deb {INCOMING}/.waits")
    with pytest.raises(AssertionError, match="not permitted"):
        running.send(upload, f"mv {INCOMING}/.waits {INCOMING}/mine", user="12346")


def test_only_the_daemon_itself_has_its_rights(running: Packaged, builds: Builder) -> None:
    running.succeeded(running.send(builds.upload("rights", "1.0-1")))
    daemon = running.show("MainPID")
    cap_dac_override, cap_fowner, cap_lease = 1 << 1, 1 << 3, 1 << 28
    assert capabilities(running, daemon) == cap_dac_override | cap_fowner | cap_lease
    workers = children(running, daemon)
    assert workers
    assert [capabilities(running, worker) for worker in workers] == [0] * len(workers)


def test_lintian_and_other_checks_run_without_rights_and_without_a_network(service: Packaged, builds: Builder) -> None:
    look = "grep -E '^Cap(Prm|Eff|Amb)' /proc/self/status; (: </dev/udp/127.0.0.1/9) 2>&1; exit 0"
    tables = f"\n[checks.lintian]\n[checks.commands.look]\ncommand = ['bash', '-c', '''{look}''']\n"
    service.systemd.write(CONFIG, service.config() + tables)
    service.start()
    found = service.succeeded(service.send(builds.upload("looked-at", "1.0-1")))
    said = [warning["message"].partition("; ")[0] for warning in found["warnings"]]
    assert any(line.startswith("error no-copyright-file in looked-at") for line in said)
    assert {rf"look: Cap{which}:\t{0:016}" for which in ("Prm", "Eff", "Amb")} <= set(said)
    assert any("Address family not supported" in line for line in said)


def test_a_reload_takes_up_the_new_configuration(running: Packaged, builds: Builder) -> None:
    daemon = running.show("MainPID")
    running.configure('accepts = ["stable", "bookworm"]')
    running.systemd.systemctl("reload", UNIT)
    assert "the new configuration is in force" in running.log()
    running.succeeded(running.send(builds.upload("reloaded", "1.0-1", distribution="bookworm")))
    assert running.show("MainPID") == daemon


def test_a_reload_of_a_broken_configuration_fails_and_the_old_one_is_kept(running: Packaged, builds: Builder) -> None:
    daemon = running.show("MainPID")
    running.configure('batch = "many"')
    assert running.systemd.run("systemctl", "reload", UNIT, check=False).returncode != 0
    assert f'{CONFIG}: [publish] batch: is "many"' in running.log()
    running.succeeded(running.send(builds.upload("kept", "1.0-1")))
    assert (running.show("ActiveState"), running.show("MainPID")) == ("active", daemon)


def test_a_hangup_with_a_broken_configuration_is_told_in_the_status_until_it_is_mended(
    running: Packaged, builds: Builder
) -> None:
    running.configure('batch = "many"')
    running.kill("HUP")
    until(lambda: "the new configuration is refused, the old one kept" in running.show("StatusText"), "the refusal")
    running.succeeded(running.send(builds.upload("refused", "1.0-1")))
    running.configure("batch = 500")
    running.systemd.systemctl("reload", UNIT)
    until(lambda: running.show("StatusText") == "waiting for uploads; 0 in the queue", "a good status line")


def test_a_stop_loses_nothing_and_the_next_start_goes_on(running: Packaged, builds: Builder) -> None:
    uploads = [builds.upload(f"stop-{number}", "1.0-1") for number in range(8)]
    for upload in uploads:
        running.send(upload)
    running.stop()
    assert (running.show("ActiveState"), running.show("Result")) == ("inactive", "success")
    assert "stopping when the current step has ended" in running.log()
    assert index_state(running) == "stopped"
    running.start()
    for upload in uploads:
        running.succeeded(upload.name)
    assert running.log().count(": published in stable generation") == len(uploads)


def test_a_stop_right_after_a_reload_is_heard(service: Packaged) -> None:
    service.drop_in("stop", "[Service]\nTimeoutStopSec=30s\n")
    for _ in range(8):
        service.start()
        service.kill("HUP")
        service.stop()
        assert service.show("Result") == "success"


def test_a_stop_waits_for_the_step_in_hand_and_the_watchdog_lets_it(service: Packaged) -> None:
    service.drop_in("watchdog", HUNG)
    service.start()
    with publishing_hangs(service):
        service.systemd.systemctl("stop", "--no-block", UNIT)
        longer_than_the_watchdog = time.monotonic() + 5
        until(lambda: time.monotonic() > longer_than_the_watchdog)
        assert service.show("SubState") == "stop-sigterm"
    until(lambda: service.show("ActiveState") == "inactive", "the end of the stop")
    assert service.show("Result") == "success"


def test_a_stop_leaves_no_process_behind(running: Packaged, builds: Builder) -> None:
    running.succeeded(running.send(builds.upload("agent", "1.0-1")))
    cgroup = Path("/sys/fs/cgroup" + running.show("ControlGroup"))
    assert running.path(str(cgroup / "cgroup.procs")).read_text()
    running.stop()
    assert "Killing process" not in running.log()
    assert not running.path(f"{SIGNING}/S.gpg-agent").exists()


def index_state(service: Packaged) -> str:
    return str(service.status("index")["health"]["state"])


def test_a_killed_daemon_is_started_anew_and_goes_on(running: Packaged, builds: Builder) -> None:
    uploads = [builds.upload(f"kill-{number}", "1.0-1") for number in range(6)]
    for upload in uploads:
        running.send(upload)
    running.kill("KILL")
    until(running.restarted, "a new start")
    for upload in uploads:
        running.succeeded(upload.name)


def test_the_watchdog_starts_a_daemon_anew_whose_publishing_hangs(service: Packaged, builds: Builder) -> None:
    service.drop_in("watchdog", HUNG)
    service.start()
    with publishing_hangs(service):
        until(lambda: service.show("NRestarts") != "0", "the watchdog")
    until(service.restarted, "a new start")
    service.succeeded(service.send(builds.upload("hung", "1.0-1")))
    # Its last words show the place.
    assert "Fatal Python error: Aborted" in service.log()
    assert "publisher.py" in service.log()


def test_the_watchdog_starts_a_daemon_anew_that_stands_still(service: Packaged, builds: Builder) -> None:
    service.drop_in("watchdog", HUNG)
    service.start()
    service.kill("STOP")
    until(service.restarted, "a new start")
    service.succeeded(service.send(builds.upload("still", "1.0-1")))


def test_a_daemon_with_nothing_to_do_feeds_the_watchdog(service: Packaged, builds: Builder) -> None:
    service.drop_in("watchdog", HUNG)
    service.start()
    before = service.show("WatchdogTimestampMonotonic")
    until(lambda: int(service.show("WatchdogTimestampMonotonic")) > int(before) + 5_000_000, "five seconds of beats")
    assert service.show("NRestarts") == "0"
    service.succeeded(service.send(builds.upload("fed", "1.0-1")))


def test_a_broken_configuration_is_not_started_again_and_again(service: Packaged) -> None:
    service.configure('batch = "many"')
    assert service.systemd.run("systemctl", "start", UNIT, check=False).returncode != 0
    assert (service.show("ActiveState"), service.show("ExecMainStatus")) == ("failed", "2")
    assert service.show("NRestarts") == "0"
    assert '[publish] batch: is "many"' in service.log()


def test_without_a_signing_key_it_runs_takes_uploads_in_and_says_what_is_missing(
    service: Packaged, builds: Builder
) -> None:
    with_key = next(line for line in service.config().splitlines() if line.startswith("signing_keys"))
    service.configure("signing_keys = []")
    service.start()
    until(lambda: service.show("StatusText").startswith("halted: no usable signing key"), "the halt")
    upload = builds.upload("halted", "1.0-1")
    service.send(upload)
    until(lambda: service.show("StatusText").endswith("; 1 in the queue"), "an upload that waits")
    service.configure(with_key)
    service.systemd.systemctl("reload", UNIT)
    service.succeeded(upload.name)


#: A check that takes 400 MB for the package "hog", as a fault in what reads packages might.
_HOG = """
import sys
if "incomingd.verify.worker" in sys.orig_argv:
    import incomingd.verify.check as checking
    honest = checking.check_binary
    def check_binary(path, *arguments):
        much = b"x" * (400 << 20) if path.name.startswith("hog_") else b""
        return honest(path, *arguments)
    checking.check_binary = check_binary
"""


def test_a_worker_that_is_killed_for_memory_costs_its_own_upload_alone(service: Packaged, builds: Builder) -> None:
    service.systemd.write("/srv/hog/sitecustomize.py", _HOG)
    service.drop_in("hog", "[Service]\nEnvironment=PYTHONPATH=/srv/hog\n")
    service.start()
    daemon = service.show("MainPID")
    with service.systemd.memory_limit(UNIT, 300 << 20) as killed:
        hog = service.send(builds.upload("hog", "1.0-1"))
        until(lambda: killed() > 0, "the kernel to kill a worker")
        service.succeeded(service.send(builds.upload("passes-a-hog", "1.0-1")))
        found = service.ended(hog)
        assert [problem["code"] for problem in found["problems"]] == ["check-crashed"]
        assert "SIGKILL, as 2 others before it" in found["problems"][0]["message"]
        assert killed() == 3
        service.succeeded(service.send(builds.upload("follows-a-hog", "1.0-1")))
    assert (service.show("ActiveState"), service.show("MainPID"), service.show("NRestarts")) == ("active", daemon, "0")


def test_the_unit_lets_workers_confine_themselves(running: Packaged, builds: Builder) -> None:
    running.succeeded(running.send(builds.upload("confined", "1.0-1")))
    health = running.status("index")["health"]
    assert (health["state"], health["reasons"]) == ("ok", [])
    [server] = [child for child in children(running, running.show("MainPID")) if is_python(running, child)]
    [worker, *_] = children(running, server)
    for process in (server, worker):
        fields = status_of(running, process)
        assert (fields["Seccomp"], fields["NoNewPrivs"]) == ("2", "1")
    filters = [int(status_of(running, pid)["Seccomp_filters"]) for pid in (running.show("MainPID"), worker)]
    assert filters[0] < filters[1]


def is_python(service: Packaged, pid: str) -> bool:
    return b"incomingd.verify.worker" in service.path(f"/proc/{pid}/cmdline").read_bytes()


def status_of(service: Packaged, pid: str) -> dict[str, str]:
    lines = service.path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
