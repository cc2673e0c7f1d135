"""The signals that a service takes: two end it, one has its catalogue read anew."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)
Handler = Callable[[int, FrameType | None], object]


@contextmanager
def handled(*, end: Handler, hang_up: Handler) -> Iterator[None]:
    """Handle them during the block; they aren't raised again afterwards.

    Args:
        end: at SIGTERM and SIGINT.
        hang_up: at SIGHUP.

    """
    before = {number: signal.signal(number, end) for number in SIGNALS}
    before[signal.SIGHUP] = signal.signal(signal.SIGHUP, hang_up)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
