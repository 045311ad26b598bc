"""Where ``INCOMINGD_NO_SKIPS`` is set, as on CI, a test that skips is a failure: everything is to be there."""

import os

import pytest

_skipped: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        _skipped.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    # Of xdist's processes only the first one sees all reports.
    if _skipped and os.environ.get("INCOMINGD_NO_SKIPS") and not hasattr(session.config, "workerinput"):
        print(f"\nskipped, and nothing may skip here: {', '.join(_skipped)}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
