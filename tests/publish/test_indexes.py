"""Index files out of blocks that the journal keeps: after any history they are those of an index written whole."""

import gzip
import hashlib
import io
import lzma
import random
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from incomingd.config import PublishConfig
from incomingd.journal import Journal
from incomingd.journal.blocks import Blocks
from incomingd.journal.catalogue import Catalogue, Change, Package, PackageKey
from incomingd.publish import blocks, indexes
from incomingd.publish.indexes import IndexWriter
from incomingd.publish.translations import View

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SUITE, SECTION = "stable", "main/binary-amd64"
FORMS = ("gz", "xz", "zst")
Stanzas = Mapping[str, bytes | None]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few stanzas, so that every edge is met often."""
    for name, value in (("MIN", 300), ("GAP", 300), ("MAX", 1200)):
        monkeypatch.setattr(blocks, name, value)
    monkeypatch.setattr(indexes, "_MARK_EVERY", 2)


class Index:
    """One section with its journal, as a publish leaves it. ``stanzas`` is what it should hold."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stanzas: dict[str, bytes] = {}
        self.generation = 0
        self.start()

    def start(self) -> None:
        """Open the journal, as at the start of a process."""
        self.journal = Journal(self.root / "journal.db")
        self._catalogue, self._blocks = Catalogue(self.journal), Blocks(self.journal)
        self._writer = IndexWriter(PublishConfig(zstd=True), self._blocks)
        self._view = View(self._catalogue, SUITE, {})

    def publish(self, changes: Stanzas, *, anew: bool = False, fails: bool = False) -> None:
        """Write the index with the changes, then commit them, unless it ``fails`` in between."""
        changes = {name: new for name, new in changes.items() if new is not None or name in self.stanzas}
        self.generation += 1
        self.folder = self.root / str(self.generation)
        self.folder.mkdir()
        self.files, run = self._writer.write(SUITE, SECTION, self._view, changes, self.folder, anew=anew)
        if fails:
            self._blocks.sweep()
            return
        with self.journal.writing():
            for name, stanza in changes.items():
                self._change(name, stanza)
            self._blocks.apply(SUITE, [run])
        self._writer.committed(SUITE, run)

    def _change(self, name: str, stanza: bytes | None) -> None:
        key = PackageKey(kind="deb", name=name, version=str(self.generation), architecture="amd64") if stanza else None
        if key and stanza:
            package = Package(
                key=key, source=name, source_version=key.version, component="main", stanza=stanza, paths=()
            )
            self._catalogue.add_packages([package], None, NOW)
            self.stanzas[name] = stanza
        else:
            self.stanzas.pop(name, None)
        change = Change(section=SECTION, name=name, package=key)
        self._catalogue.apply(SUITE, self.generation, [(change, None)], NOW)

    def lose(self, *tables: str) -> None:
        """What somebody did to the journal by hand."""
        with sqlite3.connect(self.root / "journal.db") as db:
            for table in tables:
                db.execute(f"DELETE FROM {table}")

    def file(self, form: str) -> bytes:
        return (self.folder / f"Packages.{form}").read_bytes()

    def assert_as_written_whole(self) -> None:
        raw = b"".join(self.stanzas[name] for name in sorted(self.stanzas))
        assert (self.files[0].size, self.files[0].sha256) == (len(raw), hashlib.sha256(raw).hexdigest())
        assert [file.sha256 for file in self.files[1:]] == [hashlib.sha256(self.file(f)).hexdigest() for f in FORMS]
        for form in FORMS:
            assert unpacked(form, self.file(form)) == raw
        self.improve()
        with index() as whole:
            whole.publish(self.stanzas)
            for form in FORMS:
                assert self.file(form) == whole.file(form), form

    def improve(self) -> None:
        """What a publisher does at leisure, and a publish that changes nothing."""
        while self._writer.improve():
            pass
        self.publish({})

    def assert_tools_agree(self) -> None:
        raw = b"".join(self.stanzas[name] for name in sorted(self.stanzas))
        for form, tool in (("gz", "gzip"), ("xz", "xz"), ("zst", "zstd")):
            if not shutil.which(tool):
                pytest.skip(f"{tool} is not installed")
            file = self.folder / f"Packages.{form}"
            subprocess.run([tool, "-t", file], check=True, capture_output=True)
            assert subprocess.run([tool, "-dc", file], check=True, capture_output=True).stdout == raw
        file = self.folder / "Packages.xz"
        subprocess.run(["xz", "-lv", file], check=True, capture_output=True)
        listed = subprocess.run(["xz", "-lv", "--robot", file], check=True, capture_output=True, text=True).stdout
        totals = next(line.split("\t") for line in listed.splitlines() if line.startswith("file\t"))
        assert totals[1] == "1"  # stream
        assert totals[3:5] == [str(file.stat().st_size), str(len(raw))]


@contextmanager
def index() -> Iterator[Index]:
    with tempfile.TemporaryDirectory(prefix="incomingd-index-") as root:
        made = Index(Path(root))
        try:
            yield made
        finally:
            made.journal.close()


def unpacked(form: str, data: bytes) -> bytes:
    """As Python's own readers have it."""
    if form == "gz":
        return gzip.decompress(data)
    if form == "xz":
        return lzma.decompress(data)
    return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True).read()


def stanza(name: str, size: int, seed: int = 0) -> bytes:
    text = f"Package: {name}\nVersion: {seed}\nDescription: ".encode()
    return text + random.Random(f"{name} {seed}").randbytes(size // 2).hex().encode() + b"\n\n"


def many(count: int) -> dict[str, bytes | None]:
    return {f"package-{number:03d}": stanza(f"package-{number:03d}", 120) for number in range(count)}


NAMES = st.text(alphabet="ab.+-1", min_size=1, max_size=3)
SIZES = st.integers(0, 300)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.dictionaries(NAMES, st.none() | SIZES, max_size=25), min_size=1, max_size=6))
def test_adds_replacements_and_removals(history: list[dict[str, int | None]]) -> None:
    with index() as made:
        for sizes in history:
            made.publish({name: None if size is None else stanza(name, size, size) for name, size in sizes.items()})
            made.assert_as_written_whole()
        made.assert_tools_agree()


@pytest.fixture
def made() -> Iterator[Index]:
    with index() as one:
        one.publish(many(60))
        one.publish({"package-020": None, "package-030": stanza("package-030", 200, 2)})
        yield one


def test_haste_is_made_up_for_at_leisure(made: Index) -> None:
    made.publish({name: stanza(name, 400, 7) for name in made.stanzas})
    hasty = made.file("xz")
    made.assert_tools_agree()
    made.improve()
    assert len(made.file("xz")) < len(hasty)
    assert unpacked("xz", made.file("xz")) == unpacked("xz", hasty)
    made.assert_tools_agree()


def test_a_long_history(made: Index) -> None:
    dice = random.Random(5)
    for step in range(30):
        names = dice.sample(sorted(made.stanzas), 3)
        new = f"{names[2]}-{step}"
        made.publish({names[0]: None, names[1]: stanza(names[1], 150, step), new: stanza(new, 90)})
    made.assert_as_written_whole()
    made.assert_tools_agree()


def test_a_cold_start_goes_on(made: Index) -> None:
    made.journal.close()
    made.start()
    made.publish({"package-040": None})
    made.assert_as_written_whole()


@pytest.mark.parametrize(
    "lost",
    [
        ("block_runs",),
        ("block_forms",),
        ("block_forms", "block_runs", "blocks"),
        ("block_forms WHERE form = 'xz' AND block = 3",),
        ("blocks WHERE id = 2",),
    ],
    ids=", ".join,
)
def test_a_lost_store_is_made_anew(lost: tuple[str, ...], made: Index) -> None:
    made.lose(*lost)
    made.publish({"package-040": None})
    made.assert_as_written_whole()
    made.assert_tools_agree()
    made.publish({"package-041": None})  # and it is of use again
    made.assert_as_written_whole()


def test_a_damaged_block_is_made_anew(made: Index) -> None:
    with made.journal.writing() as db:
        db.execute("UPDATE block_forms SET data = zeroblob(length(data)) WHERE form = 'raw'")
    made.publish({"package-040": None})
    made.assert_as_written_whole()
    made.assert_tools_agree()


def test_after_a_publish_that_failed(made: Index) -> None:
    """Its blocks are swept, and their ids are given to others."""
    made.publish({"package-005": stanza("package-005", 130, 3)}, fails=True)
    made.publish({"package-055": stanza("package-055", 130, 4)})
    made.assert_as_written_whole()
    made.publish({"package-005": stanza("package-005", 130, 5)}, fails=True)
    made.publish({"package-005": stanza("package-005", 130, 6)})
    made.assert_as_written_whole()


def test_another_block_size_is_taken_up_anew(made: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    before = made.file("xz")
    monkeypatch.setattr(blocks, "MIN", 600)
    monkeypatch.setattr(blocks, "MAX", 3000)
    made.publish({}, anew=True)
    assert made.file("xz") != before
    made.assert_as_written_whole()
