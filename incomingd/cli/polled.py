"""The status folder, read as any CI job's script could: no journal, no rights but to read it."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from incomingd.cli import called
from incomingd.config import Config, QueueConfig
from incomingd.errors import ConfigError
from incomingd.model import UPLOAD_NAME, plain
from incomingd.places import Places

SUCCEEDED, FAILED = 2, 3
#: ``status/index.json`` is no upload's.
INDEX = "index"


@dataclass(frozen=True, slots=True)
class Polled:
    """The status folder of one instance. Files that are not there, or are being made, are None."""

    config: Config

    def upload(self, name: str) -> dict[str, Any] | None:
        """The newest upload of that name, or the one with that id where ``name`` is ``#ID``."""
        upload_id = called.number(name)
        if upload_id is not None:
            return self._by_id(upload_id)
        found = [upload for one in called.names(name) if (upload := self._newest(one))]
        return max(found, key=lambda upload: int(upload["id"]), default=None)

    def _by_id(self, upload_id: int) -> dict[str, Any] | None:
        return _read(Places(self.config).status_by_id(upload_id))

    def _newest(self, name: str) -> dict[str, Any] | None:
        # A stray path would look into other folders.
        if UPLOAD_NAME.fullmatch(name) and name != INDEX:
            return _read(Places(self.config).status_of(name))
        # One that is refused for its name, or is called as index.json is, has no file but that of its number.
        index = self.index() or {}
        listed = (*index.get("in_flight", ()), *index.get("ended", ()))
        newest = max((int(upload["id"]) for upload in listed if upload["name"] == plain(name)), default=None)
        return None if newest is None else self._by_id(newest)

    def index(self) -> dict[str, Any] | None:
        """index.json."""
        return _read(Places(self.config).status_index)

    def halted(self) -> str | None:
        """Why nothing is published, where the service says that it is halted."""
        return stopped_by(self.index(), "halted")

    def held(self) -> str | None:
        """Why nothing is published, where publishing is on hold."""
        return stopped_by(self.index(), "held")

    def dropped(self, name: str) -> bool:
        """True where an upload of that name lies in an incoming folder and has not been taken yet."""
        return any(_lies_in(queue, one) for queue in self.config.queues for one in called.names(name))


def _lies_in(queue: QueueConfig, name: str) -> bool:
    names = (name, f"{name}.changes")
    return any(os.path.lexists(folder.path / one) for folder in queue.folders() for one in names)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ConfigError([f"{path}: is not a status file of incomingd: {error}"]) from error
    return value if isinstance(value, dict) else None


def stopped_by(index: dict[str, Any] | None, state: str) -> str | None:
    """The first reason that index.json gives, where the service is in that state."""
    health = (index or {}).get("health", {})
    return str((health.get("reasons") or [f"it is {state}"])[0]) if health.get("state") == state else None


def problem_lines(upload: dict[str, Any]) -> list[str]:
    """One line for each problem: the file, the code and the message."""
    return [
        f"{problem['file'] + ': ' if problem['file'] else ''}{problem['message']} [{problem['code']}]"
        for problem in upload["problems"]
    ]
