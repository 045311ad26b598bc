import pytest

from tests.verify.builders import Bench, Upload, codes, told

SOUND = {
    "binary and source": Upload(),
    "only signed .dsc": Upload(dsc_by="ada"),
}


@pytest.mark.parametrize("upload", SOUND.values(), ids=SOUND)
def test_what_is_right_is_accepted(bench: Bench, upload: Upload) -> None:
    report = bench.check(upload)
    assert codes((*report.problems, *report.warnings)) == [], "\n".join(told(report))
