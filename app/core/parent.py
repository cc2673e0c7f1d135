"""Ends this process when its parent ends, however that happens.

As a script, `python parent.py PARENT_PID COMMAND...`, it becomes the command. It needs nothing but
the standard library, and is run without other packages, so that it starts in milliseconds.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent(parent_pid: int) -> None:
    """Ask the kernel to kill this process when the thread that started it ends; Linux only.

    The setting outlasts `exec`. On other systems nothing happens: children end when asked to.

    Args:
        parent_pid: whose death counts; when it is dead already, the process ends now.

    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(1)


def main() -> None:
    """Become the command."""
    die_with_parent(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606  # the command is our own


if __name__ == "__main__":
    main()
