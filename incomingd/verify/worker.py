"""The process that reads what uploaders sent: within limits, one upload at a time, JSON in and JSON out.

Rules: it gets jobs on standard input and answers on standard output, each message a length of four bytes (the highest
first) and then JSON; nothing is unpickled on either side. It has limits on memory, processor time, open files and file
sizes, and its parent has one on the time. It may die of any of them: the parent rejects that upload and starts another.
"""

import contextlib
import gc
import os
import resource
import struct
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from incomingd import codec, rules
from incomingd.config import Config
from incomingd.errors import Retry
from incomingd.model import CheckReport, Problem, Seal
from incomingd.verify.check import Job, check
from incomingd.verify.keyring import Keyring

#: A message of more than this is none.
MAX_MESSAGE = 256 << 20
#: What a worker may write anywhere: gpgv's status lines.
_FILE_SIZE = 16 << 20
_OPEN_FILES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One job; ``config`` comes with the first, and when it has changed. ``home`` is the uploaders' gnupg home."""

    folder: Path
    seal: Seal
    queue: str
    home: Path
    now: datetime
    config: Config | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came of it: a report, or the environment's failure to be tried again."""

    report: CheckReport | None = None
    retry: str | None = None


def read_message(stream: BinaryIO) -> bytes:
    """The next message, empty at the end of the stream. Raises ``ValueError`` for one that is too long."""
    head = stream.read(4)
    if len(head) < 4:
        return b""
    size = struct.unpack(">I", head)[0]
    if size > MAX_MESSAGE:
        raise ValueError(f"a message of {size} bytes")
    return stream.read(size)


def write_message(stream: BinaryIO, data: bytes) -> None:
    """Write one message."""
    stream.write(struct.pack(">I", len(data)) + data)
    stream.flush()


def main() -> None:
    """Answer until standard input ends."""
    source, target = sys.stdin.buffer, sys.stdout.buffer
    # Whatever else prints must not land among the answers.
    sys.stdout = sys.stderr
    config: Config | None = None
    gc.freeze()
    while data := read_message(source):
        request = codec.loads(data, Request)
        if request.config is not None:
            config = request.config
            _limit(config)
        if config is None:
            raise ValueError("the first job came without a configuration")
        write_message(target, codec.dumps(_answer(request, config)).encode("utf-8", "surrogateescape"))


def _limit(config: Config) -> None:
    for what, most in (
        (resource.RLIMIT_AS, config.checks.worker_memory),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, _FILE_SIZE),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
    ):
        resource.setrlimit(what, (most, resource.getrlimit(what)[1]))


def _answer(request: Request, config: Config) -> Reply:
    queue = config.queue(request.queue)
    if queue is None:
        return Reply(retry=f"the queue {request.queue} is no longer configured")
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (int(used + config.checks.worker_cpu) + 1, hard))
    keyring = Keyring(request.home)
    try:
        report = check(
            Job(
                folder=request.folder,
                seal=request.seal,
                queue=queue,
                config=config,
                keyring=keyring.public,
                keys=keyring.load(),
                now=request.now,
            )
        )
    except Retry as failure:
        return Reply(retry=str(failure))
    except MemoryError:
        return Reply(report=failed(rules.CHECK_MEMORY.problem("reading it took more memory than is allowed")))
    return Reply(report=report)


def failed(problem: Problem) -> CheckReport:
    """The report of a check that came to no end."""
    return CheckReport(summaries=(), changes=(), problems=(problem,), warnings=())


if __name__ == "__main__":
    os.umask(0o077)
    with contextlib.suppress(BrokenPipeError):
        main()
