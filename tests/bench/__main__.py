"""``./run --bench``: uploads per second and the time of each, beside reprepro doing the same in the same run."""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.make import make_key, make_uploads
from tests.bench.peers import Incomingd, Reprepro

console = Console(stderr=True)


def machine() -> str:
    """What the figures were measured on."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "?",
    )
    return f"{os.cpu_count()} cores of {model}, Linux {platform.release()}, Python {platform.python_version()}"


def basic(folder: Path, uploads: int) -> list[dict[str, object]]:
    """Each tool takes the same uploads, one at a time, then as many again all at once."""
    public = make_key(folder / "key")
    console.print(f"making 2 x {uploads} uploads …")
    singles = make_uploads(folder / "singles", folder / "key", [f"single{n:04d}" for n in range(uploads)])
    batch = make_uploads(folder / "batch", folder / "key", [f"batch{n:04d}" for n in range(uploads)])
    rows: list[dict[str, object]] = []
    for tool in (Incomingd(folder / "incomingd", public), Reprepro(folder / "reprepro", folder / "key")):
        with tool:
            console.print(f"{tool.name}: one at a time …")
            times = [tool.one(upload) for upload in singles]
            console.print(f"{tool.name}: all at once …")
            whole, latencies = tool.all_at_once(batch)
            rows.append(
                {
                    "tool": tool.name,
                    "single_median_s": statistics.median(times),
                    "single_max_s": max(times),
                    "batch_per_s": uploads / whole,
                    "batch_s": whole,
                    "batch_median_s": statistics.median(latencies),
                    "memory_mb": tool.memory_mb(),
                }
            )
    return rows


def show(rows: Sequence[dict[str, object]]) -> None:
    """The table, on standard output."""
    table = Table(title=machine())
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()))
    Console().print(table)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="./run --bench", description=__doc__)
    parser.add_argument("--uploads", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="incomingd-bench-", dir="/var/tmp") as folder:
        rows = basic(Path(folder), arguments.uploads)
    if arguments.json:
        json.dump({"machine": machine(), "rows": rows}, sys.stdout, indent=2)
    else:
        show(rows)


if __name__ == "__main__":
    main()
