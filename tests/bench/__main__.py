"""``./run --bench``: uploads per second and the time of each, beside reprepro and aptly in the same run."""

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.checks import checks_of_one
from tests.bench.make import make_key, make_uploads
from tests.bench.parts import Row, parts_of_one
from tests.bench.peers import Aptly, Incomingd, Reprepro
from tests.bench.scale import plot, scale

console = Console(stderr=True)
#: Uploads whose parts are looked at one by one.
_PARTS = 20
#: Keys of a row and their headings.
_HEADINGS = {
    "tool": "",
    "single_median_s": "one at a time:\nmedian s",
    "single_max_s": "\nlongest s",
    "batch_per_s": "all at once:\nper second",
    "batch_median_s": "\nmedian s",
    "batch_s": "\nall s",
    "memory_mb": "memory\nMB",
}
_SCALE_HEADINGS = {
    "tool": "",
    "packages": "packages",
    "load_s": "loading s",
    "one_median_s": "one: median s",
    "one_max_s": "longest s",
    "batch_per_s": "at once: median per second",
    "batch_least": "least",
    "batch_most": "most",
    "memory_mb": "memory, most MB",
    "memory_at_rest_mb": "at rest MB",
    "written_per_upload_kb": "written for one kB",
}


def machine() -> str:
    """What the figures were measured on."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "?",
    )
    return f"{os.cpu_count()} cores of {model}, Linux {platform.release()}, Python {platform.python_version()}"


def basic(folder: Path, uploads: int) -> tuple[list[Row], dict[str, list[Row]]]:
    """Each tool takes the same uploads, one at a time, then as many again all at once; and the parts of one of ours."""
    public = make_key(folder / "key")
    console.print(f"making {2 * (uploads + _PARTS)} uploads …")

    def make(kind: str, count: int) -> list[Path]:
        return make_uploads(folder / kind, folder / "key", [f"{kind}{n:04d}" for n in range(count)])

    singles, batch, timed, traced = (
        make(k, n) for k, n in (("single", uploads), ("batch", uploads), ("timed", _PARTS), ("traced", _PARTS))
    )
    rows = []
    ours = Incomingd(folder / "incomingd", public)
    with ours:
        rows.append(_measure(ours, singles, batch))
        console.print("incomingd: the parts of one upload …")
        parts = {"One upload of ours, median": parts_of_one(ours, timed, traced)}
        parts["Its checks, mean"] = checks_of_one(ours.folder / "incomingd.toml", singles[0], folder)
    rows.append(_measure(Reprepro(folder / "reprepro", folder / "key"), singles, batch))
    if shutil.which("aptly"):
        rows.append(_measure(Aptly(folder / "aptly", folder / "key"), singles, batch))
    return rows, parts


def _measure(tool: Incomingd | Reprepro | Aptly, singles: Sequence[Path], batch: list[Path]) -> Row:
    console.print(f"{tool.name}: one at a time …")
    times = [tool.one(upload) for upload in singles]
    console.print(f"{tool.name}: all at once …")
    whole, latencies = tool.all_at_once(batch)
    return {
        "tool": tool.name,
        "single_median_s": statistics.median(times),
        "single_max_s": max(times),
        "batch_per_s": len(batch) / whole,
        "batch_s": whole,
        "batch_median_s": statistics.median(latencies),
        "memory_mb": tool.memory_mb(),
    }


def show(title: str, rows: Sequence[Row], headings: Mapping[str, str]) -> None:
    """One table, on standard output."""
    table = Table(title=title)
    for heading in headings.values():
        table.add_column(heading, justify="right" if heading and heading != "what it is" else "left")
    for row in rows:
        table.add_row(*(_cell(row.get(key, "")) for key in headings))
    Console(width=112).print(table)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.3f}" if value < 10 else f"{value:.1f}"
    return str(value)


def _as_json(uploads: int, rows: list[Row], parts: dict[str, list[Row]]) -> str:
    return json.dumps({"machine": machine(), "uploads": uploads, "rows": rows, "parts": parts}, indent=2) + "\n"


def _write_json(file: str | None, uploads: int, rows: list[Row], parts: dict[str, list[Row]]) -> None:
    if file and file != "-":
        Path(file).write_text(_as_json(uploads, rows, parts))


def _draw(rows: list[Row], folder: Path | None) -> None:
    """By default where the documentation is; without matplotlib (the extra ``bench``) that is said, and no more."""
    folder = folder or Path(__file__).parents[2] / "docs"
    try:
        made = plot(rows, folder)
    except ImportError:
        console.print("not drawn: matplotlib is not installed (pip install -e '.[bench]')")
    else:
        console.print(f"drawn: {', '.join(map(str, made))}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="./run --bench", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("basic", "scale"), default="basic")
    parser.add_argument("--uploads", type=int, help="100; for scale 300")
    parser.add_argument("--packages", default="0,1000,10000,50000,200000", help="for scale: sizes of the suite")
    parser.add_argument("--peers", default="0,1000,10000,50000", help="for scale: sizes at which the others run too")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="for scale: where scale.png and scale.svg go (docs)")
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="write JSON, to standard output by default"
    )
    arguments = parser.parse_args()
    # On a real disk: that is where the waiting is.
    with tempfile.TemporaryDirectory(prefix="incomingd-bench-", dir="/var/tmp") as folder:
        if arguments.what == "scale":
            sizes = [int(size) for size in arguments.packages.split(",")]
            uploads, parts = arguments.uploads or 300, {}
            peers = {int(size) for size in arguments.peers.split(",") if size}
            rows, headings = [], _SCALE_HEADINGS
            for row in scale(Path(folder), sizes, peers, uploads, console.print):
                rows.append(row)
                _write_json(arguments.json, uploads, rows, parts)  # a long run that is cut off has told what it knows
        else:
            uploads, headings = arguments.uploads or 100, _HEADINGS
            rows, parts = basic(Path(folder), uploads)
            _write_json(arguments.json, uploads, rows, parts)
    if arguments.what == "scale":
        _draw(rows, arguments.plot)
    if arguments.json == "-":
        sys.stdout.write(_as_json(uploads, rows, parts))
        return
    show(f"{uploads} uploads on {machine()}", rows, headings)
    for title, part_rows in parts.items():
        show(title, part_rows, {"part": "", "value": "", "what": "what it is"})


if __name__ == "__main__":
    main()
