"""Index blocks: each section's stanzas in sorted runs of some 56 KiB, raw and compressed.

Rules: a block's bytes are stored before the generation that uses them is committed, and belong to nobody until then;
the commit puts their ids into the section's run. What no run holds is litter and is swept at start-up. A block covers
the names from its ``first`` up to the next block's; the first block of a run covers all before it too. Everything here
can be made anew from the catalogue.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from incomingd.journal import Journal


class LostBlockError(Exception):
    """A block of a run is not stored, or not in the wanted form: the run has to be made anew from the catalogue."""


@dataclass(frozen=True, slots=True)
class Block:
    """One stored block. ``size`` is that of its raw bytes."""

    id: int
    first: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionBlocks:
    """How a publish changes one section's run."""

    section: str
    removed: tuple[int, ...]
    added: tuple[Block, ...]


class Blocks:
    """The block store of one journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def run(self, suite: str, section: str) -> list[Block]:
        """The section's blocks in order; one whose row is lost has the size -1."""
        with self._journal.reading() as db:
            rows = db.execute(
                "SELECT r.block, r.first, ifnull(b.size, -1) AS size FROM block_runs r"
                " LEFT JOIN blocks b ON b.id = r.block WHERE r.suite = ? AND r.section = ? ORDER BY r.first",
                (suite, section),
            ).fetchall()
        return [Block(row["block"], row["first"], row["size"]) for row in rows]

    def has_all(self, suite: str, section: str, forms: Collection[str]) -> bool:
        """True where every block of the section's run is stored in every form."""
        marks = ", ".join("?" * len(forms))
        with self._journal.reading() as db:
            runs, blocks, stored = db.execute(
                "SELECT count(*), count(b.id), total((SELECT count(*) FROM block_forms f"  # noqa: S608  # own words
                f" WHERE f.block = r.block AND f.form IN ({marks}))) FROM block_runs r"
                " LEFT JOIN blocks b ON b.id = r.block WHERE r.suite = ? AND r.section = ?",
                (*forms, suite, section),
            ).fetchone()
        return bool(runs == blocks and stored == runs * len(forms))

    def store(
        self, blocks: Iterable[tuple[str, int, Mapping[str, tuple[bytes, int]]]], *, quick: bool = False
    ) -> list[Block]:
        """Store new blocks, each a first name, a raw size, and by form its bytes and (for xz) its unpadded size.

        ``quick`` says that they were compressed in haste: :meth:`quick` gives them again.
        """
        stored = []
        with self._journal.writing(durable=False) as db:  # the commit that puts them into a run is
            for first, size, forms in blocks:
                row = db.execute("INSERT INTO blocks (size, quick) VALUES (?, ?)", (size, int(quick)))
                block_id = int(row.lastrowid or 0)
                db.executemany(
                    "INSERT INTO block_forms (block, form, unpadded, data) VALUES (?, ?, ?, ?)",
                    ((block_id, form, unpadded, data) for form, (data, unpadded) in forms.items()),
                )
                stored.append(Block(block_id, first, size))
        return stored

    def data(self, blocks: Sequence[Block], form: str) -> Iterator[tuple[bytes, int]]:
        """Each block's bytes in one form, with the unpadded size. Raises :class:`LostBlockError`."""
        # One statement for all of them: of 1,100 blocks as .xz it takes 11 ms, where one for each takes 28 ms.
        question = (
            "SELECT j.value AS block, f.data, f.unpadded FROM json_each(?) j"
            " LEFT JOIN block_forms f ON f.block = j.value AND f.form = ?"
        )
        wanted = (json.dumps([block.id for block in blocks]), form)
        # Closed whatever happens: an open question would show its thread the past for as long as somebody holds it.
        with self._journal.reading() as db, closing(db.execute(question, wanted)) as rows:
            for block, row in zip(blocks, rows, strict=True):
                if row["block"] != block.id or row["data"] is None:
                    raise LostBlockError(f"index block {block.id} is not stored as {form}")
                yield row["data"], row["unpadded"]

    def apply(self, suite: str, changes: Iterable[SectionBlocks]) -> None:
        """Put new blocks into their runs and drop those that they replace; in the transaction of the commit."""
        with self._journal.writing() as db:
            for change in changes:
                for block_id in change.removed:
                    db.execute("DELETE FROM block_runs WHERE block = ?", (block_id,))
                    db.execute("DELETE FROM block_forms WHERE block = ?", (block_id,))
                    db.execute("DELETE FROM blocks WHERE id = ?", (block_id,))
                db.executemany(
                    "INSERT INTO block_runs (suite, section, first, block) VALUES (?, ?, ?, ?)",
                    ((suite, change.section, block.first, block.id) for block in change.added),
                )

    def quick(self, limit: int) -> list[tuple[int, bytes]]:
        """Some blocks that were compressed in haste: ids and raw bytes."""
        with self._journal.reading() as db:
            rows = db.execute(
                "SELECT b.id, f.data FROM blocks b JOIN block_forms f ON f.block = b.id AND f.form = 'raw'"
                " WHERE b.quick ORDER BY b.id LIMIT ?",
                (limit,),
            ).fetchall()
        return [(row["id"], row["data"]) for row in rows]

    def improve(self, better: Iterable[tuple[int, Mapping[str, tuple[bytes, int]]]]) -> None:
        """Give blocks of :meth:`quick` other compressed forms, as in :meth:`store`. The next publish uses them."""
        with self._journal.writing(durable=False) as db:
            for block_id, forms in better:
                db.executemany(
                    "UPDATE block_forms SET data = ?, unpadded = ? WHERE block = ? AND form = ?",
                    ((data, unpadded, block_id, form) for form, (data, unpadded) in forms.items()),
                )
                db.execute("UPDATE blocks SET quick = 0 WHERE id = ?", (block_id,))

    def sweep(self) -> None:
        """Drop what an interrupted publish stored and no run holds."""
        with self._journal.writing() as db:
            litter = "NOT IN (SELECT block FROM block_runs)"
            db.execute(f"DELETE FROM block_forms WHERE block {litter}")  # noqa: S608  # own words
            db.execute(f"DELETE FROM blocks WHERE id {litter}")  # noqa: S608  # own words
