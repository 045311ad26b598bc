"""Holds a write lease on a file, and takes it again whenever the kernel takes it away: ``python lease.py FILE``.

Says "held" when it has it for the first time. Ends with its parent.
"""

import ctypes
import fcntl
import os
import signal
import sys
import time

_PR_SET_PDEATHSIG = 1


def main() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    fd = os.open(sys.argv[1], os.O_RDWR)
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    print("held", flush=True)
    while True:
        if fcntl.fcntl(fd, fcntl.F_GETLEASE) != fcntl.F_WRLCK:
            try:
                fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
                fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            except OSError:
                continue
        time.sleep(0.0005)


if __name__ == "__main__":
    main()
