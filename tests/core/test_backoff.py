"""What failed is tried again sooner at first, and then once a minute."""

from incomingd.backoff import Backoff


def test_delays_double_up_to_a_minute() -> None:
    backoff = Backoff()
    assert [backoff.failed(1, 0.0) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_each_key_has_its_own_delay_and_success_forgets_it() -> None:
    backoff = Backoff()
    backoff.failed(1, 0.0)
    assert backoff.failed(1, 0.0) == 2
    assert backoff.failed(2, 0.0) == 1
    backoff.forget(1)
    assert backoff.failed(1, 0.0) == 1


def test_what_is_due_is_told_once() -> None:
    backoff = Backoff()
    backoff.failed(1, 10.0)
    assert backoff.next_in(10.25) == 0.75
    assert backoff.due(10.5) == []
    assert backoff.due(11.0) == [1]
    assert backoff.due(12.0) == []
    assert backoff.next_in(12.0) == float("inf")
