"""The uploads of a storm: many good ones, some that race each other, and some that are bad in a way of their own each.

They are written byte by byte as the benchmark's are: dpkg-deb would take longer than the storm.
"""

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench import make
from tests.support.keys import LONG_AGO, Keys
from tests.support.uploads import Upload

DIRECTORY, IN_PLACE, FLAT = "renamed in", "in place", "flat"
WAYS = (DIRECTORY, IN_PLACE, FLAT)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One upload, how it is sent, and the problem that it must end with. ``races``: with other versions of its own;
    ``only_renamed``: it is incomplete, and taken at once only where the daemon saw it being renamed in."""

    package: str
    version: str
    upload: Upload
    way: str
    expected: str = ""
    races: bool = False
    only_renamed: bool = False

    @property
    def name(self) -> str:
        return self.upload.flat_name if self.way == FLAT else self.upload.name

    def send(self, incoming: Path, between: Callable[[], None]) -> None:
        between()
        if self.way == DIRECTORY:
            self.upload.send_directory(incoming)
        elif self.way == IN_PLACE:
            self.upload.send_in_place(incoming, between=between)
        else:
            self.upload.send_flat(incoming, between=between)


@dataclass
class Draft:
    """One upload as it is made: what a fault changes."""

    folder: Path
    package: str
    keys: Keys
    key: str | None
    version: str = "1.0"
    data: bytes = b""
    at: str = ""
    edit: Callable[[str], str] = lambda text: text
    #: Done last, when everything is written and signed.
    spoil: list[Callable[["Draft"], None]] = field(default_factory=list)

    @property
    def deb(self) -> Path:
        return self.folder / f"{self.package}_{self.version}_amd64.deb"

    @property
    def changes(self) -> Path:
        return self.folder / f"{self.package}_{self.version}_amd64.changes"

    def write(self) -> Upload:
        self.folder.mkdir(parents=True)
        self.data = self.data or make.deb(self.package, self.version)
        self.deb.write_bytes(self.data)
        text = self.edit(make.changes(self.package, self.version, self.deb.name, self.data))
        signed = text.encode() if self.key is None else self.keys.sign(text, self.key, at=self.at)
        self.changes.write_bytes(signed)
        for spoil in self.spoil:
            spoil(self)
        return Upload(folder=self.folder, changes=self.changes, name=self.folder.name)


def _flip(file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(bytes(data))


def _link(draft: Draft) -> None:
    hidden = draft.folder.with_name(f"{draft.folder.name}.deb")
    draft.deb.rename(hidden)
    draft.deb.symlink_to(hidden)


def _replaced(old: str, new: str) -> Callable[[Draft], None]:
    def change(draft: Draft) -> None:
        draft.edit = lambda text: text.replace(old, new)

    return change


def _spoiled(spoil: Callable[[Draft], object]) -> Callable[[Draft], None]:
    return lambda draft: draft.spoil.append(lambda made: (spoil(made), None)[1])


@dataclass(frozen=True)
class Strangers:
    """Keys that nobody should have signed with."""

    unknown: str
    expired: str


def _signed_by(key: str | None, at: str = "") -> Callable[[Draft], None]:
    def change(draft: Draft) -> None:
        draft.key, draft.at = key, at

    return change


def _with_data(data: Callable[[Draft], bytes]) -> Callable[[Draft], None]:
    def change(draft: Draft) -> None:
        draft.data = data(draft)

    return change


def faults(keys: Strangers) -> dict[tuple[str, bool], Callable[[Draft], None]]:
    """What can be wrong, by the problem that it must end with. True: only a directory that is renamed in is taken with
    it; written in place, the rest is waited for."""
    return {
        ("checksum-mismatch", False): _spoiled(lambda draft: _flip(draft.deb, -1)),
        ("size-mismatch", True): _spoiled(lambda draft: draft.deb.write_bytes(draft.data + b"\n")),
        ("missing-file", True): _spoiled(lambda draft: draft.deb.unlink()),
        ("no-changes", True): _spoiled(lambda draft: draft.changes.unlink()),
        ("unsigned", False): _signed_by(None),
        ("unknown-key", False): _signed_by(keys.unknown),
        ("expired-key", False): _signed_by(keys.expired, LONG_AGO),
        ("bad-signature", False): _spoiled(
            lambda draft: _flip(draft.changes, draft.changes.read_bytes().find(b"08:00"))
        ),
        ("text-outside-signature", False): _spoiled(
            lambda draft: draft.changes.write_bytes(b"Source: other\n" + draft.changes.read_bytes())
        ),
        ("not-regular-file", False): _spoiled(_link),
        ("bad-deb", False): _with_data(lambda draft: make.deb(draft.package, draft.version)[:-50]),
        ("binary-not-listed", False): _with_data(lambda draft: make.deb("other", draft.version)),
        ("deb-version-mismatch", False): _with_data(lambda draft: make.deb(draft.package, "2.0")),
        ("unknown-distribution", False): _replaced("Distribution: stable", "Distribution: unheard-of"),
        ("unknown-component", False): _replaced(" utils optional ", " contrib/utils optional "),
        ("bad-version", False): _replaced("Version: 1.0", "Version: one"),
        ("repeated-field", False): _replaced("Urgency: medium\n", "Urgency: medium\nurgency: low\n"),
        ("missing-field", False): _replaced("Maintainer: Benchmark Builders <builders@example.org>\n", ""),
        ("control-character", False): _replaced("* Built.", "* Built.\x07"),
        ("architecture-mismatch", False): _replaced("Architecture: amd64", "Architecture: arm64"),
    }


def gather(folder: Path, keys: Keys, key: str, *, count: int, seed: int) -> list[Case]:
    """``count`` uploads in the order of a seeded dice: a tenth bad, a tenth racing, and the others good."""
    strangers = Strangers(unknown=keys.make("Storm Stranger"), expired=keys.make_expired("Storm Expired"))
    made = [
        *_bad(folder, keys, key, strangers, count // 10),
        *_racing(folder, keys, key, count // 10),
        *(_case(Draft(folder / f"good-{number}", f"good{number:03d}", keys, key), WAYS[number % 3])
          for number in range(count - 2 * (count // 10))),
    ]  # fmt: skip
    random.Random(seed).shuffle(made)
    return made


def _case(draft: Draft, way: str, **what: Any) -> Case:
    upload = draft.write()
    return Case(package=draft.package, version=draft.version, upload=upload, way=way, **what)


def _bad(folder: Path, keys: Keys, key: str, strangers: Strangers, count: int) -> Iterator[Case]:
    kinds = list(faults(strangers).items())
    for number in range(count):
        (code, only_renamed), break_it = kinds[number % len(kinds)]
        draft = Draft(folder / f"bad-{number}", f"bad{number:03d}", keys, key)
        break_it(draft)
        way = DIRECTORY if only_renamed else WAYS[number % 3]
        yield _case(draft, way, expected=code, only_renamed=only_renamed)


def _racing(folder: Path, keys: Keys, key: str, count: int) -> Iterator[Case]:
    """Four versions each of some packages: which of them are newer than what is there, their order decides."""
    for number in range(count):
        package, version = f"racer{number // 4:03d}", f"1.{number % 4}"
        draft = Draft(folder / f"{package}-{version}", package, keys, key, version)
        yield _case(draft, WAYS[number % 3], races=True)


def pauses(seed: int) -> Callable[[], float]:
    """How long a writer lingers, in seconds: mostly not at all."""
    dice = random.Random(seed)
    return lambda: dice.choice((0.0, 0.0, 0.0, 0.001, 0.01, 0.05))


def default_seed() -> int:
    """``$INCOMINGD_TEST_SEED``, or one that differs from run to run."""
    return int(os.environ.get("INCOMINGD_TEST_SEED") or random.SystemRandom().randrange(1_000_000))
