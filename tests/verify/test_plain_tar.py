"""Archives that are not compressed: what nobody wants to see is passed over, and what is wrong shows all the same."""

import io
import tarfile
from pathlib import Path

import pytest

from incomingd.verify.archives import tar_stream
from incomingd.verify.streams import ArchiveError

SIZE = 3 << 20


def member(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


END = bytes(1024)
GOOD = member("./one", SIZE) + b"1" * SIZE + member("./two", 5) + b"two..".ljust(512, b"\0") + END


def names(path: Path, **part: int) -> list[str]:
    with tar_stream(path, "", limit=1 << 30, **part) as members:
        return [info.name for info, _ in members]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.tar"


def test_contents_are_passed_over(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(GOOD)
    read: list[int] = []

    class Counting(io.FileIO):
        def readinto(self, buffer: memoryview) -> int | None:  # type: ignore[override]
            count = super().readinto(buffer)
            read.append(count or 0)
            return count

    monkeypatch.setattr(Path, "open", lambda self, _mode: io.BufferedReader(Counting(self), 1 << 13))
    assert names(path) == ["./one", "./two"]
    assert sum(read) < 64 << 10


def test_in_the_middle_of_a_file(path: Path) -> None:
    path.write_bytes(b"before" + GOOD + b"after")
    assert names(path, offset=6, size=len(GOOD)) == ["./one", "./two"]


def test_what_is_wanted_is_read(path: Path) -> None:
    path.write_bytes(GOOD)
    with tar_stream(path, "tar", limit=1 << 30) as members:
        assert [len(content.read()) for _, content in members if content] == [SIZE, 5]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (GOOD[: SIZE // 2], "damaged"),
        (GOOD[: SIZE + 100], "damaged"),
        (GOOD + b"more", "goes on behind its end"),
        (member("./back", -1024) + END, "with the size"),
        (GOOD[:-1024] + member("./back", -SIZE) + END, "with the size"),
        (member("./far", 1 << 62) + END, "damaged|cannot be read"),
        (b"x" * 2000, "damaged header"),
    ],
    ids=["cut in a file", "cut in the last", "more behind", "back", "back by far", "far ahead", "no tar"],
)
def test_what_is_wrong_shows(data: bytes, said: str, path: Path) -> None:
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match=said):
        names(path)


def test_more_than_is_allowed(path: Path) -> None:
    path.write_bytes(GOOD)
    with pytest.raises(ArchiveError, match="more than is allowed"), tar_stream(path, "", limit=SIZE) as members:
        list(members)
