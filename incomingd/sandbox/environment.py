"""The environment of processes that read packages: without secrets of the operator, of systemd or of ssh."""

import os
from pathlib import Path

#: What an interpreter and its libraries need to be found and to run here.
_KEPT = ("PATH", "PYTHONHOME", "LD_LIBRARY_PATH", "TZ")


def bare(*names: str, **values: str) -> dict[str, str]:
    """This process's variables that a program needs to run, those called ``names``, and ``values``.

    ``PYTHONPATH`` is made absolute: these processes run in another folder.
    """
    found = {name: os.environ[name] for name in (*_KEPT, *names) if name in os.environ}
    if path := os.environ.get("PYTHONPATH"):
        found["PYTHONPATH"] = os.pathsep.join(str(Path(part).absolute()) for part in path.split(os.pathsep) if part)
    return found | values
