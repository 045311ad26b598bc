"""The status folder, read as any CI job's script could: no journal, no rights but to read it."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar

import click

from incomingd.cli import upload_names
from incomingd.cli.common import Instance, echo
from incomingd.cli.near import did_you_mean
from incomingd.client.following import hindrances_of, stopped_by
from incomingd.config import Config
from incomingd.errors import ConfigError
from incomingd.model import NAME_KEPT, UPLOAD_NAME, plain
from incomingd.places import StatusFolder

#: ``status/index.json`` is no upload's.
INDEX = "index"
#: Where a packaged service has it.
_INSTALLED = Path("/srv/incomingd/status")
_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class StatusReader:
    """The status folder of one instance. Files that are not there, or are being made, are None.

    ``incoming`` are its incoming folders; without them it is not known what has not been taken yet.
    """

    folder: StatusFolder
    incoming: tuple[Path, ...] = ()

    @classmethod
    def of(cls, config: Config) -> Self:
        """As the configuration has them."""
        folders = tuple(folder.path for queue in config.queues for folder in queue.folders())
        return cls(StatusFolder(config.service.status), folders)

    def upload(self, name: str) -> dict[str, Any] | None:
        """The newest upload of that name, or the one with that id where ``name`` is ``#ID``."""
        upload_id = upload_names.number(name)
        if upload_id is not None:
            return self._by_id(upload_id)
        found = [upload for one in upload_names.names(name) if (upload := self._newest(one))]
        return max(found, key=lambda upload: int(upload["id"]), default=None)

    def _by_id(self, upload_id: int) -> dict[str, Any] | None:
        return _read(self.folder.by_id(upload_id))

    def _newest(self, name: str) -> dict[str, Any] | None:
        # A stray path would look into other folders.
        if not UPLOAD_NAME.fullmatch(name) or name == INDEX:
            # One that is refused for its name, or is called as index.json is, has no file but that of its number.
            return self._listed(name)
        found = _read(self.folder.of(name))
        if found is None or not self.is_others(found):
            return found
        # The name is another account's, and an upload of the caller's own is listed in index.json only. In this order:
        # it is listed before it leaves incoming.
        waits = os.getuid() in self._lying(name)
        own = self._listed(name, own=True)
        return None if own is None and waits else own or found

    def _listed(self, name: str, *, own: bool = False) -> dict[str, Any] | None:
        """The newest upload of that name in index.json; ``own``: that the caller has sent."""
        index = self.index() or {}
        listed = (*index.get("in_flight", ()), *index.get("ended", ()))
        meant = (one for one in listed if one["name"] == plain(name) and not (own and self.is_others(one)))
        newest = max((int(upload["id"]) for upload in meant), default=None)
        return None if newest is None else self._by_id(newest)

    def index(self) -> dict[str, Any] | None:
        """index.json."""
        return _read(self.folder.index)

    def near(self, name: str) -> str:
        """Which upload may be meant by a name that none has, as the end of a message."""
        try:
            index = self.index() or {}
        except (ConfigError, OSError):
            return ""  # that there is no such upload is what the user has to know
        known = (one["name"] for one in (*index.get("in_flight", ()), *index.get("ended", ())))
        return "" if name.startswith("#") else did_you_mean(name.removesuffix(".changes"), known)

    def halted(self) -> str | None:
        """Why nothing is published, where the service says that it is halted."""
        return stopped_by(self.index(), "halted")

    def hindrances(self) -> list[str]:
        """What the service has to say of itself, if it is not well; a line each."""
        return hindrances_of(self.index())

    def dropped(self, name: str) -> bool:
        """True where an upload of that name lies in an incoming folder and has not been taken yet."""
        return bool(self._lying(name))

    def look(self, name: str) -> tuple[bool, dict[str, Any] | None]:
        """The newest upload of that name, and whether a newer one lies in an incoming folder that has no status yet."""
        # In this order: an upload leaves its incoming folder only after its own status was written.
        lying = self._lying(name)
        upload = self.upload(name)
        if upload is None or not upload["finished_at"]:
            return upload is None and bool(lying), upload
        return not lying.isdisjoint(self._heirs(upload) or lying), upload

    def _lying(self, name: str) -> frozenset[int]:
        """Who owns what lies in incoming folders under that name."""
        paths = (path for one in upload_names.names(name) for path in self._paths(one))
        return frozenset(uid for path in paths if (uid := _owner(path)) is not None)

    def _heirs(self, upload: dict[str, Any]) -> frozenset[int]:
        """Whose next upload of that name will have its status there; none: everyone's. Of all others it fails, and a
        status that has ended is not in question because they put one there."""
        uploader, ended_at = upload.get("uploader"), datetime.fromisoformat(upload["finished_at"])
        if uploader is None or datetime.now(UTC) - ended_at >= NAME_KEPT:
            return frozenset()
        daemon = _owner(self.folder.path)  # incomingctl retry moves its own directory there
        return frozenset(uid for uid in (uploader["uid"], 0, daemon) if uid is not None)

    def is_others(self, upload: dict[str, Any]) -> bool:
        """True if another account than the caller has sent it. To root all are alike."""
        uploader = upload.get("uploader")
        return uploader is not None and os.getuid() not in (0, uploader["uid"])

    def _paths(self, name: str) -> list[Path]:
        """Where an upload of that name may lie in incoming folders."""
        return [folder / f"{name}{ending}" for folder in self.incoming for ending in ("", ".changes", ".commands")]


def status_option(command: _F) -> _F:
    """``--status``, for the verbs that CI jobs use."""
    return click.option(
        "--status",
        "status_folder",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="INCOMINGD_STATUS",
        metavar="DIR",
        help="The status folder, where no configuration is to be read; also $INCOMINGD_STATUS.",
    )(command)


def followed(instance: Instance, given: Path | None) -> StatusReader:
    """What a call is to read: the folder that is given, or the configuration's.

    A configuration that cannot be read stops no CI job: then it is ``status`` beside it, or that of an installed
    service. Raises ``ConfigError`` if neither is there.
    """
    if given is not None:
        return StatusReader(StatusFolder(given))
    try:
        return StatusReader.of(instance.config)
    except ConfigError as error:
        folder = next((one for one in _usual(instance) if one.index.exists()), None)
        if folder is None:
            raise
        echo(f"incomingctl: warning: {error.errors[0]}; the status is read from {folder.path}", err=True)
        return StatusReader(folder)


def _usual(instance: Instance) -> Iterator[StatusFolder]:
    with contextlib.suppress(ConfigError):  # one that may not be obeyed says nothing of what is beside it either
        yield StatusFolder(instance.file.absolute().parent / "status")
    yield StatusFolder(_INSTALLED)


def _owner(path: Path) -> int | None:
    try:
        return path.lstat().st_uid
    except OSError:
        return None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ConfigError([f"{path}: is not a status file of incomingd: {error}"]) from error
    return value if isinstance(value, dict) else None
