"""How a process ends, with its last log lines written."""

import logging
import os
import select
import sys
from contextlib import suppress
from typing import NoReturn


def write_last_lines() -> None:
    """Write the log lines that wait, before the process ends without its interpreter's own end."""
    for handler in logging.getLogger().handlers:
        handler.flush()


def print_if_read(message: str) -> None:
    """Print to standard error, unless it is closed or its pipe full: that would hold up the end."""
    if sys.stderr is None:
        return
    poll = select.poll()
    poll.register(sys.stderr, select.POLLOUT)
    if poll.poll(0):
        with suppress(OSError):
            os.write(sys.stderr.fileno(), message.encode())


def leave(status: int) -> NoReturn:
    """End the process now; nothing but the log is written: for signal handlers and timers."""
    write_last_lines()
    os._exit(status)


def end_process(status: int) -> NoReturn:
    """End the process now, without waiting for a thread that is still loading a model."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # the caller may have closed it
            stream.flush()
    os._exit(status)
