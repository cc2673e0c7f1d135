"""How log lines look: JSON for machines, one readable line for people."""

import json
import logging
import traceback
from datetime import UTC, datetime
from itertools import islice
from types import TracebackType
from typing import Any

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from app.core.log_context import is_private, request_id

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]

# Attributes of records that aren't shown; color_message is uvicorn's second copy of the message.
HIDDEN_ATTRS = [*RESERVED_ATTRS, "color_message"]
HIDDEN = frozenset(HIDDEN_ATTRS)
# Attributes of every record; those of `extra` come behind them.
STANDARD = len(vars(logging.LogRecord("", 0, "", 0, "", None, None)))
# Names of fields that the library hides, or that take the place of a line's own.
SPECIAL = HIDDEN | {"level", "logger", "event", "timestamp"}


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


class JsonLines(_PrivateTracebacks, JsonFormatter):
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
        self._encode = json.JSONEncoder(default=str).encode
        self._second = (0, "")  # the last one that a line had, and its text

    def format(self, record: logging.LogRecord) -> str:
        """Format nearly all lines in a third of the library's time; leave it what is unusual."""
        if type(record) is logging.LogRecord and not (
            record.args or record.exc_info or record.stack_info or type(record.msg) is not str
        ):
            fields = dict(islice(vars(record).items(), STANDARD, None))
            if fields and SPECIAL.isdisjoint(fields) and _are_shown(fields):
                return self._quick(record, fields)
        return super().format(record)

    def _quick(self, record: logging.LogRecord, fields: dict[str, Any]) -> str:
        encode = self._encode
        return (
            f'{{"level": "{record.levelname}", "logger": {encode(record.name)}, '
            f'"event": {encode(record.msg)}, {encode(fields)[1:-1]}, '
            f'"timestamp": "{self._time(record.created)}"}}'
        )

    def _time(self, created_s: float) -> str:
        """Return the time as `str` has it of a datetime; its date and hour seldom change."""
        second = int(created_s)
        microsecond = round((created_s - second) * 1e6)
        if not 0 < microsecond < 10**6:
            return str(datetime.fromtimestamp(created_s, UTC))
        known, text = self._second
        if known != second:
            text = str(datetime.fromtimestamp(second, UTC)).removesuffix("+00:00")
            self._second = (second, text)
        return f"{text}.{microsecond:06}+00:00"


def _are_shown(fields: dict[str, Any]) -> bool:
    """Tell whether no name begins with _, which the library hides, or with a capital letter."""
    try:
        return min(fields) >= "a"
    except TypeError:  # a name that is a number
        return False


class ConsoleLines(_PrivateTracebacks):
    """Time, level, event, and the fields as name=value."""

    def __init__(self, *, log_inputs: bool) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
        self.log_inputs = log_inputs

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        """Return the line without an exception."""
        fields = {k: v for k, v in vars(record).items() if k not in HIDDEN}
        text = "".join(f" {k}={v}" for k, v in fields.items())
        return super().formatMessage(record) + text
