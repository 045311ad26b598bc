"""One key has one owner: who binds another one's key gets nothing by it, and takes nothing from the other."""

import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from incomingd.verify.keyring import Keyring, KeyringError
from incomingd.verify.signature import Signed, Verifier
from tests.support.crafted_keys import bind, without_back_signature
from tests.support.keys import LONG_AGO, Keys
from tests.verify.builders import codes

TEXT = b"Source: hello\n"


@pytest.fixture
def own_keys() -> Iterator[Keys]:
    with Keys() as keys:
        yield keys


@pytest.fixture
def mallory(own_keys: Keys) -> str:
    return own_keys.make("Mallory", options=("--faked-system-time", LONG_AGO))


@pytest.fixture
def ada(own_keys: Keys, mallory: str) -> str:
    """Younger than Mallory's."""
    return own_keys.make("Ada")


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring(tmp_path / "uploaders")


def exported(keys: Keys, key: str) -> bytes:
    return keys.gpg("--export", key)


def verified(keyring: Keyring, data: bytes) -> Signed:
    return Verifier(keyring=keyring.public, keys=keyring.load(), now=datetime.now(UTC)).verify(data, "x")


def taken(keyring: Keyring, *keys: bytes) -> None:
    """The keyring as a version that did not ask whose a key is would have made it."""
    keyring.prepare()
    command = ["gpg", "--homedir", str(keyring.home), "--batch", "--quiet", "--no-autostart", "--import"]
    for key in keys:
        subprocess.run(command, input=key, capture_output=True, check=True)
    keyring.prepare()


@pytest.mark.parametrize("subkey", [False, True], ids=["primary", "subkey"])
@pytest.mark.parametrize("back", ["good", "none", "damaged"])
def test_the_second_owner_is_refused(
    own_keys: Keys, keyring: Keyring, ada: str, mallory: str, subkey: bool, back: str
) -> None:
    key = own_keys.add_subkey(ada) if subkey else ada
    crafted = bind(own_keys.home, mallory, key)
    if back != "good":
        crafted = without_back_signature(crafted, damaged=back == "damaged")
    keyring.trust(exported(own_keys, ada))
    before = keyring.public.read_bytes()
    with pytest.raises(KeyringError) as refusal:
        keyring.trust(crafted)
    assert f"the key {key} belongs to" in str(refusal.value)
    for name in (ada, "Ada <ada@example.org>", mallory, "Mallory <mallory@example.org>"):
        assert name in str(refusal.value)
    assert keyring.public.read_bytes() == before
    assert [one.primary.fingerprint for one in keyring.load().uploaders] == [ada]
    signed = verified(keyring, own_keys.sign(TEXT, f"{key}!"))
    assert (signed.signed_by, signed.signing_key, signed.doubts) == (ada, key, ())


def test_so_is_the_owner_if_the_other_was_first_until_that_one_is_forgotten(
    own_keys: Keys, keyring: Keyring, ada: str, mallory: str
) -> None:
    keyring.trust(without_back_signature(bind(own_keys.home, mallory, ada)))
    signed = own_keys.sign(TEXT, f"{ada}!")
    assert codes(verified(keyring, signed).faults) == ["bad-signature"]
    with pytest.raises(KeyringError, match=f"incomingctl untrust {mallory} first"):
        keyring.trust(exported(own_keys, ada))
    keyring.untrust(mallory)
    keyring.trust(exported(own_keys, ada))
    assert verified(keyring, signed).signed_by == ada


def test_two_owners_in_one_file(own_keys: Keys, keyring: Keyring, ada: str, mallory: str) -> None:
    crafted = bind(own_keys.home, mallory, ada)
    with pytest.raises(KeyringError, match=f"the key {ada} belongs to {ada}"):
        keyring.trust(exported(own_keys, ada) + crafted)
    assert keyring.load().uploaders == ()


@pytest.mark.parametrize("damaged", [False, True])
def test_a_subkey_without_a_good_back_signature_signs_nothing(
    own_keys: Keys, keyring: Keyring, ada: str, mallory: str, damaged: bool
) -> None:
    """gpgv sees to that."""
    keyring.trust(without_back_signature(bind(own_keys.home, mallory, ada), damaged=damaged))
    refused = verified(keyring, own_keys.sign(TEXT, f"{ada}!"))
    assert refused.text is None
    assert "back-signature" in refused.faults[0].message
    assert verified(keyring, own_keys.sign(TEXT, f"{mallory}!")).signed_by == mallory


def test_the_same_key_again_is_brought_up_to_date(own_keys: Keys, keyring: Keyring, ada: str) -> None:
    keyring.trust(exported(own_keys, ada))
    subkey = own_keys.add_subkey(ada)
    own_keys.gpg("--passphrase", "", "--quick-set-expire", ada, "2y")
    (again,) = keyring.trust(exported(own_keys, ada) * 2)
    assert again.primary.expires
    assert [key.fingerprint for key in again.subkeys] == [subkey]
    assert verified(keyring, own_keys.sign(TEXT, f"{subkey}!")).signed_by == ada


# -- a keyring of before ----------------------------------------------------------------------------------------------


def test_the_first_owner_is_not_harmed(own_keys: Keys, keyring: Keyring, ada: str, mallory: str) -> None:
    taken(keyring, exported(own_keys, ada), without_back_signature(bind(own_keys.home, mallory, ada)))
    assert verified(keyring, own_keys.sign(TEXT, f"{ada}!")).signed_by == ada
    assert verified(keyring, own_keys.sign(TEXT, f"{mallory}!")).signed_by == mallory


def test_a_key_with_two_owners_is_told(own_keys: Keys, keyring: Keyring, ada: str, mallory: str) -> None:
    subkey = own_keys.add_subkey(ada)
    taken(keyring, without_back_signature(bind(own_keys.home, mallory, subkey)), exported(own_keys, ada))
    (shared,) = keyring.load().shared
    assert shared.fingerprint == subkey
    assert [owner.primary.fingerprint for owner in shared.owners] == [mallory, ada]
    refused = verified(keyring, own_keys.sign(TEXT, f"{subkey}!"))
    assert codes(refused.faults) == ["key-of-two-owners"]
    assert mallory in refused.faults[0].message
    keyring.untrust(mallory)
    assert keyring.load().shared == ()
    assert verified(keyring, own_keys.sign(TEXT, f"{subkey}!")).signed_by == ada


def test_which_of_two_is_forgotten_has_to_be_said(own_keys: Keys, keyring: Keyring, ada: str, mallory: str) -> None:
    subkey = own_keys.add_subkey(ada)
    taken(keyring, exported(own_keys, ada), bind(own_keys.home, mallory, subkey))
    with pytest.raises(KeyringError, match="name one of these two"):
        keyring.untrust(subkey)
    keyring.untrust(ada)
    assert [one.primary.fingerprint for one in keyring.load().uploaders] == [mallory]


# -- keys by which nothing can be uploaded ----------------------------------------------------------------------------


def test_what_keeps_a_key_from_signing(own_keys: Keys, keyring: Keyring) -> None:
    now = datetime.now(UTC)
    revoked, certificate = own_keys.make_revoked()
    own_keys.revoke(certificate)
    expired = own_keys.make_expired()
    certifies = own_keys.make("Chief", usage="cert")
    good = own_keys.make("Good")
    faults = {one.primary.fingerprint: one.fault(now) for one in keyring.trust(own_keys.gpg("--export"))}
    assert faults == {
        revoked: "it is revoked or disabled",
        expired: "it expired on 2020-01-02",
        certifies: "none of its keys is one for signing",
        good: "",
    }
    subkey = own_keys.add_subkey(certifies, expires="seconds=1")
    assert subkey
    (chief,) = keyring.trust(exported(own_keys, certifies))
    later = datetime(2100, 1, 1, tzinfo=UTC)
    assert chief.fault(later) == "each of its keys for signing is revoked or expired"
