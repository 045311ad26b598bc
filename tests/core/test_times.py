"""Times as people tell them, by a clock that is given."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from incomingd.cli.terminal import distance, when

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SPANS = {
    "0.4s": (timedelta(seconds=0.4), "now", "now"),
    "1s": (timedelta(seconds=1), "1 s ago", "in 1 s"),
    "59.4s": (timedelta(seconds=59.4), "59 s ago", "in 59 s"),
    "59.6s": (timedelta(seconds=59.6), "1 min ago", "in 1 min"),
    "2min": (timedelta(minutes=2, seconds=10), "2 min ago", "in 2 min"),
    "59min50": (timedelta(minutes=59, seconds=50), "1 h ago", "in 1 h"),
    "almost 3h": (timedelta(hours=2, minutes=59, seconds=59), "3 h ago", "in 3 h"),
    "23.9h": (timedelta(hours=23.9), "1 day ago", "in 1 day"),
    "almost 3 days": (timedelta(days=3) - timedelta(seconds=2), "3 days ago", "in 3 days"),
    "30 days": (timedelta(days=30), "30 days ago", "in 30 days"),
    "31 days": (timedelta(days=31), "2026-01-29", "2026-04-01"),
}


@pytest.mark.parametrize(("span", "past", "future"), SPANS.values(), ids=SPANS)
def test_distance(span: timedelta, past: str, future: str) -> None:
    assert distance(NOW - span, NOW) == past
    assert distance(NOW + span, NOW) == future


def test_the_zone_does_not_matter() -> None:
    there = NOW.astimezone(timezone(timedelta(hours=9)))
    assert distance(there - timedelta(minutes=2), NOW) == "2 min ago"


@pytest.mark.parametrize("at", ["2026-01-02T03:04:05.678Z", "2026-01-02 03:04:05", "no time"])
def test_in_a_pipe_times_stay(at: str) -> None:
    assert when(at) == at
    assert when(at, err=True) == at
