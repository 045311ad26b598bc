"""``incomingctl fsck``: whether journal, pool and dists agree."""

import contextlib
from collections.abc import Callable, Iterator

import click

from incomingd.cli.common import FAILED, Instance, console, echo, json_option, needs_instance, print_json
from incomingd.fsck import Fsck, Progress


@click.command()
@click.option("--deep", is_flag=True, help="Read every byte: pool files, and the indexes unpacked.")
@json_option
@needs_instance
@click.pass_context
def fsck(ctx: click.Context, instance: Instance, deep: bool, as_json: bool) -> None:
    """Check that journal, pool and dists agree; it may run beside the daemon.

    Prints a line for each fault, and exits with 1 where there is one. It changes nothing.
    """
    with _progress() as progress:
        found = dict.fromkeys(Fsck(instance.config, instance.journal(), progress, deep=deep).faults())
        if found:
            # A publish or a removal that went on meanwhile looks like a fault, but only once.
            again = set(Fsck(instance.config, instance.journal(), progress, deep=deep).faults())
            found = dict.fromkeys(fault for fault in found if fault in again)
    if as_json:
        print_json({"faults": list(found)})
    else:
        for fault in found:
            echo(fault)
        echo(f"{len(found)} fault{'' if len(found) == 1 else 's'}", err=True)
    ctx.exit(FAILED if found else 0)


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
