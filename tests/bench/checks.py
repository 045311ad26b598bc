"""What the checks of one small upload cost, by part: run in this process, as a check worker runs them."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from incomingd import codec, fsio
from incomingd.config.reader import load
from incomingd.model import CheckReport, Seal
from incomingd.places import Places
from incomingd.verify import authorise as authorising
from incomingd.verify import check as checking
from incomingd.verify import deb822
from incomingd.verify.authorise import Authorisation
from incomingd.verify.job import Job
from incomingd.verify.keyring import Keyring
from incomingd.verify.signature import Verifier
from tests.bench.parts import Row

_TIMES = 50


def checks_of_one(config_file: Path, upload: Path, scratch: Path) -> list[Row]:
    """A row for each part, the means of many checks of the same upload; the last is all of it, in processor time."""
    job = _job(config_file, upload, scratch)
    texts = tuple(entry for entry in job.seal.files if entry.name.endswith(".changes"))

    def both() -> tuple[Authorisation, CheckReport]:
        found = authorising.authorise(replace(job, seal=replace(job.seal, files=texts)))
        return found, checking.check(job, found)

    spent: dict[str, float] = {}
    with (
        _timed(spent, "gpgv", Verifier, "verify"),
        _timed(spent, ".changes", deb822, "parse"),
        _timed(spent, ".changes", authorising, "read"),
        _timed(spent, ".deb", checking, "check_binary"),
    ):
        both()
        spent.clear()
        before, started = os.times(), time.perf_counter()
        found = [both() for _ in range(_TIMES)]
        wall, after = time.perf_counter() - started, os.times()
    authorisation, report = found[-1]
    assert not report.problems, report.problems
    spent["policy and the rest"] = wall - sum(spent.values())
    spent["authorisation and back"] = _timing(lambda: codec.loads(codec.dumps(authorisation), Authorisation))
    spent["report to the daemon"] = _timing(lambda: codec.loads(codec.dumps(report), CheckReport))
    rows: list[Row] = [_row(part, seconds / _TIMES, _WHAT[part]) for part, seconds in spent.items()]
    return [*rows, _row("processor", sum(after[:4]) / _TIMES - sum(before[:4]) / _TIMES, "all of it, gpgv's too")]


_WHAT = {
    "gpgv": "the signature: a process of its own",
    ".changes": "the strict pass over the text, and what it promises",
    ".deb": "the container, its control file, its time stamps",
    "policy and the rest": "suites, rights, file kinds, digests against the sealed ones",
    "authorisation and back": "as JSON and back; it goes both ways",
    "report to the daemon": "as JSON and back",
}


def _row(part: str, seconds: float, what: str) -> Row:
    return {"part": part, "value": f"{seconds * 1000:.2f} ms", "what": what}


def _job(config_file: Path, upload: Path, scratch: Path) -> Job:
    config = load(config_file)
    sealed = scratch / "sealed"
    shutil.copytree(upload, sealed)
    keyring = Keyring(Places(config).uploaders_home)
    return Job(
        folder=sealed,
        seal=Seal(files=tuple(fsio.hash_file(file) for file in sorted(sealed.iterdir())), problems=()),
        queue=config.queues[0],
        config=config,
        keyring=keyring.public,
        keys=keyring.load(),
        now=datetime.now(UTC),
        reading=lambda _: None,
    )


@contextmanager
def _timed(spent: dict[str, float], part: str, owner: Any, name: str) -> Iterator[None]:
    """Note what a function takes while this is open."""
    real = getattr(owner, name)

    def timed(*words: Any, **named: Any) -> Any:
        started = time.perf_counter()
        try:
            return real(*words, **named)
        finally:
            spent[part] = spent.get(part, 0.0) + time.perf_counter() - started

    setattr(owner, name, timed)
    try:
        yield
    finally:
        setattr(owner, name, real)


def _timing(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    for _ in range(_TIMES):
        act()
    return time.perf_counter() - started
