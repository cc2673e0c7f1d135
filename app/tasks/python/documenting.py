"""The paths of a Python class or a graph in the OpenAPI document, with the schemas that it has."""

import copy
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from app.engines.onnx.engine import OnnxEngine
from app.engines.python.engine import PythonEngine
from app.errors import (
    ImageTooLargeError,
    ImageUnreadableError,
    TextEmptyError,
    TextTooLongError,
    TextWithoutTokensError,
    UnsupportedFieldError,
)
from app.http.problems import REF, WITH_BODY, WITH_CHAT, WITH_KEY, WITH_PROCESS, problems
from app.http.schemas import FieldError
from app.models.entries import ModelEntry
from app.models.schemas import MAX_BATCH_TEXTS
from app.runtime.plugins import ModelPaths
from app.tasks.python.routes import batch_router, router

LOCAL: Final = "#/$defs/"
PARAMETER: Final = "model_name"
# Errors of models that a class calls are its answers.
OF_CALLED: Final = problems(
    *WITH_BODY,
    *WITH_KEY,
    *dict.fromkeys((*WITH_PROCESS, *WITH_CHAT)),
    TextEmptyError,
    TextTooLongError,
    TextWithoutTokensError,
    UnsupportedFieldError,
    ImageUnreadableError,
    ImageTooLargeError,
)
ERROR: Final = {
    "type": "object",
    "properties": {
        "code": {"type": "string"},
        "detail": {"type": "string"},
        "errors": {"type": "array", "items": {"$ref": REF.format(model=FieldError.__name__)}},
    },
    "required": ["code", "detail"],
}


def paths_of(entry: ModelEntry) -> ModelPaths:
    """Return `/predict/{name}` and `/predict-batch/{name}` of a loaded model."""
    assert entry.served is not None  # noqa: S101  # only loaded models are documented
    engine: PythonEngine | OnnxEngine = entry.served.model.engine  # type: ignore[attr-defined]  # a scheduler
    name, facts = entry.spec.name, engine.facts
    schemas: dict[str, Any] = {}
    item = _add(schemas, facts.item_schema, role="request", model=name)
    answer = _add(schemas, facts.answer_schema, role="answer", model=name)
    bodies: dict[str, tuple[Any, Any]] = {
        "/predict/{model_name}": (item, answer),
        "/predict-batch/{model_name}": (_batch(item), _results(answer)),
    }
    if facts.stream_item_schema is not None and facts.piece_schema is not None:
        streamed = _add(schemas, facts.stream_item_schema, role="stream", model=name)
        piece = _add(schemas, facts.piece_schema, role="piece", model=name)
        bodies["/predict/{model_name}/stream"] = (streamed, None)
    operations = {
        template: _operation(
            _templates(calls_models=bool(entry.spec.uses))[template],
            name,
            template.format(model_name=name),
            bodies[template],
        )
        for template in bodies
    }
    if facts.has_stream:
        # OpenAPI 3.1 has no word for the type of a line; so it stands in the description.
        answered = operations["/predict/{model_name}/stream"]["responses"]["200"]
        answered["description"] += f" Pieces are `{piece['$ref']}`."
    paths = {
        template.format(model_name=name): {"post": operation}
        for template, operation in operations.items()
    }
    return ModelPaths(paths=paths, schemas=schemas)


@cache
def _templates(*, calls_models: bool) -> Mapping[str, Any]:
    """Return what FastAPI says of the routes, which aren't in the document themselves."""
    routes = [
        copy.copy(route)
        for route in (*router.routes, *batch_router.routes)
        if isinstance(route, APIRoute)
    ]
    for route in routes:
        route.include_in_schema = True
        if calls_models:
            route.responses = route.responses | OF_CALLED
    paths: Mapping[str, Any] = get_openapi(title="", version="", routes=routes)["paths"]
    return {path: methods["post"] for path, methods in paths.items()}


def _operation(
    template: Mapping[str, Any], name: str, path: str, bodies: tuple[Any, Any]
) -> dict[str, Any]:
    """Return an operation for one model."""
    operation = copy.deepcopy(dict(template))
    operation["parameters"] = [p for p in operation["parameters"] if p["name"] != PARAMETER]
    operation["summary"] = f"{operation['summary']} {name}"
    operation["operationId"] = _identifier(path)
    request, answer = bodies
    operation["requestBody"] = {"required": True, "content": _json(request)}
    if answer is not None:
        operation["responses"]["200"]["content"] = _json(answer)
    return operation


def _identifier(path: str) -> str:
    """Return an identifier that no other path has: what isn't a letter or digit has its number."""
    return re.sub(r"[^A-Za-z0-9]", lambda found: f"_{ord(found[0]):x}_", path.removeprefix("/"))


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _add(
    schemas: dict[str, Any], schema: Mapping[str, Any], *, role: str, model: str
) -> dict[str, Any]:
    """Add a type's schema to the components, and those that it refers to; return its reference.

    No two have the same name: up to the first dot is a class's name, or one that no class can have,
    and no two models have the same name.
    """
    whole = dict(schema)
    for name, part in whole.pop("$defs", {}).items():
        schemas[_name_of(name, role, model)] = _renamed(part, role, model)
    body = f"{role}-body.{model}"
    schemas[body] = _renamed(whole, role, model)
    return {"$ref": REF.format(model=body)}


def _name_of(definition: str, role: str, model: str) -> str:
    return f"{definition.replace('.', '_')}.{role}.{model}"


def _renamed(schema: Any, role: str, model: str) -> Any:  # noqa: ANN401  # any part of a schema
    """Return a schema whose references lead to the components."""
    if isinstance(schema, list):
        return [_renamed(one, role, model) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: REF.format(model=_name_of(value.removeprefix(LOCAL), role, model))
        if isinstance(value, str) and value.startswith(LOCAL)
        else _renamed(value, role, model)
        for key, value in schema.items()
    }


def _batch(item: Mapping[str, Any]) -> dict[str, Any]:
    items = {"type": "array", "items": item, "minItems": 1, "maxItems": MAX_BATCH_TEXTS}
    return {
        "type": "object",
        "properties": {"items": items},
        "required": ["items"],
        "additionalProperties": False,
    }


def _results(answer: Mapping[str, Any]) -> dict[str, Any]:
    answered = {
        "type": "object",
        "properties": {"answer": answer, "prediction_id": {"type": "string"}},
        "required": ["answer"],
    }
    failed = {"type": "object", "properties": {"error": ERROR}, "required": ["error"]}
    results = {"type": "array", "items": {"anyOf": [answered, failed]}}
    return {
        "type": "object",
        "properties": {"model": {"type": "string"}, "results": results},
        "required": ["model", "results"],
    }
