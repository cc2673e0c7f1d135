"""How a body in one of Hugging Face's dialects comes to its task."""

from collections.abc import Mapping
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from app.errors import ModelNotFoundError, UnsupportedFieldError
from app.http.guard import Guard
from app.http.hub import HubCall, HubTask
from app.http.task_runner import TaskRunner
from app.models.registry import ModelRegistry

Hubs = Mapping[str, HubTask]  # by what models.toml calls their tasks


async def answer_call(
    call: HubCall[Any],
    body: Mapping[str, Any],
    request: Request,
    run: TaskRunner,
    *,
    model_name: str | None = None,
) -> Response:
    """Check the caller and the body, and answer.

    Raises:
        RequestValidationError: the body isn't what the task takes.
        ServiceError: as the guard and the task say.

    """
    await Guard(call.scope).check(request)
    try:
        read = call.body.model_validate(body)
    except ValidationError as failure:
        errors = [{**e, "loc": ("body", *e["loc"])} for e in failure.errors()]
        raise RequestValidationError(errors) from None
    return await call.answer(read, run, model_name)


def named_call(hubs: Hubs, registry: ModelRegistry, model_name: str) -> HubCall[Any]:
    """Return what answers for a model.

    Raises:
        ModelNotFoundError: there is none of that name.
        UnsupportedFieldError: its task isn't in this dialect.

    """
    task = registry.task_of(model_name)
    hub = hubs.get(task)
    if hub is None or hub.inputs is None:
        detail = f"Models of the task {task} take no `inputs`."
        raise UnsupportedFieldError("inputs", detail=detail)
    return hub.inputs


def call_for(hubs: Hubs, registry: ModelRegistry, body: Mapping[str, Any]) -> HubCall[Any]:
    """Return what answers a body that is for no named model.

    That is the task one of whose marks it has. Without a mark it is the first that takes plain
    texts and has a model, or else the first that has one.

    Raises:
        ModelNotFoundError: no task has one.

    """
    names = set(body)
    for field in ("inputs", "parameters"):
        if isinstance(part := body.get(field), dict):
            names |= part.keys()
    known = {kind: hub for kind, hub in hubs.items() if hub.inputs is not None}
    marked = [hub for hub in known.values() if hub.marks & names]
    served = [hub for kind, hub in known.items() if registry.spec(None, kind) is not None]
    plain = [hub for hub in served if hub.takes_plain]
    for hub in (*marked, *plain, *served):
        if hub.inputs is not None:
            return hub.inputs
    raise ModelNotFoundError
