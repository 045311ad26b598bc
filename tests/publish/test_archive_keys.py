"""What is said of the archive's keys, beside what sqv says, by which apt 3 verifies."""

import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from incomingd.publish.archive_keys import warnings
from tests.support.keys import LONG_AGO, Keys

NOW = datetime.now(UTC)
#: Words that a warning has, and how to make such a key; no words: there is nothing to say.
KINDS = {
    "ed25519": ("", ("ed25519", "sign", "never"), ()),
    "rsa4096": ("", ("rsa4096", "sign", "never"), ()),
    "rsa1024": ("is RSA of 1024 bits", ("rsa1024", "sign", "never"), ()),
    "bound by SHA-1": ("is bound by a SHA-1 signature", ("rsa3072", "sign", "never"), ("--cert-digest-algo", "SHA1")),
}


@pytest.fixture
def keys() -> Iterator[Keys]:
    with Keys() as made:
        yield made


def listed(keys: Keys, key: str) -> bytes:
    return keys.gpg("--with-colons", "--fixed-list-mode", "--list-sigs", key)


def made(keys: Keys, words: tuple[str, ...], options: tuple[str, ...]) -> str:
    kind = ("--status-fd", "1", "--passphrase", "", "--quick-gen-key", "Archive <archive@example.org>", *words)
    said = keys.gpg("--yes", *options, *kind)
    return next(line.split()[-1] for line in said.decode().splitlines() if " KEY_CREATED " in line)


@pytest.mark.parametrize("kind", KINDS)
def test_weak_keys_are_those_that_sqv_refuses(keys: Keys, tmp_path: Path, kind: str) -> None:
    words, algorithm, options = KINDS[kind]
    key = made(keys, algorithm, options)
    found = list(warnings(listed(keys, key), keys.home, NOW))
    assert len(found) == bool(words)
    assert all(words in one and key in one for one in found)
    release, signature, ring = tmp_path / "Release", tmp_path / "Release.gpg", tmp_path / "ring.gpg"
    release.write_text("Origin: x\n")
    keys.gpg("--digest-algo", "SHA512", "--local-user", key, "--output", signature, "--detach-sign", release)
    ring.write_bytes(keys.gpg("--export", key))
    verified = subprocess.run(["sqv", "--keyring", ring, signature, release], capture_output=True)
    assert (verified.returncode == 0) == (not found), verified.stderr


def test_what_the_policy_of_apt_3_refuses_besides(keys: Keys) -> None:
    """Debian 12's sqv does not know that policy yet."""
    [found] = warnings(listed(keys, made(keys, ("dsa2048", "sign", "never"), ())), keys.home, NOW)
    assert "is a DSA key" in found
    rsa = listed(keys, made(keys, ("rsa2048", "sign", "never"), ()))
    assert list(warnings(rsa, keys.home, datetime(2030, 1, 31, tzinfo=UTC))) == []
    [found] = warnings(rsa, keys.home, datetime(2030, 2, 1, tzinfo=UTC))
    assert "is RSA of 2048 bits" in found


def test_one_that_was_bound_anew_is_good(keys: Keys) -> None:
    _, algorithm, options = KINDS["bound by SHA-1"]
    key = made(keys, algorithm, (*options, "--faked-system-time", LONG_AGO))
    assert list(warnings(listed(keys, key), keys.home, NOW)) != []
    keys.gpg("--quick-set-expire", key, "2y")
    assert list(warnings(listed(keys, key), keys.home, NOW)) == []


@pytest.mark.parametrize(("days", "words"), [(40, ""), (29, "within 30 days"), (6, "within 7 days"), (0.5, "1 day,")])
def test_an_end_is_told_in_time(keys: Keys, days: float, words: str) -> None:
    key = made(keys, ("ed25519", "sign", f"seconds={int(days * 86400)}"), ())
    found = list(warnings(listed(keys, key), keys.home, datetime.now(UTC)))
    assert len(found) == bool(words)
    assert all(words in one and f"--quick-set-expire {key}" in one for one in found)
    assert list(warnings(listed(keys, key), keys.home, NOW + timedelta(days=days + 1))) == []  # a halt says it


def test_a_subkey_that_signs_ends_too(keys: Keys) -> None:
    key = made(keys, ("ed25519", "cert", "never"), ())
    keys.add_subkey(key, expires="seconds=172800")
    [found] = warnings(listed(keys, key), keys.home, NOW)
    assert "within 7 days" in found
    keys.add_subkey(key)
    assert list(warnings(listed(keys, key), keys.home, NOW)) == []
