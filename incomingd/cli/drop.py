"""``incomingctl drop-suite``: ends a suite that has no table in the configuration any more."""

import time

import click

from incomingd import fsio
from incomingd.cli.common import TIMED_OUT, Instance, echo, needs_instance
from incomingd.cli.near import did_you_mean
from incomingd.cli.reload import reload
from incomingd.errors import ConfigError
from incomingd.journal.suites import Suites

#: Seconds that the daemon is given for each step, and between two looks.
_PATIENCE, _PAUSE = 240.0, 0.05


@click.command("drop-suite")
@click.argument("name")
@needs_instance
@click.pass_context
def drop_suite(ctx: click.Context, instance: Instance, name: str) -> None:
    """End a suite: clients do not find it any more, and what no other suite lists leaves the pool after the grace time.

    Take its table out of the configuration first. Exits as reload does, which it ends with.
    """
    if instance.config.suite(name) is not None:
        raise ConfigError([f"{instance.config.file}: take the table [suites.{name}] out first; then drop-suite again"])
    journal = instance.journal(writing=True)
    try:
        suites = Suites(journal)
        published = suites.published()
        if name not in published:
            known = ", ".join(sorted(published)) or "none"
            raise ConfigError([f"no suite {name} is published; there are {known}{did_you_mean(name, published)}"])
        suites.ask_drop(name)
        if fsio.lock_holder(instance.places.lock) is None:
            echo(f"{name}: is dropped when incomingd starts")
            return
        ctx.invoke(reload, timeout=_PATIENCE)
        until = time.monotonic() + _PATIENCE
        while name in suites.dropping():
            if time.monotonic() >= until:
                echo(f"incomingctl: {name} is not dropped yet; see: incomingctl status", err=True)
                ctx.exit(TIMED_OUT)
            time.sleep(_PAUSE)
    finally:
        journal.close()
    echo(f"{name}: dropped")
