"""What a configuration may say and is seldom meant: printed by ``--check-config``, logged at a start and a reload.

A warning changes nothing, and the exit status of ``--check-config`` stays 0. Each names file, table and key, as an
error does (:mod:`.reader`), and says what to do. A new warning is one more generator in :data:`_CHECKS`.
"""

from collections.abc import Callable, Iterator

from incomingd.config import Config


def warnings(config: Config) -> tuple[str, ...]:
    """Every warning that the configuration deserves, one line each."""
    return tuple(f"{config.file}: {line}" for check in _CHECKS for line in check(config))


def _unsigned_beside_uploaders(config: Config) -> Iterator[str]:
    if not config.uploaders:
        return
    for queue in config.queues:
        if queue.signatures == "optional":
            yield (
                f'[incoming.{queue.name}] signatures: is "optional", and there are [[uploaders]]; who leaves the '
                'signature out may upload every source there; set it to "required"'
            )


_CHECKS: tuple[Callable[[Config], Iterator[str]], ...] = (_unsigned_beside_uploaders,)
