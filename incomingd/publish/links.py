"""The links in ``dists`` that clients follow: one to the current generation of each suite, named as its table, and to
that one those of its ``suite`` and ``codename``.

A link that no table asks for any more stays until another suite has that name: its clients find the suite as ever, and
apt tells them of the new one.
"""

from incomingd import fsio
from incomingd.config import Config
from incomingd.errors import Halt
from incomingd.journal.generations import Generation, Generations
from incomingd.places import Places


class SuiteLinks:
    """The links of one archive."""

    def __init__(self, config: Config, generations: Generations) -> None:
        self._config = config
        self._places = Places(config)
        self._generations = generations

    def all_switched(self) -> bool:
        """True if clients see the current generation of each suite."""
        current = (self._generations.current(suite.name) for suite in self._config.suites)
        return all(self.is_switched(one) for one in current if one is not None)

    def is_switched(self, current: Generation) -> bool:
        """True if clients of the suite see this generation."""
        return fsio.points_to(self._places.suite_link(current.suite), _target(current))

    def switch(self, current: Generation) -> None:
        """Have clients see this generation, by one rename. Raises ``OSError``."""
        if not self.is_switched(current):
            fsio.switch(self._places.suite_link(current.suite), _target(current))
        suite = self._config.suite(current.suite)
        for name in suite.links if suite else ():
            link = self._places.suite_link(name)
            if not fsio.points_to(link, current.suite):
                fsio.switch(link, current.suite)

    def remove(self, suite: str) -> None:
        """Take a suite from its clients, under all its names; durable. May be done twice."""
        own = self._places.suite_link(suite)
        for link in own.parent.iterdir() if own.parent.is_dir() else ():
            if fsio.points_to(link, suite) or (link == own and link.is_symlink()):
                fsio.remove(link)
        if own.parent.is_dir():
            fsio.sync([own.parent])

    def must_be_ours(self, suite: str, current: Generation | None) -> None:
        """A suite that clients see and the journal does not know: an empty one must not take its place."""
        link = self._places.suite_link(suite)
        if current is None and link.is_symlink() and str(link.readlink()).startswith(f".generations/{suite}/"):
            raise Halt(
                f"{link} is published, and {self._places.journal} knows nothing of it; restore the journal that "
                f"belongs to this archive (docs/operators.md), or move {link} away to begin with an empty suite; then "
                "reload"
            )


def _target(generation: Generation) -> str:
    return f".generations/{generation.suite}/{generation.number}"
