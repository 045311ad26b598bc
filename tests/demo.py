"""``./run --demo``: 20 uploads from 8 writers at once, seen going through, and a real apt that installs one."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from tests.support.apt import Apt
from tests.support.keys import Keys
from tests.support.uploads import Builder, Upload

BIN = Path(sys.executable).parent
UPLOADS, WRITERS = 20, 8
PATIENCE = 120.0
#: The shortest time that eyes need, in seconds.
FRAME = 0.05

screen = Console(highlight=False)


def say(text: str) -> None:
    screen.print(f"[bold]== {text}")


def ctl(root: Path, *words: str | Path) -> None:
    subprocess.run([BIN / "incomingctl", "--config", root / "incomingd.toml", *words], check=True)


def read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    return found


@contextlib.contextmanager
def daemon(root: Path) -> Iterator[None]:
    """The daemon on the instance: the one that runs already, or one of our own, stopped at the end."""
    log_file = root / "demo.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen([BIN / "incomingd", "--config", root / "incomingd.toml"], stderr=log)
    time.sleep(0.5)
    if process.poll() is not None and "another incomingd runs" not in log_file.read_text():
        sys.exit(f"the daemon does not start:\n{log_file.read_text()}")
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def build(folder: Path, keys: Keys, key: str, version: str) -> list[Upload]:
    builder = Builder(folder=folder, keys=keys, key=key)
    with ThreadPoolExecutor(WRITERS) as threads:
        return list(threads.map(lambda n: builder.upload(f"demo-{n:02}", version), range(1, UPLOADS + 1)))


def table(root: Path, uploads: list[Upload], start: float) -> Table:
    shown = Table("upload", "id", "state", "stage", "in", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for upload in uploads:
        status = read(root / "status" / f"{upload.name}.json")
        colour = {"SUCCEEDED": "green", "FAILED": "red"}.get(status.get("state_name", ""), "yellow")
        where = ", ".join(
            f"{suite} generation {one['generation']}"
            for suite, one in ((status.get("published") or {}).get("suites", {})).items()
        )
        state = status.get("state_name", "")
        shown.add_row(upload.name, str(status.get("id", "")), f"[{colour}]{state}", str(status.get("stage", "")), where)
    shown.caption = f"{time.monotonic() - start:.2f} s"
    return shown


def send(root: Path, uploads: list[Upload]) -> None:
    """Each writer copies a directory under a hidden name, then renames it: one in three by writing flat files."""
    incoming, start = root / "incoming", time.monotonic()
    with ThreadPoolExecutor(WRITERS) as threads, Live(console=screen, refresh_per_second=20) as live:
        sent = [threads.submit(upload.send_directory, incoming) for upload in uploads]
        while True:
            live.update(table(root, uploads, start))
            states = [read(root / "status" / f"{upload.name}.json").get("state", 0) for upload in uploads]
            if all(one.done() for one in sent) and all(state >= 2 for state in states):
                break
            if time.monotonic() - start > PATIENCE:
                sys.exit(f"not all ended within {PATIENCE:.0f} s; see {root / 'demo.log'}")
            time.sleep(FRAME)
        live.update(table(root, uploads, start))
    for one in sent:
        one.result()
    if any(state != 2 for state in states):
        sys.exit("not every upload SUCCEEDED; incomingctl show NAME says why")
    seconds = time.monotonic() - start
    say(f"{len(uploads)} of {len(uploads)} published in {seconds:.2f} s, {len(uploads) / seconds:.0f} a second")


def main(root: Path) -> None:
    version = f"1.{int(time.time())}"
    with Keys() as keys, tempfile.TemporaryDirectory(prefix="incomingd-demo-") as scratch, daemon(root):
        say("a CI key is made and trusted")
        key = keys.make("Demo CI")
        ctl(root, "trust", keys.public(key))
        say(f"{UPLOADS} packages are built and signed")
        uploads = build(Path(scratch), keys, key, version)
        say(f"{WRITERS} writers drop them into {root / 'incoming'} at once")
        send(root, uploads)
        say("a real apt, in a root of its own, installs one of them")
        apt = Apt(Path(scratch) / "apt", f"file:{root / 'archive'}", root / "archive" / "archive-keyring.asc")
        apt.update()
        installed = apt.install("demo-07")
        screen.print((installed / "usr/share/doc/demo-07/README").read_text().strip())
        say("what the archive says of it")
        ctl(root, "show", "demo-07", version)
        ctl(root, "fsck", "--deep")
        ctl(root, "untrust", key)


if __name__ == "__main__":
    os.chdir(Path(__file__).parent.parent)
    main(Path(sys.argv[1]).absolute())
