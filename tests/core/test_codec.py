"""Values as JSON and back; what does not fit is refused, since a worker's answer is not trusted."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from incomingd import codec
from incomingd.model import LogLine, Operation, OperationKind, Problem, Published, Seal, SuiteResult


def test_values_come_back_as_they_were() -> None:
    published = Published(
        suites={"stable": SuiteResult(generation=3, inrelease_sha256="ab" * 32)}, files=("pool/main/h/hello/x.deb",)
    )
    assert codec.loads(codec.dumps(published), Published) == published


def test_times_are_told_in_utc_with_milliseconds() -> None:
    at = datetime(2026, 1, 2, 4, 4, 5, 678_901, tzinfo=timezone(timedelta(hours=1)))
    assert codec.timestamp(at) == "2026-01-02T03:04:05.678Z"
    assert datetime.fromisoformat(codec.timestamp(at)) == datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("{", Problem),
        ("[]", Problem),
        ('{"code": 1, "message": "m", "file": null}', Problem),
        ('{"code": "c"}', Problem),
        ('{"files": [{"name": "x"}], "problems": []}', Seal),
        ('{"files": {}, "problems": 3}', Seal),
    ],
)
def test_what_does_not_fit_is_refused(text: str, kind: type) -> None:
    with pytest.raises(codec.CodecError):
        codec.loads(text, kind)


def test_a_word_of_an_enumeration_comes_back_as_its_member() -> None:
    operation = Operation(kind=OperationKind.COPY, suite="stable", source="hello", from_suite="testing")
    again = codec.loads(codec.dumps(operation), Operation)
    assert again == operation
    assert again.kind is OperationKind.COPY


def test_half_of_a_surrogate_pair_is_no_text() -> None:
    with pytest.raises(codec.CodecError):
        codec.loads('{"code": "x", "message": "\\ud800"}', Problem)


@pytest.mark.parametrize("at", ["2026-01-02T03:04:05", "0001-01-01T00:00:00+23:59"])
def test_a_time_has_a_zone_and_can_be_written_in_utc(at: str) -> None:
    with pytest.raises(codec.CodecError):
        codec.loads(f'{{"at": "{at}", "message": "x"}}', LogLine)
