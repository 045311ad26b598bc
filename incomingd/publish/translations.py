"""Splits long descriptions off the Packages indexes into one Translation-en for each component, where asked for.

The catalogue keeps each stanza whole, with its long description. Indexes are a view of it: in ``COMPONENT/binary-ARCH``
the first line and a Description-md5, in ``COMPONENT/i18n`` each long description once, however many architectures have
it. apt finds one by the other (Debian wiki, "DebianRepository/Format"). The installer's indexes stay whole.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from functools import partial
from heapq import merge
from itertools import groupby
from operator import itemgetter

from incomingd.journal.catalogue import Catalogue

_I18N = "i18n"
#: No field has a second line that begins at the margin, so what begins so is the field.
_DESCRIPTION = re.compile(rb"^Description: (?P<first>[^\n]*)(?P<rest>(?:\n[ \t][^\n]*)*)\n", re.MULTILINE)

Changes = Mapping[str, Mapping[str, bytes | None]]


def section_of(component: str) -> str:
    """Where a component's translations lie."""
    return f"{component}/{_I18N}"


def shortened(stanza: bytes) -> bytes:
    """A stanza of Packages with the first line of its description, and the digest of the whole."""
    match = _DESCRIPTION.search(stanza)
    if match is None:
        return stanza
    short = b"Description: %b\nDescription-md5: %b\n" % (match["first"], _md5(match))
    return stanza[: match.start()] + short + stanza[match.end() :]


def translated(name: str, stanzas: Iterable[bytes]) -> bytes:
    """The stanzas of Translation-en for a package's stanzas of all architectures: one for each description."""
    found = {}
    for stanza in stanzas:
        match = _DESCRIPTION.search(stanza)
        if match is not None:
            text = match["first"] + match["rest"]
            found[_md5(match)] = b"Package: %b\nDescription-md5: %b\nDescription-en: %b\n\n" % (
                name.encode(),
                _md5(match),
                text,
            )
    return b"".join(found.values())


def _md5(match: re.Match[bytes]) -> bytes:
    """As apt computes it: of the whole value and the newline behind it."""
    value = match["first"] + match["rest"] + b"\n"
    return hashlib.md5(value, usedforsecurity=False).hexdigest().encode()


class View:
    """The stanzas of one suite's sections as its indexes show them."""

    def __init__(self, catalogue: Catalogue, suite: str, components: Mapping[str, Iterable[str]]) -> None:
        """``components`` are those whose descriptions are split off, each with its binary sections; none for none."""
        self._catalogue = catalogue
        self._suite = suite
        self._binary = {section_of(component): tuple(sections) for component, sections in components.items()}
        self._short = {section for sections in self._binary.values() for section in sections}

    def stanzas(self, section: str, first: str = "") -> Iterator[tuple[str, bytes]]:
        """As :meth:`Catalogue.section_stanzas`."""
        if section in self._binary:
            with ExitStack() as opened:
                every = [
                    opened.enter_context(closing(self._catalogue.section_stanzas(self._suite, one, first)))
                    for one in self._binary[section]
                ]
                for name, group in groupby(merge(*every, key=itemgetter(0)), key=itemgetter(0)):
                    if text := translated(name, (stanza for _, stanza in group)):
                        yield name, text
            return
        for name, stanza in self._catalogue.section_stanzas(self._suite, section, first):
            yield name, shortened(stanza) if section in self._short else stanza

    def changes(self, changes: Changes) -> Changes:
        """What changes in the indexes where that changes in the catalogue; nothing is read before it is asked for."""
        shown: dict[str, Mapping[str, bytes | None]] = {
            section: _Lazy(own, partial(_shortened, own)) if section in self._short else own
            for section, own in changes.items()
        }
        for section, sources in self._binary.items():
            names = sorted({name for one in sources for name in changes.get(one, {})})
            if names:
                shown[section] = _Lazy(names, partial(self._translated, sources, changes))
        return shown

    def _translated(self, sections: Iterable[str], changes: Changes, name: str) -> bytes | None:
        after = [changes[one][name] if name in changes.get(one, {}) else self._listed(one, name) for one in sections]
        return translated(name, (stanza for stanza in after if stanza is not None)) or None

    def _listed(self, section: str, name: str) -> bytes | None:
        with closing(self._catalogue.section_stanzas(self._suite, section, name)) as stanzas:
            found, stanza = next(stanzas, ("", b""))
        return stanza if found == name else None


def _shortened(changes: Mapping[str, bytes | None], name: str) -> bytes | None:
    stanza = changes[name]
    return None if stanza is None else shortened(stanza)


class _Lazy(Mapping[str, bytes | None]):
    """Names whose values are made when they are asked for."""

    def __init__(self, names: Iterable[str], make: Callable[[str], bytes | None]) -> None:
        self._names = dict.fromkeys(names)
        self._make = make

    def __getitem__(self, name: str) -> bytes | None:
        if name not in self._names:
            raise KeyError(name)
        return self._make(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names
