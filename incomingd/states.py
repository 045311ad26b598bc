"""The stages of an upload, and the only table of allowed moves.

``receiving`` and ``claimed`` are PENDING, ``checking`` to ``publishing`` are RUNNING, ``published`` is SUCCEEDED, and
the rest are FAILED. The table is total over :class:`Stage`; a move that is not in it is a bug, and the journal raises.
"""

from enum import IntEnum, StrEnum


class State(IntEnum):
    """What a script polls for: the ``state`` number of a status file."""

    PENDING = 0
    RUNNING = 1
    SUCCEEDED = 2
    FAILED = 3


class Stage(StrEnum):
    """Where exactly an upload stands: the ``stage`` of a status file."""

    RECEIVING = "receiving"
    CLAIMED = "claimed"
    CHECKING = "checking"
    QUEUED = "queued"
    PUBLISHING = "publishing"
    PUBLISHED = "published"
    REJECTED = "rejected"
    ABANDONED = "abandoned"
    CANCELLED = "cancelled"

    @property
    def state(self) -> State:
        """The state that this stage belongs to."""
        return _STATE[self]

    @property
    def ended(self) -> bool:
        """True where nothing more will happen to the upload."""
        return not MOVES[self]


_STATE = {
    Stage.RECEIVING: State.PENDING,
    Stage.CLAIMED: State.PENDING,
    Stage.CHECKING: State.RUNNING,
    Stage.QUEUED: State.RUNNING,
    Stage.PUBLISHING: State.RUNNING,
    Stage.PUBLISHED: State.SUCCEEDED,
    Stage.REJECTED: State.FAILED,
    Stage.ABANDONED: State.FAILED,
    Stage.CANCELLED: State.FAILED,
}

# Moves backwards are recovery's and the retry's: an upload goes back to the last stage whose results are on disk.
# Claimed to receiving is intake's: the rename was refused, the upload still lies in incoming and must not block others.
# Abandoned is put aside as all others are taken: by a claim.
MOVES: dict[Stage, frozenset[Stage]] = {
    Stage.RECEIVING: frozenset({Stage.CLAIMED, Stage.CANCELLED}),
    Stage.CLAIMED: frozenset({Stage.CHECKING, Stage.REJECTED, Stage.CANCELLED, Stage.ABANDONED, Stage.RECEIVING}),
    Stage.CHECKING: frozenset({Stage.QUEUED, Stage.REJECTED, Stage.CLAIMED, Stage.CANCELLED}),
    Stage.QUEUED: frozenset({Stage.PUBLISHING, Stage.REJECTED, Stage.CLAIMED, Stage.CANCELLED}),
    Stage.PUBLISHING: frozenset({Stage.PUBLISHED, Stage.REJECTED, Stage.QUEUED}),
    Stage.PUBLISHED: frozenset(),
    Stage.REJECTED: frozenset(),
    Stage.ABANDONED: frozenset(),
    Stage.CANCELLED: frozenset(),
}


def may_move(source: Stage, target: Stage) -> bool:
    """True where the table allows the move."""
    return target in MOVES[source]
