"""``incomingctl import``: takes existing packages into a suite in bulk, all or nothing.

They are read here, by processes of this command, and published by the daemon. An import that was interrupted goes on
where it stood when the same command is given again.
"""

import contextlib
import hashlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import click

from incomingd import fsio
from incomingd.cli import completion
from incomingd.cli.common import FAILED, Instance, echo, needs_instance
from incomingd.cli.progress import progress
from incomingd.cli.requests import ask, await_end, check_suite, waiting_options
from incomingd.errors import ConfigError, Retry
from incomingd.importing import tree, workspace
from incomingd.importing.load import load
from incomingd.importing.reading import Task
from incomingd.importing.release import Wanted
from incomingd.importing.remote import HOST, Server, place
from incomingd.importing.repository import Contents, Repository
from incomingd.journal.staging import Origin, Staging
from incomingd.journal.uploads import Uploads
from incomingd.model import Operation, OperationKind, Upload, UploadKind

#: More problems than anybody reads at once.
_SHOWN = 50


@click.command("import")
@click.option("--suite", required=True, help="The suite that gets the packages.", shell_complete=completion.suites)
@click.option("--component", help="The component of all of them; else what each one's Section says.")
@click.option("--newest", is_flag=True, help="Of several versions take the newest, and leave the others out.")
@click.option("--link", is_flag=True, help="Link files instead of copying them; nobody may change them afterwards.")
@click.option("--from-repo", metavar="PATH|URL", help="Take what a repository lists, by its signed indexes.")
@click.option("--from-suite", metavar="SUITE", help="The suite of --from-repo, if it has another name.")
@click.option(
    "--keyring", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="The keys of --from-repo's owner."
)
@click.option(
    "--release-name", metavar="NAME", help="Suite or Codename in the Release of --from-repo, if not its suite's name."
)
@click.option("--ignore-valid-until", is_flag=True, help="Take a repository whose Valid-Until is over.")
@click.option(
    "--allow-host",
    "allowed",
    metavar="HOST",
    multiple=True,
    callback=lambda _, __, hosts: _hosts(hosts),
    help="Another host to which the server of --from-repo may redirect (HOST or HOST:PORT); may be given again.",
)
@click.option("--keep-going", is_flag=True, help="Name what cannot be imported, leave it out, and import the rest.")
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
    release_name: str | None,
    ignore_valid_until: bool,
    allowed: tuple[str, ...],
    keep_going: bool,
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
    instance.journal().close()  # as its owner from here on; says so if there is none, or if it may not be read
    there, where = from_suite or suite, place(from_repo, allowed) if from_repo else None
    base = where.base if where else ""
    name = _name(suite, component or "", str(newest), base, there, *map(os.path.realpath, paths))
    now = datetime.now(UTC)
    task = Task(
        config=instance.config,
        suite=into,
        component=component,
        folder=instance.places.imports / name,
        link=link,
        now=now,
        keyring=instance.places.uploaders_home,
        server=where if isinstance(where, Server) else None,
        roots=(Path(base),) if where else tuple(paths),
    )

    def find(task: Task) -> Contents:
        if where is None or keyring is None:
            return Contents(origins=tree.find(paths), faults=[])
        wanted = Wanted(
            name=there if release_name is None else release_name,
            keyring=keyring,
            now=now,
            ignore_valid_until=ignore_valid_until,
        )
        contents = Repository(where, there).contents(wanted, into, task.folder)
        _compare_date(instance, f"{base} {there}", contents)
        return contents

    asked = _asked_for(instance, name)
    if asked is None:
        asked = _read_and_ask(instance, name, task, find, newest=newest, keep_going=keep_going)
    ctx.exit(FAILED if asked is None else await_end(instance, asked, no_wait=no_wait, timeout=timeout, as_json=as_json))


def _hosts(hosts: tuple[str, ...]) -> tuple[str, ...]:
    for host in hosts:
        if not HOST.fullmatch(host):
            raise click.BadParameter(f"{host} is not HOST or HOST:PORT")
    return hosts


def _compare_date(instance: Instance, repository: str, contents: Contents) -> None:
    """Say so if the repository is older than it was: someone may have put an old copy in its place."""
    file, date = instance.places.import_dates, contents.date
    if date is None:
        return
    known = workspace.date_of(file, repository)
    if known and date < known:
        echo(
            f"incomingctl: warning: the Release is of {date:%Y-%m-%d %H:%M} UTC, and one of {known:%Y-%m-%d %H:%M} UTC "
            "was read before: the repository was set back, or the server answers with an old copy",
            err=True,
        )
    workspace.note_date(file, repository, date)


def _name(suite: str, *words: str) -> str:
    """What this import is called: the same for the same command."""
    digest = hashlib.sha256("\0".join((suite, *sorted(words))).encode("utf-8", "surrogateescape"))
    return f"import-into-{suite}-{digest.hexdigest()[:8]}"


def _asked_for(instance: Instance, name: str) -> Upload | None:
    """The request of this import, where it waits to be done."""
    journal = instance.journal()
    try:
        waiting = Uploads(journal).open()
    finally:
        journal.close()
    return next((one for one in waiting if one.kind is UploadKind.OPERATION and one.name == name), None)


def _read_and_ask(
    instance: Instance,
    name: str,
    task: Task,
    find: Callable[[Task], Contents],
    *,
    newest: bool,
    keep_going: bool,
) -> Upload | None:
    """Read what ``find`` finds and put the request into the queue; None if there are problems, which were told."""
    workspace.remove_given_up(instance.places.imports, lambda one: _asked_for(instance, one) is not None)
    with workspace.alone(task.folder):
        with _ended_by_signals(), workspace.staged(task.folder) as staging:
            contents = find(task)
            ready = _read(task, staging, contents, keep_going=keep_going)
        if not ready:
            return None
        fsio.sync_file_systems([task.folder])
        operation = Operation(kind=OperationKind.IMPORT, suite=task.suite.name, staged=name, newest=newest)
        return ask(instance, name, operation)


def _read(task: Task, staging: Staging, contents: Contents, *, keep_going: bool) -> bool:
    """Read what was not read yet; False if there are problems, or nothing at all, and people were told."""
    origins = contents.origins
    todo = staging.keep(origins)
    if len(todo) < len(origins):
        echo(f"{len(origins) - len(todo)} of {len(origins)} packages were read before", err=True)
    _check_room(task, todo)
    with progress(len(todo)) as done:
        load(task, staging, todo, done)
    for origin, warning in staging.warnings(_SHOWN):
        echo(f"{origin}: warning: {warning.message} [{warning.code}]", err=True)
    count, problems = staging.problems(_SHOWN)
    count += len(contents.faults)
    for origin, problem in [*contents.faults, *problems][:_SHOWN]:
        echo(f"{origin}: {problem.message} [{problem.code}]")
    total = len(origins) + len(contents.faults)
    if not total:
        echo("incomingctl: there is no .deb and no .dsc; nothing was changed", err=True)
        return False
    if not count:
        return True
    if keep_going and count < total:
        echo(f"incomingctl: {count} of {total} packages cannot be imported and are left out", err=True)
        staging.drop_refused()
        return True
    echo(f"incomingctl: {count} of {total} packages cannot be imported; nothing was changed", err=True)
    return False


def _check_room(task: Task, todo: Sequence[Origin]) -> None:
    """A signed index can list more than any disk has: that is told before the disk is full. Raises ``Retry``."""
    wanted, free = sum(origin.size for origin in todo), shutil.disk_usage(task.folder).free
    if wanted > free and not task.link:
        raise Retry(f"the packages have {wanted} bytes, and {task.folder} has room for {free}; make room first")


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end it as Ctrl-C does, so that what it has half read is removed."""
    before = {
        number: signal.signal(number, _ended)
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is signal.SIG_DFL  # nohup has SIGHUP ignored
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ended(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)
