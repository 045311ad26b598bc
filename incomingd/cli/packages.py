"""``incomingctl list``, ``show`` and ``history``: what is in a suite, where it came from, what was published when."""

from collections.abc import Iterator, Sequence

import click

from incomingd import codec
from incomingd.cli import completion
from incomingd.cli.common import FAILED, Instance, echo, json_option, needs_instance, print_json, print_table
from incomingd.cli.near import did_you_mean
from incomingd.cli.status import print_upload
from incomingd.cli.status_reader import StatusReader
from incomingd.cli.terminal import state, when
from incomingd.cli.upload_names import newest, upload_name
from incomingd.config import Config
from incomingd.errors import ConfigError
from incomingd.journal.queries import HistoryChange, HistoryEntry, Provenance, Queries
from incomingd.journal.uploads import Uploads
from incomingd.model import Upload
from incomingd.report.status import render

#: Of what one generation changed: an import brings thousands of packages.
_CHANGES_SHOWN = 100


def _suites(config: Config, given: Sequence[str]) -> list[str]:
    """The suites that are asked for, by name or codename; all where none is."""
    if not given:
        return [suite.name for suite in config.suites]
    known = {word: suite.name for suite in config.suites for word in (suite.codename, suite.name)}
    for word in given:
        if word not in known:
            names = ", ".join(suite.name for suite in config.suites)
            raise ConfigError([f'there is no suite "{word}"; there are {names}{did_you_mean(word, known)}'])
    return [known[word] for word in given]


@click.command("list")
@click.argument("suites", metavar="[SUITE]…", nargs=-1, shell_complete=completion.suites)
@click.option("--package", "pattern", metavar="GLOB", default="*", help="Only these binary or source packages.")
@click.option("--uploads", is_flag=True, help="List uploads instead: those in flight, then the last that ended.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Of uploads that ended.")
@json_option
@needs_instance
def list_(instance: Instance, suites: Sequence[str], pattern: str, uploads: bool, limit: int, as_json: bool) -> None:
    """List the packages of each SUITE, or of all; or, with --uploads, uploads."""
    if uploads:
        _list_uploads(instance, limit, as_json)
        return
    queries = Queries(instance.journal())
    found = [package for suite in _suites(instance.config, suites) for package in queries.packages(suite, pattern)]
    if as_json:
        print_json(codec.plain_data(found))
        return
    rows = ((p.suite, p.component, p.name, p.version, _architecture(p.kind, p.architecture), p.source) for p in found)
    print_table(("SUITE", "COMPONENT", "PACKAGE", "VERSION", "ARCHITECTURE", "SOURCE"), rows)


def _architecture(kind: str, architecture: str) -> str:
    return architecture if kind in ("deb", "dsc") else f"{architecture} ({kind})"


def _list_uploads(instance: Instance, limit: int, as_json: bool) -> None:
    uploads = Uploads(instance.journal())
    found = [*uploads.open(), *uploads.ended(limit)]
    if as_json:
        print_json([render(upload, None) for upload in found])
        return
    print_table(
        ("ID", "NAME", "STATE", "STAGE", "SEEN", "ENDED", "WHAT"),
        (
            (u.id, u.name, state(u.stage.state.name), u.stage, _at(u.seen_at), _at(u.finished_at), _what(u))
            for u in found
        ),
    )


def _at(at: object) -> str:
    return when(f"{at:%Y-%m-%d %H:%M:%S}") if at else ""


def _what(upload: Upload) -> str:
    if upload.problems:
        return ", ".join(dict.fromkeys(problem.code for problem in upload.problems))
    return ", ".join(f"{changes.source} {changes.version}" for changes in upload.changes)


@click.command()
@click.argument("name", shell_complete=completion.uploads_and_sources)
@click.argument("version", required=False)
@json_option
@needs_instance
@click.pass_context
def show(ctx: click.Context, instance: Instance, name: str, version: str | None, as_json: bool) -> None:
    """Show all that is known of an upload or a package called NAME.

    Of an upload (its name, or #ID): what became of it, every problem, its log. Of a package: each VERSION that was ever
    published, the upload that brought it, who signed that, its files, and the suites that have it now.
    """
    journal = instance.journal()
    upload = None if version else newest(Uploads(journal), upload_name(name))
    packages = Queries(journal).provenance(name, version)
    if upload is None and not packages:
        meant = "" if version else StatusReader.of(instance.config).near(upload_name(name))
        called = " ".join(filter(None, (name, version)))
        echo(f"incomingctl: no upload and no package is called {called}{meant}", err=True)
        ctx.exit(FAILED)
    if as_json:
        shown = render(upload, None) if upload else None
        print_json({"upload": shown, "packages": codec.plain_data(packages)})
        return
    if upload:
        print_upload(render(upload, None))
    for package in packages:
        _print_package(package)


def _print_package(package: Provenance) -> None:
    echo(f"{package.name} {package.version} {package.architecture}, of {package.source} {package.source_version}")
    came = f"upload {package.upload_name}#{package.upload_id}" if package.upload_id else "an import"
    signed = f", signed by {', '.join(package.signed_by)}" if package.signed_by else ""
    echo(f"  since {package.added_at} from {came}{signed}")
    echo(f"  in {', '.join(package.suites) or 'no suite any more'}")
    if package.lost:
        echo("  its name or that of one of its files has other content since")
    for file in package.files:
        echo(f"  {file}")


@click.command()
@click.argument("suites", metavar="[SUITE]…", nargs=-1, shell_complete=completion.suites)
@click.option("--package", metavar="NAME", help="Only what changed this package.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="The newest so many.")
@json_option
@needs_instance
def history(instance: Instance, suites: Sequence[str], package: str | None, limit: int, as_json: bool) -> None:
    """Show what was published when: the generations of each SUITE, newest first, and what each changed."""
    found = Queries(instance.journal()).history(_suites(instance.config, suites), package, limit)
    if as_json:
        print_json(codec.plain_data(found))
        return
    for entry in found:
        echo(f"{entry.at}  {entry.suite} generation {entry.generation}: {entry.reason}")
        lines = list(_change_lines(entry))
        for line in lines[:_CHANGES_SHOWN]:
            echo(f"    {line}")
        if len(lines) > _CHANGES_SHOWN:
            echo(f"    and {len(lines) - _CHANGES_SHOWN} more; --json has them all, --package those of one")


def _change_lines(entry: HistoryEntry) -> Iterator[str]:
    """One line for each change, whichever number of architectures it is in."""
    architectures: dict[tuple[str, str | None, str | None], list[HistoryChange]] = {}
    for change in entry.changes:
        architectures.setdefault((change.name, change.old, change.new), []).append(change)
    for (name, old, new), changes in architectures.items():
        where = ", ".join(dict.fromkeys(change.architecture for change in changes))
        what = f"{new} is new" if old is None else f"{old} is gone" if new is None else f"{old} → {new}"
        upload = changes[0]
        by = f"  ({upload.upload_name}#{upload.upload_id})" if upload.upload_id else ""
        yield f"{name} [{where}]: {what}{by}"
