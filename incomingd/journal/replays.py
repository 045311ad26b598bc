"""Which .changes were published: one that was is not published again after what it brought was superseded or removed.

Rules: a .changes is known by its identity: signer, time of the signature, signed text (:class:`CheckedChanges`). Of
those that were published before identities were kept, the journal has the digest of the file alone. Such a one is known
by that; and, since one more newline makes another digest, also by its name and its signer, if its signature was there
when the one of that name was published.
"""

import sqlite3
from datetime import datetime, timedelta

from incomingd import codec
from incomingd.model import ChangesSummary, CheckedChanges

#: So far ahead may the clock of the machine that signs be.
_AHEAD = timedelta(hours=24)


def was_published(db: sqlite3.Connection, changes: CheckedChanges) -> bool:
    """True if this .changes was published once, by whatever bytes around its text."""
    known = (changes.identity, changes.file.digests.sha256)
    if db.execute("SELECT 1 FROM published_changes WHERE identity = ? OR sha256 = ?", known).fetchone():
        return True
    rows = db.execute(
        "SELECT u.changes, u.finished_at FROM published_changes c JOIN uploads u ON u.id = c.upload"
        " WHERE c.identity IS NULL AND c.file = ?",
        (changes.file.name,),
    ).fetchall()
    return any(_is_older(changes, row) for row in rows)


def _is_older(changes: CheckedChanges, row: sqlite3.Row) -> bool:
    """True if it may be the one that was published, as far as is known of that."""
    if changes.made_at is None or changes.made_at > datetime.fromisoformat(row["finished_at"]) + _AHEAD:
        return False
    return any(
        one.file == changes.file.name and one.signed_by == changes.signed_by
        for one in codec.loads(row["changes"], tuple[ChangesSummary, ...])
    )


def note_published(db: sqlite3.Connection, changes: CheckedChanges, upload: int) -> None:
    """Note a .changes that was published; one of which the digest alone was known gets its identity."""
    db.execute(
        "INSERT INTO published_changes (sha256, upload, file, identity) VALUES (?, ?, ?, ?)"
        # Its identity may be known from other bytes by now.
        " ON CONFLICT (sha256) DO UPDATE SET identity = excluded.identity WHERE identity IS NULL"
        " AND NOT EXISTS (SELECT 1 FROM published_changes other WHERE other.identity = excluded.identity)"
        " ON CONFLICT DO NOTHING",
        (changes.file.digests.sha256, upload, changes.file.name, changes.identity),
    )
