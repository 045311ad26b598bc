"""Runs a command as on a kernel that lacks something: the system calls that would tell of it fail as they do there.

Usage: old_kernel.py landlock|seccomp COMMAND ARGUMENT…
"""

import errno
import os
import sys

from incomingd.sandbox import seccomp
from incomingd.sandbox.seccomp import Argument, Call

_LACKING = {
    "landlock": Call(name="landlock_create_ruleset", number=444, result=errno.ENOSYS),
    "seccomp": Call(name="prctl", arguments=(Argument(index=0, value=21),), result=errno.EINVAL),
}

if __name__ == "__main__":
    what, *command = sys.argv[1:]
    assert seccomp.forbid([_LACKING[what]])
    os.execvp(command[0], command)
