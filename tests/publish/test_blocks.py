"""Blocks of an index: the same content has the same blocks, however it came about, and a change touches few of them."""

import random
from collections.abc import Generator, Iterator, Mapping
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incomingd.publish import blocks
from incomingd.publish.blocks import Chunk, Recut


class Index:
    """An index as the journal has it: stanzas by name, and the blocks that were cut so far."""

    def __init__(self, stanzas: Mapping[str, bytes]) -> None:
        self.stanzas = dict(stanzas)
        self.blocks = {chunk.first: chunk.raw for chunk in blocks.cut(sorted(self.stanzas.items()))}
        self.read_names = 0

    def _before(self, start: str) -> Iterator[tuple[str, bytes]]:
        for name, stanza in sorted(self.stanzas.items()):
            if name >= start:
                self.read_names += 1
                yield name, stanza

    def change(self, changes: Mapping[str, bytes | None]) -> list[Recut]:
        def read(start: str) -> Generator[tuple[str, bytes], None, None]:
            return blocks.changed(self._before, changes, start)

        recuts = list(blocks.recut(sorted(self.blocks), changes, read))
        for name, stanza in changes.items():
            if stanza is None:
                self.stanzas.pop(name, None)
            else:
                self.stanzas[name] = stanza
        for recut in recuts:
            for first in recut.dropped:
                del self.blocks[first]
            self.blocks |= {chunk.first: chunk.raw for chunk in recut.chunks}
        return recuts

    def assert_whole(self) -> None:
        anew = [Chunk(first=chunk.first, raw=chunk.raw) for chunk in blocks.cut(sorted(self.stanzas.items()))]
        assert [Chunk(first=first, raw=raw) for first, raw in sorted(self.blocks.items())] == anew
        assert b"".join(chunk.raw for chunk in anew) == b"".join(self.stanzas[name] for name in sorted(self.stanzas))


def stanza(name: str, size: int, version: int = 0) -> bytes:
    text = f"Package: {name}\nVersion: {version}\nDescription: ".encode()
    return text + b"x" * max(size - len(text) - 2, 1) + b"\n\n"


def many(count: int, size: int = 700, seed: int = 1) -> dict[str, bytes]:
    dice = random.Random(seed)
    names = [f"{dice.choice(['lib', 'python3-', 'r-', ''])}{dice.randbytes(3).hex()}-{n}" for n in range(count)]
    return {name: stanza(name, dice.randint(size // 2, size * 2)) for name in names}


def test_blocks_are_of_the_size_meant() -> None:
    sizes = [len(chunk.raw) for chunk in blocks.cut(sorted(many(20000).items()))]
    assert all(blocks.MIN <= size < blocks.MAX + 2000 for size in sizes[:-1])
    assert blocks.MIN + blocks.GAP * 0.6 < sum(sizes) / len(sizes) < blocks.MIN + blocks.GAP * 1.4


@pytest.mark.parametrize("size", [120, 700, 5000, 300_000])
def test_long_and_short_stanzas_make_blocks_alike(size: int) -> None:
    stanzas = many(max(3_000_000 // size, 20), size)
    sizes = [len(chunk.raw) for chunk in blocks.cut(sorted(stanzas.items()))]
    assert all(blocks.MIN <= got < blocks.MAX + 2 * size for got in sizes[:-1])


def test_names_are_never_torn() -> None:
    versions = [(name, body) for name, body in sorted(many(2000).items()) for _ in range(3)]
    chunks = list(blocks.cut(versions))
    assert b"".join(chunk.raw for chunk in chunks) == b"".join(body for _, body in versions)
    names = [{line for line in chunk.raw.splitlines() if line.startswith(b"Package:")} for chunk in chunks]
    assert all(not one & other for one, other in pairwise(names))


def test_nothing_has_no_blocks() -> None:
    assert list(blocks.cut([])) == []
    index = Index({})
    assert index.change({}) == []
    assert index.change({"a": None}) == []
    index.change({"hello": b"Package: hello\n\n"})
    index.assert_whole()
    index.change({"hello": None})
    assert index.blocks == {}


def test_a_lone_change_makes_about_one_block() -> None:
    stanzas = many(6000)
    index = Index(stanzas)
    dice, made = random.Random(7), 0
    for name in dice.sample(sorted(stanzas), 60):
        recuts = index.change({name: stanza(name, dice.randint(300, 1500), version=2)})
        made += sum(len(recut.chunks) for recut in recuts)
    index.assert_whole()
    assert made <= 60 * 1.5
    # What is read is what is made, and the one name after it that ends it.
    assert index.read_names / 60 < 600


def test_a_removed_first_name_joins_or_cuts_again() -> None:
    stanzas = many(3000)
    firsts = [chunk.first for chunk in blocks.cut(sorted(stanzas.items()))]
    for first in firsts:
        index = Index(stanzas)
        index.change({first: None})
        index.assert_whole()


def test_a_first_name_that_shrinks_or_grows() -> None:
    stanzas = many(3000)
    firsts = [chunk.first for chunk in blocks.cut(sorted(stanzas.items()))]
    for first in firsts:
        for size in (60, 20_000):
            index = Index(stanzas)
            index.change({first: stanza(first, size)})
            index.assert_whole()


def test_a_whole_block_leaves() -> None:
    stanzas = many(3000)
    chunks = list(blocks.cut(sorted(stanzas.items())))
    for number, chunk in enumerate(chunks):
        end = chunks[number + 1].first if number + 1 < len(chunks) else "~"
        index = Index(stanzas)
        index.change({name: None for name in stanzas if chunk.first <= name < end})
        index.assert_whole()


def test_names_before_the_first_block() -> None:
    index = Index(many(2000))
    index.change({f"0{n:04d}": stanza(f"0{n:04d}", 900) for n in range(700)})
    index.assert_whole()


def test_a_large_load_comes_in_single_blocks() -> None:
    index = Index(many(10))
    recuts = index.change(many(5000, seed=2))
    assert len(recuts) > 20
    assert all(len(recut.chunks) <= 1 for recut in recuts)
    index.assert_whole()


def test_replaced_by_the_same_it_is_the_same() -> None:
    stanzas = many(3000)
    index = Index(stanzas)
    before = dict(index.blocks)
    index.change({name: stanzas[name] for name in list(stanzas)[::100]})
    assert index.blocks == before


def test_any_history_ends_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few stanzas, so that every edge is met often."""
    monkeypatch.setattr(blocks, "MIN", 60)
    monkeypatch.setattr(blocks, "GAP", 50)
    monkeypatch.setattr(blocks, "MAX", 220)
    names = st.text(alphabet="abc.+-1", min_size=1, max_size=3)
    stanzas = st.integers(1, 120).map(lambda size: b"s" * size + b"\n\n")
    history = st.lists(st.dictionaries(names, st.none() | stanzas, max_size=12), max_size=12)

    @settings(max_examples=400, deadline=None)
    @given(st.dictionaries(names, stanzas, max_size=60), history)
    def holds(start: dict[str, bytes], steps: list[dict[str, bytes | None]]) -> None:
        index = Index(start)
        index.assert_whole()
        for step in steps:
            index.change(step)
            index.assert_whole()

    holds()


def test_random_adds_replacements_and_removals() -> None:
    """The usual sizes, over a long time."""
    dice = random.Random(3)
    index = Index(many(1500))
    for step in range(60):
        present = sorted(index.stanzas)
        changes: dict[str, bytes | None] = {}
        for _ in range(dice.choice([1, 1, 1, 5, 60])):
            name = dice.choice(present)
            kind = dice.random()
            if kind < 0.4:
                name = f"{name}{dice.choice('ab-+')}{step}"
            changes[name] = None if kind > 0.8 else stanza(name, dice.choice([80, 500, 900, 4000]), step)
        index.change(changes)
        index.assert_whole()
