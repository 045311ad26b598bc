"""Whoever takes over a check worker or gpgv, by what an upload holds, is left with next to nothing.

The attacks run for real: in a worker of a running daemon, and in place of gpgv below it. For each setting the same
attempts are first made without the sandbox, by the same user: what fails there too would show nothing.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from incomingd.sandbox import landlock
from tests.support import attempts, packages
from tests.support.accounts import DAEMON, Guarded, become
from tests.support.instance import Instance, until
from tests.support.keys import Keys
from tests.support.uploads import Builder

PROJECT = Path(__file__).parents[2]
ATTEMPTS = Path(attempts.__file__)
#: Python runs this in every process. In the one that workers are forked from it puts the attempts before the check of
#: a package, as a fault in what reads packages would.
_TAKEN_OVER = """
import os, sys
if "incomingd.verify.worker" in sys.orig_argv:
    import incomingd.verify.check as checking
    sys.path.insert(0, {folder!r})
    import attempts
    from pathlib import Path
    daemon, honest = os.getppid(), checking.check_binary
    def check_binary(*arguments):
        sys.stderr.write("\\n".join(["", *attempts.lines(Path({root!r}), daemon), "attempts: end", ""]))
        return honest(*arguments)
    checking.check_binary = check_binary
"""
#: The same in the processes that read an import's packages.
_READER_TAKEN_OVER = """
import sys
if "incomingd.importing.process" in sys.orig_argv:
    import incomingd.importing.reading as reading
    from incomingd.errors import Retry
    sys.path.insert(0, {folder!r})
    import attempts
    from pathlib import Path
    honest = reading.check_alone
    def check_alone(*arguments, **named):
        raise Retry("\\n".join(["", *attempts.lines(Path({root!r}), {daemon}), "attempts: end"]))
    reading.check_alone = check_alone
"""
#: gpgv's place taken by a program that says by its status lines what it could do.
_GPGV = """#!/usr/bin/python3
import os, sys
from pathlib import Path
sys.path.insert(0, {folder!r})
import attempts
tried = list(attempts.lines(Path({root!r}), int(Path({folder!r}, "daemon").read_text())))
said = [f"TRIED-{{len(tried)}}"] + [f"DONE-{{line[2:]}}" for line in tried if line.startswith("+")]
status = int(sys.argv[sys.argv.index("--status-fd") + 1])
os.write(status, "".join(f"[GNUPG:] {{word}}\\n" for word in said).encode())
"""
NAMES = {name for name, _ in attempts.Attempts(Path("/"), 0).all()}
#: What this kernel may refuse to anyone, or allow to root alone.
OF_ROOT = {"load_bpf", "mount", "make_a_user_namespace", "read_shadow"}
#: The daemon has capabilities: its user without them is refused these (ptrace(2), "access mode checking").
OF_THE_PRIVILEGED = {
    *("trace_the_daemon", "read_memory_of_the_daemon", "read_environment_of_the_daemon", "limit_the_daemon"),
    *("reach_files_through_the_daemon", "slow_the_daemon_down", "slow_all_of_the_user_down"),
}


ALLOWED_TO_PROGRAMS = {"leave_the_session", "share_memory"}


class Target:
    """An instance that is to be attacked, as one user or the other."""

    def __init__(self, instance: Instance, unconfined: tuple[str, ...], refused: set[str]) -> None:
        self.instance = instance
        self._unconfined, self._refused = unconfined, refused
        # The signing key under a name that is known, and files that nothing needs.
        [key] = (instance.state / "gnupg/signing/private-keys-v1.d").iterdir()
        shutil.copy(key, instance.state / "key")
        for name in ("victim", "removable"):
            (instance.state / name).write_bytes(b"untouched")
        other = instance.state / "imports/import-other"
        other.mkdir(parents=True)
        (other / "packages.db").write_bytes(b"untouched")
        if isinstance(instance, Guarded):
            instance.hand_over()

    @property
    def pid(self) -> int:
        """The daemon's."""
        assert self.instance.daemon is not None
        return self.instance.daemon.pid

    def nothing_could_be_done(self, found: dict[str, str]) -> None:
        """``found`` is of a sandbox. Outside of it the same user could do all of it."""
        assert set(found) == NAMES
        assert {name for name, reason in found.items() if not reason} == set()
        assert (self.instance.state / "victim").read_bytes() == b"untouched"
        command = [*self._unconfined, sys.executable, ATTEMPTS, str(self.instance.root), str(self.pid)]
        outside = told(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        assert {name for name, reason in outside.items() if reason} <= self._refused, outside


def told(log: str) -> dict[str, str]:
    """Why each attempt failed; an empty reason: it did not."""
    return {
        name: reason for _, name, reason in re.findall(r"^(?:.*says: )?([+-]) (\w+)(?:: (.*))?$", log, re.MULTILINE)
    }


@pytest.fixture
def builder(keys: Keys, work: Path) -> Builder:
    return Builder(folder=work / "built", keys=keys, key=keys.make("Mallory"))


@pytest.fixture(params=["unit", "root"])
def target(
    request: pytest.FixtureRequest, guarded: Callable[..., Guarded], builder: Builder, work: Path
) -> Iterator[Target]:
    """Not started yet."""
    trust = [builder.keys.public(builder.key)]
    if request.param == "unit":
        yield Target(guarded(trust), become(DAEMON), OF_ROOT | OF_THE_PRIVILEGED)
        return
    instance = Instance(work / "of-root", trust=trust)
    yield Target(instance, (), {"load_bpf", "make_a_user_namespace"})
    instance.close()


@pytest.fixture
def folder(work: Path) -> Path:
    """What an attacker brings along."""
    made = work / "attacker"
    made.mkdir()
    shutil.copy(ATTEMPTS, made / "attempts.py")
    return made


def test_a_check_worker_that_an_upload_has_taken_over_can_do_nothing(
    target: Target, builder: Builder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = target.instance
    (folder / "sitecustomize.py").write_text(_TAKEN_OVER.format(folder=str(folder), root=str(instance.root)))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    instance.start()
    instance.succeeded(builder.upload("hello").send_directory(instance.incoming))
    assert "attempts: end" in instance.log()
    target.nothing_could_be_done(told(instance.log()))


def test_gpgv_that_a_signature_has_taken_over_can_do_nothing(
    target: Target, builder: Builder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = target.instance
    (folder / "gpgv").write_text(_GPGV.format(folder=str(folder), root=str(instance.root)))
    (folder / "gpgv").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    instance.start()
    (folder / "daemon").write_text(str(target.pid))
    name = builder.upload("hello").send_directory(instance.incoming)
    assert instance.failed(name) == ["bad-signature"]
    said = (instance.status(name) or {})["problems"][0]["message"]
    assert said.startswith(f"gpg says TRIED-{len(NAMES)};")
    target.nothing_could_be_done(dict.fromkeys(NAMES, "it is not among those that were done"))


def test_a_reader_of_an_import_that_a_package_has_taken_over_can_do_nothing(
    target: Target, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = target.instance
    instance.start()
    values = {"folder": str(folder), "root": str(instance.root), "daemon": target.pid}
    (folder / "sitecustomize.py").write_text(_READER_TAKEN_OVER.format(**values))
    deb = packages.binary(folder, "hello", "1.0-1")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    done = instance.run("incomingctl", "import", "--suite", "stable", deb)
    monkeypatch.delenv("PYTHONPATH")
    assert "attempts: end" in done.stderr
    found = told(done.stderr.replace("\\n", "\n"))
    if landlock.abi() < 6:
        assert found.pop("signal_the_daemon") == ""
        found["signal_the_daemon"] = "it is landlock's from version 6 on"
    target.nothing_could_be_done(found)


#: Leaves a process behind that has tried to leave the session.
_LEAVES_BEHIND = """
import os, sys
if {program!r} in sys.orig_argv:
    import {module} as reading
    honest = reading.{name}
    def check(*arguments, **named):
        if not os.fork():
            if not os.fork():
                try:
                    os.setsid()
                except OSError:
                    pass
                python = os.path.realpath(sys.executable)
                os.execv(python, [python, "-c", "import time; time.sleep(600)", {marker!r}])
            os._exit(0)
        os.wait()
        sys.stderr.write("\\x1b[31mforged\\n")
        return honest(*arguments, **named)
    reading.{name} = check
"""


def left_behind(marker: str) -> list[str]:
    return [path.parent.name for path in Path("/proc").glob("[0-9]*/cmdline") if marker.encode() in _bytes_of(path)]


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_what_a_reader_of_an_import_leaves_behind_ends_before_its_packages_are_published(
    target: Target, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker, instance = f"left-by-{folder}", target.instance
    instance.start()
    program = {"program": "incomingd.importing.process", "module": "incomingd.importing.reading", "name": "check_alone"}
    (folder / "sitecustomize.py").write_text(_LEAVES_BEHIND.format(**program, marker=marker))
    deb = packages.binary(folder, "hello", "1.0-1")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    done = instance.run("incomingctl", "import", "--suite", "stable", "--no-wait", deb)
    assert done.returncode == 0, done.stderr
    assert left_behind(marker) == []
    assert "forged" not in done.stderr


def test_the_last_words_of_a_reader_that_dies_are_told_without_their_escapes(
    target: Target, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "sitecustomize.py").write_text(
        'import sys\nif "incomingd.importing.process" in sys.orig_argv:\n    sys.exit("first\\n\\x1b[31mlast")\n'
    )
    deb = packages.binary(folder, "hello", "1.0-1")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    done = target.instance.run("incomingctl", "import", "--suite", "stable", "--no-wait", deb)
    assert done.returncode == 1
    assert "died" in done.stderr
    assert done.stderr.endswith("those after it: \\x1b[31mlast\n")


def test_what_a_check_worker_leaves_behind_ends_with_it_and_writes_no_line_of_the_log(
    target: Target, builder: Builder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker, instance = f"left-by-{folder}", target.instance
    program = {"program": "incomingd.verify.worker", "module": "incomingd.verify.check", "name": "check_binary"}
    (folder / "sitecustomize.py").write_text(_LEAVES_BEHIND.format(**program, marker=marker))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    instance.start()
    instance.succeeded(builder.upload("hello").send_directory(instance.incoming))
    until(lambda: "a check worker says: \\x1b[31mforged" in instance.log(), "its line")
    assert "\x1b" not in instance.log()
    assert left_behind(marker) != []
    instance.stop()
    until(lambda: left_behind(marker) == [], "the end of what it left behind")


def lacking(what: str, instance: Instance) -> None:
    """Have the daemon run as on a kernel that has no ``what``."""
    instance.prefix = (*instance.prefix, sys.executable, PROJECT / "tests/support/old_kernel.py", what)


def tells(instance: Instance, reason: str) -> bool:
    health = instance.index()["health"]
    return health["state"] == "degraded" and any(one.startswith(reason) for one in health["reasons"])


def test_without_landlock_health_says_so_uploads_go_on_and_nothing_can_be_written(
    target: Target, builder: Builder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = target.instance
    (folder / "sitecustomize.py").write_text(_TAKEN_OVER.format(folder=str(folder), root=str(instance.root)))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    lacking("landlock", instance)
    instance.start()
    instance.succeeded(builder.upload("hello").send_directory(instance.incoming))
    until(lambda: tells(instance, "this kernel has no landlock"), "health to tell")
    could = {name for name, reason in told(instance.log()).items() if not reason}
    assert {"read_signing_key", "read_journal"} <= could, "there was landlock: this shows nothing"
    assert could <= {"list_signing_keys", "read_signing_key", "read_journal", "read_shadow", *OF_THE_PRIVILEGED}
    assert "limit_the_daemon" not in could


def test_without_seccomp_health_says_so_and_landlock_still_keeps_the_files(
    target: Target, builder: Builder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = target.instance
    (folder / "sitecustomize.py").write_text(_TAKEN_OVER.format(folder=str(folder), root=str(instance.root)))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    lacking("seccomp", instance)
    instance.start()
    instance.succeeded(builder.upload("hello").send_directory(instance.incoming))
    until(lambda: tells(instance, "system calls cannot be filtered"), "health to tell")
    found = told(instance.log())
    assert not found["open_a_local_socket"], "calls were filtered: this shows nothing"
    for name in NAMES:
        files = "signing_key" in name or "_in_" in name or name in ("read_journal", "write_file_of_state")
        if files and "agent" not in name:  # which landlock knows no rule for
            assert found[name], name


def test_a_program_of_the_operators_that_an_upload_has_taken_over_can_do_nothing(
    target: Target, builder: Builder, folder: Path
) -> None:
    instance = target.instance
    script = folder / "check"
    script.write_text(f"#!/bin/sh\nexec {sys.executable} {folder}/attempts.py {instance.root} $PPID\n")
    script.chmod(0o755)
    instance.set("checks.commands.attempts", command=[str(script)])
    if isinstance(instance, Guarded):
        instance.hand_over()
    instance.start()
    found = instance.succeeded(builder.upload("hello").send_directory(instance.incoming))
    lines = (warning["message"].removeprefix("attempts: ") for warning in found["warnings"])
    found = told("\n".join(line.rpartition(";")[0] for line in lines))
    # A program may have to: timeout(1), shells and fakeroot do. What it leaves behind has no more rights than it had.
    for name in ALLOWED_TO_PROGRAMS:
        assert found.pop(name) == ""
        found[name] = "it may"
    target.nothing_could_be_done(found)


#: Confines itself as on a kernel whose landlock is of an earlier version, and makes the attempts. This kernel then
#: forbids no more than that one would.
_EARLIER = """
import sys
from pathlib import Path
sys.path.insert(0, {folder!r})
import attempts
from incomingd.sandbox import landlock, profiles
landlock.abi = lambda: {version}
root, own = Path({root!r}), Path({folder!r})
if {profile!r} == "worker":
    profiles.confine_worker()
    profiles.keep_in_session()
    profiles.confine_to_uploads([own], profiles.system([root / "state"]))
elif {profile!r}.startswith("reader"):
    network = {profile!r} == "reader from a server"
    profiles.confine_reader([own], [own], Path({writable!r}), [root / "state"], network=network)
else:
    profiles.confine_program(own, Path({writable!r}), [root / "state", root / "incoming"])
print("\\n".join(attempts.lines(root, {daemon})))
"""


@pytest.mark.parametrize("version", range(1, landlock.abi()))
@pytest.mark.parametrize("profile", ["worker", "program", "reader", "reader from a server"])
def test_what_an_earlier_landlock_cannot_forbid_seccomp_does(
    work: Path, folder: Path, profile: str, version: int
) -> None:
    root, writable = work / "instance", work / "tmp"
    for path in ("state/gnupg/signing/private-keys-v1.d", "state/sealed", "archive", "incoming", "status"):
        (root / path).mkdir(parents=True)
    (root / "state/imports/import-other").mkdir(parents=True)
    for name in ("key", "journal.db", "victim", "removable", "imports/import-other/packages.db"):
        (root / "state" / name).write_bytes(b"untouched")
    writable.mkdir()
    values = {"folder": str(folder), "root": str(root), "writable": str(writable), "daemon": os.getpid()}
    script = _EARLIER.format(**values, profile=profile, version=version)
    found = told(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)
    assert set(found) == NAMES
    # Signals are landlock's from version 6 on; a program has to be able to end what it starts.
    allowed = {"signal_the_daemon"} if profile != "worker" and version < 6 else set()
    if profile == "reader from a server":
        allowed.add("use_the_internet")
    if profile == "program":
        allowed |= ALLOWED_TO_PROGRAMS
    assert {name for name, reason in found.items() if not reason} == allowed
    assert (root / "state/victim").read_bytes() == b"untouched"
