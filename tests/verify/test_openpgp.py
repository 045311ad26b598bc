"""Armor and packet headers: what is handed on to gpg, and what never gets there."""

import base64
import zlib

import pytest

from incomingd.verify.openpgp import MAX_SIGNATURE, OpenPGPError, Tag, key_packets, packets, signature_packets
from tests.verify.builders import Keys

SIGNATURE = b"\x04\x00" + bytes(20)


def old(tag: int, body: bytes, width: int = 1) -> bytes:
    """A packet in the older format, with a length of 1, 2 or 4 bytes."""
    kind = {1: 0, 2: 1, 4: 2}[width]
    return bytes([0x80 | tag << 2 | kind]) + len(body).to_bytes(width, "big") + body


def new(tag: int, body: bytes, width: int = 1) -> bytes:
    """A packet in the newer format, with a length of 1, 2 or 5 bytes."""
    size = len(body)
    length = {1: [size], 2: [192 + (size - 192 >> 8), size - 192 & 0xFF], 5: [255, *size.to_bytes(4, "big")]}[width]
    return bytes([0xC0 | tag, *length]) + body


def armor(data: bytes, label: str = "SIGNATURE", *, head: str = "\n", tail: str = "") -> bytes:
    text = base64.encodebytes(data).decode()
    return f"-----BEGIN PGP {label}-----\n{head}{text}{tail}-----END PGP {label}-----\n".encode()


@pytest.mark.parametrize(
    "data",
    [
        old(2, SIGNATURE),
        old(2, SIGNATURE, 2),
        old(2, SIGNATURE, 4),
        new(2, SIGNATURE),
        new(2, SIGNATURE + bytes(200), 2),
        new(2, SIGNATURE, 5),
        armor(old(2, SIGNATURE)),
        armor(old(2, SIGNATURE), head="Version: GnuPG v1\nComment: any thing, Ä\nHash:\n\n"),
        armor(old(2, SIGNATURE), tail="=AbC/\n"),
        armor(old(2, SIGNATURE)).replace(b"\n", b" \t\r\n"),
        armor(old(2, SIGNATURE)).replace(b"\n", b"\n\n"),
        b"\n \n" + armor(old(2, SIGNATURE)) + b"\n",
        armor(old(2, SIGNATURE), "ARMORED FILE"),
        armor(old(2, SIGNATURE), "MESSAGE"),
        old(2, b"\x03" + bytes(30)),
        old(2, b"\x05" + bytes(30)),
        old(2, b"\x06" + bytes(30)),
        old(2, b"\x04" + bytes(MAX_SIGNATURE - 1), 2),
    ],
)
def test_one_signature(data: bytes) -> None:
    (packet,) = signature_packets(data)
    assert packet.tag == Tag.SIGNATURE


def test_several_signatures_in_one_block_and_in_several() -> None:
    one, other = old(2, SIGNATURE), new(2, SIGNATURE + b"x")
    assert [p.body for p in signature_packets(armor(one + other))] == [SIGNATURE, SIGNATURE + b"x"]
    assert [p.body for p in signature_packets(armor(one) + armor(other))] == [SIGNATURE, SIGNATURE + b"x"]
    assert len(signature_packets(one * 100)) == 100
    with pytest.raises(OpenPGPError, match="holds 101 signatures"):
        signature_packets(one * 101)


def nested(depth: int) -> bytes:
    """Compressed packets in one another."""
    data = old(2, SIGNATURE)
    for _ in range(depth):
        packed = zlib.compressobj(wbits=-15)
        data = b"\xa3\x01" + packed.compress(data) + packed.flush()
    return data


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no armor and no packet"),
        (b"root:x:0:0:root:/root:/bin/bash\n", 'holds "root:x:0:0'),
        (b"\n \n", "no armor and no packet"),
        (armor(b""), "holds no signature"),
        (armor(nested(3)), "indeterminate"),
        (armor(old(8, b"\x01" + bytes(20))), "tag 8, compressed data"),
        (armor(old(11, b"b\0" + bytes(4) + b"text")), "tag 11, literal data"),
        (armor(old(2, SIGNATURE) + old(11, b"b\0" + bytes(4) + b"text")), "tag 11, literal data"),
        (armor(old(10, b"PGP") + old(2, SIGNATURE)), "tag 10, marker"),
        (armor(new(21, b"....") + old(2, SIGNATURE)), "tag 21, padding"),
        (armor(new(60, SIGNATURE)), "tag 60, unknown"),
        (armor(new(0, SIGNATURE)), "reserved tag 0"),
        (armor(b"\x80\x00"), "reserved tag 0"),
        (armor(b"\xc2\xe1" + bytes(40)), "comes in parts"),
        (armor(b"\x8b" + SIGNATURE), "indeterminate"),
        (armor(b"\x04" + bytes(40)), "no packet begins with the byte 0x04"),
        (armor(old(2, SIGNATURE) + b"\0"), "no packet begins with the byte 0x00"),
        (armor(old(2, SIGNATURE)[:-1]), "22 bytes, and 21 are there"),
        (armor(b"\x8a\xff\xff\xff\xff"), "4294967295 bytes, and 0 are there"),
        (armor(b"\xc2\xff\xff"), "cut off in the header"),
        (armor(b"\x88"), "cut off in the header"),
        (armor(old(2, b"")), "version 0"),
        (armor(old(2, b"\x02" + bytes(30))), "version 2"),
        (armor(old(2, b"\x07" + bytes(30))), "version 7"),
        (armor(old(2, bytes([4]) * (MAX_SIGNATURE + 1), 2)), "has 16385 bytes"),
        (armor(old(2, SIGNATURE))[:-5], "has no END line"),
        (armor(old(2, SIGNATURE)).replace(b"END PGP SIG", b"END PGP MES"), "has no END line"),
        (armor(armor(old(2, SIGNATURE))), "no packet begins with"),
        (armor(old(2, SIGNATURE), head="\n-----BEGIN PGP MESSAGE-----\n\n"), "an END line"),
        (armor(old(2, SIGNATURE), "PUBLIC KEY BLOCK"), "a SIGNATURE, is expected"),
        (armor(old(2, SIGNATURE), "SIGNED MESSAGE"), "a SIGNATURE, is expected"),
        (armor(old(2, SIGNATURE), head=""), "no empty line"),
        (armor(old(2, SIGNATURE), head="evil\n\n"), 'begins with "evil"'),
        (armor(old(2, SIGNATURE), tail="=AAAA\n=AAAA\n"), "not base64"),
        (armor(old(2, SIGNATURE), tail="=AAAA\nAAAA\n"), "not base64"),
        (armor(old(2, SIGNATURE), tail="!\n"), "not base64"),
        (armor(old(2, SIGNATURE)) + b"evil\n", 'holds "evil"'),
        (b"evil\n" + armor(old(2, SIGNATURE)), 'holds "evil"'),
    ],
)
def test_anything_else(data: bytes, why: str) -> None:
    with pytest.raises(OpenPGPError, match=why):
        signature_packets(data)


def test_what_gpg_writes(keys: Keys) -> None:
    for options in ([], ["--armor"]):
        made = keys.gpg(*options, "--local-user", "ada@example.org", "--local-user", "rsa@example.org", "-b", data=b"x")
        assert len(signature_packets(made)) == 2
    public = keys.gpg("--export", "ada@example.org", "bob@example.org")
    armored = keys.gpg("--armor", "--export", "ada@example.org")
    assert b"".join(packet.raw for packet in key_packets(armored)) == keys.gpg("--export", "ada@example.org")
    assert [p.tag for p in key_packets(public)] == [6, 13, 2, 6, 13, 2, 14, 2]


@pytest.mark.parametrize("size", [192, 193, 8383])
def test_lengths_of_two_bytes(size: int) -> None:
    (packet,) = packets(new(2, bytes(size), 2))
    assert len(packet.body) == size
    assert len(packet.raw) == size + 3


def test_a_key_file_may_have_text_around_its_blocks_and_silent_packets() -> None:
    key = old(6, b"\x04" + bytes(30)) + old(12, b"\0\0") + old(13, b"Ada")
    data = b"Ada's key:\n" + armor(key, "PUBLIC KEY BLOCK") + b"and\n" + armor(key, "PUBLIC KEY BLOCK")
    assert [packet.tag for packet in key_packets(data)] == [6, 13, 6, 13]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (armor(nested(2), "PUBLIC KEY BLOCK"), "indeterminate"),
        (armor(old(8, b"\x01"), "PUBLIC KEY BLOCK"), "tag 8, compressed data; only keys are expected"),
        (old(6, b"\x04") + old(11, b"b\0" + bytes(4)), "tag 11, literal data"),
        (armor(old(12, b"\0"), "PUBLIC KEY BLOCK"), "holds no packet"),
        (armor(old(2, SIGNATURE)), "a PUBLIC KEY BLOCK, is expected"),
        (b"hello", "no armor"),
    ],
)
def test_a_key_file_holds_keys_alone(data: bytes, why: str) -> None:
    with pytest.raises(OpenPGPError, match=why):
        key_packets(data)
