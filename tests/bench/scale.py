"""``./run --bench scale``: what one upload, many at once and a load cost, by the number of packages in the suite."""

import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.bench.make import make_key, make_tree, make_uploads
from tests.bench.peers import Aptly, Incomingd, Reprepro

#: Above this the others take minutes for each upload; below it all three are measured.
PEERS_UP_TO = 50_000

Row = dict[str, object]
Tool = Incomingd | Reprepro | Aptly


def scale(folder: Path, sizes: Iterable[int], uploads: int, say: Callable[[str], None], *, peers: bool) -> list[Row]:
    """One row for each tool and size."""
    key_home = folder / "key"
    public = make_key(key_home)
    say(f"making {uploads + 8} uploads")
    singles = make_uploads(folder / "singles", key_home, [f"single{n}" for n in range(8)])
    batch = make_uploads(folder / "batch", key_home, [f"batch{n:04d}" for n in range(uploads)])
    rows: list[Row] = []
    for size in sizes:
        say(f"making {size} packages")
        tree = make_tree(folder / f"tree{size}", size)
        at = folder / f"at{size}"
        tools: list[Callable[[], Tool]] = [lambda at=at: Incomingd(at / "incomingd", public)]
        if peers and size <= PEERS_UP_TO:
            tools.append(lambda at=at: Reprepro(at / "reprepro", key_home))
            tools.append(lambda at=at: Aptly(at / "aptly", key_home))
        rows += [_measure(make(), size, tree, singles, batch, say) for make in tools]
    return rows


def _measure(
    tool: Tool, size: int, tree: Path, singles: list[Path], batch: list[Path], say: Callable[[str], None]
) -> Row:
    row: Row = {"tool": tool.name, "packages": size}
    with tool:
        if size:
            say(f"{tool.name}: loading {size} packages")
            row["load_s"] = tool.load(tree)
        # The others take many seconds for each: three tell enough.
        count = len(singles) if isinstance(tool, Incomingd) or size < 5000 else 3
        say(f"{tool.name}: {count} uploads, one at a time, into {size}")
        written = tool.written_kb() if isinstance(tool, Incomingd) else 0.0
        times = [tool.one(upload) for upload in singles[:count]]
        row |= {"one_median_s": statistics.median(times), "one_max_s": max(times)}
        if isinstance(tool, Incomingd):
            row["written_per_upload_kb"] = (tool.written_kb() - written) / count
        say(f"{tool.name}: {len(batch)} uploads at once into {size}")
        whole, _ = tool.all_at_once(batch)
        row |= {"batch_s": whole, "batch_per_s": len(batch) / whole}
        if isinstance(tool, Incomingd):
            row["memory_mb"] = tool.memory_mb()
            time.sleep(40)  # until idle workers have gone
            row["memory_at_rest_mb"] = tool.memory_mb()
    return row


def plot(rows: list[Row], folder: Path) -> None:
    """Draw the time of one upload by the number of packages, as ``scale.png`` and ``scale.svg``."""
    import matplotlib as mpl  # only who draws needs it

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2))
    for tool in dict.fromkeys(str(row["tool"]) for row in rows):
        own = [row for row in rows if row["tool"] == tool]
        points = sorted((max(int(str(row["packages"])), 100), float(str(row["one_median_s"]))) for row in own)
        axes.plot([x for x, _ in points], [y for _, y in points], marker="o", label=tool)
    axes.set(xscale="log", yscale="log", xlabel="packages in the suite", ylabel="seconds for one upload")
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend()
    figure.tight_layout()
    for ending in ("png", "svg"):
        figure.savefig(folder / f"scale.{ending}", dpi=120)
