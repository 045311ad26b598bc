"""The process that reads some of an import's packages: confined, within limits, and with one socket to the import.

It is started by :mod:`.readers`, with a session of its own and none of the operator's terminal. Before it looks at a
package it is confined (:func:`incomingd.sandbox.profiles.confine_reader`), gpgv below it, too.
"""

import contextlib
import gc
import os
import pickle
import resource
import socket
import sys

from incomingd import codec, rules
from incomingd.errors import Retry
from incomingd.importing import protocol
from incomingd.importing.protocol import Answer, Answers, Chunk, Order
from incomingd.importing.reading import Reader
from incomingd.model import plain, printable
from incomingd.sandbox import limits, profiles


def main() -> None:
    """Read the chunks that the parent, whose number is the only argument, sends until it ends."""
    limits.end_with_parent(int(sys.argv[1]))
    parent = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    source = parent.makefile("rb")
    order: Order = pickle.loads(protocol.receive(source))  # noqa: S301  # the parent has read no package
    reader = Reader(order.task, order.place)
    codec.prepare(Answers)
    gc.freeze()  # what was imported is no garbage: it need not be looked through again and again
    limits.at_most({resource.RLIMIT_AS: order.task.config.checks.worker_memory, resource.RLIMIT_CORE: 0})
    profiles.confine_reader(
        [*order.files, *order.folders],
        order.linked,
        order.task.files / order.place,
        order.hidden,
        network=order.task.server is not None,
    )
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            chunk: Chunk = pickle.loads(protocol.receive(source))  # noqa: S301
            protocol.send(parent, codec.dumps(_read(reader, chunk)).encode())


def _read(reader: Reader, chunk: Chunk) -> Answers:
    answers: list[Answer] = []
    for number, origin in chunk:
        try:
            item = reader.read(number, origin)
            answers.append(Answer(id=number, problems=item.problems, package=item.package, warnings=item.warnings))
        except Retry as failure:
            return Answers(answers=answers, failure=printable(str(failure)))
        except MemoryError:
            problem = rules.CHECK_MEMORY.problem("reading it takes more memory than that", file=plain(origin.path))
            answers.append(Answer(id=number, problems=(problem,)))
        except OSError as error:
            return Answers(answers=answers, failure=f"{plain(origin.path)}: {printable(str(error))}")
        except Exception as error:  # noqa: BLE001  # there is no terminal to print a trace on
            found = printable(f"{type(error).__name__}: {error}")
            return Answers(answers=answers, failure=f"{plain(origin.path)}: a bug of incomingd: {found}")
    return Answers(answers=answers)


if __name__ == "__main__":
    main()
