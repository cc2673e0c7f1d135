"""What the OpenAPI document says beside what FastAPI finds in the routes."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, metadata
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.http.document_forms import complete_examples, name_models, simplify
from app.http.error_bodies import is_openai
from app.http.large_answers import fields_of
from app.http.openai_schemas import OpenAiError
from app.http.problems import REF
from app.http.schemas import Problem
from app.models.catalog import DEFAULT_MAX_CHARS
from app.models.schemas import PredictRequest

# Of routes that no task or feature brings.
OWN_TAGS = {
    "models": "Which models are served, and in which state each of them is.",
    "operations": "What probes and monitoring ask.",
}
METHODS = frozenset({"get", "put", "post", "delete", "options", "head", "patch", "trace"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiFacts:
    """What the document depends on beside the routes.

    Args:
        needs_key: whether callers need a key.
        max_chars: of the longest text that any of the models classifies.
        tags: descriptions of the routes' tags.
        models: models of the catalogue, by the names that stand for them in examples.

    """

    needs_key: bool = False
    max_chars: int = DEFAULT_MAX_CHARS
    tags: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)


class ApiDocument:
    """Our OpenAPI document, which the app answers instead of FastAPI's.

    Args:
        app: whose document it is.
        facts: what it says beside the routes.
        extend: called with the document each time it is wanted; returns it with what models add
            that were loaded meanwhile, and the same one until others are.

    """

    def __init__(
        self,
        app: FastAPI,
        facts: ApiFacts | None = None,
        *,
        extend: Callable[[dict[str, Any]], dict[str, Any]] = lambda document: document,
    ) -> None:
        self._app = app
        self._facts = facts or ApiFacts()
        self._extend = extend
        self._one_at_a_time = asyncio.Lock()
        # The last answer, and what it was made of.
        self._encoded = b""
        self._encoded_of: tuple[dict[str, Any], str] | None = None
        app.openapi = self  # type: ignore[method-assign]  # FastAPI's documented way to do it
        app.state.api_document = self

    def __call__(self) -> dict[str, Any]:
        """Return the document; making it takes a second of a slow processor the first time."""
        return self._tagged(self._current())

    async def encoded(self, server: str) -> bytes:
        """Return it as JSON; it is made in a thread, once for all who ask meanwhile.

        Args:
            server: the address that the caller has used.

        """
        async with self._one_at_a_time:
            return await asyncio.to_thread(self._encode, server)

    def _encode(self, server: str) -> bytes:
        document = self._current()
        made_of = self._encoded_of
        if made_of is None or made_of[0] is not document or made_of[1] != server:
            fields = {**self._tagged(document), "servers": [{"url": server}]}
            self._encoded, self._encoded_of = b"".join(fields_of(fields)), (document, server)
        return self._encoded

    def _current(self) -> dict[str, Any]:
        if self._app.openapi_schema is None:
            self._app.openapi_schema = _document(self._app, self._facts)
        return self._extend(self._app.openapi_schema)

    def _tagged(self, document: dict[str, Any]) -> dict[str, Any]:
        return {**document, "tags": _tags(document, self._facts)}


def _document(app: FastAPI, facts: ApiFacts) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        license_info=_license(),
        servers=[{"url": "/"}],
    )
    schemas = document["components"]["schemas"]
    _set_max_length(schemas, facts.max_chars)
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for error in (Problem, OpenAiError):
        schema = error.model_json_schema(ref_template=REF)
        schemas.update(schema.pop("$defs", {}))
        schemas[error.__name__] = schema
    for path, methods in document["paths"].items():
        for operation in methods.values():
            if is_openai(path):  # 422, which FastAPI adds, is 400 there
                operation["responses"].pop("422", None)
            _say_security(operation, needs_key=facts.needs_key)
    simplify(document)
    complete_examples(schemas)
    name_models(document, facts.models)
    return document


def _say_security(operation: dict[str, Any], *, needs_key: bool) -> None:
    """Say of every operation whether it needs a key."""
    if "security" not in operation:
        operation["security"] = []
    elif not needs_key:
        operation["security"].append({})  # a key is accepted, but not needed


def _license() -> dict[str, str] | None:
    """Return the licence that the installed package declares."""
    try:
        name = metadata("ml-api").json.get("license_expression")
    except PackageNotFoundError:
        return None
    return {"name": name, "identifier": name} if isinstance(name, str) else None


def _tags(document: Mapping[str, Any], facts: ApiFacts) -> list[dict[str, str]]:
    """Return the tags that operations have, with their descriptions, in the operations' order."""
    used = {
        tag: None
        for methods in document["paths"].values()
        for method, operation in methods.items()
        if method in METHODS
        for tag in operation.get("tags", ())
    }
    known = OWN_TAGS | dict(facts.tags)
    return [{"name": tag} | ({"description": known[tag]} if tag in known else {}) for tag in used]


def _set_max_length(schemas: dict[str, Any], max_chars: int) -> None:
    """Write the catalogue's largest `max_chars` into the schema of `/predict`."""
    if request := schemas.get(PredictRequest.__name__):
        fields = request["properties"]
        fields["text"]["maxLength"] = fields["text_pair"]["anyOf"][0]["maxLength"] = max_chars
