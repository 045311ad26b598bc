"""What an import is told to read, without the command and its processes."""

from datetime import UTC, datetime
from pathlib import Path

from incomingd.config import reader as configuration
from incomingd.importing.reading import Task


def task(folder: Path, root: Path, now: datetime | None = None) -> Task:
    """An import of what lies in ``root`` into the suite "stable" of an instance in ``folder``."""
    document = {"suites": {"stable": {}}, "incoming": {"default": {"path": "incoming"}}}
    config = configuration.parse(document, folder / "incomingd.toml")
    (folder / "staged").mkdir()
    return Task(
        config=config,
        suite=config.suites[0],
        component=None,
        folder=folder / "staged",
        link=False,
        now=now or datetime.now(UTC),
        keyring=folder / "uploaders",
        roots=(root,),
    )
