"""What one upload costs: the time by part, and what it makes the machine do."""

import json
import shutil
import signal
import statistics
import subprocess
import time
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.bench.peers import Incomingd, descendants

Row = dict[str, object]
_SYNCS = ("fsync", "fdatasync", "syncfs")


def parts_of_one(tool: Incomingd, timed: Sequence[Path], traced: Sequence[Path]) -> list[Row]:
    """A row for each part, from two sets of uploads that go in one at a time; the second one is traced."""
    written = tool.written_kb()
    times = [_times(tool, upload) for upload in timed]
    written = (tool.written_kb() - written) / len(timed)
    rows = [
        {"part": part, "value": f"{statistics.median(one[part] for one in times) * 1000:.1f} ms", "what": what}
        for part, what in (
            ("noticed", "from the rename into incoming to the claim"),
            ("checked", "copied, hashed, read by gpgv and the checks"),
            ("published", "pool, indexes, two signatures"),
            ("told", "commit, switch, status file, and a script that polls it"),
        )
    ]
    rows.append({"part": "written", "value": f"{written:.0f} kB", "what": "by the daemon and its workers, all files"})
    return rows + _traced(tool, traced)


def _times(tool: Incomingd, upload: Path) -> dict[str, float]:
    tool.drop(upload)
    dropped = time.time()
    tool.take(upload)
    ended = time.time()
    status = json.loads((tool.folder / "status" / f"{upload.name}.json").read_bytes())
    checked = next(line["at"] for line in status["log"] if line["message"].startswith("checked"))
    moments = [dropped, *(_seconds(at) for at in (status["claimed_at"], checked, status["finished_at"])), ended]
    names = ("noticed", "checked", "published", "told")
    return dict(zip(names, (after - before for before, after in pairwise(moments)), strict=True))


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()


def _traced(tool: Incomingd, uploads: Sequence[Path]) -> list[Row]:
    """Processes started and waits for the disk, as strace counts them; nothing where there is no strace."""
    if not shutil.which("strace"):
        return []
    counts = tool.folder / "strace.txt"
    pids = [word for pid in (tool.daemon.pid, *descendants(tool.daemon.pid)) for word in ("-p", str(pid))]
    tracer = subprocess.Popen(
        ["strace", "-f", "-c", "-e", f"trace=execve,{','.join(_SYNCS)}", "-o", counts, *pids],
        stderr=subprocess.PIPE,
    )
    assert tracer.stderr is not None
    tracer.stderr.readline()  # it says that it is attached
    for upload in uploads:
        tool.one(upload)
    tracer.send_signal(signal.SIGINT)
    tracer.communicate()
    calls = _counts(counts.read_text())
    return [
        {"part": "processes", "value": f"{calls.get('execve', 0) / len(uploads):.1f}", "what": "started: gpgv and gpg"},
        {
            "part": "syncs",
            "value": f"{sum(calls.get(name, 0) for name in _SYNCS) / len(uploads):.1f}",
            "what": "waits until something is on the disk",
        },
    ]


def _counts(text: str) -> dict[str, Any]:
    """Calls that succeeded, by name, of ``strace -c``: time, seconds, each, calls, errors or nothing, name."""
    found = {}
    for words in map(str.split, text.splitlines()):
        if len(words) >= 5 and words[3].isdigit():
            found[words[-1]] = int(words[3]) - (int(words[4]) if len(words) == 6 else 0)
    return found
