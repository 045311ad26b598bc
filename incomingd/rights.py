"""What an uploader may do by the ``[[uploaders]]`` table. Pure: no archive, no clock.

Rules:

* Without any table every trusted key may do everything.
* A rule counts for the key that it names, and for the primary key of a subkey that it does not name. A rule with
  ``token`` counts for no signature.
* What one rule does not allow another may; but one rule has to allow all of what a package needs: its source, suite,
  component and name, and that it is essential.
* An unsigned upload has come through a queue that takes such uploads. The table does not limit its sources, and gives
  it no right either: it takes over nothing.
"""

import fnmatch
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from incomingd import rules
from incomingd.config import UploaderRule
from incomingd.model import Problem, plain

_DEBUG = "-dbgsym"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Place:
    """Where packages of one source land: a suite's component."""

    suite: str
    component: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What one .changes asks for. ``components`` are those that its packages land in; ``sourceful``: it has a .dsc."""

    source: str
    suites: tuple[str, ...]
    components: frozenset[str]
    sourceful: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """The rights of one signature. ``rules`` are those that count for it; ``unlimited``: there is no table."""

    key: str | None
    rules: tuple[UploaderRule, ...]
    unlimited: bool

    @property
    def who(self) -> str:
        """For messages."""
        return f"the key {self.key}" if self.key else "what no key has signed"

    def may(self, place: Place) -> bool:
        """True if packages of that source may be uploaded there at all."""
        return self.unlimited or any(_covers(rule, place) for rule in self.rules)

    def rules_for(self, place: Place, *, source: bool = False) -> tuple[UploaderRule, ...]:
        """The rules by which packages of that source may be uploaded there; with ``source`` the source package too."""
        return tuple(rule for rule in self.rules if _covers(rule, place) and not (source and rule.binaries_only))

    def refusals(self, wish: Wish, file: str) -> Iterator[Problem]:
        """What the table says against a .changes before anything is known of the archive."""
        if self.unlimited or self.key is None:
            return
        if not self.rules:
            yield _refused(f"{self.who} is trusted, and no [[uploaders]] names it", file)
            return
        ours = [rule for rule in self.rules if matches(rule.sources, wish.source)]
        if not ours:
            allowed = _listed(rule.sources for rule in self.rules)
            yield _refused(f"{self.who} may upload the sources {allowed}, and this is {plain(wish.source)}", file)
            return
        for suite in wish.suites:
            here = [rule for rule in ours if matches(rule.suites, suite)]
            what = f"{self.who} may upload {plain(wish.source)} to"
            if not here:
                allowed = _listed(rule.suites for rule in ours)
                yield _refused(f"{what} {allowed}, and this is for {suite}", file)
                continue
            if wish.sourceful and all(rule.binaries_only for rule in here):
                yield _refused(f"{self.who} may upload binaries only to {suite}, and this has the source", file)
            for component in sorted(wish.components):
                if not any(matches(rule.components, component) for rule in here):
                    allowed = _listed(rule.components for rule in here)
                    yield _refused(f"{what} the components {allowed} of {suite}, and this is for {component}", file)


def rights_of(table: Sequence[UploaderRule], signed_by: str | None, signing_key: str | None = None) -> Rights:
    """The rights of a signature: its primary key and the key or subkey that made it; None for no signature."""
    own = {signed_by, signing_key} - {None}
    mine = tuple(rule for rule in table if rule.key is not None and rule.key in own)
    return Rights(key=signed_by, rules=mine, unlimited=not table)


def names(rule: UploaderRule, binary: str) -> bool:
    """True if the rule names a binary package: by its own ``binaries``, else by ``sources``. A name stands for its
    -dbgsym too."""
    globs = rule.binaries or rule.sources
    return matches(globs, binary) or (binary.endswith(_DEBUG) and matches(globs, debugged(binary)))


def debugged(binary: str) -> str:
    """The package that a -dbgsym belongs to; any other name is returned as it is."""
    return binary.removesuffix(_DEBUG)


def matches(globs: Iterable[str], name: str) -> bool:
    """True if one of the shell globs fits."""
    return any(fnmatch.fnmatchcase(name, glob) for glob in globs)


def _covers(rule: UploaderRule, place: Place) -> bool:
    return (
        matches(rule.sources, place.source)
        and matches(rule.suites, place.suite)
        and matches(rule.components, place.component)
    )


def _listed(globs: Iterable[tuple[str, ...]]) -> str:
    return ", ".join(dict.fromkeys(glob for some in globs for glob in some))


def _refused(found: str, file: str) -> Problem:
    return rules.KEY_NOT_ALLOWED.problem(found, file=file)
