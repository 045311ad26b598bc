"""The names that a shell completes: uploads, suites and source packages.

``_INCOMINGCTL_COMPLETE=bash_source incomingctl`` prints the script for a shell, and so do ``zsh_source`` and
``fish_source``; conf/completion has them ready.

Rules:

* Uploads come from status/index.json only, as for ``status``: whoever can follow an upload can complete its name.
  Sources come from the journal, and for those who cannot read it there are none.
* A shell puts what it gets into the command line as it stands. Only names of letters, digits and ``. _ + ~ -`` are
  offered: an upload that was refused for its name may be called ``$(reboot)``.
* Nothing is ever said but names. What is broken completes nothing.
"""

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
)

from incomingd.cli.common import Instance
from incomingd.errors import ConfigError, Halt, Retry
from incomingd.model import PACKAGE_NAME, UPLOAD_NAME
from incomingd.states import State

#: More sources than anybody reads through: one more letter brings the others.
_SOURCES = 1000


class _Quiet(ShellComplete):
    """Answers a shell with names or with nothing: a message would be drawn over what the user types."""

    def complete(self) -> str:
        with contextlib.redirect_stderr(io.StringIO()):
            try:
                return super().complete()
            except (Exception, KeyboardInterrupt):  # noqa: BLE001  # see above
                return ""


class _Bash(_Quiet, BashComplete):
    pass


class _Zsh(_Quiet, ZshComplete):
    # click's own script, found by fpath, completes the first time, registers itself the second time and completes
    # nothing then: zsh runs the whole file as a function until that is done.
    source_template = ZshComplete.source_template.replace("== loadautofunc", "== (loadautofunc|shfunc)")


class _Fish(_Quiet, FishComplete):
    pass


for _class in (_Bash, _Zsh, _Fish):
    add_completion_class(_class)


def uploads(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Those in flight, then those that ended last."""
    return _named(ctx, param, incomplete, lambda upload: True)


def open_uploads(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Those in flight."""
    return _named(ctx, param, incomplete, lambda upload: upload["finished_at"] is None)


def failed_uploads(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Those that ended as FAILED."""
    return _named(ctx, param, incomplete, lambda upload: upload["state"] == State.FAILED)


def _named(
    ctx: click.Context, param: click.Parameter, incomplete: str, is_meant: Callable[[dict[str, Any]], bool]
) -> list[CompletionItem]:
    newest: dict[str, dict[str, Any]] = {}
    for upload in _listed(ctx):
        other = newest.setdefault(upload["name"], upload)
        if upload["id"] > other["id"]:
            newest[upload["name"]] = upload
    meant = {name: upload["state"] for name, upload in newest.items() if is_meant(upload)}
    names = _fitting(meant, incomplete, param, ctx)
    return [CompletionItem(name, help=State(meant[name]).name) for name in names if UPLOAD_NAME.fullmatch(name)]


def _listed(ctx: click.Context) -> list[dict[str, Any]]:
    """What index.json lists, in its order."""
    from incomingd.cli.status_reader import followed

    folder = ctx.params.get("status_folder")
    index = followed(_instance(ctx), Path(folder) if folder else None).index() or {}
    return [*index["in_flight"], *index["ended"]]


def suites(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Those of the configuration."""
    known = _instance(ctx).config.suites
    names = _fitting((suite.name for suite in known), incomplete, param, ctx)
    return [CompletionItem(name) for name in names if UPLOAD_NAME.fullmatch(name)]


def sources(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The source packages of which a suite lists something."""
    from incomingd.journal.queries import Queries

    try:
        found = Queries(_instance(ctx).journal()).sources(incomplete, _SOURCES)
    except (ConfigError, Halt, Retry, OSError):
        return []
    return [CompletionItem(name) for name in found if PACKAGE_NAME.fullmatch(name)]


def uploads_and_sources(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Both, as far as they can be read."""
    try:
        found = uploads(ctx, param, incomplete)
    except (ConfigError, OSError):
        found = []
    return [*found, *sources(ctx, param, incomplete)]


def _instance(ctx: click.Context) -> Instance:
    """As the group makes it, which does not run while something is completed."""
    file = ctx.find_root().params.get("file")
    return Instance(Path(file) if file else None)


def _fitting(names: Iterable[str], incomplete: str, param: click.Parameter, ctx: click.Context) -> Iterator[str]:
    """Those that begin so, and are not among the words that the command has already."""
    given = ctx.params.get(param.name or "") if param.nargs == -1 else None
    yield from (name for name in names if name.startswith(incomplete) and name not in (given or ()))
