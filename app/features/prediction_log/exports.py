"""Sends rows of any number as a file: how they are written, and what happens when it breaks off."""

import asyncio
import csv
import io
import logging
from collections.abc import AsyncIterator, Sequence
from operator import attrgetter
from typing import Any, Protocol

from pydantic_core import to_json
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from app.errors import DatabaseUnavailableError, NotReadyError, ServiceError
from app.features.prediction_log.cells import disarm
from app.features.prediction_log.repository import COLUMNS, TEXTS
from app.http.error_bodies import problem
from app.services.prediction_log import PredictionLogEntry

log = logging.getLogger(__name__)

# A reader that takes nothing for so long has stopped.
SEND_TIMEOUT_S = 30.0
TEXT_PLACES = tuple(COLUMNS.index(name) for name in TEXTS)
TIME_PLACE = COLUMNS.index("time")
values_of = attrgetter(*COLUMNS)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Accel-Buffering": "no",  # nginx would put the whole of it on its disk
    "Cache-Control": "no-store",
}


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


class ExportResponse(StreamingResponse):
    """Writes chunks of rows as they come, and ends as soon as the reader leaves or stops.

    Args:
        first: rows that are there already, so that an error before them got its own status.
        rest: the others.
        style: how they are written.
        path: of the request, for a problem.
        request_id: likewise.
        send_timeout_s: time that the reader may take for a piece.

    """

    def __init__(
        self,
        first: Sequence[PredictionLogEntry],
        rest: AsyncIterator[list[PredictionLogEntry]],
        *,
        style: Style,
        path: str,
        request_id: str,
        send_timeout_s: float = SEND_TIMEOUT_S,
    ) -> None:
        named = {"Content-Disposition": f'attachment; filename="predictions.{style.suffix}"'}
        self._content = self._pieces(first, rest)
        super().__init__(self._content, media_type=style.media_type, headers=HEADERS | named)
        self._style = style
        self._path = path
        self._request_id = request_id
        self._send_timeout_s = send_timeout_s
        self._has_begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, or as much as there is time for when the process ends."""
        try:
            await super().__call__(scope, receive, send)
        except asyncio.CancelledError:
            # A client that leaves ends the sending, not this task.
            last = self._last_line(NotReadyError("The service is shutting down."))
            if self._has_begun and last is not None:
                await self._send(send, last, more=False)
            raise

    async def stream_response(self, send: Send) -> None:
        """Send it; what can't be told in the format is told by an answer that never ends well."""
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        self._has_begun = True
        try:
            async for piece in self._content:
                await self._send(send, piece)
            await self._send(send, b"", more=False)
        except (ServiceError, TimeoutError) as failure:
            # The server closes a connection whose answer isn't whole.
            log.warning("export_cut", extra={"error": type(failure).__name__})

    async def _pieces(
        self, first: Sequence[PredictionLogEntry], rest: AsyncIterator[list[PredictionLogEntry]]
    ) -> AsyncIterator[bytes]:
        yield self._style.head() + await self._written(first)
        try:
            async for chunk in rest:
                yield await self._written(chunk)
        except DatabaseUnavailableError as failure:
            last = self._last_line(failure)
            if last is None:
                raise
            yield last

    def _last_line(self, error: ServiceError) -> bytes | None:
        return self._style.fail(problem(error, path=self._path, request_id=self._request_id))

    async def _written(self, rows: Sequence[PredictionLogEntry]) -> bytes:
        """Write rows in a thread: together they would hold up the event loop."""
        return await asyncio.to_thread(self._style.rows, rows)

    async def _send(self, send: Send, piece: bytes, *, more: bool = True) -> None:
        """Send a piece; waits while the reader is slow.

        Raises:
            TimeoutError: it takes nothing.

        """
        async with asyncio.timeout(self._send_timeout_s):
            await send({"type": "http.response.body", "body": piece, "more_body": more})
