"""Writes ``incomingctl-submit``: this room's own source as one file that Python 3.8 and later runs.

    python3 -m incomingd.client.bundle incomingctl-submit

The same source gives the same bytes. It is a zip archive with a first line for the shell (zipapp of the standard
library), and imports nothing that is installed.
"""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

_HEAD = b"#!/usr/bin/env python3\n"
_MAIN = "import sys\n\nfrom incomingd.client.__main__ import main\n\nsys.exit(main())\n"
#: The oldest that a zip archive can have.
_DATE = (1980, 1, 1, 0, 0, 0)


def bundle() -> bytes:
    """The file's bytes."""
    here = Path(__file__).parent
    members = {"__main__.py": _MAIN, "incomingd/__init__.py": ""}
    for file in sorted(here.glob("*.py")):
        if file.name != Path(__file__).name:
            members[f"incomingd/client/{file.name}"] = file.read_text(encoding="utf-8")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in sorted(members.items()):
            archive.writestr(zipfile.ZipInfo(name, _DATE), text, zipfile.ZIP_DEFLATED)
    return _HEAD + packed.getvalue()


def main() -> int:
    """Write it to the file that is named."""
    if len(sys.argv) != 2:
        print("usage: python3 -m incomingd.client.bundle FILE", file=sys.stderr)
        return 2
    file = Path(sys.argv[1])
    file.write_bytes(bundle())
    file.chmod(0o755)
    return 0


if __name__ == "__main__":
    sys.exit(main())
