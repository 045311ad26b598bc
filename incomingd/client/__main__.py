"""``incomingctl-submit``: what ``incomingctl submit`` does, in one file that needs nothing but Python 3.8."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from typing import Iterable, NoReturn, Optional, Sequence

from incomingd.client.errors import INTERRUPTED, TERMINATED, ClientError
from incomingd.client.following import SUCCEEDED, Status, problem_lines
from incomingd.client.submitting import Order, submit
from incomingd.client.text import printable

_EPILOG = """\
Give a .changes (what it lists goes with it), a directory with one, or packages and .dsc alone: these get a .changes for
--suite. Over ssh it is sent by rsync if both sides have it, else by sftp or scp.

Exits with 5 if the upload could not be sent; with --wait: 0 it was published, 1 it FAILED, 3 timed out, 4 the service
is halted.
"""


class _Lines:
    """Plain lines, as for the log of a job."""

    def __init__(self, quiet: bool) -> None:
        self._last_change = quiet

    def show(self, lines: Iterable[str]) -> None:
        """A log is spared what moves."""

    def sent(self, line: str) -> None:
        """As a line."""
        if not self._last_change:
            print(printable(line), flush=True)

    def ended(self, upload: Status, *, others: bool) -> None:
        """As lines, the problems below it."""
        if self._last_change:
            return
        last = upload["log"][-1]["message"] if upload["log"] else upload["stage"]
        print(printable(f"{upload['name']}: {upload['state_name']}: {last}"))
        for line in problem_lines(upload):
            print(printable(f"  {line}"))
        if upload["state"] == SUCCEEDED:
            for warning in upload["warnings"]:
                print(printable(f"  warning: {warning['file'] or upload['name']}: {warning['message']}"))

    def error(self, line: str) -> None:
        """On standard error."""
        print(printable(line), file=sys.stderr)

    def due(self, at: str) -> str:
        """As it stands."""
        return at


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="incomingctl-submit",
        description="Send packages to an incoming folder, here or on another machine.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("given", metavar="FILE|DIR", nargs="+", type=Path)
    parser.add_argument("--to", required=True, metavar="PATH|[USER@]HOST:PATH", help="The incoming folder.")
    parser.add_argument("--suite", help="Where packages without a .changes are to go.")
    parser.add_argument("--key", metavar="FPR", help="Sign what is not signed yet with this key of your keyring.")
    parser.add_argument("--name", help="The upload's name; without it one is made up that no other has.")
    parser.add_argument(
        "-o", dest="options", action="append", default=[], metavar="OPTION=VALUE", help="For ssh, as its own -o."
    )
    parser.add_argument("--wait", action="store_true", help="Follow the upload to its end.")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="Stop waiting after so many seconds.")
    parser.add_argument("--status", metavar="PATH", help="The status folder there; default: TO/../status.")
    parser.add_argument("--json", action="store_true", help="Print JSON.")
    return parser


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the program; its exit status."""
    parser = _parser()
    given = parser.parse_args(arguments)
    missing = next((path for path in given.given if not path.exists()), None)
    if missing is not None:
        parser.error(f"{printable(str(missing))}: there is no such file")
    if given.timeout is not None and given.timeout < 0:
        parser.error("--timeout must not be negative")
    # A CI job that is cancelled gets this: what was being sent must not be left behind there.
    signal.signal(signal.SIGTERM, _terminated)
    order = Order(
        given=tuple(given.given),
        to=given.to,
        suite=given.suite,
        key=given.key,
        name=given.name,
        options=tuple(given.options),
        waits=given.wait,
        timeout=given.timeout,
        status=given.status,
    )
    try:
        code, found = submit(order, _Lines(given.json))
    except ClientError as error:
        print(f"Error: {printable(error.message)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("incomingctl-submit: interrupted", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        said = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        print(f"incomingctl-submit: {printable(said)}", file=sys.stderr)
        return 1
    if given.json:
        print(json.dumps(found, indent=1))
    return code


def _terminated(number: int, frame: object) -> NoReturn:
    raise SystemExit(TERMINATED)


if __name__ == "__main__":
    sys.exit(main())
