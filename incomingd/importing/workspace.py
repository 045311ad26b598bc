"""The folder in which one import gathers what it reads, below ``state/imports``, and what stays there.

Rules:

* One import works in it at a time.
* What reads packages writes into the folder of files alone: the database beside it says what is published.
* However reading ends, only what the staging database knows stays, since the same import goes on from there: what a
  broken or interrupted package has left is removed, at the end or, if that was a crash, by the next import. If nothing
  was read well, the folder goes too.
* An import that is not given again for a week is given up: its folder is removed by the next import of any name, unless
  a request waits for it.

What is kept of dates is small: for each repository that was imported, when its Release was made.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from incomingd import fsio
from incomingd.errors import Retry
from incomingd.journal.staging import FILES, NAME, Staging

#: Seconds for which what an import has read is kept for it.
_KEPT = 7 * 86400.0
#: Repositories that are remembered.
_REMEMBERED = 1000


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """The import in ``folder`` is this process's: the same twice at once would read everything twice.

    The folder is made. Raises ``Retry``.
    """
    fsio.make_directories(folder, 0o700)
    with _locked(folder):
        yield


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with fsio.directory(folder) as fd:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Retry("this very import is running already") from error
        yield


@contextlib.contextmanager
def staged(folder: Path) -> Iterator[Staging]:
    """The staging database in ``folder``; at the end nothing but what it knows is there."""
    staging = Staging(folder)
    try:
        _clear(folder, staging)
        try:
            yield staging
        finally:
            if staging.count():
                _clear(folder, staging)
            else:
                fsio.remove_tree(folder)
    finally:
        staging.close()


def _clear(folder: Path, staging: Staging) -> None:
    """Remove all but the database and the files that it knows."""
    known = {f"{FILES}/{name}" for name in staging.files()}
    for path in list(folder.iterdir()):
        if path.name.startswith(NAME):
            continue
        if path.is_dir() and not path.is_symlink():
            _clear_folder(path, path.name, known)
        else:
            fsio.remove(path)


def _clear_folder(folder: Path, name: str, known: set[str]) -> None:
    for path in list(folder.iterdir()):
        inside = f"{name}/{path.name}"
        if path.is_dir() and not path.is_symlink():
            _clear_folder(path, inside, known)
        elif inside not in known:
            fsio.remove(path)
    with contextlib.suppress(OSError):  # not empty
        folder.rmdir()


def remove_given_up(imports: Path, is_asked_for: Callable[[str], bool]) -> None:
    """Remove the folders of imports that were not given again for long. ``is_asked_for``: a request waits for it."""
    with contextlib.suppress(FileNotFoundError):
        for folder in list(imports.iterdir()):
            if _is_given_up(folder) and not is_asked_for(folder.name):
                with contextlib.suppress(Retry, FileNotFoundError), _locked(folder):
                    fsio.remove_tree(folder)


def _is_given_up(folder: Path) -> bool:
    if not folder.name.startswith("import-") or not folder.is_dir():
        return False
    with contextlib.suppress(FileNotFoundError):
        latest = max(path.stat().st_mtime for path in (folder, folder / NAME))
        return time.time() - latest > _KEPT
    return time.time() - folder.stat().st_mtime > _KEPT


# -- dates ------------------------------------------------------------------------------------------------------------


def date_of(file: Path, repository: str) -> datetime | None:
    """When the Release was made of which the newest import of ``repository`` was; None if it is not known."""
    try:
        return datetime.fromisoformat(_dates(file)[repository])
    except (KeyError, ValueError, TypeError):
        return None


def note_date(file: Path, repository: str, date: datetime) -> None:
    """Remember the date of a Release that was imported; an older one than is known is not. Raises ``OSError``."""
    dates = _dates(file)
    known = date_of(file, repository)
    dates.pop(repository, None)
    dates[repository] = max(date, known or date).isoformat()
    kept = dict(list(dates.items())[-_REMEMBERED:])
    fsio.write_durable(file, (json.dumps(kept, indent=1) + os.linesep).encode(), 0o600)


def _dates(file: Path) -> dict[str, str]:
    try:
        found = json.loads(file.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
