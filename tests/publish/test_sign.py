"""Signing by the real gpg: what verifies, and whose fault it is where it cannot be done."""

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from incomingd.errors import Halt, Retry
from incomingd.publish import sign
from incomingd.publish.sign import Signer

RELEASE = b"Origin: Example\nSuite: stable\nSHA256:\n" + b"".join(
    b" %064x %16d main/binary-amd64/Packages.%d\n" % (n, n, n) for n in range(600)
)


def gpg(home: Path, *arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = ["gpg", "--homedir", str(home), "--batch", "--no-tty", "--quiet", "--no-options", *arguments]
    return subprocess.run(command, input=data, capture_output=True)


def make_key(home: Path, name: str, *options: str, passphrase: str = "", expire: str = "never") -> str:
    make = ["--passphrase", passphrase, *options, "--status-fd", "1", "--quick-gen-key", name, "ed25519", "sign"]
    done = gpg(home, *make, expire)
    return next(line.split()[-1] for line in done.stdout.decode().splitlines() if "KEY_CREATED" in line)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """An empty gnupg home of the test's own."""
    folder = tmp_path / "signing"
    folder.mkdir(mode=0o700)
    yield folder
    subprocess.run(["gpgconf", "--homedir", folder, "--kill", "all"], capture_output=True)


def verified_by(keys: bytes, folder: Path, *files: bytes) -> list[str]:
    """The fingerprints for which gpgv, as apt runs it, finds a good signature."""
    (folder / "keys.gpg").write_bytes(keys)
    names = []
    for number, content in enumerate(files):
        names.append(folder / f"file{number}")
        names[-1].write_bytes(content)
    command = ["gpgv", "--status-fd", "1", "--keyring", folder / "keys.gpg", *names]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [line.split()[2] for line in done.stdout.splitlines() if " VALIDSIG " in line]


def test_inrelease_and_release_gpg_verify(signer: Signer, key_home: tuple[Path, str], tmp_path: Path) -> None:
    signed = signer.sign(RELEASE)
    keys = signer.export(armor=False)
    assert verified_by(keys, tmp_path, signed.inrelease) == [key_home[1]]
    assert verified_by(keys, tmp_path, signed.release_gpg, RELEASE) == [key_home[1]]
    assert signed.inrelease.startswith(b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n" + RELEASE)
    assert signed.release_gpg.startswith(b"-----BEGIN PGP SIGNATURE-----\n")


def test_every_key_signs(home: Path, tmp_path: Path) -> None:
    keys = (make_key(home, "old key"), make_key(home, "new key"))
    signer = Signer(home, keys)
    signed = signer.sign(RELEASE)
    assert sorted(verified_by(signer.export(armor=False), tmp_path, signed.inrelease)) == sorted(keys)
    assert sorted(verified_by(signer.export(armor=False), tmp_path, signed.release_gpg, RELEASE)) == sorted(keys)
    signer.close()


def test_exported_keys_are_the_configured_ones(home: Path, tmp_path: Path) -> None:
    keys = (make_key(home, "one"), make_key(home, "two"))
    make_key(home, "not the archive's")
    signer = Signer(home, keys)
    assert signer.export(armor=True).startswith(b"-----BEGIN PGP PUBLIC KEY BLOCK-----")
    for number, form in enumerate((signer.export(armor=True), signer.export(armor=False))):
        other = tmp_path / f"client{number}"
        other.mkdir(mode=0o700)
        assert gpg(other, "--import", data=form).returncode == 0
        listed = gpg(other, "--with-colons", "--list-keys").stdout.decode().splitlines()
        assert [line.split(":")[9] for line in listed if line.startswith("fpr")] == list(keys)
    signer.close()


def test_a_made_key_signs_and_does_nothing_else(home: Path) -> None:
    name = "-- Example (archive) <a@example.org> ünïcode"
    signer = Signer(home, ())
    key = signer.create_key(name)
    listed = gpg(home, "--with-colons", "--list-secret-keys").stdout.decode().splitlines()
    sec = next(line.split(":") for line in listed if line.startswith("sec"))
    assert (sec[6], sec[11], sec[16]) == ("", "scSC", "ed25519")
    assert name in next(line.split(":")[9] for line in listed if line.startswith("uid"))
    assert home.stat().st_mode & 0o777 == 0o700
    second = signer.create_key(name)
    assert second != key
    Signer(home, (key, second)).usable()
    signer.close()


def no_key_at_all(home: Path) -> list[str]:
    return []


def a_key_that_is_not_there(home: Path) -> list[str]:
    make_key(home, "another")
    return ["0123456789ABCDEF0123456789ABCDEF01234567"]


def an_expired_key(home: Path) -> list[str]:
    return [make_key(home, "old", "--faked-system-time", "20200101T000000", expire="1d")]


def a_revoked_key(home: Path) -> list[str]:
    key = make_key(home, "gone")
    certificate = (home / "openpgp-revocs.d" / f"{key}.rev").read_bytes().replace(b":-----BEGIN", b"-----BEGIN")
    gpg(home, "--import", data=certificate)
    return [key]


def only_the_public_half(home: Path) -> list[str]:
    key = make_key(home, "public")
    for secret in (home / "private-keys-v1.d").iterdir():
        secret.unlink()
    return [key]


def a_key_with_a_passphrase(home: Path) -> list[str]:
    key = make_key(home, "protected", passphrase="open sesame")
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "gpg-agent"])  # which still knows it
    return [key]


def a_key_for_encryption(home: Path) -> list[str]:
    make = ["--passphrase", "", "--status-fd", "1", "--quick-gen-key", "encrypts", "rsa2048", "encr"]
    done = gpg(home, *make, "never").stdout.decode()
    return [next(line.split()[-1] for line in done.splitlines() if "KEY_CREATED" in line)]


def one_good_one_expired(home: Path) -> list[str]:
    return [make_key(home, "good"), *an_expired_key(home)]


def no_home(home: Path) -> list[str]:
    home.rmdir()
    return ["0123456789ABCDEF0123456789ABCDEF01234567"]


@pytest.mark.parametrize(
    ("situation", "said"),
    [
        (no_key_at_all, r"signing_keys is empty"),
        (a_key_that_is_not_there, r"0123456789ABCDEF0123456789ABCDEF01234567 has no secret half in .*import it"),
        (an_expired_key, r"expired on 2020-01-02; extend it"),
        (a_revoked_key, r"is revoked; name another"),
        (only_the_public_half, r"has no secret half"),
        (a_key_with_a_passphrase, r"has a passphrase, and nobody is here to give it"),
        (a_key_for_encryption, r"is not made for signing"),
        (one_good_one_expired, r"^no usable signing key: [0-9A-F]{40} expired on 2020-01-02"),
        (no_home, r"there is no gnupg home"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_fault_of_the_operators_halts(situation: Callable[[Path], list[str]], said: str, home: Path) -> None:
    signer = Signer(home, situation(home))
    with pytest.raises(Halt, match=said):
        signer.usable()
    if situation is not no_key_at_all:
        with pytest.raises(Halt):
            signer.sign(RELEASE)
    signer.close()


def test_gpg_is_not_installed(signer: Signer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Halt, match="install Debian's package gnupg"):
        signer.usable()


def agent_of(home: Path) -> int:
    done = subprocess.run(
        ["gpg-connect-agent", "--homedir", home, "--no-autostart", "getinfo pid", "/bye"], capture_output=True
    )
    return int(done.stdout.split()[1])


@contextlib.contextmanager
def hung(pid: int) -> Iterator[None]:
    """Keep a process stopped, again and again: where pid 1 wakes what it has adopted, one signal is not enough."""
    over = threading.Event()

    def keep() -> None:
        while not over.is_set():
            os.kill(pid, signal.SIGSTOP)
            over.wait(0.005)

    keeper = threading.Thread(target=keep)
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()
        os.kill(pid, signal.SIGKILL)


def test_an_agent_that_ended_is_started_again(home: Path, tmp_path: Path) -> None:
    signer = Signer(home, (make_key(home, "archive"),))
    signer.sign(RELEASE)
    os.kill(agent_of(home), signal.SIGKILL)
    signer.sign(RELEASE)
    signer.close()


def test_an_agent_that_hangs_is_left_behind(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signer = Signer(home, (make_key(home, "archive"),))
    signer.sign(RELEASE)
    with hung(agent_of(home)):
        monkeypatch.setattr(sign, "_PATIENCE", 2.0)
        with pytest.raises(Retry, match="did not answer within"):
            signer.sign(RELEASE)
        signer.sign(RELEASE)
    signer.close()


def fake_gpg(folder: Path, script: str) -> str:
    """A PATH where gpg does what cannot be made to happen to the real one."""
    (folder / "gpg").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "gpg").chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ('exec /usr/bin/gpg --agent-program /bin/false "$@"', "agent"),
        ('exec /usr/bin/gpg "$@" > /dev/full', "No space left"),
        ("kill -9 $$", "ended with -9"),
        ("exit 0", "said: nothing"),
        ("echo 'gpg: out of core handler ignored in FIPS mode' >&2; exit 2", "out of core"),
    ],
    ids=["no agent can be started", "disk full", "killed for memory", "nothing came out", "out of memory"],
)
def test_a_fault_of_the_machines_is_tried_again(
    script: str, said: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signer = Signer(home, (make_key(home, "archive"),))
    signer.close()
    signer = Signer(home, signer._keys)
    listing = 'case "$*" in *--list-secret-keys*) exec /usr/bin/gpg "$@";; esac\n'
    path = fake_gpg(tmp_path, script if "agent-program" in script else listing + script)
    with monkeypatch.context() as patched:
        patched.setenv("PATH", path)
        with pytest.raises(Retry, match=said):
            signer.sign(RELEASE)
    signer.sign(RELEASE)
    signer.close()


def test_no_process_can_be_started(signer: Signer, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(12, os.strerror(12))

    monkeypatch.setattr(subprocess, "run", refuse)
    with pytest.raises(Retry, match="Cannot allocate memory"):
        signer.sign(RELEASE)


def test_a_home_with_a_name_too_long_for_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / ("x" * 100) / ("y" * 50)
    monkeypatch.setenv("TMPDIR", str(home.parent))  # as continuous integration likes to have it
    signer = Signer(home, ())
    key = signer.create_key("Example archive")
    signer.close()

    signer = Signer(home, (key,))
    signer.usable()
    assert verified_by(signer.export(armor=False), tmp_path, signer.sign(RELEASE).inrelease) == [key]
    short = signer._short
    assert short is not None
    assert short.stat().st_mode & 0o777 == 0o700
    assert agent_of(short / "home")
    signer.close()
    assert not short.exists()
    assert not (home / "S.gpg-agent").exists()


@pytest.mark.parametrize("length", range(84, 90))
def test_a_home_at_the_limit_of_a_sockets_name(length: int) -> None:
    with tempfile.TemporaryDirectory(prefix="incomingd-") as folder:
        signer = Signer(Path(folder) / ("x" * (length - len(folder) - 1)), ())
        assert len(signer.create_key("Example archive")) == 40
        signer.close()


def test_closing_ends_the_agent(home: Path) -> None:
    signer = Signer(home, (make_key(home, "archive"),))
    signer.sign(RELEASE)
    pid = agent_of(home)
    signer.close()
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2]:
            return
        threading.Event().wait(0.05)
    pytest.fail("the agent still runs")


def test_many_threads_may_sign(signer: Signer, tmp_path: Path) -> None:
    done: list[bytes] = []
    threads = [threading.Thread(target=lambda: done.append(signer.sign(RELEASE).inrelease)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 6
    assert all(len(verified_by(signer.export(armor=False), tmp_path, one)) == 1 for one in done)
