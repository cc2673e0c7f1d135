"""`POST /predictions/{prediction_id}/feedback`, and what all feedback says together."""

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from app.errors import DatabaseUnavailableError, InvalidRequestError, PredictionNotFoundError
from app.features.prediction_log.feedback import Feedback
from app.features.prediction_log.feedback_schemas import (
    FIELDS_OF_SUMMARY,
    SAID,
    FeedbackAnswer,
    FeedbackRequest,
    FeedbackSummary,
    VersionSummary,
)
from app.features.prediction_log.filters import Position
from app.features.prediction_log.queries import LogQuery
from app.features.prediction_log.scope import PredictionsDep, ScopeDep
from app.http.guard import Guard
from app.http.json_route import JsonRoute
from app.http.problems import WITH_BODY, WITH_KEY, problems

router = APIRouter(
    tags=["predictions"],
    route_class=JsonRoute,
    dependencies=[Depends(Guard(group="predictions"))],
)


@router.post(
    "/predictions/{prediction_id}/feedback",
    summary="Give feedback on a prediction",
    responses=problems(*WITH_BODY, *WITH_KEY, PredictionNotFoundError, DatabaseUnavailableError),
)
async def give_feedback(
    prediction_id: UUID, body: FeedbackRequest, predictions: PredictionsDep, scope: ScopeDep
) -> FeedbackAnswer:
    """Say what was right; it takes the place of what was said of the prediction before.

    The prediction has to be one of the caller's key; an admin's key may judge all.
    """
    position = Position.named(prediction_id)
    if position is None:
        raise PredictionNotFoundError
    feedback = Feedback(given_at=datetime.now(UTC), **{name: getattr(body, name) for name in SAID})
    stored = await predictions.give_feedback(position, feedback, scope=scope)
    return FeedbackAnswer(
        prediction_id=str(prediction_id),
        given_at=stored.given_at,
        **{name: getattr(stored, name) for name in SAID},
    )


@router.get(
    "/predictions/feedback/summary",
    summary="Sum up feedback",
    responses=problems(*WITH_KEY, InvalidRequestError, DatabaseUnavailableError),
)
async def sum_up_feedback(
    query: Annotated[LogQuery, Query()], predictions: PredictionsDep, scope: ScopeDep
) -> FeedbackSummary:
    """Say how often each version of a model was right, by the feedback on the caller's predictions.

    An admin's summary is of everyone's.
    """
    summaries = await predictions.feedback_summary(query.filters(), scope=scope)
    return FeedbackSummary(
        versions=[
            VersionSummary(**{name: getattr(summary, name) for name in FIELDS_OF_SUMMARY})
            for summary in summaries
        ]
    )
