"""incomingctl: for people, CI jobs and cron.

One module for each verb, or for a few that answer the same kind of question. Verbs that CI jobs use (``wait``,
``status``) read the status folder as any script could; the others read the journal, and need the daemon's rights.
What an operator asks for goes into the journal's queue and is done by the daemon, in order with the uploads.

Exit codes: 0 done, 1 the thing asked about failed, 2 usage or configuration, 3 timed out, 4 the service is halted,
5 the upload could not be sent; 130 and 143 if SIGINT or SIGTERM ended it.
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from incomingd import __version__
from incomingd.cli import completion as completion  # registers itself with click
from incomingd.cli.common import FAILED, HALTED, INTERRUPTED, USAGE, Instance, echo
from incomingd.cli.near import near
from incomingd.errors import ConfigError, Halt, Retry
from incomingd.model import plain, printable

#: Each verb's module and function, in the order of a day's work. A module is loaded when its verb is called: all of
#: them take 200 ms, and a CI job's ``wait`` needs two.
_VERBS = {
    "init": ("init", "init"),
    "setup": ("setup", "setup"),
    "submit": ("submit", "submit"),
    "wait": ("wait", "wait"),
    "status": ("status", "status"),
    "list": ("packages", "list_"),
    "show": ("packages", "show"),
    "history": ("packages", "history"),
    "import": ("import_", "import_"),
    "copy": ("operations", "copy"),
    "remove": ("operations", "remove"),
    "rollback": ("operations", "rollback"),
    "queue": ("control", "queue"),
    "cancel": ("control", "cancel"),
    "retry": ("control", "retry"),
    "hold": ("control", "hold"),
    "release": ("control", "release"),
    "reload": ("reload", "reload"),
    "drop-suite": ("drop", "drop_suite"),
    "keys": ("keys", "keys"),
    "trust": ("trust", "trust"),
    "untrust": ("trust", "untrust"),
    "fsck": ("fsck", "fsck"),
}


class _Verbs(click.Group):
    """Turns the three kinds of failure into a line on stderr and an exit code; a bug keeps its trace."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        module, function = _VERBS[cmd_name]
        verb: click.Command = getattr(import_module(f"incomingd.cli.{module}"), function)
        return verb

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        # While a shell completes what is behind it, there is nothing to say.
        if args[0] not in _VERBS and not args[0].startswith("-") and not ctx.resilient_parsing:
            found = near(args[0], _VERBS)
            meant = f' Did you mean "{found}"?' if found else ""
            ctx.fail(f'There is no verb "{plain(args[0])}".{meant} All verbs: incomingctl --help')
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            # It may hold names that the shell has found in a stranger's folder.
            raise click.UsageError(printable(error.format_message()), ctx=error.ctx) from error
        except click.ClickException as error:
            click.echo(f"Error: {printable(error.format_message())}", err=True)
            ctx.exit(error.exit_code)
        except ConfigError as error:
            _say(error.errors)
            ctx.exit(USAGE)
        except Halt as error:
            _say([str(error)])
            ctx.exit(HALTED)
        except Retry as error:
            _say([str(error)])
            ctx.exit(FAILED)
        except KeyboardInterrupt:
            # Not 1, which says that the thing asked about failed.
            _say(["interrupted"])
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:
            raise  # click ends quietly
        except OSError as error:
            said = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            if isinstance(error, PermissionError) and ctx.invoked_subcommand not in ("init", "setup", "submit"):
                said += "; run this as incomingd's user, or as root"
            _say([said])
            ctx.exit(FAILED)


def _say(lines: Sequence[str]) -> None:
    for line in lines:
        echo(f"incomingctl: {line}", err=True)


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    help="The configuration; else $INCOMINGD_CONFIG, ./incomingd.toml or /etc/incomingd/incomingd.toml.",
)
@click.version_option(__version__)
@click.pass_context
def main(ctx: click.Context, file: Path | None) -> None:
    """Manage an incomingd archive: make one, follow uploads, see what is in it.

    Exit codes: 0 done, 1 the thing asked about failed, 2 usage or configuration error, 3 timed out, 4 the service is
    halted, 5 the upload could not be sent.
    """
    ctx.obj = Instance(file)
