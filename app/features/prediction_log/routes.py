"""The routes `/predictions` and `/predictions/export`."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic_core import to_json

from app.core.logs import request_id
from app.errors import DatabaseUnavailableError, InvalidRequestError
from app.features.prediction_log.exports import (
    FORMATS,
    CsvFormat,
    ExportResponse,
    NdjsonFormat,
    as_dict,
)
from app.features.prediction_log.filters import Position
from app.features.prediction_log.schemas import (
    ExportQuery,
    PageQuery,
    PredictionPage,
)
from app.features.prediction_log.scope import PredictionsDep, ScopeDep
from app.http.guard import Guard
from app.http.json_route import JsonRoute
from app.http.problems import WITH_KEY, problems

router = APIRouter(
    tags=["predictions"],
    route_class=JsonRoute,
    dependencies=[Depends(Guard(group="predictions"))],
)
RESPONSES = problems(*WITH_KEY, InvalidRequestError, DatabaseUnavailableError)
EXPORTED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "All predictions that match, newest first. When the database goes away in"
        ' the middle, the last line of NDJSON is `{"error": …}`, a problem; CSV breaks off.',
        "content": {
            NdjsonFormat.media_type: {"schema": {"type": "string"}},
            CsvFormat.media_type: {"schema": {"type": "string"}},
        },
    }
}


def _position(cursor: str | None) -> Position | None:
    """Read a cursor.

    Raises:
        InvalidRequestError: it stands for no position.

    """
    try:
        return None if cursor is None else Position.parse(cursor)
    except ValueError:
        error = {"loc": ["query", "cursor"], "msg": "Not a cursor", "type": "value_error"}
        raise InvalidRequestError([error]) from None


@router.get(
    "/predictions",
    summary="List predictions",
    responses=RESPONSES,
    response_model=PredictionPage,
)
async def list_predictions(
    query: Annotated[PageQuery, Query()], predictions: PredictionsDep, scope: ScopeDep
) -> Response:
    """List the caller's predictions, newest first; an admin's list has everyone's."""
    page = await predictions.page(
        query.filters(), scope=scope, after=_position(query.cursor), limit=query.limit
    )
    answer = {
        "predictions": [as_dict(prediction) for prediction in page.predictions],
        "next": str(page.next) if page.next else None,
    }
    # Up to a thousand rows: validating what was just read would take longer than reading it.
    return Response(
        to_json(answer), media_type="application/json", headers={"Cache-Control": "no-store"}
    )


@router.get(
    "/predictions/export",
    summary="Export predictions",
    responses=RESPONSES | EXPORTED,
    response_class=Response,
)
async def export_predictions(
    query: Annotated[ExportQuery, Query()],
    predictions: PredictionsDep,
    scope: ScopeDep,
    request: Request,
) -> ExportResponse:
    """Export the caller's predictions, of any number; an admin's export has everyone's."""
    return ExportResponse(
        predictions.export(query.filters(), scope=scope),
        export_format=FORMATS[query.format](),
        path=request.url.path,
        request_id=request_id.get(),
    )
