"""What the routes of the log are given: the log, and whose predictions the caller may see."""

from typing import Annotated

from fastapi import Depends

from app.core.callers import Scope
from app.features.prediction_log.service import PredictionLog, PredictionsScope
from app.http.deps import part
from app.http.guard import CallerDep


async def get_predictions_scope(caller: CallerDep) -> PredictionsScope:
    """Return whose predictions the caller may see: its own, or as an admin all."""
    return PredictionsScope(key_id=caller.key_id, sees_all=caller.may(Scope.ADMIN))


PredictionsDep = Annotated[PredictionLog, Depends(part(PredictionLog))]
ScopeDep = Annotated[PredictionsScope, Depends(get_predictions_scope)]
