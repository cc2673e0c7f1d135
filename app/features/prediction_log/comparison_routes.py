"""`/models/{model_name}/comparison`: a version beside the one that serves, from the log."""

from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from pydantic import ConfigDict, Field
from sqlalchemy.orm import Session

from app.core.callers import Scope
from app.errors import (
    DatabaseUnavailableError,
    InvalidRequestError,
    ModelNotFoundError,
    ModelVersionNotFoundError,
)
from app.features.prediction_log.comparing import Comparison, compare
from app.features.prediction_log.filters import Filters
from app.features.prediction_log.repository import PredictionRepository
from app.http.deps import RuntimeDep
from app.http.guard import Guard
from app.http.problems import WITH_KEY, problems
from app.models.schemas import MAX_NAME_CHARS, Response, example

MAX_ROWS = 5_000  # of each version
MAX_MINUTES = 10_080

router = APIRouter(tags=["predictions"], dependencies=[Depends(Guard(Scope.ADMIN))])


class SideInfo(Response):
    """What the log has of one version."""

    version: str
    rows: int
    error_share: float | None = Field(
        description="Of answers of 5xx; null where there are no answers."
    )
    latency_ms: dict[str, float] = Field(
        description="p50, p95 and p99 of answers; of a shadow's without what a request costs beside"
        " the model."
    )


class ComparisonAnswer(Response):
    """A version of a model beside the one that serves."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "model": "sentiment",
                "since": "2026-12-01T12:00:00Z",
                "version": {
                    "version": "2",
                    "rows": 480,
                    "error_share": 0.0,
                    "latency_ms": {"p50": 6.1, "p95": 9.8, "p99": 14.2},
                },
                "serving": {
                    "version": "1",
                    "rows": 500,
                    "error_share": 0.002,
                    "latency_ms": {"p50": 8.0, "p95": 13.1, "p99": 19.7},
                },
                "pairs": 480,
                "agreement": 0.981,
                "score_shift": 0.004,
                "label_shift": 0.012,
            }
        )
    )

    model: str
    since: datetime
    version: SideInfo
    serving: SideInfo
    pairs: int = Field(description="Inputs that both answered in the same request.")
    agreement: float | None = Field(description="Share of the pairs with the same label.")
    score_shift: float | None = Field(
        description="Mean of this version's score less the other's, over pairs with one label."
    )
    label_shift: float | None = Field(
        description="How far the labels' shares are apart, from 0 to 1; it needs no pairs."
    )


def _compare(session: Session, *, filters: Filters, version: str, serving: str) -> Comparison:
    """Read and compare, in the database's thread: it takes a tenth of a second.

    Of the version that answers less, no more is looked at than of the time of which the log of the
    other one is read: at night things are different.
    """
    log = PredictionRepository(session)
    sides = [log.page(replace(filters, version=one), limit=MAX_ROWS) for one in (version, serving)]
    since = max((rows[-1].time for rows in sides if len(rows) == MAX_ROWS), default=filters.since)
    own, other = ([row for row in rows if since is None or row.time >= since] for rows in sides)
    return compare(own, other)


@router.get(
    "/models/{model_name}/comparison",
    summary="Compare a version of a model",
    responses=problems(
        *WITH_KEY,
        InvalidRequestError,
        ModelNotFoundError,
        ModelVersionNotFoundError,
        DatabaseUnavailableError,
    ),
)
async def compare_versions(
    model_name: Annotated[str, Path(max_length=MAX_NAME_CHARS, examples=["sentiment"])],
    version: Annotated[str, Query(max_length=MAX_NAME_CHARS, description="Which one.")],
    runtime: RuntimeDep,
    minutes: Annotated[
        int, Query(ge=1, le=MAX_MINUTES, description="How far the log is read back.")
    ] = 60,
) -> ComparisonAnswer:
    """Compare a version with the one that serves, by the newest 5,000 answers of each."""
    model = runtime.registry.model(model_name)
    if version not in model.entries or not model.has_versions:
        raise ModelVersionNotFoundError
    since = datetime.now(UTC) - timedelta(minutes=minutes)
    filters = Filters(model=model_name, since=since, shadow=None)
    work = partial(_compare, filters=filters, version=version, serving=model.serving)
    found = asdict(await runtime.require_database().read(work))
    return ComparisonAnswer(
        model=model_name,
        since=since,
        version=SideInfo(version=version, **found.pop("version")),
        serving=SideInfo(version=model.serving, **found.pop("serving")),
        **found,
    )
