"""What the archive itself says of a section and a priority counts, whatever the .changes says."""

import os
from pathlib import Path

import pytest

from incomingd.errors import Retry
from incomingd.model import CheckReport
from tests.verify.builders import Bench, Upload, codes, put, told

SUITE = {"components": ["main", "contrib"], "architectures": ["amd64"]}
TEXT = """
# package  priority  section
hello      important net       Ada Lovelace <ada@example.org>   # in haste
other      extra     oldlibs
"""


def check(
    bench: Bench, tmp_path: Path, text: str = TEXT, *, source: str = "hello doc\n", **upload: object
) -> CheckReport:
    (tmp_path / "overrides").write_text(text)
    (tmp_path / "source-overrides").write_text(source)
    suite = SUITE | {"overrides": "overrides", "source_overrides": "source-overrides"}
    return bench.check(Upload(settings={"suites.stable": suite}, **upload))  # type: ignore[arg-type]  # by name


def places(report: CheckReport) -> list[tuple[str, str, str]]:
    """Of the binary and the source: component, section and priority."""
    assert not report.problems, "\n".join(told(report))
    (changes,) = report.changes
    return [(one.component, one.section, one.priority) for one in (*changes.binaries, *changes.sources)]


def test_a_package_gets_what_the_archive_says_of_it(bench: Bench, tmp_path: Path) -> None:
    assert places(check(bench, tmp_path)) == [("main", "net", "important"), ("main", "doc", "optional")]


def test_what_no_file_names_keeps_what_its_changes_says(bench: Bench, tmp_path: Path) -> None:
    assert places(check(bench, tmp_path, "", source="")) == [("main", "devel", "optional")] * 2


def test_a_section_may_name_the_component(bench: Bench, tmp_path: Path) -> None:
    report = check(bench, tmp_path, "hello optional contrib/net\n", source="hello contrib/net\n")
    assert places(report) == [("contrib", "contrib/net", "optional")] * 2
    # And one out of the component that the uploader names, which need not be there.
    report = check(bench, tmp_path, "hello optional net\n", source="hello net\n", section="non-free/net")
    assert places(report) == [("main", "net", "optional")] * 2


def test_a_component_that_the_suite_lacks(bench: Bench, tmp_path: Path) -> None:
    report = check(bench, tmp_path, "hello optional non-free/net\n")
    assert codes(report.problems) == ["unknown-component"]
    assert [problem.file for problem in report.problems] == ["hello_1.0-1_amd64.deb"]


def test_the_first_suite_that_names_a_package_counts(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("other optional net\n")
    (tmp_path / "two").write_text("hello standard web\n")
    (tmp_path / "three").write_text("hello extra doc\n")
    suites = {f"suites.{name}": SUITE | {"overrides": name} for name in ("one", "two", "three")}
    report = bench.check(Upload(sourceful=False, settings=suites, changes=put("Distribution", "one two three")))
    assert places(report) == [("main", "web", "standard")]


def test_a_file_is_read_anew_when_it_changes(bench: Bench, tmp_path: Path) -> None:
    assert places(check(bench, tmp_path, sourceful=False)) == [("main", "net", "important")]
    assert places(check(bench, tmp_path, "hello required web\n", sourceful=False)) == [("main", "web", "required")]


@pytest.mark.parametrize(
    "line", ["hello net important", "hello important", "hello", "Hello optional net", "hello optional ../net"]
)
def test_a_line_that_is_none_is_the_operators_to_mend(bench: Bench, tmp_path: Path, line: str) -> None:
    with pytest.raises(Retry, match=r"overrides has in line 2 .*; a line is: package priority section"):
        check(bench, tmp_path, f"\n{line}\n")


def test_a_file_that_is_not_there_is_the_operators_to_mend(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(Retry, match=r"override file .*nowhere cannot be read"):
        bench.check(Upload(settings={"suites.stable": SUITE | {"overrides": os.fspath(tmp_path / "nowhere")}}))
