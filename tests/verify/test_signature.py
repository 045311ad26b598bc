"""What gpgv gets to see, for how long, and what a signer may add to a signature."""

import os
import subprocess
from pathlib import Path

import pytest

from incomingd.verify import gpgv
from incomingd.verify.signature import Signed, Verifier
from tests.verify.builders import NOW, Keys, codes

TEXT = b"Source: hello\nDescription: a\n b\n"


def verified(keys: Keys, data: bytes) -> Signed:
    return Verifier(keyring=keys.keyring.public, keys=keys.keyring.load(), now=NOW).verify(data, "x")


@pytest.fixture
def other_gpgv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A script in the place of gpgv."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    script = tmp_path / "gpgv"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    return script


@pytest.mark.parametrize(
    "options",
    [
        ("--sig-keyserver-url", "hkps://keys.example.org"),
        ("--sig-keyserver-url", "!hkps://keys.example.org"),
        ("--sig-policy-url", "https://example.org/policy"),
        ("--sig-policy-url", "!https://example.org/policy"),
        ("--sig-notation", "build@example.org=42 of 100%"),
        ("--sig-notation", "a@example.org=1", "--sig-notation", f"b@example.org={'long ' * 300}"),
    ],
)
def test_what_a_signer_may_add(keys: Keys, options: tuple[str, ...]) -> None:
    signed = verified(keys, keys.sign(TEXT, options=options))
    assert signed.text == TEXT
    assert signed.signed_by == keys.fingerprints["ada"]
    assert not signed.faults
    assert not signed.doubts
    unknown = verified(keys, keys.sign(TEXT, by="mallory", options=options))
    assert unknown.text == TEXT
    assert codes(unknown.doubts) == ["unknown-key"]


def test_gpgv_gets_one_signature_in_armor_of_ours(keys: Keys, other_gpgv: Path) -> None:
    copy = other_gpgv.with_name("seen")
    other_gpgv.write_text(f"#!/bin/sh\ncat >{copy}\n")
    signed = keys.sign(TEXT)
    head, signature = signed.split(b"-----BEGIN PGP SIGNATURE-----\n\n")
    long_winded = signature.replace(b"\n", b" \t\n\n")
    verified(keys, b"\n\n" + head + b"-----BEGIN PGP SIGNATURE-----\t\nComment: evil\n\n" + long_winded + b" \n\n")
    assert copy.read_bytes() == signed


def test_gpgv_has_five_seconds_of_processor_time(keys: Keys, other_gpgv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = other_gpgv.with_name("limit")
    other_gpgv.write_text(f"#!/bin/sh\nread first\nulimit -t >{asked}\n")
    verified(keys, keys.sign(TEXT))
    assert asked.read_text() == "5\n"
    monkeypatch.setattr(gpgv, "PROCESSOR", 1)
    other_gpgv.write_text("#!/bin/sh\nwhile :; do :; done\n")
    signed = verified(keys, keys.sign(TEXT))
    assert signed.text is None
    assert codes(signed.faults) == ["check-timeout"]


def test_a_status_keyword_that_is_not_known_is_a_failure(keys: Keys, other_gpgv: Path) -> None:
    real = subprocess.run(["which", "-a", "gpgv"], capture_output=True, text=True).stdout.split()[1]
    other_gpgv.write_text(f'#!/bin/bash\n{real} "$@"\necho "[GNUPG:] NEWS_OF_TOMORROW" >&"$6"\n')
    signed = verified(keys, keys.sign(TEXT))
    assert signed.text is None
    assert "gpg says NEWS_OF_TOMORROW" in signed.faults[0].message


def test_an_identity_is_of_signer_time_and_text(keys: Keys) -> None:
    """What anyone can write in another way does not count; what the signature covers does."""

    def identity(text: bytes, by: str = "ada", made: str = "20260301T110000!") -> str:
        return verified(keys, keys.sign(text, by=by, made=made)).identity

    signed = keys.sign(TEXT)
    first = verified(keys, signed).identity
    assert first == identity(TEXT)
    blanks = signed.replace(b"Source: hello\n", b"Source: hello \t \n")
    assert blanks != signed
    for same in (
        signed + b"\n",
        b"\n" + signed,
        blanks,
        signed.replace(b"\nHash: ", b"\nHash: SHA384\nHash: "),
        signed.replace(b"\n", b"\r\n"),
    ):
        assert verified(keys, same).identity == first
    others = [identity(TEXT + b"A: b\n"), identity(TEXT, by="rsa"), identity(TEXT, made="20260301T110001!")]
    assert len({first, *others, Signed(text=TEXT).identity}) == 5


def test_an_unsigned_text_is_known_by_itself() -> None:
    first = Signed(text=TEXT).identity
    assert {Signed(text=text).identity for text in (TEXT + b"\n", b"\n" + TEXT, TEXT.replace(b"\n", b" \n"))} == {first}
    assert Signed(text=TEXT.replace(b" b", b"  b")).identity != first


def test_one_of_several_signatures_is_enough_where_that_is_asked_for(keys: Keys) -> None:
    """Each goes to gpgv alone. An upload has one."""

    def any_of(*who: str, data: bytes = b"", options: tuple[str, ...] = ()) -> Signed:
        others = [word for name in who[1:] for word in ("--local-user", keys.fingerprints[name])]
        signed = data or keys.sign(TEXT, by=who[0], options=[*options, *others])
        verifier = Verifier(keyring=keys.keyring.public, keys=keys.keyring.load(), now=NOW)
        if len(who) > 1:
            assert codes(verifier.verify(signed, "x").faults) == ["not-one-signature"]
        return verifier.verify_any(signed, "x")

    for who in (["ada"], ["mallory", "ada"], ["ada", "mallory"], ["mallory", "ron", "ada"]):
        signed = any_of(*who)
        assert (signed.text, signed.signed_by, signed.doubts) == (TEXT, keys.fingerprints["ada"], ())
    assert codes(any_of("mallory", "ron").doubts) == ["revoked-key"]
    assert codes(any_of("mallory").doubts) == ["unknown-key"]
    changed = keys.sign(TEXT, by="ada", options=("--local-user", keys.fingerprints["rsa"])).replace(b"hello", b"evil!")
    assert codes(any_of("ada", "rsa", data=changed).faults) == ["bad-signature"]
