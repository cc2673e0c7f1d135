"""How a script ends when it is told to: with what it has started."""

import signal
import sys
from types import FrameType

STATUS = 128 + signal.SIGTERM  # as a shell reports it


def clean_up_on_sigterm() -> None:
    """Have SIGTERM raise SystemExit, so that `with` and `finally` end processes and folders.

    By default a script ends at once, and the services that it started run on.
    """
    signal.signal(signal.SIGTERM, end)


def end(_number: int, _frame: FrameType | None) -> None:
    """Leave once: make passes the signal on, and a second one would end the cleaning up."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(STATUS)
