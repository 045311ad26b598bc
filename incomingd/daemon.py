"""``incomingd``: the daemon, in the foreground.

Signals: SIGTERM and SIGINT end it after the current step; SIGHUP reloads the configuration, and a broken one is
refused and the old one kept; SIGUSR1 says that an operator's request waits in the journal; SIGIO, which a broken lease
may send (see :func:`incomingd.fsio.has_writer`), is ignored.

Rights that it was given by the service manager are its own: neither check workers nor gpg get them.

Exit status: 0 ended as asked; 1 ``--once`` and an upload was rejected, or a bug, or the machine failed it and it is to
be started again; 2 usage or configuration; 4 halted: with ``--once``, or the journal cannot be used.
"""

import contextlib
import faulthandler
import fcntl
import gc
import itertools
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from incomingd import __version__, fsio
from incomingd.config import Config
from incomingd.config.reader import find, load
from incomingd.config.warnings import warnings
from incomingd.errors import ConfigError, Halt, Retry
from incomingd.intake import preflight
from incomingd.journal.suites import published_suites
from incomingd.model import printable
from incomingd.pipeline import Pipeline
from incomingd.places import Places
from incomingd.publish import identity
from incomingd.report.heartbeat import Heartbeat
from incomingd.sandbox import limits

log = logging.getLogger("incomingd")

EXIT_FAILED, EXIT_USAGE, EXIT_HALTED = 1, 2, 4


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", "file", type=click.Path(path_type=Path), help="The configuration file.")
@click.option(
    "--once", is_flag=True, help="Take in and publish what is ready now, then exit (1: something was rejected)."
)
@click.option("--check-config", is_flag=True, help="Print every error and warning in the configuration, and exit.")
@click.option("--verbose", "-v", is_flag=True, help="Log more.")
@click.version_option(__version__)
def main(file: Path | None, once: bool, check_config: bool, verbose: bool) -> None:
    """Take in Debian package uploads and publish them, in order, into a signed APT repository."""
    _log_to_stderr(verbose)
    limits.pass_no_capabilities_on()
    config = _config(file)
    if check_config:
        _check(config)
        return
    _log_warnings(config)
    # What was imported is no garbage, and nearly all that an upload leaves is freed without a search for circles: to
    # search after each 700 objects, as by default, took 5% of the time of 100 uploads at once.
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    # Whoever holds the lock may be sent one, before and after it can do something about it.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with _alone(Places(config)):
            status = _run_once(config) if once else _run(config)
    except Halt as failure:
        log.critical("cannot run: %s", failure)
        status = EXIT_HALTED
    except (Retry, OSError) as failure:
        log.critical("cannot run now: %s", failure)
        status = EXIT_FAILED
    sys.exit(status)


def _check(config: Config) -> None:
    """Print what a reload would say of a configuration that can be read."""
    state = Places(config).state
    if state.exists():
        fsio.become_owner(state)  # sqlite makes files beside the journal
    published = published_suites(Places(config).journal)
    for line in (*warnings(config), *identity.changes(config)):
        click.echo(printable(f"warning: {line}"))
    if published is None:
        click.echo(f"warning: {Places(config).journal} cannot be read: whether a suite is missing was not checked")
    errors = identity.missing_tables(config, published or ())
    for line in errors:
        click.echo(printable(line), err=True)
    if errors:
        sys.exit(EXIT_USAGE)
    click.echo(f"{config.file}: no errors")


def _config(file: Path | None) -> Config:
    try:
        config = load(find(file))
        preflight(config)
    except ConfigError as error:
        for line in error.errors:
            click.echo(printable(line), err=True)
        sys.exit(EXIT_USAGE)
    return config


def _log_warnings(config: Config) -> None:
    for line in warnings(config):
        log.warning("%s", line)


class _Printable(logging.Formatter):
    """Lets nothing into the log that a terminal would take for a command, be it in a message or in a trace.

    A message is one line; those of a trace are set in, so that what is not is the daemon's own.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        return printable(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        return "\n ".join(printable(line) for line in super().format(record).split("\n"))


def _log_to_stderr(verbose: bool) -> None:
    # The journal of systemd has times and names of its own.
    form = "%(message)s" if "JOURNAL_STREAM" in os.environ else "%(asctime)s %(levelname)s %(message)s"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Printable(form))
    logging.basicConfig(handlers=[handler], level=logging.DEBUG if verbose else logging.INFO)
    for chatty in ("watchdog", "gnupg"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


@contextlib.contextmanager
def _alone(places: Places) -> Iterator[None]:
    """Hold the instance's lock; a second daemon on it is refused. The kernel frees it whatever way the process ends."""
    fsio.make_directories(places.state, 0o700)
    with places.lock.open("a") as lock:
        try:
            # Of this kind of lock others can ask who holds it (fsio.lock_holder). It is lost when any descriptor of the
            # file is closed: nothing else in this process may open it.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Halt(f"{places.lock} is held: another incomingd runs on this instance") from error
        yield


def _run_once(config: Config) -> int:
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    pipeline = Pipeline(config)
    rejected = pipeline.run_once()
    if pipeline.failure is not None:
        return EXIT_FAILED
    return EXIT_FAILED if rejected else 0


def _run(config: Config) -> int:
    faulthandler.enable()  # the watchdog's SIGABRT shows where each thread hangs
    heartbeat = Heartbeat()
    with _signals() as (signals, failed):
        pipeline = Pipeline(config, heartbeat=heartbeat)
        pipeline.start(on_failure=failed)
        log.info("incomingd %s runs on %s", __version__, config.file)
        for number in signals:
            if pipeline.failure is not None:
                break
            if number == signal.SIGHUP:
                _reload(pipeline, heartbeat)
            elif number == signal.SIGUSR1:
                pipeline.requested()
            else:
                heartbeat.stopping()
                log.info("stopping when the current step has ended")
                break
        pipeline.stop()
    return 0 if pipeline.failure is None else EXIT_FAILED


@contextlib.contextmanager
def _signals() -> Iterator[tuple[Iterator[int], Callable[[], None]]]:
    """The signals from now on, as they come, and a function for any thread that puts a 0 among them.

    They come through a pipe: of two close to each other, the kernel may give one to another thread, and a main thread
    that waits for a lock would not hear of it.
    """
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    read, write = os.pipe()
    os.set_blocking(write, False)
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, lambda _number, _frame: None)

    def failed() -> None:
        with contextlib.suppress(BlockingIOError):  # full: there is enough to wake up for
            os.write(write, b"\0")

    try:
        yield (os.read(read, 1)[0] for _ in itertools.count()), failed
    finally:
        signal.set_wakeup_fd(before)
        os.close(read)
        os.close(write)


def _reload(pipeline: Pipeline, heartbeat: Heartbeat) -> None:
    with heartbeat.reloading():
        try:
            config = load(pipeline.config.file)
            preflight(config)
            pipeline.check(config)
        except ConfigError as error:
            for line in error.errors:
                log.error("%s", line)
            log.error("the new configuration is refused; the old one is kept")
            pipeline.refuse(error.errors)
            return
        _log_warnings(config)
        for line in identity.changes(config):
            log.warning("%s", line)
        pipeline.reload(config)
