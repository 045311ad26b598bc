"""Draws docs/terminal.svg: what ``incomingctl`` prints on a terminal, of a real instance.

Run it by hand: ``.venv/bin/python -m tests.picture``. It takes two minutes, so that the times differ.
"""

import io
import re
import shlex
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tests.support.instance import BIN, Instance, until
from tests.support.keys import Keys
from tests.support.terminal import on_terminal
from tests.support.uploads import Builder

PICTURE = Path(__file__).parents[1] / "docs/terminal.svg"
WIDTH = 120


def prepare(instance: Instance, builder: Builder) -> None:
    """Uploads of some time ago, one that failed, and one that is due in some days."""
    instance.succeeded(
        builder.upload("hello", "2.10-3", distribution="bookworm").send_directory(instance.incoming, "job-1843")
    )
    time.sleep(90)
    instance.succeeded(
        builder.upload("libfoo", "1.4-1", distribution="bookworm").send_directory(instance.incoming, "job-1844")
    )
    time.sleep(25)
    wrong = builder.upload("bar", "0.9", distribution="bookwrom", fields={"Depends": "libc6 (2.36)"})
    instance.failed(wrong.send_directory(instance.incoming, "job-1845"))
    later = builder.upload("hello", "2.10-4", distribution="bookworm")
    later.send_directory(instance.incoming / "DELAYED/3-day", "job-1846")
    until(lambda: (instance.status("job-1846") or {}).get("due_at"))


def main() -> None:
    screen = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="standard")
    with tempfile.TemporaryDirectory() as scratch, Keys() as keys:
        key = keys.make("Joan Builder")
        instance = Instance(Path(scratch) / "apt", trust=[keys.public(key)], options=["--suite", "bookworm"])
        instance.set("incoming.default", delayed=3)
        instance.set("service", scan_interval="1s")
        with instance:
            prepare(instance, Builder(folder=Path(scratch) / "built", keys=keys, key=key))
            for line in ("incomingctl status", "incomingctl wait job-1844", "incomingctl status job-1845"):
                # What moves while it waits is drawn on standard error, and is gone at the end.
                command = f"{shlex.quote(str(BIN))}/{line} 2>/dev/null"
                environment = {"INCOMINGD_CONFIG": str(instance.config)}
                shown = on_terminal("sh", "-c", command, columns=WIDTH, env=environment)
                screen.print(Text(f"$ {line}", style="bold"))
                screen.print(Text.from_ansi(shown.raw.replace("\r\n", "\n")))
    picture = screen.export_svg(title="incomingctl", unique_id="incomingctl")
    # A picture loads nothing: any fixed-width font will do.
    picture = picture.replace("<svg ", '<svg xml:space="preserve" ', 1)  # some drop blanks at the begin of a text
    picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL).replace(
        "Fira Code, monospace", "monospace"
    )
    PICTURE.write_text("".join(f"{line.rstrip()}\n" for line in picture.splitlines()))


if __name__ == "__main__":
    main()
