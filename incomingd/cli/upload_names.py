"""What people call an upload: by its name, by its directory with a slash behind it, by its .changes, or by #ID."""

from pathlib import Path
from typing import TYPE_CHECKING

from incomingd.model import Upload, plain, printable

if TYPE_CHECKING:
    from incomingd.journal.uploads import Uploads


def upload_name(given: str) -> str:
    """``given`` without the folders that a shell has completed, spelled as the journal and the status files have it."""
    return printable(given if given.startswith("#") else Path(given).name)


def names(given: str) -> tuple[str, ...]:
    """The names that an upload may have that is given so: a directory's name may end as a .changes does."""
    return tuple(dict.fromkeys((given, given.removesuffix(".changes"))))


def number(given: str) -> int | None:
    """The id in ``#ID``; None for all else."""
    return int(given[1:]) if given.startswith("#") and given[1:].isdecimal() else None


def newest(uploads: "Uploads", given: str) -> Upload | None:
    """The newest upload that is given so, as the journal has it."""
    if given.startswith("#"):
        upload_id = number(given)
        found = [] if upload_id is None else uploads.many([upload_id])
    else:
        found = [upload for name in names(given) if (upload := uploads.newest(plain(name)))]
    return max(found, key=lambda upload: upload.id, default=None)
