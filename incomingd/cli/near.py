"""What a word that is not known may have been meant to be."""

from collections.abc import Iterable
from difflib import get_close_matches

from incomingd.model import plain


def near(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like this one, as a message may have it; None if none is."""
    found = get_close_matches(word, known, n=1)
    return plain(found[0]) if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message: ``; did you mean "stable"?``, or nothing."""
    found = near(word, known)
    return f'; did you mean "{found}"?' if found else ""
