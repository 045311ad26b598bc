"""What a .changes in incoming seems to list: read leniently and unverified, and within bounds.

For one question only: is all that it lists there, at its listed size? The answer says when to take an upload, never
whether it is good, so only the first field that lists files is read. A text that lists more rows than a queue allows
files is refused in the end: its other rows are not read, and nothing that it lists is waited for.

:class:`Listings` remembers what was read, for all uploads of the daemon together: a text is parsed again only when it
has changed, and what is remembered is bounded, however many texts there are.
"""

import errno
import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from incomingd import fsio
from incomingd.intake.ownership import Ownership
from incomingd.model import FILE_NAME

#: The longest text that is read, in bytes.
TEXT_LIMIT = 1 << 20
#: Rows that are read if no queue's ``max_files`` says how many.
MOST_ROWS = 2000
#: Rows remembered in all, some 20 MB. A listing counts as one row more than it has.
_REMEMBERED = 100_000
_SIGNED = b"-----BEGIN PGP SIGNED MESSAGE-----"
_SIGNED_END = b"-----END PGP SIGNATURE-----"
#: The fields that list files (deb-changes(5)).
_FIELDS = (b"\nfiles:", b"\nchecksums-sha256:", b"\nchecksums-sha1:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What one .changes seems to list: names and sizes. ``whole`` is False where the text was cut off; ``too_long``: it
    lists more than these, and more than is allowed. ``digest`` is the SHA-256 of a signed text."""

    files: tuple[tuple[str, int], ...] = ()
    whole: bool = True
    unreadable: bool = False
    too_long: bool = False
    digest: bytes = b""


class Listings:
    """The listings that were read last, ``rows`` in all. ``parsed`` counts the bytes that were parsed so far."""

    def __init__(self) -> None:
        self.parsed = 0
        self._known: OrderedDict[tuple[object, ...], Listing] = OrderedDict()
        self.rows = 0

    def read(self, fd: int, name: str, status: os.stat_result, mine: Ownership, most: int) -> Listing:
        """The listing of ``name`` in ``fd``, which was found with that status; at most so many rows."""
        # Hard links to one text are one text. Whose it is belongs to the key: what is not ``mine`` lists nothing.
        mark = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, mine, most)
        known = self._known.get(mark)
        if known is not None:
            self._known.move_to_end(mark)
            return known
        self.parsed += min(status.st_size, TEXT_LIMIT)
        found = read_listing(fd, name, mine, most)
        self._known[mark] = found
        self.rows += len(found.files) + 1
        while self.rows > _REMEMBERED and len(self._known) > 1:
            self.rows -= len(self._known.popitem(last=False)[1].files) + 1
        return found


def read_listing(fd: int, name: str, mine: Ownership, most: int) -> Listing:
    """What the .changes ``name`` in ``fd`` seems to list, at most so many rows. One that is no .changes at all lists
    nothing, and neither does one that is not ``mine``."""
    try:
        return _parse(fsio.read_regular(name, fd, TEXT_LIMIT, mine.allows), most)
    except FileNotFoundError:
        return Listing(whole=False)
    except fsio.ForeignFileError:
        return Listing()
    except OSError as error:
        # A link, a FIFO or one that is too large: nothing to wait for, it will be refused.
        return Listing(unreadable=error.errno in (errno.EACCES, errno.EPERM))


def _parse(raw: bytes, most: int) -> Listing:
    if not raw.strip() or (raw.startswith(_SIGNED) and _SIGNED_END not in raw):
        return Listing(whole=False)
    # Of an unsigned text nobody can say whether more of it is to come.
    digest = hashlib.sha256(raw).digest() if raw.startswith(_SIGNED) else b""
    files: dict[str, int] = {}
    for number, (name, size) in enumerate(_rows(raw)):
        if number >= most:
            return Listing(files=tuple(files.items()), too_long=True, digest=digest)
        if name:
            files[name] = size
    return Listing(files=tuple(files.items()), digest=digest)


def _rows(raw: bytes) -> Iterator[tuple[str, int]]:
    """The rows of the first field that lists files: digest, size, in Files section and priority, and name.

    A row that is none is given with an empty name: it counts, or a text full of them would be read to its end.
    """
    text = b"\n" + raw.lower()
    start = next((at + len(field) - 1 for field in _FIELDS if (at := text.find(field)) >= 0), len(raw))
    at = raw.find(b"\n", start) + 1
    while at and raw[at : at + 1] in (b" ", b"\t"):
        end = raw.find(b"\n", at)
        columns = raw[at : end if end >= 0 else len(raw)].split()
        is_row = len(columns) in (3, 5) and columns[1].isdigit() and len(columns[1]) <= 15
        name = os.fsdecode(columns[-1]) if is_row else ""
        yield (name, int(columns[1])) if FILE_NAME.fullmatch(name) else ("", 0)
        at = end + 1
