"""``./run --bench scale``: what one upload, many at once and a load cost, by the number of packages in the suite."""

import os
import shutil
import statistics
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.bench.make import make_key, make_tree, make_uploads, spread_name
from tests.bench.peers import Aptly, Incomingd, Reprepro

#: Uploads that are timed one by one; the others take many seconds for each where there are many packages.
_SINGLES, _SINGLES_OF_PEERS = 20, 3
#: Times that all come at once; the machine's neighbours make one of them slow.
_BATCHES, _BATCHES_OF_PEERS = 3, 1
#: Seconds after a batch in which the daemon tidies up.
_TIDYING = 5.0
#: Seconds after which the daemon has let go of what it does not need at rest.
_REST = 40.0

Row = dict[str, object]
Tool = Incomingd | Reprepro | Aptly


def scale(
    folder: Path, sizes: Iterable[int], peers_at: Collection[int], uploads: int, say: Callable[[str], None]
) -> Iterator[Row]:
    """One row for each tool and size, as they are measured; the others at the sizes in ``peers_at``."""
    key_home = folder / "key"
    public = make_key(key_home)
    say(f"making {uploads * _BATCHES + _SINGLES} uploads")
    # Spread over the whole index, as the packages of the tree are: its end is cheaper to change than its beginning.
    singles = make_uploads(folder / "singles", key_home, [spread_name(n, "single") for n in range(_SINGLES)])
    batches = [
        make_uploads(folder / f"batch{b}", key_home, [spread_name(n, f"batch{b}-") for n in range(uploads)])
        for b in range(_BATCHES)
    ]
    for size in sizes:
        say(f"making {size} packages")
        tree, at = make_tree(folder / f"tree{size}", size), folder / f"at{size}"
        tools: list[Callable[[], Tool]] = [lambda at=at: Incomingd(at / "incomingd", public)]
        if size in peers_at:
            tools.append(lambda at=at: Reprepro(at / "reprepro", key_home))
            tools.append(lambda at=at: Reprepro(at / "reprepro-gz", key_home, xz=False))
            if shutil.which("aptly"):
                tools.append(lambda at=at: Aptly(at / "aptly", key_home))
        for make in tools:
            row = _measure(make(), size, tree, singles, batches, say)
            say(", ".join(f"{key} {value}" for key, value in row.items()))
            yield row
        for done in (tree, at):
            shutil.rmtree(done, ignore_errors=True)


def _measure(
    tool: Tool, size: int, tree: Path, singles: list[Path], batches: list[list[Path]], say: Callable[[str], None]
) -> Row:
    row: Row = {"tool": tool.name, "packages": size}
    with tool, _Peak(tool) as peak:
        if size:
            say(f"{tool.name}: loading {size} packages")
            row["load_s"] = tool.load(tree)
        few = not isinstance(tool, Incomingd) and size >= 5000
        some = singles[: _SINGLES_OF_PEERS if few else _SINGLES]
        say(f"{tool.name}: {len(some)} uploads, one at a time, into {size}")
        written = tool.written_kb() if isinstance(tool, Incomingd) else 0.0
        times = [tool.one(upload) for upload in some]
        row |= {"one_median_s": statistics.median(times), "one_max_s": max(times)}
        if isinstance(tool, Incomingd):
            row["written_per_upload_kb"] = (tool.written_kb() - written) / len(some)
        rates = _rates(tool, size, batches if isinstance(tool, Incomingd) else batches[:_BATCHES_OF_PEERS], say)
        row |= {"batch_per_s": statistics.median(rates), "batch_least": min(rates), "batch_most": max(rates)}
        row["load_average"] = os.getloadavg()[0]
        if isinstance(tool, Incomingd):
            time.sleep(_REST)
            row |= {"memory_mb": peak.memory_mb, "memory_at_rest_mb": tool.memory_mb()}
    return row


def _rates(tool: Tool, size: int, batches: list[list[Path]], say: Callable[[str], None]) -> list[float]:
    """Uploads a second, where all of a batch come at once."""
    rates = []
    for batch in batches:
        say(f"{tool.name}: {len(batch)} uploads at once into {size}")
        whole, _ = tool.all_at_once(batch)
        rates.append(len(batch) / whole)
        if len(batches) > 1:
            time.sleep(_TIDYING)
    return rates


class _Peak:
    """The most memory that a tool has had, as far as a look twice a second shows it."""

    def __init__(self, tool: Tool) -> None:
        self.memory_mb = 0.0
        self._tool = tool
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        if isinstance(self._tool, Incomingd):
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.5):
            self.memory_mb = max(self.memory_mb, self._tool.memory_mb())


def plot(rows: list[Row], folder: Path) -> list[Path]:
    """Draw the time of one upload, and uploads in a second, by the number of packages: ``scale.png``, ``scale.svg``."""
    import matplotlib as mpl  # only who draws needs it

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "incomingd"  # the same figures give the same file
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(11, 4.2))
    for axes, key, label in zip(
        panels,
        ("one_median_s", "batch_per_s"),
        ("seconds for one upload", "uploads a second, all at once"),
        strict=True,
    ):
        for tool in dict.fromkeys(str(row["tool"]) for row in rows):
            own = [row for row in rows if row["tool"] == tool]
            # A logarithm of nothing is none: the empty suite stands at a hundred.
            points = sorted((max(int(str(row["packages"])), 100), float(str(row[key]))) for row in own)
            axes.plot([x for x, _ in points], [y for _, y in points], marker="o", label=tool)
        axes.set(xscale="log", yscale="log", xlabel="packages in the suite (100: none)", ylabel=label)
        axes.grid(visible=True, which="both", alpha=0.25)
        axes.legend()
    figure.tight_layout()
    made = [folder / f"scale.{ending}" for ending in ("png", "svg")]
    for file in made:
        figure.savefig(file, dpi=120, metadata={"Date": None} if file.suffix == ".svg" else None)
    return made
