"""Sends any number of rows as a file, in NDJSON or CSV."""

import asyncio
import csv
import io
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from datetime import datetime
from operator import attrgetter
from typing import Any, Protocol

from pydantic_core import to_json

from app.errors import ServiceError
from app.features.prediction_log.cells import escape
from app.features.prediction_log.feedback import FIELDS, Feedback, JudgedEntry
from app.features.prediction_log.parameters import TEXT_INDEXES, values_of
from app.features.prediction_log.tables import COLUMNS
from app.http.error_bodies import problem
from app.http.streamed import SEND_TIMEOUT_S, StreamedResponse
from app.services.prediction_log import PredictionLogEntry, prediction_id

TIME_INDEX, SHADOW_INDEX = COLUMNS.index("time"), COLUMNS.index("shadow")
CSV_COLUMNS = (*COLUMNS, "prediction_id", *(f"feedback_{name}" for name in FIELDS))
said_of = attrgetter(*FIELDS)
NOTHING_SAID = [None] * len(FIELDS)


def as_dict(prediction: PredictionLogEntry) -> dict[str, Any]:
    """Return a prediction's columns by name, the name that answers have for it, and feedback."""
    row = dict(zip(COLUMNS, values_of(prediction), strict=True))
    row["prediction_id"] = prediction_id(prediction.time, prediction.id)
    said = _feedback(prediction)
    row["feedback"] = said and dict(zip(FIELDS, said_of(said), strict=True))
    return row


def _feedback(prediction: PredictionLogEntry) -> Feedback | None:
    return prediction.feedback if isinstance(prediction, JudgedEntry) else None


class Format(Protocol):
    """The format of an export."""

    suffix: str
    media_type: str

    def head(self) -> bytes:
        """Return what comes before the first row."""
        ...

    def rows(self, predictions: Sequence[PredictionLogEntry]) -> bytes:
        """Return rows as text, each with its line end."""
        ...

    def fail(self, error: dict[str, Any]) -> bytes | None:
        """Return the last line of an export that failed; None if the format has no such line."""
        ...


class NdjsonFormat:
    """One JSON object a line."""

    suffix = "ndjson"
    media_type = "application/x-ndjson"

    def head(self) -> bytes:
        """Return nothing: there is no header."""
        return b""

    def rows(self, predictions: Sequence[PredictionLogEntry]) -> bytes:
        """Return a line for each, in ASCII, since some readers split lines at U+2028 too."""
        return b"".join(to_json(as_dict(p), ensure_ascii=True) + b"\n" for p in predictions)

    def fail(self, error: dict[str, Any]) -> bytes:
        """Return a line with the problem."""
        return to_json({"error": error}, ensure_ascii=True) + b"\n"


class CsvFormat:
    """RFC 4180, with the columns' names first; safe to open in a spreadsheet."""

    suffix = "csv"
    media_type = "text/csv"

    def head(self) -> bytes:
        """Return the columns' names."""
        return _csv([CSV_COLUMNS])

    def rows(self, predictions: Sequence[PredictionLogEntry]) -> bytes:
        """Return a record for each; an empty cell is null."""
        return _csv([_cells(prediction) for prediction in predictions])

    def fail(self, error: dict[str, Any]) -> None:  # noqa: ARG002  # as the protocol has it
        """Return None: an error would look like a row, so the connection is cut instead."""
        return


FORMATS: dict[str, type[NdjsonFormat | CsvFormat]] = {
    export_format.suffix: export_format for export_format in (NdjsonFormat, CsvFormat)
}


def _cells(prediction: PredictionLogEntry) -> list[object]:
    cells = list(values_of(prediction))
    cells[TIME_INDEX] = _iso(prediction.time)
    cells[SHADOW_INDEX] = _cell(prediction.shadow)
    for index in TEXT_INDEXES:
        if text := cells[index]:
            cells[index] = escape(text)
    cells.append(prediction_id(prediction.time, prediction.id))
    said = _feedback(prediction)
    return cells + (NOTHING_SAID if said is None else [_cell(v) for v in said_of(said)])


def _cell(value: object) -> object:
    """Return a value of feedback as CSV has it."""
    if isinstance(value, datetime):
        return _iso(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return escape(value) if isinstance(value, str) else value


def _iso(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _csv(records: Sequence[Sequence[object]]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer).writerows(records)
    return buffer.getvalue().encode()


class ExportResponse(StreamedResponse):
    """Sends chunks of rows as they are read.

    Args:
        chunks: of rows.
        export_format: the format.
        path: of the request, for the body of an error.
        request_id: likewise.
        send_timeout_s: time that the client may take to receive a piece.

    """

    def __init__(
        self,
        chunks: AsyncIterator[list[PredictionLogEntry]],
        *,
        export_format: Format,
        path: str,
        request_id: str,
        send_timeout_s: float = SEND_TIMEOUT_S,
    ) -> None:
        def fail(error: ServiceError) -> bytes | None:
            return export_format.fail(problem(error, path=path, request_id=request_id))

        disposition = f'attachment; filename="predictions.{export_format.suffix}"'
        super().__init__(
            aclosing(_pieces(chunks, export_format)),
            fail=fail,
            media_type=export_format.media_type,
            headers={"Content-Disposition": disposition, "Cache-Control": "no-store"},
            cut_event="export_cut",
            send_timeout_s=send_timeout_s,
        )


async def _pieces(
    chunks: AsyncIterator[list[PredictionLogEntry]], export_format: Format
) -> AsyncGenerator[bytes]:
    """Format rows in a thread: a chunk of them would block the event loop."""
    first: list[PredictionLogEntry] = await anext(chunks, [])
    yield export_format.head() + await asyncio.to_thread(export_format.rows, first)
    async for rows in chunks:
        yield await asyncio.to_thread(export_format.rows, rows)
