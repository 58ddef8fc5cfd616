"""``python -m deploy.process COMMAND…``: a process that ends with its parent.

The kernel is asked to kill this process when its parent dies, however it dies, and
then the command takes its place. Where the kernel cannot (it is not Linux), the
command runs all the same and ``spnode up`` finds what a killed supervisor left.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask for SIGKILL at the end of the parent."""
    parent = os.getppid()
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        sys.exit("the parent ended before this process began")


if __name__ == "__main__":
    die_with_parent()
    os.execvp(sys.argv[1], sys.argv[1:])
