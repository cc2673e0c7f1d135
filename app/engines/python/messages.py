"""What the service and the process of a model say to each other, as heads and blobs of messages."""

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from app.engines.base import PythonOptions
from app.engines.python.failures import UserCallError, UserCodeError
from app.engines.python.frames import Message
from app.engines.python.model_messages import ERROR, error_head, read_error
from app.engines.python.runner import Answer, Facts
from app.errors import (
    InvalidRequestError,
    ServiceError,
    SourceError,
    StartupError,
    UnsafeModelError,
)

# Calls, by the name of what is called.
CALL: Final = "call"
RUN, PREPARE, CHECK = "run", "prepare", "check"
STREAM, NEXT, END = "stream", "next", "end"
# Answers: what a row is.
ANSWER, COST, FAILED, INVALID = "answer", "cost", "failed", "invalid"
# Answers to the first message: it is loaded, or why not.
FACTS, REFUSED = "facts", "refused"
OUT_OF_MEMORY: Final = "out_of_memory"
REFUSALS: Final = {kind.__name__: kind for kind in (SourceError, UnsafeModelError, UserCodeError)}
MAX_TRACEBACK_CHARS: Final = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The first message to a process: what it loads, and how it logs.

    Args:
        name: of the model.
        device: that the class is told.
        labels: of the entry.
        options: which class, and how.
        logs: as `app.core.logs.configure` takes it; None: the process doesn't log.

    """

    name: str
    device: str
    labels: tuple[str, ...]
    options: PythonOptions
    logs: Mapping[str, Any] | None = field(default=None)

    def head(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)

    @classmethod
    def of(cls, head: Mapping[str, Any]) -> "Start":
        """Return what `head` wrote."""
        options = dict(head["options"])
        options["base"] = Path(options["base"])
        options["hidden"] = frozenset(options["hidden"])
        options["uses"] = tuple(options["uses"])
        labels = tuple(head["labels"])
        return cls(**{**head, "labels": labels, "options": PythonOptions(**options)})


class RaisedError(Exception):
    """An exception of the class in its process; its subclasses have the names of what was raised.

    Its cause says where: the traceback as text.
    """


def refusal_of(failure: StartupError) -> dict[str, Any]:
    """Return why a class can't be served, with what it raised."""
    refused: dict[str, Any] = {"kind": type(failure).__name__, "line": str(failure)}
    if cause := failure.__cause__:
        lines = "".join(traceback.format_exception(cause))
        refused["cause"] = {
            "name": type(cause).__name__,
            "message": str(cause),
            "traceback": lines[-MAX_TRACEBACK_CHARS:],
        }
    return {REFUSED: refused}


def read_refusal(refused: Mapping[str, Any]) -> StartupError:
    """Return the error that `refusal_of` wrote."""
    error = REFUSALS.get(refused["kind"], UserCodeError)(refused["line"])
    if cause := refused.get("cause"):
        raised = type(cause["name"], (RaisedError,), {})(cause["message"])
        raised.__cause__ = RaisedError("\n" + cause["traceback"])
        error.__cause__ = raised
    return error


def read_facts(head: Mapping[str, Any]) -> Facts:
    """Return what a loaded class says of itself."""
    return Facts(**{**head, "labels": tuple(head["labels"])})


def row_head(row: Answer | Exception) -> dict[str, Any]:
    """Return a row without the bytes of its answer."""
    if isinstance(row, Answer):
        return {ANSWER: [row.label, row.score]}
    if isinstance(row, InvalidRequestError):
        return {INVALID: row.extensions["errors"]}
    if isinstance(row, ServiceError):  # of a model that the class calls
        return {ERROR: error_head(row)}
    # The message of another may have what a user sent.
    what = str(row) if isinstance(row, UserCallError) else f"it raised {type(row).__name__}"
    return {FAILED: what}


def read_rows(message: Message) -> list[Answer | Exception]:
    """Return the rows of a call; answers have a blob each.

    Raises:
        LookupError, TypeError, ValueError: it is no such message.

    """
    contents = iter(message.blobs)
    return [
        Answer(content=next(contents), label=row[ANSWER][0], score=row[ANSWER][1])
        if ANSWER in row
        else read_failure(row)
        for row in message.head[RUN]
    ]


def read_failure(row: Mapping[str, Any]) -> Exception:
    """Return the error of an item."""
    if INVALID in row:
        return InvalidRequestError(row[INVALID])
    if ERROR in row:
        return read_error(row[ERROR])
    if OUT_OF_MEMORY in row:
        return UserCallError(row[OUT_OF_MEMORY])
    return UserCallError(row[FAILED])


def cost_head(prepared: int | Exception) -> dict[str, Any]:
    """Return an item's cost, or its error."""
    return {COST: prepared} if isinstance(prepared, int) else row_head(prepared)


def blobs_of(rows: Sequence[Answer | Exception]) -> list[bytes]:
    """Return the bytes of those that are answers."""
    return [row.content for row in rows if isinstance(row, Answer)]
