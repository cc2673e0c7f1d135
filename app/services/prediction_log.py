"""The entry of an answer in the prediction log; the feature `prediction_log` stores it."""

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Protocol

from pydantic import Field

from app.core.logs import request_id

OK = 200
ID_BITS = 53  # every JSON reader has integers up to here
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Of a UUID (RFC 9562): the bits after its last hyphen, and the variant, which stands before it.
LAST = 48
LAST_BITS = (1 << LAST) - 1
VARIANT = 0x8000


def new_id() -> int:
    """Return an id for an entry; together with its time it is unique."""
    return random.getrandbits(ID_BITS)


def prediction_id(time: datetime, number: int) -> str:
    """Return the name of an entry in answers: a UUID that says its time and its id, and no more.

    So it is known before the entry is written, and leads to it by the table's own key. As RFC 9562
    has version 7: milliseconds in front; then the microseconds (its method 3), and the id.
    """
    since = time - EPOCH
    ms, us = divmod(since.microseconds, 1000)
    head = f"{(since.days * 86_400 + since.seconds) * 1000 + ms:012x}"
    tail = f"{number & LAST_BITS:012x}"
    return f"{head[:8]}-{head[8:]}-7{us:03x}-{VARIANT | number >> LAST:04x}-{tail}"


def to_ms(seconds: float) -> float:
    """Return milliseconds, to the microsecond."""
    return round(seconds * 1000, 3)


# Not frozen: that takes more than twice the time, and there are two for each text.
@dataclass(slots=True, kw_only=True)
class PredictionLogEntry:
    """One answer, or the error in its place.

    This declares the log's columns: the table, pages, exports and the OpenAPI document are made of
    it. A new column needs a migration too.
    """

    time: datetime = field(default_factory=lambda: datetime.now(UTC))
    id: Annotated[int, Field(description="With `time` it is unique.")] = field(
        default_factory=new_id
    )
    request_id: str = field(default_factory=request_id.get)
    key_id: Annotated[
        int | None, Field(description="Whose API key; null without a stored key.")
    ] = None
    task: str
    model: str  # the name in the request, if that failed before the model was found
    version: str | None = None  # of the model's files
    status: Annotated[int, Field(description="The HTTP status; for a text of a batch its own.")] = (
        OK
    )
    error: Annotated[str | None, Field(description="The error's code; null when it went well.")] = (
        None
    )
    latency_ms: float  # from the request to its answer
    label: str | None = None
    score: float | None = None
    input_hash: Annotated[
        str | None, Field(description="SHA-256 of the input, unless switched off.")
    ] = None
    # Until it is put: the text, all texts with a line each, or the last message of a chat.
    input: Annotated[
        str | None, Field(description="The input's text, where the service keeps it.")
    ] = field(default=None, repr=False)
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    ttft_ms: Annotated[float | None, Field(description="Time to the first token of a chat.")] = None
    finish_reason: str | None = None
    shadow: Annotated[
        bool, Field(description="Whether a shadow made it, of a copy: nobody got it.")
    ] = False


@dataclass(slots=True, kw_only=True)
class AnsweredEntry(PredictionLogEntry):
    """An entry with what is known of its input while it is answered, and isn't stored."""

    input_tokens: int | None = None
    unknown_tokens: int | None = None  # of them; None where the tokeniser knows every word


class EntryLog(Protocol):
    """Takes entries."""

    @property
    def keeps_entries(self) -> bool:
        """Whether they can be found again later, by the ids that answers carry."""
        ...

    def put(self, entry: PredictionLogEntry) -> None:
        """Take an entry, to be written soon; it is the log's from now on.

        Never waits, never raises; call it on the loop.
        """


class NoEntryLog:
    """Drops all entries: what a service has without the feature `prediction_log`."""

    keeps_entries = False

    def put(self, entry: PredictionLogEntry) -> None:
        """Drop it; whoever else has it is left without its text."""
        entry.input = None
