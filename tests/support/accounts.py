"""A daemon with the user, the rights and the umask of the packaged unit, and other accounts that attack it.

Not a service: one process, started by setpriv(1), since a private systemd takes seconds to boot. What a test needs of
the unit beyond user, capabilities and umask is for :mod:`tests.support.packaged`.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.instance import Instance

UNIT = Path(__file__).parents[2] / "systemd/incomingd.service"
#: The daemon's account, which is also the uploaders' group, and two accounts of that group. They have no names.
DAEMON, ALICE, MALLORY = 12000, 13001, 13002


def unit_setting(name: str) -> str:
    """The last value of one setting of the packaged unit."""
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)[-1]


def become(uid: int, *, capabilities: Sequence[str] = ()) -> tuple[str, ...]:
    """A command to be put before another one: it runs as ``uid``, in the uploaders' group."""
    wanted = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in capabilities)
    held = f"-all,{wanted}" if wanted else "-all"
    rights = ("--inh-caps", held, "--ambient-caps", held, "--bounding-set", held)
    return ("setpriv", "--reuid", str(uid), "--regid", str(DAEMON), "--clear-groups", "--no-new-privs", *rights)


def run_as(uid: int, script: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a shell script as another account, with a umask of 022."""
    return subprocess.run([*become(uid), "sh", "-c", f"umask 022; {script}"], capture_output=True, text=True, **options)


class Guarded(Instance):
    """An instance of the daemon's account, with incoming as systemd/incomingd.tmpfiles makes it.

    ``root`` is made; every folder above it must be open to other accounts.
    """

    def __init__(self, root: Path, *, trust: Sequence[Path] = (), options: Sequence[str] = ()) -> None:
        assert readable_python(), f"other accounts cannot run {sys.executable}: make .venv with /usr/bin/python3"
        super().__init__(root, trust=trust, options=options)
        self.hand_over()
        self.incoming.chmod(0o3770)
        umask = unit_setting("UMask")
        rights = become(DAEMON, capabilities=unit_setting("AmbientCapabilities").split())
        self.prefix = (*rights, "sh", "-c", f'umask {umask}; exec "$@"', "sh")

    def as_root(self) -> None:
        """Have the daemon run as root instead, with all of root's rights. Before it is started."""
        subprocess.run(["chown", "-R", f"0:{DAEMON}", str(self.root)], check=True)
        self.incoming.chmod(0o3770)
        self.prefix = ()

    def hand_over(self) -> None:
        """Make all of it the daemon's account's, as after a change that a test made as root."""
        home = self.state / "gnupg/signing"
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], capture_output=True, check=False)
        subprocess.run(["chown", "-R", f"{DAEMON}:{DAEMON}", str(self.root)], check=True)


def open_folder(path: Path) -> Path:
    """Make ``path`` and let other accounts pass through it and all that is above it."""
    path.mkdir(parents=True, exist_ok=True)
    for folder in (path, *path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o711)
    return path


def readable_python() -> bool:
    """True if another account can run this interpreter and read this checkout."""
    tried = subprocess.run([*become(MALLORY), sys.executable, "-c", "import incomingd"], capture_output=True)
    return tried.returncode == 0


def own(path: Path, uid: int, mode: int | None = None) -> Path:
    """Give a file, or a folder with all that is in it, to an account."""
    shutil.chown(path, uid, DAEMON)
    if mode is not None:
        path.chmod(mode)
    for inside in path.rglob("*") if path.is_dir() and not path.is_symlink() else ():
        os.chown(inside, uid, DAEMON, follow_symlinks=False)
    return path
