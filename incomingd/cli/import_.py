"""``incomingctl import``: takes existing packages into a suite in bulk, all or nothing.

They are read here, by processes of this command, and published by the daemon. An import that was interrupted goes on
where it stood when the same command is given again.
"""

import contextlib
import fcntl
import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from incomingd import fsio
from incomingd.cli.edge import FAILED, Instance, console, needs_instance
from incomingd.cli.requests import ask, await_end, check_suite, waiting_options
from incomingd.config import SuiteConfig
from incomingd.errors import ConfigError, Retry
from incomingd.importing import tree
from incomingd.importing.load import load
from incomingd.importing.reading import Task
from incomingd.importing.repository import Repository, is_address
from incomingd.journal.staging import Origin, Staging
from incomingd.journal.uploads import Uploads
from incomingd.model import Operation, OperationKind, Upload, UploadKind

#: More problems than anybody reads at once.
_SHOWN = 50
#: Seconds between two lines of progress where there is no terminal.
_LINE_EVERY = 10.0


@click.command("import")
@click.option("--suite", required=True, help="The suite that gets the packages.")
@click.option("--component", help="The component of all of them; else what each one's Section says.")
@click.option("--newest", is_flag=True, help="Of several versions take the newest, and leave the others out.")
@click.option("--link", is_flag=True, help="Link files instead of copying them; nobody may change them afterwards.")
@click.option("--from-repo", metavar="PATH|URL", help="Take what a repository lists, by its signed indexes.")
@click.option("--from-suite", metavar="SUITE", help="The suite of --from-repo, where it has another name.")
@click.option(
    "--keyring", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="The keys of --from-repo's owner."
)
@click.argument("paths", metavar="[PATH]…", nargs=-1, type=click.Path(path_type=Path))
@waiting_options
@needs_instance
@click.pass_context
def import_(
    ctx: click.Context,
    instance: Instance,
    suite: str,
    component: str | None,
    newest: bool,
    link: bool,
    from_repo: str | None,
    from_suite: str | None,
    keyring: Path | None,
    paths: Sequence[Path],
    no_wait: bool,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Take existing .deb and .dsc files, whole trees of them, or another repository's suite, into a suite in one step.

    They are checked as uploads are, without a .changes; all of them are published in one generation, or none. Given
    again, an import that was interrupted goes on where it stood. Exits as wait does.
    """
    into = instance.config.suite(check_suite(instance, suite))
    assert into is not None  # noqa: S101  # check_suite has seen it
    if component and component not in into.components:
        raise ConfigError([f"{suite} has no component {component}; it has {', '.join(into.components)}"])
    if bool(from_repo) == bool(paths):
        raise click.UsageError("name either PATHs or one --from-repo.")
    if from_repo and keyring is None:
        raise click.UsageError("--from-repo needs --keyring: the public keys that the repository is signed with.")
    instance.journal().close()  # as its owner from here on; says so where there is none, or where it may not be read
    there = from_suite or suite
    base = from_repo if from_repo is None or is_address(from_repo) else os.path.realpath(from_repo)
    name = _name(suite, component or "", str(newest), base or "", there, *map(os.path.realpath, paths))

    def find(task: Task) -> list[Origin]:
        if base is None or keyring is None:
            return tree.find(paths)
        return Repository(base, there).origins(keyring, task.suite, task.now)

    asked = _asked_for(instance, name)
    if asked is None:
        asked = _read_and_ask(instance, name, into, component, find, newest=newest, link=link)
    ctx.exit(FAILED if asked is None else await_end(instance, asked, no_wait=no_wait, timeout=timeout, as_json=as_json))


def _name(suite: str, *words: str) -> str:
    """What this import is called: the same for the same command."""
    digest = hashlib.sha256("\0".join((suite, *sorted(words))).encode("utf-8", "surrogateescape"))
    return f"import-into-{suite}-{digest.hexdigest()[:8]}"


def _asked_for(instance: Instance, name: str) -> Upload | None:
    """The request of this import, where it waits to be done."""
    journal = instance.journal()
    try:
        found = Uploads(journal).newest(name)
    finally:
        journal.close()
    waits = found is not None and found.kind is UploadKind.OPERATION and not found.stage.ended
    return found if waits else None


def _read_and_ask(
    instance: Instance,
    name: str,
    suite: SuiteConfig,
    component: str | None,
    find: Callable[[Task], list[Origin]],
    *,
    newest: bool,
    link: bool,
) -> Upload | None:
    """Read what ``find`` finds and put the request into the queue; None where there are problems, which were told."""
    folder = instance.places.imports / name
    fsio.make_directories(folder, 0o700)
    task = Task(
        config=instance.config,
        suite=suite,
        component=component,
        folder=folder,
        link=link,
        now=datetime.now(UTC),
        keyring=instance.places.uploaders_home,
    )
    with _alone(folder):
        staging = Staging(folder)
        try:
            if not _read(task, staging, find(task)):
                return None
        finally:
            staging.close()
        fsio.sync_file_systems([folder])
        operation = Operation(kind=OperationKind.IMPORT, suite=suite.name, staged=name, newest=newest)
        return ask(instance, name, operation)


def _read(task: Task, staging: Staging, origins: Sequence[Origin]) -> bool:
    """Read what was not read yet; False where there are problems, or nothing at all, and people were told."""
    todo = staging.keep(origins)
    if len(todo) < len(origins):
        click.echo(f"{len(origins) - len(todo)} of {len(origins)} packages were read before", err=True)
    with _progress(len(todo)) as done:
        load(task, staging, todo, done)
    count, problems = staging.problems(_SHOWN)
    for origin, problem in problems:
        click.echo(f"{origin}: {problem.message} [{problem.code}]")
    if count:
        click.echo(f"incomingctl: {count} of {len(origins)} packages cannot be imported; nothing was changed", err=True)
    elif not origins:
        click.echo("incomingctl: there is no .deb and no .dsc; nothing was changed", err=True)
    return bool(origins) and not count


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One at a time: the same import twice at once would read everything twice."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise Retry("this very import is running already") from error
    finally:
        os.close(fd)


# -- progress ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """Shows how far it is and how long it will take: a bar on a terminal, else a line now and then."""
    if not total:
        yield lambda _: None
    elif sys.stderr.isatty():
        with _bar(total) as advance:
            yield advance
    else:
        yield _Lines(total).advance


@contextlib.contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("reading"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True)) as shown:
        bar = shown.add_task("reading", total=total)
        yield lambda count: shown.advance(bar, count)


class _Lines:
    """Progress for a log."""

    def __init__(self, total: int) -> None:
        self._total, self._count = total, 0
        self._started = self._told = time.monotonic()

    def advance(self, count: int) -> None:
        self._count += count
        now = time.monotonic()
        if now - self._told < _LINE_EVERY and self._count < self._total:
            return
        self._told = now
        left = (now - self._started) / self._count * (self._total - self._count)
        about = f", about {left:.0f} s left" if self._count < self._total else ""
        click.echo(f"read {self._count} of {self._total} packages{about}", err=True)
