"""Whose the name of an upload is: the account whose uploads ``status/NAME.json`` tells of.

Rules:

* A name belongs to the account of its newest upload until one day after that upload has ended. Until then an upload of
  that name by another account is *nameless*: it fails, and is reported by its id only.
* The account's own next upload takes the name over, in whatever queue and of whatever kind it is.
* A directory that only the operator can have made (:class:`~incomingd.model.Owner`) is never nameless, and the name
  stays with its account: ``incomingctl retry`` sends an account's upload in again.
* A request of the operator belongs to root. If its name is another account's, it is done all the same, nameless.
* Uploads of before owners were kept hold no name: any account may use it.
"""

import sqlite3
from dataclasses import dataclass
from datetime import datetime

from incomingd import codec
from incomingd.model import NAME_KEPT, Owner

#: Requests are root's.
OPERATOR = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NameRight:
    """``holder`` is the user id whose the name is from now on, None if that is not known; ``nameless``: another's."""

    holder: int | None
    nameless: bool = False


def right_of(db: sqlite3.Connection, name: str, owner: Owner, at: datetime) -> NameRight:
    """What an upload of ``owner`` that is seen at this moment has of its name."""
    holder = _holder(db, name, at)
    if holder is None or holder == owner.uid:
        return NameRight(holder=owner.uid)
    return NameRight(holder=holder) if owner.operator else NameRight(holder=None, nameless=True)


def right_of_request(db: sqlite3.Connection, name: str, at: datetime) -> NameRight:
    """The same for a request of the operator."""
    return NameRight(holder=OPERATOR, nameless=_holder(db, name, at) not in (None, OPERATOR))


def _holder(db: sqlite3.Connection, name: str, at: datetime) -> int | None:
    # One row, by an index that has no nameless uploads: no account can make this long for another.
    row = db.execute(
        "SELECT holder, finished_at FROM uploads WHERE name = ? AND nameless = 0 ORDER BY id DESC LIMIT 1", (name,)
    ).fetchone()
    if row is None or row["holder"] is None:
        return None
    is_kept = row["finished_at"] is None or row["finished_at"] > codec.timestamp(at - NAME_KEPT)
    return int(row["holder"]) if is_kept else None
