"""Keys as gpg does not make them by itself: one that binds another one's key as its own subkey.

What an attacker has of the other key is its public half. Here gpg binds it with both secret keys at hand, and the part
that only the other one's owner could have made, the back-signature, is taken out or damaged afterwards.
"""

import shutil
import subprocess
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from incomingd.verify.openpgp import Packet, Tag, packets

_BINDING, _EMBEDDED = 0x18, 32


def bind(home: Path, owner: str, foreign: str) -> bytes:
    """The public key ``owner`` with the key ``foreign`` of the same gnupg home as its subkey, and a back-signature.

    ``owner`` has to be the older one. Done in a copy of the home.
    """
    for _ in range(10):
        copy = Path(tempfile.mkdtemp(prefix="incomingd-keys-"))
        try:
            shutil.copytree(home, copy, ignore=shutil.ignore_patterns("S.*", "*.lock"), dirs_exist_ok=True)
            bound = _bound(copy, owner, foreign)
            # Now and then gpg takes the second after the one that it was told, and makes another key of it.
            if foreign in _gpg(copy, "--with-colons", "--with-subkey-fingerprint", "--list-keys", owner).decode():
                return bound
        finally:
            subprocess.run(["gpgconf", "--homedir", copy, "--kill", "all"], capture_output=True, check=False)
            shutil.rmtree(copy)
    raise AssertionError("gpg does not bind the key")


def _bound(home: Path, owner: str, foreign: str) -> bytes:
    listed = _gpg(home, "--with-colons", "--with-keygrip", "--list-keys", foreign).decode().splitlines()
    records = [line.split(":") for line in listed]
    at = next(number for number, record in enumerate(records) if record[0] == "fpr" and record[9] == foreign)
    made, grip = int(records[at - 1][5]), records[at + 1][9]
    # With another creation time it would be another key.
    clock = f"--faked-system-time={datetime.fromtimestamp(made, UTC):%Y%m%dT%H%M%S}!"
    answers = f"addkey\n13\n{grip}\nQ\n0\nsave\n".encode()
    _gpg(home, clock, "--expert", "--command-fd", "0", "--edit-key", owner, data=answers)
    return _gpg(home, "--export", owner)


def without_back_signature(key: bytes, *, damaged: bool = False) -> bytes:
    """The key with the back-signatures of its subkeys left out; or ``damaged``, by one bit."""
    return b"".join(_altered(packet, damaged) for packet in packets(key))


def _altered(packet: Packet, damaged: bool) -> bytes:
    body = packet.body
    if packet.tag != Tag.SIGNATURE or body[1] != _BINDING:
        return packet.raw
    start = 8 + int.from_bytes(body[4:6], "big")
    size = int.from_bytes(body[start - 2 : start], "big")
    kept = b""
    for piece in _subpackets(body[start : start + size]):
        if piece[1] != _EMBEDDED:
            kept += piece
        elif damaged:
            kept += piece[:-1] + bytes([piece[-1] ^ 1])
    body = body[: start - 2] + len(kept).to_bytes(2, "big") + kept + body[start + size :]
    return bytes([0x80 | Tag.SIGNATURE << 2 | 1]) + len(body).to_bytes(2, "big") + body


def _subpackets(area: bytes) -> list[bytes]:
    """Those of a signature's area, each with its length of one byte before it."""
    found = []
    while area:
        size = area[0] + 1
        assert size <= 192, "longer ones are not made here"
        found.append(area[:size])
        area = area[size:]
    return found


def _gpg(home: Path, *arguments: str, data: bytes = b"") -> bytes:
    command = ["gpg", "--homedir", str(home), "--no-tty", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
    done = subprocess.run([*command, *arguments], input=data, capture_output=True)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout
