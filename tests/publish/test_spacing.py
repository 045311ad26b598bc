"""Publishes are spaced out so that superseded indexes fit into their space, as long as that can be had."""

from hypothesis import given
from hypothesis import strategies as st

from incomingd.publish.spacing import LONGEST, interval

MB, GB = 1 << 20, 1 << 30


def busy(space: int, size: int, grace: float, hours: float, pace: float) -> tuple[int, float]:
    """Publishes that come every ``pace`` seconds if they may: the most space used, and the longest interval."""
    now, kept = 0.0, list[float]()
    most, longest = 0, 0.0
    while now < hours * 3600:
        kept = [at for at in kept if at + grace > now]
        most = max(most, len(kept) * size)
        wanted = interval(space, [(at + grace - now, size) for at in kept])
        longest = max(longest, wanted)
        now += max(pace, wanted)
        kept.append(now)
    return most, longest


def test_there_is_no_interval_while_there_is_room() -> None:
    assert interval(20 * GB, [(1800.0, 22 * MB)] * 600) == 0.0
    assert interval(20 * GB, []) == 0.0
    assert interval(0, []) == 0.0


def test_a_busy_archive_of_50000_packages_stays_within_its_space_with_small_intervals() -> None:
    most, longest = busy(20 * GB, 22 * MB, grace=1800.0, hours=1.5, pace=1.0)
    assert most <= 20 * GB + 22 * MB
    assert 1.0 < longest < 10.0


def test_if_the_longest_interval_does_not_suffice_more_is_used() -> None:
    most, longest = busy(100 * MB, 22 * MB, grace=1800.0, hours=1.5, pace=1.0)
    assert longest == LONGEST
    assert 100 * MB < most <= 35 * 22 * MB


def test_what_leaves_first_decides() -> None:
    full = [(1.0, MB), (1000.0, MB), (1000.0, MB), (1000.0, MB)]
    assert interval(4 * MB, full) == LONGEST  # one may go in a second, and then none for a long time
    assert interval(4 * MB, [(1.0, MB), (2.0, MB), (3.0, MB), (4.0, MB)]) == 1.0


@given(
    space=st.integers(0, 100),
    leaving=st.lists(st.tuples(st.floats(-10, 4000, allow_nan=False), st.integers(0, 50)), max_size=20),
)
def test_an_interval_is_never_negative_nor_longer_than_the_longest(
    space: int, leaving: list[tuple[float, int]]
) -> None:
    assert 0.0 <= interval(space, sorted(leaving)) <= LONGEST
