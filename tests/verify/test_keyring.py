"""Whom the daemon trusts: taken up from files, forgotten by fingerprint, judged by gpg's own word."""

import subprocess
import zlib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from incomingd.errors import Retry
from incomingd.verify.keyring import MAX_FILE, Keyring, KeyringError
from tests.verify.builders import Bench, Keys, Upload, codes


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    made = Keyring(tmp_path / "state" / "uploaders")
    made.prepare()
    return made


def names(keyring: Keyring) -> list[str]:
    return sorted(name for uploader in keyring.load().uploaders for name in uploader.names)


def trusting(bench: Bench, keyring: Keyring, upload: Upload = Upload()) -> list[str]:  # noqa: B008
    """The codes that an upload gets where only ``keyring`` counts."""
    return codes(bench.check(upload, keyring=keyring).problems)


def test_nobody_is_trusted_at_first(bench: Bench, keyring: Keyring) -> None:
    assert names(keyring) == []
    assert trusting(bench, keyring) == ["unknown-key"]


def test_trust_and_untrust(bench: Bench, keys: Keys, keyring: Keyring) -> None:
    (taken,) = keyring.trust(keys.public("ada"))
    assert taken.primary.fingerprint == keys.fingerprints["ada"]
    assert names(keyring) == ["Ada Tester <ada@example.org>"]
    assert trusting(bench, keyring) == []
    keyring.untrust(keys.fingerprints["ada"].lower())
    assert names(keyring) == []
    assert trusting(bench, keyring) == ["unknown-key"]


def test_an_armored_file_of_two_keys(keys: Keys, keyring: Keyring) -> None:
    armored = keys.gpg("--armor", "--export", keys.fingerprints["ada"], keys.fingerprints["bob"])
    assert len(keyring.trust(armored)) == 2


def test_trusting_twice_changes_nothing(keys: Keys, keyring: Keyring) -> None:
    keyring.trust(keys.public("ada"))
    before = keyring.public.stat().st_ino
    keyring.trust(keys.public("ada"))
    assert keyring.public.stat().st_ino == before
    assert len(keyring.load().uploaders) == 1


def test_a_subkey_goes_with_its_primary(bench: Bench, keys: Keys, keyring: Keyring) -> None:
    keyring.trust(keys.public("bob"))
    assert trusting(bench, keyring, Upload(by="bob")) == []
    keyring.untrust(keys.fingerprints["bob-subkey"])
    assert trusting(bench, keyring, Upload(by="bob")) == ["unknown-key"]


@pytest.mark.parametrize(
    ("file", "why"),
    [
        (b"", "no OpenPGP public key"),
        (b"hello", "no OpenPGP public key"),
        (
            b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n-----END PGP PUBLIC KEY BLOCK-----\n",
            "no OpenPGP public key",
        ),
    ],
)
def test_a_file_that_is_no_key(keyring: Keyring, file: bytes, why: str) -> None:
    with pytest.raises(KeyringError, match=why):
        keyring.trust(file)


def test_what_is_not_a_key_never_gets_to_gpg(keys: Keys, keyring: Keyring) -> None:
    packed = zlib.compress(keys.public("ada"))
    compressed = b"\xc8\xff" + (1 + len(packed)).to_bytes(4, "big") + b"\x02" + packed
    with pytest.raises(KeyringError, match="tag 8, compressed data; only keys are expected"):
        keyring.trust(keys.public("bob") + compressed)
    with pytest.raises(KeyringError, match="more than 64 MiB"):
        keyring.trust(keys.public("bob") + bytes(MAX_FILE))
    assert names(keyring) == []


def test_text_around_an_armored_key_is_no_matter(keys: Keys, keyring: Keyring) -> None:
    armored = [keys.gpg("--armor", "--export", keys.fingerprints[name]) for name in ("ada", "bob")]
    assert len(keyring.trust(b"Our keys:\n\n" + b"and\n".join(armored) + b"--\nus\n")) == 2


def test_a_secret_key_is_not_taken(keys: Keys, keyring: Keyring) -> None:
    with pytest.raises(KeyringError, match="secret key; export the public one"):
        keyring.trust(keys.gpg("--export-secret-keys", keys.fingerprints["ada"]))
    assert names(keyring) == []


@pytest.mark.parametrize("name", ["", "ada", "ada@example.org", "0xDEADBEEF", "A" * 40])
def test_only_a_full_fingerprint_of_a_trusted_key_can_be_forgotten(keys: Keys, keyring: Keyring, name: str) -> None:
    keyring.trust(keys.public("ada"))
    with pytest.raises(KeyringError, match="all 40 hex digits"):
        keyring.untrust(name)
    with pytest.raises(KeyringError):
        keyring.untrust(keys.fingerprints["ada"][-16:])
    assert len(keyring.load().uploaders) == 1


def test_what_gpg_says_of_a_key_is_in_the_table(keys: Keys) -> None:
    table = keys.keyring.load()

    def of(name: str) -> tuple[bool, bool, bool]:
        found = table.find(keys.fingerprints[name])
        assert found
        return found[1].revoked, found[1].expired(datetime(2026, 3, 1, tzinfo=UTC)), found[1].signs

    assert of("ada") == (False, False, True)
    assert of("eve")[:2] == (False, True)
    assert of("ron")[0]
    assert of("dan")[0]
    assert of("bob") == (False, False, False)
    assert of("bob-subkey") == (False, False, True)


def test_a_key_that_expires_later_is_good_until_then(bench: Bench, keys: Keys) -> None:
    """The clock of the check counts for our own table; gpgv has its own, and what it says is never overruled."""
    upload = Upload(by="eve", made="20200601T000000!")
    report = bench.check(upload, now=datetime(2020, 6, 1, tzinfo=UTC))
    assert codes(report.problems) == ["expired-key"]


@pytest.mark.parametrize("name", ["eve", "ron", "dan"])
def test_a_key_that_is_over_gives_no_right(bench: Bench, name: str) -> None:
    made = "20200601T000000!" if name == "eve" else "20260301T110000!"
    report = bench.check(Upload(by=name, made=made, settings={"uploaders": [{"key": name}]}))
    assert codes(report.problems) == ["expired-key" if name == "eve" else "revoked-key"]


def test_a_dsc_by_an_expired_key_is_a_warning(bench: Bench) -> None:
    report = bench.check(Upload(dsc_by="eve", made="20200601T000000!"))
    assert codes(report.problems) == []
    assert codes(report.warnings) == ["expired-key"]


def test_what_an_operator_does_with_gpg_counts_after_a_restart(bench: Bench, keys: Keys, keyring: Keyring) -> None:
    keyring.trust(keys.public("ada"))
    home = ["gpg", "--homedir", str(keyring.home), "--no-autostart", "--no-tty", "--command-fd", "0"]
    edit = [*home, "--edit-key", keys.fingerprints["ada"]]
    subprocess.run(edit, input=b"disable\nsave\n", check=True, capture_output=True)
    keyring.prepare()
    assert trusting(bench, keyring) == ["revoked-key"]
    subprocess.run(edit, input=b"enable\nsave\n", check=True, capture_output=True)
    keyring.prepare()
    assert trusting(bench, keyring) == []


def test_a_key_in_one_of_the_two_files_only_is_unknown(bench: Bench, keys: Keys, keyring: Keyring) -> None:
    keyring.trust(keys.public("ada"))
    both = keyring.public.read_bytes()
    keyring.untrust(keys.fingerprints["ada"])
    keyring.public.write_bytes(both)
    assert trusting(bench, keyring) == ["unknown-key"]


def test_damage_is_the_machines_fault(bench: Bench, keys: Keys, keyring: Keyring) -> None:
    keyring.trust(keys.public("ada"))
    table = keyring.home.with_name(keyring.home.name + ".json")
    table.write_text("{")
    with pytest.raises(Retry, match="is damaged"):
        Keyring(keyring.home).load()
    keyring.prepare()
    keyring.public.unlink()
    with pytest.raises(Retry, match="writes it anew"):
        bench.check(Upload(), keyring=keyring)
    keyring.prepare()
    assert trusting(bench, keyring) == []


def test_only_the_daemon_can_read_them(keys: Keys, keyring: Keyring) -> None:
    keyring.trust(keys.public("ada"))
    assert keyring.home.stat().st_mode & 0o777 == 0o700
    assert keyring.public.stat().st_mode & 0o777 == 0o600
