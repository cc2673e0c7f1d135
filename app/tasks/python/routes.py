"""`/predict/{name}`, its `/stream`, and `/predict-batch/{name}`: Python classes, ONNX graphs.

Bodies are validated by the class's types where items are prepared, off the event loop: validators
of the operator's run there too. Answers come as bytes, from the thread that ran the class.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Header, Path, Request, Response
from pydantic_core import to_json

from app.batching.base import Scheduler
from app.core.callers import Scope
from app.core.logs import request_id
from app.engines.onnx.engine import OnnxEngine
from app.engines.python.engine import PythonEngine
from app.engines.python.runner import Answer
from app.errors import ServiceError
from app.http.answer_log import AnswerLogDep
from app.http.deps import ChatDeadlineDep, RegistryDep, RuntimeDep
from app.http.guard import Guard
from app.http.json_route import JsonRoute
from app.http.large_answers import JSON, fields_of, joined, large_answer
from app.http.model_route import ModelRoute
from app.http.problems import WITH_BODY, WITH_KEY, WITH_PROCESS, problems
from app.http.task_runner import RunnerDep
from app.models.registry import TaskKey
from app.models.schemas import MAX_NAME_CHARS
from app.services.pieces import PieceService
from app.tasks.python.accounting import StreamAccount
from app.tasks.python.schemas import PredictItemsRequest
from app.tasks.python.streams import HEARTBEAT_S, PieceEvents, PieceLines, PieceResponse
from app.tasks.python.task import TASK

CLASSES = TaskKey[Scheduler[PythonEngine | OnnxEngine]](TASK.kind)
BYTES_PER_VALUE = 1_000  # of an answer that is JSON already, and is only copied


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
LINES = '{"answer":"The"}\n{"answer":" capital"}\n{"done":true}\n'
STREAMED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Pieces as the class yields them: one JSON object a line, each with an"
        " `answer`; the last has `done`, and an `error` (a problem) where it ended with one. With"
        " `Accept: text/event-stream` the same objects as server-sent events.",
        "content": {
            "application/x-ndjson": {"schema": {"type": "string"}, "example": LINES},
            "text/event-stream": {"schema": {"type": "string"}},
        },
    }
}
RESPONSES = problems(*WITH_BODY, *WITH_KEY, *WITH_PROCESS)
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
    rows = inference.rows
    length = sum(len(row.content) for row in rows if isinstance(row, Answer))
    return await large_answer(
        lambda: fields_of(
            {
                "model": inference.model,
                "results": joined(
                    [_result(row, name, index)]
                    for index, (row, name) in enumerate(zip(rows, inference.names(), strict=True))
                ),
            }
        ),
        values=length // BYTES_PER_VALUE,
    )


def _result(row: Answer | ServiceError, name: str | None, index: int) -> bytes:
    """Return the place of an item in the answer."""
    if isinstance(row, Answer):
        named = b"" if name is None else b',"prediction_id":"%b"' % name.encode()
        return b'{"answer":%b%b}' % (row.content, named)
    error: dict[str, Any] = {"code": row.code, "detail": row.detail}
    if fields := row.extensions.get("errors"):
        error["errors"] = [_moved(field, index) for field in fields]
    return to_json({"error": error})


def _moved(field: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Return the error of a field with its place in this body: the item was read on its own."""
    return {**field, "loc": ["body", "items", index, *field["loc"][1:]]}


def _lines_of(accept: str) -> type[PieceLines]:
    return PieceEvents if PieceEvents.media_type in accept.lower() else PieceLines


@router.post(
    "/predict/{model_name}/stream",
    summary="Stream",
    responses=RESPONSES | STREAMED,
    response_class=Response,
)
async def stream(  # noqa: PLR0913, PLR0917  # each is a dependency
    model_name: ModelName,
    body: Annotated[Any, Body()],  # noqa: ANN401  # any JSON
    registry: RegistryDep,
    runtime: RuntimeDep,
    deadline: ChatDeadlineDep,
    log: AnswerLogDep,
    request: Request,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> PieceResponse:
    """Answer one item in pieces; leaving closes the class's generator."""
    text = body if isinstance(body, str) else to_json(body).decode()

    account = StreamAccount(
        log,
        runtime.metrics,
        task=TASK.kind,
        text=text,
        model_name=model_name,
        line=request.scope["state"].setdefault("log", {}),
        log_inputs=runtime.policy.log_inputs,
    )
    opening = PieceService(registry, runtime.results).open(
        CLASSES, body, model_name=model_name, deadline=deadline, heartbeat_s=HEARTBEAT_S
    )
    log.announce()
    lines = _lines_of(accept)(path=request.url.path, request_id=request_id.get())
    return PieceResponse(opening, lines=lines, account=account)
