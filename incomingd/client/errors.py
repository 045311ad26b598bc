"""How sending and following can fail; each error has the exit status that the program ends with."""

from __future__ import annotations

FAILED, USAGE, TIMED_OUT, HALTED, NOT_SENT = 1, 2, 3, 4, 5
#: As of every program that SIGINT ends, and what shells say of one that SIGTERM did.
INTERRUPTED, TERMINATED = 130, 143


class ClientError(Exception):
    """Something cannot be done; ``message`` says what was found and what to do."""

    exit_code = FAILED

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class UsageError(ClientError):
    """The options do not fit together."""

    exit_code = USAGE


class PackageError(ClientError):
    """What was given cannot be sent."""


class TransportError(ClientError):
    """It could not be sent, or not be followed; says what the programs said."""


class NotSentError(TransportError):
    """The upload could not be sent: nothing of it is there."""

    exit_code = NOT_SENT
