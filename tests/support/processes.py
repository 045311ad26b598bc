"""What the kernel counts of a process and all that it has started: wake-ups, memory, bytes read."""

import re
from collections.abc import Iterator
from pathlib import Path


def family(pid: int) -> list[int]:
    """The process and its descendants."""
    found = [pid]
    for thread in _threads(pid):
        try:
            children = (thread / "children").read_text().split()
        except OSError:  # it has just ended
            continue
        for child in children:
            found += family(int(child))
    return found


def _threads(pid: int) -> Iterator[Path]:
    try:
        yield from Path(f"/proc/{pid}/task").iterdir()
    except OSError:
        return


def wake_ups(pid: int) -> int:
    """How often threads of the family went to sleep so far, which is as often as they were woken."""
    return sum(_number(thread / "status", "voluntary_ctxt_switches") for one in family(pid) for thread in _threads(one))


def memory(pid: int) -> int:
    """Bytes of memory of the family; pages that several processes share count once among them (PSS)."""
    return sum(_number(Path(f"/proc/{one}/smaps_rollup"), "Pss") << 10 for one in family(pid))


def bytes_read(pid: int) -> int:
    """Bytes that the family has asked the kernel for with read(2) and the like, from a disk or not."""
    return sum(_number(Path(f"/proc/{one}/io"), "rchar") for one in family(pid))


def _number(file: Path, field: str) -> int:
    try:
        found = re.search(rf"^{field}:\s+(\d+)", file.read_text(), re.MULTILINE)
    except OSError:  # it has just ended
        return 0
    return int(found[1]) if found else 0
