"""What is kept of a log call: what a line shows, without threads, processes and names of files."""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

IMPORTED_S = time.time()


class LeanRecord(logging.LogRecord):
    """A record that is made in two thirds of the time; installed with `setLogRecordFactory`.

    What other formatters may ask for is found when they do.
    """

    def __init__(  # noqa: PLR0913, PLR0917  # logging calls it
        self,
        name: str,
        level: int,
        pathname: str,
        lineno: int,
        msg: object,
        args: Any,  # noqa: ANN401  # a tuple, or a mapping
        exc_info: Any,  # noqa: ANN401  # as logging has it
        func: str | None = None,
        sinfo: str | None = None,
        **_: object,
    ) -> None:
        # As in logging: `log.info("%(a)s", {"a": 1})`.
        if args and len(args) == 1 and isinstance(args[0], Mapping) and args[0]:
            args = args[0]
        self.name = name
        self.msg = msg
        self.args = args
        self.levelno = level
        self.levelname = logging.getLevelName(level)
        self.pathname = pathname
        self.lineno = lineno
        self.funcName = func or ""
        self.exc_info = exc_info
        self.stack_info = sinfo
        self.created = time.time()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # each has a type of its own
        """Return an attribute of logging's own records that wasn't set here.

        Raises:
            AttributeError: they have none of this name.

        """
        if name not in LATER:
            raise AttributeError(name)
        return LATER[name](self)


def _nothing(_: logging.LogRecord) -> None:
    """Return None, as logging has it where its noting of threads and processes is turned off."""


LATER: dict[str, Callable[[logging.LogRecord], object]] = {
    "exc_text": _nothing,
    "filename": lambda record: PurePath(record.pathname).name,
    "module": lambda record: PurePath(record.pathname).stem,
    "msecs": lambda record: record.created % 1 * 1000,
    "relativeCreated": lambda record: (record.created - IMPORTED_S) * 1000,
    **dict.fromkeys(("thread", "threadName", "process", "processName", "taskName"), _nothing),
}
# Attributes of every record; those of `extra` come behind them.
LEAN_FIELDS = len(vars(LeanRecord("", 0, "", 0, "", None, None)))
