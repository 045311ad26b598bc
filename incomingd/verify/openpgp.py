"""OpenPGP's armor and packet headers: what a file holds is known before gpg reads it (RFC 4880 and RFC 9580).

gpg follows packets that hold other packets: 1 kB of nested compressed ones keep it busy for minutes. Everything that
comes from others and goes to gpg or gpgv is therefore taken apart here, and only packets of the expected kind are
handed on, in armor that this module writes. Nothing is verified here, and no packet is looked into further than the
version of a signature.

Armor: a BEGIN line, header lines (``Comment: …``), an empty line, base64, at most one CRC24 line, and an END line with
the same label. White space within the base64 and at line ends is ignored. The CRC24 is handed on to gpg or ignored
(RFC 9580 §6.1).

Packet headers: both formats with a definite length. Partial and indeterminate lengths are for data packets alone, and
are refused, as are reserved tags and packets that end before their length.

Fails with :class:`OpenPGPError`, whose message says what was found and what was expected.
"""

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from incomingd.model import plain

#: gpg's largest signatures, by RSA keys of 16,384 bits with notations, have some 3 kB.
MAX_SIGNATURE = 16 << 10
#: A file that many have signed; the largest that are known have some twenty.
_MAX_SIGNATURES = 100
#: 3 is of PGP 2 and early GnuPG, 4 is everyone's, 5 LibrePGP's, 6 that of RFC 9580.
_VERSIONS = (3, 4, 5, 6)
_BEGIN = re.compile(rb"-----BEGIN PGP ([A-Z][A-Z0-9 ,/]*)-----")
_HEADER = re.compile(rb"[A-Za-z][A-Za-z0-9-]*:(?: .*)?")
_CHECKSUM = re.compile(rb"=[A-Za-z0-9+/]{4}")
_BLANKS = b" \t\r"
#: What a detached signature is called: PGP 2 and gpg --enarmor have other labels than RFC 4880.
_DETACHED = (b"SIGNATURE", b"MESSAGE", b"ARMORED FILE")
_KEYS = (b"PUBLIC KEY BLOCK", b"PRIVATE KEY BLOCK", b"ARMORED FILE")


class OpenPGPError(ValueError):
    """The data are not what was expected, in a way that the message tells."""


class Tag(IntEnum):
    """What a packet can be (RFC 9580 §5)."""

    ENCRYPTED_SESSION_KEY = 1
    SIGNATURE = 2
    SYMMETRIC_SESSION_KEY = 3
    ONE_PASS_SIGNATURE = 4
    SECRET_KEY = 5
    PUBLIC_KEY = 6
    SECRET_SUBKEY = 7
    COMPRESSED_DATA = 8
    ENCRYPTED_DATA = 9
    MARKER = 10
    LITERAL_DATA = 11
    TRUST = 12
    USER_ID = 13
    PUBLIC_SUBKEY = 14
    USER_ATTRIBUTE = 17
    PROTECTED_DATA = 18
    AEAD_DATA = 20
    PADDING = 21


_TAGS = frozenset(Tag)
#: What a key consists of.
_OF_KEYS = frozenset(
    {
        *(Tag.SECRET_KEY, Tag.SECRET_SUBKEY, Tag.PUBLIC_KEY, Tag.PUBLIC_SUBKEY),
        *(Tag.USER_ID, Tag.USER_ATTRIBUTE, Tag.SIGNATURE),
    }
)
#: What every reader passes over: a mark of PGP 5, gpg's own notes, and bytes without a meaning.
_SILENT = frozenset({Tag.MARKER, Tag.TRUST, Tag.PADDING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """One packet: what kind it is, what it holds, and all of it, with its header."""

    tag: int
    body: bytes
    raw: bytes

    @property
    def name(self) -> str:
        """For messages."""
        name = Tag(self.tag).name.lower().replace("_", " ") if self.tag in _TAGS else "unknown"
        return f"packet of tag {self.tag}, {name}"

    @property
    def version(self) -> int:
        """Of a signature, or of a key; 0 if there is none."""
        return self.body[0] if self.body else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One armored block: its label, what it holds, and its CRC24 line, empty if there is none."""

    label: bytes
    data: bytes
    checksum: bytes = b""

    def armored(self) -> bytes:
        """The block as gpg writes it, without header lines."""
        text = base64.b64encode(self.data)
        lines = [text[at : at + 64] for at in range(0, len(text), 64)]
        checksum = [self.checksum] if self.checksum else []
        edges = (b"-----%s PGP %s-----" % (edge, self.label) for edge in (b"BEGIN", b"END"))
        return b"\n".join([next(edges), b"", *lines, *checksum, next(edges), b""])


def signature_packets(data: bytes) -> tuple[Packet, ...]:
    """The packets of a detached signature, armored or not: one or more signatures, and nothing else.

    The caller has limited the size of ``data``. Raises :class:`OpenPGPError`.
    """
    found = only_signatures(_binary(data, _DETACHED, outside=False))
    if len(found) > _MAX_SIGNATURES:
        raise OpenPGPError(f"it holds {len(found)} signatures, and {_MAX_SIGNATURES} are allowed")
    return found


def only_signatures(data: bytes) -> tuple[Packet, ...]:
    """The packets in ``data``, all of them signatures of a sane size. Raises :class:`OpenPGPError`."""
    found = tuple(packets(data))
    for packet in found:
        if packet.tag != Tag.SIGNATURE:
            raise OpenPGPError(f"it holds a {packet.name}; only signatures are expected")
        if len(packet.body) > MAX_SIGNATURE:
            raise OpenPGPError(f"its signature has {len(packet.body)} bytes, and {MAX_SIGNATURE} are allowed")
        if packet.version not in _VERSIONS:
            raise OpenPGPError(f"its signature has the version {packet.version}, and 3 to 6 are known")
    if not found:
        raise OpenPGPError("it holds no signature")
    return found


def key_packets(data: bytes) -> tuple[Packet, ...]:
    """The packets of a key file, armored or not, without those that say nothing.

    Text around armored blocks is ignored. Raises :class:`OpenPGPError` if anything but keys is in it.
    """
    found = tuple(packet for packet in packets(_binary(data, _KEYS, outside=True)) if packet.tag not in _SILENT)
    for packet in found:
        if packet.tag not in _OF_KEYS:
            raise OpenPGPError(f"it holds a {packet.name}; only keys are expected")
    if not found:
        raise OpenPGPError("it holds no packet")
    return found


def packets(data: bytes) -> Iterator[Packet]:
    """The packets of binary data, one after the other. Raises :class:`OpenPGPError`."""
    at = 0
    while at < len(data):
        tag, start, size = _header(data, at)
        end = start + size
        if end > len(data):
            raise OpenPGPError(f"it is cut off: a packet has {size} bytes, and {max(len(data) - start, 0)} are there")
        yield Packet(tag=tag, body=data[start:end], raw=data[at:end])
        at = end


def _header(data: bytes, at: int) -> tuple[int, int, int]:
    """Tag, start and size of the packet at ``at`` (RFC 4880 §4.2)."""
    first = data[at]
    if not first & 0x80:
        raise OpenPGPError(f"no packet begins with the byte 0x{first:02x}")
    if first & 0x40:
        tag = first & 0x3F
        start, size = _new_length(data, at + 1)
    else:
        tag, kind = first >> 2 & 0x0F, first & 0x03
        if kind == 3:
            raise OpenPGPError("a packet has no length of its own (an indeterminate one), and one is expected")
        start = at + 1 + (1 << kind)
        size = _number(data, at + 1, 1 << kind)
    if tag == 0:
        raise OpenPGPError("a packet has the reserved tag 0")
    return tag, start, size


def _new_length(data: bytes, at: int) -> tuple[int, int]:
    """Where the packet starts, and its size."""
    first = _number(data, at, 1)
    if first < 192:
        return at + 1, first
    if first < 224:
        return at + 2, (first - 192 << 8) + _number(data, at + 1, 1) + 192
    if first < 255:
        raise OpenPGPError("a packet comes in parts (partial lengths), and one length is expected")
    return at + 5, _number(data, at + 1, 4)


def _number(data: bytes, at: int, width: int) -> int:
    if at + width > len(data):
        raise OpenPGPError("it is cut off in the header of a packet")
    return int.from_bytes(data[at : at + width], "big")


# -- armor ------------------------------------------------------------------------------------------------------------


def _binary(data: bytes, labels: Sequence[bytes], *, outside: bool) -> bytes:
    """What a file holds, be it armored or binary; ``outside``: there may be text around the armor."""
    if data[:1] >= b"\x80":
        return data
    blocks: list[bytes] = []
    block: list[bytes] = []
    for line in (line.rstrip(_BLANKS) for line in data.split(b"\n")):
        begin = _BEGIN.fullmatch(line)
        if not block and begin is None:
            if line and not outside:
                raise OpenPGPError(f'it holds "{_shown(line)}"; only armor is expected')
            continue
        if begin and (block or begin[1] not in labels):
            raise OpenPGPError(f'it holds "{_shown(line)}"; an END line, or a {_shown(labels[0])}, is expected')
        block.append(line)
        if line == b"-----END" + block[0][len(b"-----BEGIN") :]:
            blocks.append(read_block(block).data)
            block = []
    if block:
        raise OpenPGPError(f'it is cut off: "{_shown(block[0])}" has no END line')
    if not blocks:
        raise OpenPGPError("it holds no armor and no packet")
    return b"".join(blocks)


def read_block(lines: Sequence[bytes]) -> Block:
    """The block of these lines, which are without blanks at their ends: from a BEGIN line to its END line.

    Raises :class:`OpenPGPError`.
    """
    label = lines[0][len(b"-----BEGIN PGP ") : -len(b"-----")]
    within = list(lines[1:-1])
    if b"" not in within:
        raise OpenPGPError("its armor has no empty line before the base64")
    headers = within[: within.index(b"")]
    stray = next((line for line in headers if not _HEADER.fullmatch(line)), None)
    if stray is not None:
        raise OpenPGPError(f'its armor begins with "{_shown(stray)}", and "Name: value" or an empty line is expected')
    text = [line for line in within[len(headers) + 1 :] if line]
    checksum = text.pop() if text and _CHECKSUM.fullmatch(text[-1]) else b""
    try:
        data = base64.b64decode(b"".join(text).translate(None, _BLANKS), validate=True)
    except binascii.Error as error:
        raise OpenPGPError(f"its armor is not base64 ({error})") from error
    return Block(label=label, data=data, checksum=checksum)


def _shown(line: bytes) -> str:
    return plain(line[:60].decode("utf-8", "replace"))
