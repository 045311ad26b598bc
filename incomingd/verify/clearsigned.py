"""The outer form of a clear-signed text, before gpgv sees any of it (RFC 4880 §7).

Rules: there is exactly one clear-signed block, whole to its END line, and nothing outside it but white space. Before
its text stand Hash lines alone. Its armor holds exactly one packet, a signature (:mod:`.openpgp`). gpgv gets that
block with the armor written again: what gpg finds in it and what is found here cannot differ.
"""

import re

from incomingd import rules
from incomingd.model import Problem, plain
from incomingd.verify import openpgp

_BEGIN, _SIGNATURE, _END = (
    b"-----BEGIN PGP SIGNED MESSAGE-----",
    b"-----BEGIN PGP SIGNATURE-----",
    b"-----END PGP SIGNATURE-----",
)
#: What a signed block may have before its text. gpg reads others too: with NotDashEscaped it takes text for signed that
#: other programs do not (RFC 4880 §7 has Hash alone).
_HASH = re.compile(rb"Hash: [A-Za-z0-9, -]+")
#: gpg signs and puts out the first 20,000 bytes of a line: what was sent would say more than is read.
_MAX_LINE = 19_000
#: Those that gpg knows; 5 from version 2.4 on.
_VERSIONS = (3, 4, 5)


def signed_blocks(data: bytes, file: str, most: int) -> tuple[list[bytes], Problem | None]:
    """What gpgv is to verify: the one signed block with its armor written again; or what is wrong with its form.

    Up to ``most`` signatures are allowed: each comes in a block of its own, with the same text.
    """
    # gpgv leaves a NUL at the end of a line out of what it calls signed: what was sent would say more than is read.
    if b"\0" in data:
        return [], rules.CONTROL_CHARACTER.problem("it has a NUL", file=file)
    # White space is blank, tab and line ends: to gpg a form feed or a vertical tab is text.
    lines = [line.rstrip(b" \t\r") for line in data.split(b"\n")]
    fault = _outer_form(lines, file)
    if fault:
        return [], fault
    try:
        signature = openpgp.read_block(lines[lines.index(_SIGNATURE) : lines.index(_END) + 1])
        found = openpgp.only_signatures(signature.data)
    except openpgp.OpenPGPError as error:
        return [], rules.BAD_SIGNATURE.problem(f"its signature cannot be used: {error}", file=file)
    if len(found) > most:
        allowed = f"{len(found)} signatures, and {most} {'is' if most == 1 else 'are'} allowed"
        return [], rules.NOT_ONE_SIGNATURE.problem(f"its signed block has {allowed}", file=file)
    known = [packet for packet in found if packet.version in _VERSIONS]
    if not known:
        odd = f"its signature has the version {found[0].version}, which gpg does not know; use a key of version 4"
        return [], rules.BAD_SIGNATURE.problem(odd, file=file)
    if len(found) > 1:  # the checksum was of all of them
        apart = [openpgp.Block(label=signature.label, data=packet.raw) for packet in known]
    else:
        apart = [signature]
    # There is one line of each, and nothing but white space before the first.
    text = data[data.index(_BEGIN) : data.index(b"\n" + _SIGNATURE) + 1]
    return [text + one.armored() for one in apart], None


def _outer_form(lines: list[bytes], file: str) -> Problem | None:
    """What is wrong with the form of the one block."""
    armor = [line for line in lines if line.startswith((b"-----BEGIN ", b"-----END "))]
    if armor != [_BEGIN, _SIGNATURE, _END]:
        shown = ", ".join(plain(line[:60].decode("ascii", "replace")) for line in armor[:6])
        return rules.NOT_ONE_SIGNATURE.problem(
            f"its armor lines are {shown}; one signed block has BEGIN PGP SIGNED MESSAGE, BEGIN and END PGP SIGNATURE",
            file=file,
        )
    within = lines[lines.index(_BEGIN) + 1 :]
    head = within[: within.index(b"")] if b"" in within else within
    odd = next((line for line in head if not _HASH.fullmatch(line)), None)
    if odd is not None:
        shown = plain(odd[:60].decode("utf-8", "replace"))
        return rules.NOT_ONE_SIGNATURE.problem(
            f'the signed block begins with "{shown}", not with Hash lines', file=file
        )
    long = max(map(len, lines))
    if long > _MAX_LINE:
        return rules.TEXT_LIMIT.problem(f"a signed line has {long} bytes, and {_MAX_LINE} are allowed", file=file)
    for name, outside in (("before", lines[: lines.index(_BEGIN)]), ("after", lines[lines.index(_END) + 1 :])):
        text = next((line for line in outside if line), None)
        if text is not None:
            shown = plain(text[:60].decode("utf-8", "replace"))
            return rules.TEXT_OUTSIDE_SIGNATURE.problem(f'"{shown}" stands {name} the signed block', file=file)
    return None
