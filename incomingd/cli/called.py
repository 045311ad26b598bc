"""What people call an upload: by its name, by its directory with a slash behind it, by its .changes, or by #ID."""

from pathlib import Path
from typing import TYPE_CHECKING

from incomingd.model import Upload, plain, printable

if TYPE_CHECKING:
    from incomingd.journal.uploads import Uploads


def upload_name(given: str) -> str:
    """``given`` without the folders that a shell has completed, spelled as the journal and the status files have it."""
    return printable(given if given.startswith("#") else Path(given).name)


def names(called: str) -> tuple[str, ...]:
    """The names that an upload may have that is called so: a directory's name may end as a .changes does."""
    return tuple(dict.fromkeys((called, called.removesuffix(".changes"))))


def number(called: str) -> int | None:
    """The id in ``#ID``; None for all else."""
    return int(called[1:]) if called.startswith("#") and called[1:].isdecimal() else None


def newest(uploads: "Uploads", called: str) -> Upload | None:
    """The newest upload that is called so, as the journal has it."""
    if called.startswith("#"):
        upload_id = number(called)
        found = [] if upload_id is None else uploads.many([upload_id])
    else:
        found = [upload for name in names(called) if (upload := uploads.newest(plain(name)))]
    return max(found, key=lambda upload: upload.id, default=None)
