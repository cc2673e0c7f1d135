"""`/v2/models/{name}/infer`: tensors of texts in, tensors of numbers out."""

from fastapi import APIRouter, Depends, Request, Response

from app.errors import ModelNameConflictError
from app.features.open_inference.answers import infer_answer
from app.features.open_inference.models import TensorTasks, leased, tensors_of
from app.features.open_inference.requests import TensorRoute
from app.features.open_inference.routes import ModelPath, VersionPath
from app.features.open_inference.schemas import InferRequest, texts_of
from app.http.deps import RegistryDep
from app.http.guard import Guard, Known
from app.http.task_runner import RunnerDep


def make_router(tasks: TensorTasks) -> APIRouter:
    """Return the routes; docs/dialects.md has them, the OpenAPI document hasn't."""
    router = APIRouter(
        prefix="/v2",
        route_class=TensorRoute,
        include_in_schema=False,
        dependencies=[Depends(Known())],
    )

    @router.post("/models/{model_name}/infer")
    async def infer(
        model_name: ModelPath,
        request: Request,
        body: InferRequest,
        registry: RegistryDep,
        run: RunnerDep,
    ) -> Response:
        """Run the model that the path names."""
        return await answer(model_name, None, request, body, registry, run)

    @router.post("/models/{model_name}/versions/{version}/infer")
    async def infer_version(  # dependencies
        model_name: ModelPath,
        version: VersionPath,
        request: Request,
        body: InferRequest,
        registry: RegistryDep,
        run: RunnerDep,
    ) -> Response:
        """Run the model that the path names, if it has that version."""
        return await answer(model_name, version, request, body, registry, run)

    async def answer(  # dependencies
        model_name: str,
        version: str | None,
        request: Request,
        body: InferRequest,
        registry: RegistryDep,
        run: RunnerDep,
    ) -> Response:
        tensors = tensors_of(tasks, registry, model_name)
        await Guard(tensors.scope).check(request)
        if body.model_name not in {None, model_name}:
            raise ModelNameConflictError
        texts = texts_of(body, tensors)
        await run.wake(model_name, registry.task_of(model_name))
        with leased(registry, model_name, version or body.model_version) as lease:
            found = await tensors.answer(texts, run, model_name)
        return await infer_answer(body, found, model=model_name, version=lease.version)

    return router
