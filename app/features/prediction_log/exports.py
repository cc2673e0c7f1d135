"""Sends rows of any number as a file: how they are written."""

import asyncio
import csv
import io
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from operator import attrgetter
from typing import Any, Protocol

from pydantic_core import to_json

from app.errors import ServiceError
from app.features.prediction_log.cells import disarm
from app.features.prediction_log.repository import COLUMNS, TEXTS
from app.http.error_bodies import problem
from app.http.streamed import SEND_TIMEOUT_S, StreamedResponse
from app.services.prediction_log import PredictionLogEntry

TEXT_PLACES = tuple(COLUMNS.index(name) for name in TEXTS)
TIME_PLACE = COLUMNS.index("time")
values_of = attrgetter(*COLUMNS)


def as_dict(prediction: PredictionLogEntry) -> dict[str, Any]:
    """Return a prediction's columns by name."""
    return dict(zip(COLUMNS, values_of(prediction), strict=True))


class Style(Protocol):
    """How an export is written."""

    suffix: str
    media_type: str

    def head(self) -> bytes:
        """Return what stands before the first row."""
        ...

    def rows(self, predictions: Sequence[PredictionLogEntry]) -> bytes:
        """Return whole rows."""
        ...

    def fail(self, error: dict[str, Any]) -> bytes | None:
        """Return the last line of an export that broke off; None when the format has none."""
        ...


class NdjsonStyle:
    """One JSON object a line."""

    suffix = "ndjson"
    media_type = "application/x-ndjson"

    def head(self) -> bytes:
        """Nothing stands before the first row."""
        return b""

    def rows(self, predictions: Sequence[PredictionLogEntry]) -> bytes:
        """Return a line for each; in ASCII, since some readers split lines at U+2028 too."""
        return b"".join(to_json(as_dict(p), ensure_ascii=True) + b"\n" for p in predictions)

    def fail(self, error: dict[str, Any]) -> bytes:
        """Return a line with the problem."""
        return to_json({"error": error}, ensure_ascii=True) + b"\n"


class CsvStyle:
    """RFC 4180, with the columns' names first; safe to open in a spreadsheet."""

    suffix = "csv"
    media_type = "text/csv"

    def head(self) -> bytes:
        """Return the columns' names."""
        return _csv([COLUMNS])

    def rows(self, predictions: Sequence[PredictionLogEntry]) -> bytes:
        """Return a record for each; an empty cell is null."""
        return _csv([_cells(prediction) for prediction in predictions])

    def fail(self, error: dict[str, Any]) -> None:  # noqa: ARG002  # as the protocol has it
        """No record could tell an error from a row: the connection is cut instead."""
        return


STYLES: dict[str, type[NdjsonStyle | CsvStyle]] = {
    style.suffix: style for style in (NdjsonStyle, CsvStyle)
}


def _cells(prediction: PredictionLogEntry) -> list[object]:
    cells = list(values_of(prediction))
    cells[TIME_PLACE] = prediction.time.isoformat().replace("+00:00", "Z")
    for place in TEXT_PLACES:
        if text := cells[place]:
            cells[place] = disarm(text)
    return cells


def _csv(records: Sequence[Sequence[object]]) -> bytes:
    written = io.StringIO()
    csv.writer(written).writerows(records)
    return written.getvalue().encode()


class ExportResponse(StreamedResponse):
    """Writes chunks of rows as they come.

    Args:
        chunks: of rows.
        style: how they are written.
        path: of the request, for a problem.
        request_id: likewise.
        send_timeout_s: time that the reader may take for a piece.

    """

    def __init__(
        self,
        chunks: AsyncIterator[list[PredictionLogEntry]],
        *,
        style: Style,
        path: str,
        request_id: str,
        send_timeout_s: float = SEND_TIMEOUT_S,
    ) -> None:
        def fail(error: ServiceError) -> bytes | None:
            return style.fail(problem(error, path=path, request_id=request_id))

        name = f'attachment; filename="predictions.{style.suffix}"'
        super().__init__(
            aclosing(_pieces(chunks, style)),
            fail=fail,
            media_type=style.media_type,
            headers={"Content-Disposition": name, "Cache-Control": "no-store"},
            cut_event="export_cut",
            send_timeout_s=send_timeout_s,
        )


async def _pieces(
    chunks: AsyncIterator[list[PredictionLogEntry]], style: Style
) -> AsyncGenerator[bytes]:
    """Write rows in a thread: together they would hold up the event loop."""
    first: list[PredictionLogEntry] = await anext(chunks, [])
    yield style.head() + await asyncio.to_thread(style.rows, first)
    async for rows in chunks:
        yield await asyncio.to_thread(style.rows, rows)
