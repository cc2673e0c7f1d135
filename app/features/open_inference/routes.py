"""`/v2`, `/v2/health/…` and `/v2/models/{name}`: what there is, and whether it is ready."""

from importlib.metadata import version as version_of
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path

from app.features.open_inference.models import TensorTasks, checked, leased, tensors_of
from app.http.deps import RegistryDep, RuntimeDep
from app.http.guard import get_caller
from app.models.schemas import MAX_NAME_CHARS

ModelPath = Annotated[str, Path(max_length=MAX_NAME_CHARS)]
VersionPath = Annotated[str, Path(max_length=256)]
ANY = -1  # of a shape: as many as there are texts


def make_router(tasks: TensorTasks) -> APIRouter:
    """Return the routes; docs/dialects.md has them, the OpenAPI document hasn't."""
    router = APIRouter(prefix="/v2", include_in_schema=False)
    known = [Depends(get_caller)]

    @router.get("/health/live")
    async def live(runtime: RuntimeDep) -> dict[str, bool]:
        runtime.check_health()
        return {"live": True}

    @router.get("/health/ready")
    async def ready(runtime: RuntimeDep) -> dict[str, bool]:
        runtime.check_ready()
        return {"ready": True}

    @router.get("", dependencies=known)
    async def server() -> dict[str, Any]:
        extensions = ["binary_tensor_data", "model_repository"]
        return {"name": "ml-api", "version": version_of("ml-api"), "extensions": extensions}

    @router.get("/models/{model_name}", dependencies=known)
    async def model(model_name: ModelPath, registry: RegistryDep) -> dict[str, Any]:
        return metadata(registry, model_name, None)

    @router.get("/models/{model_name}/versions/{version}", dependencies=known)
    async def model_version(
        model_name: ModelPath, version: VersionPath, registry: RegistryDep
    ) -> dict[str, Any]:
        return metadata(registry, model_name, version)

    @router.get("/models/{model_name}/ready", dependencies=known)
    async def model_ready(model_name: ModelPath, registry: RegistryDep) -> dict[str, Any]:
        return readiness(registry, model_name, None)

    @router.get("/models/{model_name}/versions/{version}/ready", dependencies=known)
    async def version_ready(
        model_name: ModelPath, version: VersionPath, registry: RegistryDep
    ) -> dict[str, Any]:
        return readiness(registry, model_name, version)

    def metadata(registry: RegistryDep, model_name: str, version: str | None) -> dict[str, Any]:
        tensors = tensors_of(tasks, registry, model_name)
        with leased(registry, model_name, version) as lease:
            engine = lease.model.engine
            outputs = [
                _tensor(one.name, "FP32", *([] if one.width is None else [one.width]))
                for one in tensors.numbers(engine)
            ]
            return {
                "name": model_name,
                "versions": registry.model(model_name).loaded or [lease.version],
                "platform": engine.kind,
                "inputs": [_tensor(name, "BYTES") for name in tensors.inputs],
                "outputs": outputs + [_tensor(name, "BYTES") for name in tensors.texts],
            }

    def readiness(registry: RegistryDep, model_name: str, version: str | None) -> dict[str, Any]:
        tensors_of(tasks, registry, model_name)
        with checked(registry, model_name, version):
            return {"name": model_name, "ready": True}

    return router


def _tensor(name: str, datatype: str, *widths: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [ANY, *widths]}
