"""`POST /` and `/hf/{model_name}`: what Hugging Face's clients send to an address."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response

from app.features.huggingface.calls import Hubs, answer_call, call_for, named_call
from app.http.deps import RegistryDep
from app.http.guard import Known
from app.http.json_route import JsonRoute
from app.http.task_runner import RunnerDep
from app.models.schemas import MAX_NAME_CHARS


def make_router(hubs: Hubs) -> APIRouter:
    """Return the routes; docs/dialects.md has them, the OpenAPI document hasn't."""
    router = APIRouter(
        route_class=JsonRoute, include_in_schema=False, dependencies=[Depends(Known())]
    )

    @router.post("/")
    async def answer_inputs(
        request: Request, body: dict[str, Any], registry: RegistryDep, run: RunnerDep
    ) -> Response:
        """Answer with the default model of the task that the body is for."""
        return await answer_call(call_for(hubs, registry, body), body, request, run)

    @router.post("/hf/{model_name}")
    async def answer_inputs_with(
        model_name: Annotated[str, Path(max_length=MAX_NAME_CHARS)],
        request: Request,
        body: dict[str, Any],
        registry: RegistryDep,
        run: RunnerDep,
    ) -> Response:
        """Answer with the model that the path names."""
        call = named_call(hubs, registry, model_name)
        return await answer_call(call, body, request, run, model_name=model_name)

    return router
