"""`/predict/{name}` and `/predict-batch/{name}` of Python classes, and of graphs in ONNX files.

Bodies are validated by the class's types where items are prepared, off the event loop: validators
of the operator's run there too. Answers come as bytes, from the thread that ran the class.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Path, Response
from pydantic_core import to_json

from app.batching.scheduler import BatchScheduler
from app.core.callers import Scope
from app.engines.onnx.engine import OnnxEngine
from app.engines.python.engine import PythonEngine
from app.engines.python.runner import Answer
from app.errors import ServiceError
from app.http.guard import Guard
from app.http.json_route import JsonRoute
from app.http.model_route import ModelRoute
from app.http.problems import WITH_BODY, WITH_KEY, WITH_MODEL, problems
from app.http.task_runner import RunnerDep
from app.models.registry import TaskKey
from app.models.schemas import MAX_NAME_CHARS
from app.tasks.python.schemas import PredictItemsRequest
from app.tasks.python.task import TASK

CLASSES = TaskKey[BatchScheduler[PythonEngine | OnnxEngine]](TASK.kind)
JSON = "application/json"


class ClassRoute(ModelRoute):
    """A route for Python classes; tables have many columns, and a class's errors are bounded."""

    kind = TASK.kind
    max_fields = 10_000


# The document has a path of its own for each model, with its schema, from its load on.
OF_EACH: dict[str, Any] = {
    "tags": ["predict"],
    "dependencies": [Depends(Guard(Scope.PREDICT))],
    "include_in_schema": False,
}
router = APIRouter(route_class=ClassRoute, **OF_EACH)
batch_router = APIRouter(route_class=JsonRoute, **OF_EACH)
RESPONSES = problems(*WITH_BODY, *WITH_KEY, *WITH_MODEL)
ModelName = Annotated[str, Path(max_length=MAX_NAME_CHARS)]


def _columns(answer: Answer) -> dict[str, Any]:
    return {"label": answer.label, "score": answer.score}


@router.post("/predict/{model_name}", summary="Run", responses=RESPONSES)
async def predict(
    model_name: ModelName,
    body: Annotated[Any, Body()],  # noqa: ANN401  # any JSON
    run: RunnerDep,
) -> Any:  # noqa: ANN401  # a response as the class made it
    """Answer one item."""
    inference = await run.each(CLASSES, [body], model_name=model_name, columns=_columns)
    (row,) = inference.rows
    if isinstance(row, ServiceError):
        raise row
    return Response(row.content, media_type=JSON)


@batch_router.post("/predict-batch/{model_name}", summary="Run on many items", responses=RESPONSES)
async def predict_batch(model_name: ModelName, body: PredictItemsRequest, run: RunnerDep) -> Any:  # noqa: ANN401  # as above
    """Answer up to 256 items; one that can't be done gets its own error and fails no other."""
    inference = await run.each(CLASSES, body.items, model_name=model_name, columns=_columns)
    results = [_result(row, index) for index, row in enumerate(inference.rows)]
    name = to_json(inference.model)
    return Response(b'{"model":%b,"results":[%b]}' % (name, b",".join(results)), media_type=JSON)


def _result(row: Answer | ServiceError, index: int) -> bytes:
    """Return the place of an item in the answer."""
    if isinstance(row, Answer):
        return b'{"answer":%b}' % row.content
    error: dict[str, Any] = {"code": row.code, "detail": row.detail}
    if fields := row.extensions.get("errors"):
        error["errors"] = [_moved(field, index) for field in fields]
    return to_json({"error": error})


def _moved(field: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Return the error of a field with its place in this body: the item was read on its own."""
    return {**field, "loc": ["body", "items", index, *field["loc"][1:]]}
