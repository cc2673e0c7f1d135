"""How log lines look: JSON for machines, one readable line for people, uvicorn's included."""

import logging
import logging.config
import sys
import traceback
import warnings
from contextvars import ContextVar
from types import TracebackType
from typing import TextIO

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]

# Set by the request middleware; "" outside a request.
request_id: ContextVar[str] = ContextVar("request_id", default="")

# Set in threads that run users' texts.
is_private: ContextVar[bool] = ContextVar("is_private", default=False)

log = logging.getLogger(__name__)

# Attributes of records that aren't shown; color_message is uvicorn's second copy of the message.
HIDDEN_ATTRS = [*RESERVED_ATTRS, "color_message"]


class _ContextFilter(logging.Filter):
    """Puts the request id on every line that is logged while a request is served."""

    def filter(self, record: logging.LogRecord) -> bool:
        if current := request_id.get():
            record.request_id = current
        return True


class _PrivateTracebacks(logging.Formatter):
    """Hides messages of exceptions in code that handles users' texts: they may quote them."""

    log_inputs = False

    def formatException(self, ei: ExcInfo) -> str:  # noqa: N802  # the name is logging's
        if self.log_inputs or not (request_id.get() or is_private.get()):
            return super().formatException(ei)
        lines = ["Traceback (messages withheld; LOG_INPUTS=true shows them):"]
        failure: BaseException | None = ei[1]
        while failure is not None:
            lines.append(f"{type(failure).__module__}.{type(failure).__qualname__}")
            lines += [line.rstrip() for line in traceback.format_tb(failure.__traceback__)]
            failure = failure.__cause__ or failure.__context__
        return "\n".join(lines)


class _Json(_PrivateTracebacks, JsonFormatter):
    """One JSON object a line."""

    def __init__(self, *, log_inputs: bool) -> None:
        JsonFormatter.__init__(
            self,
            "%(levelname)s %(name)s %(message)s",
            rename_fields={"levelname": "level", "name": "logger", "message": "event"},
            reserved_attrs=HIDDEN_ATTRS,
            timestamp=True,
            json_default=str,
        )
        self.log_inputs = log_inputs


class _Console(_PrivateTracebacks):
    """Time, level, event, and the fields as name=value."""

    def __init__(self, *, log_inputs: bool) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
        self.log_inputs = log_inputs

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        fields = {k: v for k, v in vars(record).items() if k not in HIDDEN_ATTRS}
        text = "".join(f" {k}={v}" for k, v in fields.items())
        return super().formatMessage(record) + text


def configure(*, log_format: str, level: str, log_inputs: bool) -> None:
    """Send every logger of the process, and Python's warnings, to standard error in one shape.

    Args:
        log_format: "json", "console", or "auto": console on a terminal.
        level: the least severe level that is shown, in lower case.
        log_inputs: whether exceptions inside requests show their messages.

    """
    is_console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    formatter = _Console if is_console else _Json
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {"context": {"()": _ContextFilter}},
            "formatters": {"line": {"()": formatter, "log_inputs": log_inputs}},
            "handlers": {
                "stderr": {
                    "class": "logging.StreamHandler",
                    "stream": sys.stderr,
                    "formatter": "line",
                    "filters": ["context"],
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
