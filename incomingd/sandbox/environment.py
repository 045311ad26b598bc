"""The environment of processes that read packages: without secrets of the operator, of systemd or of ssh."""

import os

#: What an interpreter and its libraries need to be found and to run here.
_KEPT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "TZ")


def bare(*names: str, **values: str) -> dict[str, str]:
    """This process's variables that a program needs to run, those called ``names``, and ``values``."""
    return {name: os.environ[name] for name in (*_KEPT, *names) if name in os.environ} | values
