"""``incomingctl fsck``: whether journal, pool and dists agree."""

import contextlib
import time
from collections.abc import Callable, Iterator

import click

from incomingd.cli.common import FAILED, Instance, console, echo, json_option, needs_instance, print_json
from incomingd.fsck import Fsck, Progress
from incomingd.journal import Journal
from incomingd.journal.uploads import Uploads
from incomingd.states import Stage

#: Seconds for which a publish may go on until what looks like a fault is believed, and between two looks.
_PATIENCE, _PAUSE = 10.0, 0.2


@click.command()
@click.option("--deep", is_flag=True, help="Read every byte: pool files, and the indexes unpacked.")
@json_option
@needs_instance
@click.pass_context
def fsck(ctx: click.Context, instance: Instance, deep: bool, as_json: bool) -> None:
    """Check that journal, pool and dists agree; it may run beside the daemon.

    Prints a line for each fault, and exits with 1 where there is one. It changes nothing.
    """
    journal = instance.journal()
    with _progress() as progress:
        look = Fsck(instance.config, journal, progress, deep=deep)
        found = dict.fromkeys(look.faults())
        until, changes = time.monotonic() + _PATIENCE, True
        # A publish or a removal that goes on meanwhile looks like a fault for as long as it takes.
        while found and changes:
            changes = time.monotonic() < until and _publishes(journal)
            again = set(look.faults())
            found = dict.fromkeys(fault for fault in found if fault in again)
            if found and changes:
                time.sleep(_PAUSE)
    if as_json:
        print_json({"faults": list(found)})
    else:
        for fault in found:
            echo(fault)
        echo(f"{len(found)} fault{'' if len(found) == 1 else 's'}", err=True)
    ctx.exit(FAILED if found else 0)


def _publishes(journal: Journal) -> bool:
    return any(upload.stage is Stage.PUBLISHING for upload in Uploads(journal).open())


@contextlib.contextmanager
def _progress() -> Iterator[Progress]:
    """Bars on a terminal's stderr."""
    from rich import progress

    screen = console(stderr=True)
    with progress.Progress(console=screen, transient=True, disable=not screen.is_terminal) as bars:

        def begin(heading: str, steps: int) -> Callable[[], None]:
            task = bars.add_task(heading, total=max(steps, 1))
            return lambda: bars.advance(task)

        yield Progress(begin)
