"""Where log lines go: all of the process, uvicorn's included, to standard error, in one shape."""

import logging
import logging.config
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any, TextIO

from app.core.log_context import is_private, request_id, trace
from app.core.log_formats import ConsoleLines, JsonLines
from app.core.log_writer import LineWriter

__all__ = ["announce", "configuration", "configure", "dropped_lines", "is_private", "request_id"]

log = logging.getLogger(__name__)

# For how long a thread waits that its critical line is written: the process may be about to end.
CRITICAL_FLUSH_S = 0.2
WAITING_LINES = 10_000


class _Handler(logging.Handler):
    """Makes the line of a record, with the id of its request; a thread writes it."""

    def __init__(self, writer: LineWriter, *, lines: logging.Formatter) -> None:
        super().__init__()
        self.writer = writer
        self.lines = lines

    def handle(self, record: logging.LogRecord) -> bool:
        """Take a record; without logging's lock, which a signal handler may find taken.

        A line is made here, not in the thread: it takes 4 µs, a fifth less than to keep the record
        until then, and the request's id and what the values say now are at hand.
        """
        if current := request_id.get():
            record.request_id = current
        if (traced := trace.get()) is not None and traced.is_sampled:
            record.trace_id, record.span_id = traced.trace_id, traced.span_id
        try:
            line = self.lines.format(record)
        except Exception as failure:  # noqa: BLE001  # to log never fails the code that does
            line = _failed(self.lines, record, failure)
        self.writer.put(line)
        if record.levelno >= logging.CRITICAL:
            self.writer.flush(timeout_s=CRITICAL_FLUSH_S)
        return True

    def flush(self) -> None:
        """Wait until all is written, within a bound."""
        self.writer.flush()

    def close(self) -> None:
        """Write what waits, and end the thread."""
        self.writer.close()
        super().close()


def _open(stream: TextIO | None, lines: logging.Formatter, bound: int) -> _Handler:
    def report(count: int) -> str:
        return _own(lines, logging.WARNING, "log_lines_dropped", count=count)

    return _Handler(LineWriter(stream, bound=bound, report=report), lines=lines)


def _failed(lines: logging.Formatter, record: logging.LogRecord, failure: Exception) -> str:
    """Say where a line couldn't be made; its message and arguments may quote a user's text."""
    place = f"{record.pathname}:{record.lineno}"
    error = type(failure).__name__
    return _own(lines, logging.ERROR, "log_line_failed", place=place, error=error)


def _own(lines: logging.Formatter, level: int, event: str, **fields: object) -> str:
    return lines.format(log.makeRecord(log.name, level, "", 0, event, (), None, extra=fields))


def announce(sentence: str, event: str, **fields: object) -> None:
    """Say on standard error, whatever the level, what the person who started the process waits for.

    Args:
        sentence: on a console, and where `configure` wasn't called.
        event: of the line of JSON that has the fields, where lines are JSON.
        fields: of that line.

    """
    handlers = [h for h in logging.getLogger().handlers if isinstance(h, _Handler)]
    if not handlers and sys.stderr is not None:
        sys.stderr.write(f"{sentence}\n")
    for handler in handlers:
        is_json = isinstance(handler.lines, JsonLines)
        line = _own(handler.lines, logging.INFO, event, **fields) if is_json else sentence
        handler.writer.put(line)


def dropped_lines() -> int:
    """Return how many log lines this process has lost."""
    handlers = logging.getLogger().handlers
    return sum(handler.writer.dropped for handler in handlers if isinstance(handler, _Handler))


def _use_for_orphans(handler: logging.Handler) -> None:
    """Show warnings of loggers too that a library has cut off, without a handler of their own."""
    assert isinstance(handler, _Handler)  # noqa: S101  # as configured
    last = _Handler(handler.writer, lines=handler.lines)
    last.setLevel(logging.WARNING)
    logging.lastResort = last


class _AfterTheLog:
    """Shows an exception that nobody caught when the lines before it are written.

    Python writes a traceback in pieces, and a line would stand in the middle of one of its own.
    """

    def __init__(self, show: Callable[..., object]) -> None:
        self._show = show

    def __call__(self, *exception: object) -> None:
        for handler in logging.getLogger().handlers:
            handler.flush()
        self._show(*exception)


_in_force: dict[str, Any] = {}


def configuration() -> dict[str, Any] | None:
    """Return what `configure` was called with, for a child process; None where it wasn't."""
    return dict(_in_force) or None


def configure(*, log_format: str, level: str, log_inputs: bool, bound: int = WAITING_LINES) -> None:
    """Send every logger of the process, and Python's warnings, to standard error in one shape.

    A thread writes them; `logging.shutdown` waits for it, within a bound.

    Args:
        log_format: "json", "console", or "auto": console on a terminal.
        level: the least severe level that is shown, in lower case.
        log_inputs: whether exceptions inside requests show their messages.
        bound: lines that may wait for the thread; more are dropped, and counted.

    """
    _in_force.update(log_format=log_format, level=level, log_inputs=log_inputs, bound=bound)
    is_console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    formatter = ConsoleLines if is_console else JsonLines
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {
                "stderr": {
                    "()": _open,
                    "stream": sys.stderr,
                    "lines": formatter(log_inputs=log_inputs),
                    "bound": bound,
                }
            },
            "root": {"level": level.upper(), "handlers": ["stderr"]},
            "loggers": {
                # Libraries that log every connection, at DEBUG with host and headers.
                "httpcore2": {"level": "WARNING"},
                "httpx2": {"level": "WARNING"},
                "alembic": {"level": "WARNING"},
                "botocore": {"level": "WARNING"},
                # A line for each message that wakes a worker.
                "celery": {"level": "WARNING"},
                "kombu": {"level": "WARNING"},
                # A client that is too slow ends its run with an exception in the callback.
                "langchain_core.callbacks": {"level": "ERROR"},
                # Our own request log takes the place of uvicorn's.
                "uvicorn.access": {"level": "CRITICAL"},
            },
        }
    )

    # No line shows them; Python's "How to log" names these switches, for speed.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    _use_for_orphans(logging.getLogger().handlers[0])
    if not isinstance(sys.excepthook, _AfterTheLog):
        sys.excepthook = _AfterTheLog(sys.excepthook)
        threading.excepthook = _AfterTheLog(threading.excepthook)

    def show_warning(  # the signature is Python's
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,  # noqa: ARG001
        line: str | None = None,  # noqa: ARG001
    ) -> None:
        fields = {"category": category.__name__, "place": f"{filename}:{lineno}"}
        if log_inputs or not (request_id.get() or is_private.get()):
            fields["warning"] = str(message)
        log.warning("library_warning", extra=fields)

    # Libraries silence theirs with filters that all threads share, so that one may get through
    # while another thread imports; as plain text it would break the lines of JSON.
    warnings.showwarning = show_warning
