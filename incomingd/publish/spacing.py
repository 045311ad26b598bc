"""How far apart publishes are when superseded indexes use up ``index_space``. Pure.

Each publish supersedes indexes, which stay for ``index_grace``. If publishes follow each other so fast that these fill
their space, the next ones are made at intervals, and each takes all uploads that have come meanwhile. No index leaves
early for that: if the longest interval does not suffice, more space is used.

Example: 22 MB for each publish, 20 GB, 30 minutes. Three publishes a second fill three quarters of the space within
four minutes. From then on there is one in seven seconds, and the space is used up just when the first indexes leave.
"""

from collections.abc import Sequence

#: No upload waits longer for a publish than so many seconds.
LONGEST = 60.0
#: Intervals begin when so much of the space is used: if they began with the last byte, they would all be the longest.
_FROM = 0.75


def is_tight(space: int, used: int) -> bool:
    """True if there is to be an interval."""
    return used > space * _FROM


def interval(space: int, leaving: Sequence[tuple[float, int]]) -> float:
    """Seconds from one publish to the next; 0: no limit.

    ``leaving`` are the indexes that only ``index_grace`` keeps, by the publish that superseded them: in how many
    seconds they leave, and their bytes; the next to leave first.
    """
    used = sum(size for _, size in leaving)
    if not leaving or not is_tight(space, used):
        return 0.0
    each = max(used / len(leaving), 1.0)
    room, longest = space - used, 0.0
    for seconds, size in leaving:
        # Before these leave, there must be no more publishes than there is room for.
        longest = max(longest, seconds / (max(room // each, 0.0) + 1.0))
        room += size
        if longest >= LONGEST:
            return LONGEST
    return longest
