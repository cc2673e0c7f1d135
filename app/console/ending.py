"""How a command ends its process."""

import logging
import os
import sys
from typing import NoReturn


def end_process(status: int) -> NoReturn:
    """End the process now, without waiting for a thread that is still loading a model."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # the caller may have closed it
            stream.flush()
    os._exit(status)
