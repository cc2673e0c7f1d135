"""`/tei/…`: what clients of text-embeddings-inference call."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Depends, Request, Response

from app.batching.base import Scheduler
from app.core.callers import Scope
from app.engines.tokens import ShowsTokens, Token
from app.errors import ModelNotFoundError, UnsupportedFieldError
from app.features.huggingface.calls import Hubs, answer_call
from app.features.huggingface.tei_schemas import TeiInfo, TokenizeRequest
from app.http.deps import RegistryDep
from app.http.guard import Guard, Known, get_caller
from app.http.hub import HubCall, texts_in
from app.http.json_route import JsonRoute
from app.http.large_answers import LargeAnswer, joined, large_answer, list_of
from app.http.task_runner import RunnerDep
from app.models.registry import Lease, ModelRegistry, TaskKey

AT_ONCE = 500  # tokens that are encoded together
Answer = Callable[..., Coroutine[Any, Any, Response]]


def _answer(call: HubCall[Any]) -> Answer:
    async def answer(request: Request, body: dict[str, Any], run: RunnerDep) -> Response:
        return await answer_call(call, body, request, run)

    return answer


def make_router(hubs: Hubs) -> APIRouter:
    """Return the routes; docs/dialects.md has them, the OpenAPI document hasn't."""
    router = APIRouter(prefix="/tei", route_class=JsonRoute, include_in_schema=False)
    calls = {name: call for hub in hubs.values() for name, call in hub.tei.items()}
    kinds = [kind for kind, hub in hubs.items() if "embed" in hub.tei]
    kinds += [kind for kind, hub in hubs.items() if hub.tei and kind not in kinds]
    for name, call in calls.items():
        endpoint, known = _answer(call), [Depends(Known())]
        router.add_api_route(f"/{name}", endpoint, methods=["POST"], dependencies=known)

    @router.post("/tokenize", dependencies=[Depends(Guard(Scope.PREDICT))])
    async def tokenize(body: TokenizeRequest, registry: RegistryDep) -> LargeAnswer:
        """Show the tokens of texts."""
        with registry.lease(None, _key(registry, kinds)) as lease:
            encoder = getattr(lease.model.engine, "encoder", None)
            if not isinstance(encoder, ShowsTokens):
                raise UnsupportedFieldError("inputs", detail="This model shows no tokens.")
            special = body.add_special_tokens
            texts = texts_in(body.inputs)
            found = await asyncio.to_thread(
                lambda: [encoder.tokens(text, with_special=special) for text in texts]
            )
        return await large_answer(
            lambda: joined(list_of(map(_shown, tokens), at_once=AT_ONCE) for tokens in found),
            values=sum(map(len, found)),
        )

    @router.get("/info", dependencies=[Depends(get_caller)])
    async def info(registry: RegistryDep) -> TeiInfo:
        """Say which model answers, and what it bears."""
        with registry.lease(None, _key(registry, kinds)) as lease:
            return _info(lease)

    return router


def _key(registry: ModelRegistry, kinds: list[str]) -> TaskKey[Scheduler[Any]]:
    """Return the first task that has a model: TEI serves one, the embedder if there is one.

    Raises:
        ModelNotFoundError: none has.

    """
    for kind in kinds:
        if registry.spec(None, kind) is not None:
            return TaskKey[Scheduler[Any]](kind)
    raise ModelNotFoundError


def _shown(token: Token) -> dict[str, Any]:
    start, stop = token.place or (None, None)
    return {
        "id": token.id,
        "text": token.text,
        "special": token.place is None,
        "start": start,
        "stop": stop,
    }


def _info(lease: Lease[Scheduler[Any]]) -> TeiInfo:
    return TeiInfo.of(lease.spec, version=lease.version, engine=lease.model.engine)
