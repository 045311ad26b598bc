"""Decides whose a binary package name is in a suite, who may bring it, and who may move it to another source. Pure.

Uploads, copies and imports ask here. Rules (docs/config.md, ``[[uploaders]]``):

* A name that a suite lists belongs to the source that it came from, in every component and architecture and as any kind
  of package. ``NAME-dbgsym`` that is not listed itself belongs with ``NAME``.
* An upload moves a name to another source only if its key may upload both sources there. So does a copy, by the key
  that brought the package. Without any table every trusted key may, and it is told as a warning.
* A key brings only the names that its rules have. What a .dsc claims to build counts as if it were brought: apt-get
  source finds a source by it.
* Packages that apt installs or keeps on its own need a rule that allows it.
* An operator's ``copy --take-over`` and an import move names as they like, with a warning.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from incomingd import rules
from incomingd.config import UploaderRule
from incomingd.journal.catalogue import Listed
from incomingd.model import Fields, Problem, plain
from incomingd.rights import Place, Rights, debugged, names

#: Fields that make apt keep a package, or install it unasked.
_ESSENTIAL = ("essential", "protected", "important")
#: What apt's StringToBool and dpkg call no; whatever else stands there counts as yes.
_NO = ("", "no", "false", "without", "off", "disable", "0")
_PRIORITIES = ("required", "important")
SOURCE_INDEX = "source"
#: Names in one message.
_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A binary package that is to come into the ``indexes`` of a suite (``binary-amd64`` …).

    ``essential`` is the field that makes it so, for messages; empty for an ordinary package.
    """

    name: str
    place: Place
    indexes: tuple[str, ...]
    essential: str
    file: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What stands against an arrival, and what is told though it is allowed."""

    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()


def essential(fields: Fields, priority: str = "") -> str:
    """The field of a package that makes it essential or the like; empty if there is none.

    ``priority`` is the one that the archive lists, if that is not the field's.
    """
    values = {name.lower(): value.strip() for name, value in fields}
    found = next((name for name in _ESSENTIAL if values.get(name, "").lower() not in _NO), "")
    if found:
        return f"{found.capitalize()}: {plain(values[found])}"
    listed = priority or values.get("priority", "")
    return f"Priority: {listed}" if listed.lower() in _PRIORITIES else ""


def claims(fields: Fields) -> frozenset[str]:
    """The binary packages that a .dsc says it builds: in Binary and in Package-List (dsc(5))."""
    values = {name.lower(): value for name, value in fields}
    binary = values.get("binary", "").replace(",", " ").split()
    lines = (line.split() for line in values.get("package-list", "").split("\n"))
    return frozenset((*binary, *(words[0] for words in lines if words)))


def upload(arrival: Arrival, listed: Sequence[Listed], rights: Rights) -> Verdict:
    """Judge a package of an upload. ``listed`` is what the suite lists under its name, or under that of the package
    whose debug symbols it has; no source packages."""
    others = _others(arrival, listed)
    if rights.unlimited:
        return Verdict(warnings=tuple(_told(arrival, others)))
    denied = [place for place in others if not rights.may(place)]
    problems = []
    if foreign := [place for place in denied if place.source != arrival.place.source]:
        problems.append(_not_theirs(arrival, foreign, rights))
    if rights.key is None:
        may_be_essential = False
    else:
        problems += [moved(arrival.name, place, rights, arrival.file) for place in denied if place not in foreign]
        possible = rights.rules_for(arrival.place)
        own = [rule for rule in possible if _brings(rule, arrival.name, arrival.place.suite, listed, rights)]
        if possible and not own:
            problems.append(_not_named([arrival.name], arrival.place, possible, rights, arrival.file))
        # Without any such rule there is one thing to mend first.
        may_be_essential = not own or any(rule.essential for rule in own)
    if arrival.essential and not may_be_essential:
        problems.append(_not_essential(arrival, rights))
    return Verdict(problems=tuple(problems))


def claimed(
    place: Place, listed: Mapping[str, Sequence[Listed]], rights: Rights, file: str, *, named: bool = True
) -> Iterator[Problem]:
    """Judge the names that a .dsc claims; ``listed`` has each of them, as for :func:`upload`. With ``named`` the key's
    rules have to name them, too."""
    if rights.unlimited:
        return
    possible = rights.rules_for(place) if rights.key and named else ()
    foreign: dict[str, Place] = {}
    unnamed = []
    for name, there in sorted(listed.items()):
        others = _owners(place, there)
        denied = [one for one in others if not rights.may(one)]
        if denied:
            foreign[name] = denied[0]
        if possible and not any(_brings(rule, name, place.suite, there, rights) for rule in possible):
            unnamed.append(name)
    if foreign:
        sources = _shown(sorted({one.source for one in foreign.values()}))
        found = f"it says that it builds {_shown(list(foreign))}, and in {place.suite} that belongs to {sources}"
        yield rules.BINARY_OF_OTHER_SOURCE.problem(f"{found}; {_may_not(rights, sources)}", file=file)
    if unnamed:
        yield _not_named(unnamed, place, possible, rights, file)


def copied(arrival: Arrival, listed: Sequence[Listed], rights: Rights, *, take_over: bool) -> Verdict:
    """Judge a package that an operator copies; ``rights`` are those of the key that brought it.

    The operator chooses suite and component, so the key's own limits count only for what is taken from others.
    """
    others = {place for place in _others(arrival, listed) if place.source != arrival.place.source}
    if take_over or rights.unlimited:
        return Verdict(warnings=tuple(_told(arrival, others)))
    problems = []
    if others and not all(rights.may(place) for place in (*others, arrival.place)):
        problems.append(_not_theirs(arrival, others, rights))
    if arrival.essential and not any(rule.essential for rule in rights.rules_for(arrival.place)):
        problems.append(_not_essential(arrival, rights))
    return Verdict(problems=tuple(problems))


def imported(arrival: Arrival, listed: Sequence[Listed]) -> Verdict:
    """Judge a package of an import, which the operator vouches for."""
    others = _others(arrival, listed)
    return Verdict(warnings=tuple(_told(replace(arrival, essential=""), others)))


def moved(name: str, place: Place, rights: Rights, file: str | None) -> Problem:
    """The problem that a package would leave a component which its own source's key may not upload to."""
    found = f"{rights.who} may not upload {plain(place.source)} to the component {place.component} of {place.suite}"
    return rules.KEY_NOT_ALLOWED.problem(f"{found}, and {plain(name)} would leave it", file=file)


def binaries(listed: Mapping[str, Iterable[Listed]], name: str) -> list[Listed]:
    """What is listed of a binary package's name, or else of the package whose debug symbols it has."""
    own = [one for one in listed.get(name, ()) if one.index != SOURCE_INDEX]
    return own or [one for one in listed.get(debugged(name), ()) if one.index != SOURCE_INDEX]


def taken_over(name: str, suite: str, before: Iterable[str], now: str, file: str | None = None) -> Problem:
    """The warning that a name has moved to another source."""
    found = f"{plain(name)} in {suite} belonged to the source {_shown(list(before))} and belongs to {plain(now)} now"
    return rules.BINARY_TAKEN_OVER.problem(found, file=file)


# -- whose a name is --------------------------------------------------------------------------------------------------


def _others(arrival: Arrival, listed: Sequence[Listed]) -> set[Place]:
    """Where the name belongs besides the place that it comes to: what the arrival would take something from."""
    places = {_place(arrival.place.suite, one) for one in listed}
    if any(one.package.name != arrival.name for one in listed):  # debug symbols that are not listed yet
        return _owners(arrival.place, listed)
    if arrival.place in places:  # it shares the name, and takes only what stands in the same indexes
        places = {_place(arrival.place.suite, one) for one in listed if one.index in arrival.indexes}
    return places - {arrival.place}


def _owners(place: Place, listed: Sequence[Listed]) -> set[Place]:
    """As :func:`_others`, if nothing that is listed would be replaced."""
    if any(one.source == place.source for one in listed):
        return set()
    return {_place(place.suite, one) for one in listed}


def _place(suite: str, listed: Listed) -> Place:
    return Place(suite=suite, component=listed.component, source=listed.source)


def _brings(rule: UploaderRule, name: str, suite: str, listed: Sequence[Listed], rights: Rights) -> bool:
    """By the rule's globs, or, if it has none for binaries, since the suite lists it from a source of the same key."""
    if names(rule, name):
        return True
    return not rule.binaries and any(rights.may(_place(suite, one)) for one in listed)


# -- what is said -----------------------------------------------------------------------------------------------------


def _told(arrival: Arrival, others: Collection[Place]) -> Iterator[Problem]:
    sources = sorted({place.source for place in others} - {arrival.place.source})
    if sources:
        yield taken_over(arrival.name, arrival.place.suite, sources, arrival.place.source, arrival.file)
    if arrival.essential:
        found = f"{plain(arrival.name)} has {arrival.essential}"
        yield rules.ESSENTIAL_PACKAGE.problem(found, file=arrival.file)


def _not_theirs(arrival: Arrival, denied: Collection[Place], rights: Rights) -> Problem:
    sources = sorted({place.source for place in denied})
    where = f"{arrival.place.suite} {_shown(sorted({place.component for place in denied}))}"
    found = f"{plain(arrival.name)} in {where} belongs to the source {_shown(sources)}"
    return rules.BINARY_OF_OTHER_SOURCE.problem(f"{found}; {_may_not(rights, _shown(sources))}", file=arrival.file)


def _may_not(rights: Rights, sources: str) -> str:
    if rights.key is None:
        return f"{rights.who} takes nothing from it"
    return f"{rights.who} may not upload {sources} there"


def _not_named(
    wanted: Sequence[str], place: Place, possible: Sequence[UploaderRule], rights: Rights, file: str | None
) -> Problem:
    listed = ", ".join(f'"{plain(name)}"' for name in wanted[:_SHOWN])
    explicit = next((rule for rule in possible if rule.binaries), None)
    if explicit:
        add = f"add {listed} to binaries = [{', '.join(map(_quoted, explicit.binaries))}]"
    else:
        add = (
            f"add the rule [[uploaders]] key = {_quoted(possible[0].key or '')}, suites = [{_quoted(place.suite)}], "
            f"sources = [{_quoted(place.source)}], binaries = [{listed}]"
        )
    found = f"{rights.who} may upload {plain(place.source)} to {place.suite}, but not a binary package {_shown(wanted)}"
    return rules.BINARY_NOT_ALLOWED.problem(f"{found}; to allow it, {add}", file=file)


def _not_essential(arrival: Arrival, rights: Rights) -> Problem:
    found = f"{plain(arrival.name)} has {arrival.essential}, and {rights.who} may not bring such a package"
    return rules.ESSENTIAL_NOT_ALLOWED.problem(found, file=arrival.file)


def _quoted(text: str) -> str:
    return f'"{plain(text)}"'


def _shown(some: Sequence[str]) -> str:
    more = f" and {len(some) - _SHOWN} more" if len(some) > _SHOWN else ""
    return ", ".join(map(plain, some[:_SHOWN])) + more
