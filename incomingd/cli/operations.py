"""``incomingctl copy``, ``remove`` and ``rollback``: changes to a suite that no upload makes.

Each is a publish of its own, in sequence with the uploads, and stands in the history.
"""

import click

from incomingd.cli import completion
from incomingd.cli.common import Instance, needs_instance
from incomingd.cli.requests import ask, await_end, check_suite, waiting_options
from incomingd.model import Operation, OperationKind


def _source_and_version(given: str) -> tuple[str, str | None]:
    source, _, version = given.partition("=")
    return source, version or None


@click.command()
@click.argument("source", metavar="SOURCE[=VERSION]", shell_complete=completion.sources)
@click.argument("from_suite", metavar="FROM", shell_complete=completion.suites)
@click.argument("to_suite", metavar="TO", shell_complete=completion.suites)
@click.option(
    "--take-over", is_flag=True, help="Move binary packages here from other sources, and copy essential ones, too."
)
@waiting_options
@needs_instance
@click.pass_context
def copy(
    ctx: click.Context,
    instance: Instance,
    source: str,
    from_suite: str,
    to_suite: str,
    take_over: bool,
    no_wait: bool,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Copy a source package and its binaries from one suite to another.

    Nothing is copied over something newer. A binary package that TO lists from another source stays with that source,
    unless the key that brought SOURCE may upload both to TO, or --take-over is given. Exits as wait does.
    """
    name, version = _source_and_version(source)
    operation = Operation(
        kind=OperationKind.COPY,
        suite=check_suite(instance, to_suite),
        from_suite=check_suite(instance, from_suite),
        source=name,
        version=version,
        take_over=take_over,
    )
    asked = ask(instance, f"copy-{source}-to-{to_suite}", operation)
    ctx.exit(await_end(instance, asked, no_wait=no_wait, timeout=timeout, as_json=as_json))


@click.command()
@click.argument("source", metavar="SOURCE[=VERSION]", shell_complete=completion.sources)
@click.argument("suite", shell_complete=completion.suites)
@click.option("--forget", is_flag=True, help="Free its names after [publish] index_grace, not only after grace.")
@waiting_options
@needs_instance
@click.pass_context
def remove(
    ctx: click.Context,
    instance: Instance,
    source: str,
    suite: str,
    forget: bool,
    no_wait: bool,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Remove a source package and its binaries from a suite.

    Its files stay in the pool for the grace time, and as long as another suite lists them. After that, other content
    may have their names. --forget counts for all that no suite lists any more, also if it was removed before. Exits as
    wait does.
    """
    name, version = _source_and_version(source)
    operation = Operation(
        kind=OperationKind.REMOVE,
        suite=check_suite(instance, suite),
        source=name,
        version=version,
        forget=forget,
    )
    asked = ask(instance, f"remove-{source}-from-{suite}", operation)
    ctx.exit(await_end(instance, asked, no_wait=no_wait, timeout=timeout, as_json=as_json))


@click.command()
@click.argument("suite", shell_complete=completion.suites)
@click.argument("generation", type=click.IntRange(min=1))
@waiting_options
@needs_instance
@click.pass_context
def rollback(
    ctx: click.Context,
    instance: Instance,
    suite: str,
    generation: int,
    no_wait: bool,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Publish what a suite listed in an earlier generation as its next one.

    See history for the generations. Exits as wait does.
    """
    operation = Operation(kind=OperationKind.ROLLBACK, suite=check_suite(instance, suite), generation=generation)
    asked = ask(instance, f"rollback-{suite}-to-{generation}", operation)
    ctx.exit(await_end(instance, asked, no_wait=no_wait, timeout=timeout, as_json=as_json))
