"""The service as an application of Ray Serve: `serve run --app-dir deploy/ray service:build`.

Each model for texts or chat is a deployment, whose replicas Ray starts, spreads and scales; the
service itself is their ingress, or runs beside Ray, as `RAY_APP=… app serve`.
"""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Any

import ray
from pydantic import BaseModel, Field
from ray import serve

from app.core.logs import configure
from app.errors import SettingsError
from app.main import compose, create_app, load_settings
from app.models.catalog import ModelSpec
from app.replicas.facts import ReplicaFacts
from app.runtime.on_ray import CALLS_OF_REPLICA, is_on_ray
from app.runtime.runtime import Runtime
from app.server.replica import open_replica
from app.settings import Settings

# A replica has a queue of its own, bounded in tokens; Ray's would hide from it what waits.
MOST_CALLS = 1_000
# Of each call: the service logs each request already.
LOGGING = {"enable_access_log": False}


class Arguments(BaseModel, extra="forbid"):
    """What `serve run service:build NAME=VALUE` and `args` of a configuration file understand."""

    replicas: int | None = Field(None, ge=1)  # of each model; None: Ray scales them
    max_replicas: int = Field(default_factory=lambda: load_settings().ray_replicas, ge=1)
    cpus: float = Field(1, gt=0)  # of a replica; engines take as many threads
    gpus: float = Field(0, ge=0)
    fronts: int = Field(1, ge=0)  # replicas of the service; 0: it runs beside Ray


def start_logs(settings: Settings) -> None:
    """Have the process log as the service does; Ray keeps its standard error."""
    configure(
        log_format=settings.log_format,
        level=settings.log_level,
        log_inputs=settings.log_inputs,
        bound=settings.log_bound,
    )


class Model:
    """A replica of one model. Ray calls its methods on one event loop, many at once."""

    async def __init__(self, name: str) -> None:  # Ray awaits it
        settings = load_settings()
        start_logs(settings)
        cores = ray.get_runtime_context().get_assigned_resources().get("CPU", 1)
        self._stack = AsyncExitStack()
        self._replica = await self._stack.enter_async_context(
            open_replica(settings, name, cores=max(1, int(cores)))
        )

    async def __del__(self) -> None:  # Ray awaits it
        """Unload the model."""
        await self._stack.aclose()

    def check_health(self) -> None:
        """Have Ray replace a replica that hangs."""
        self._replica.check_health()

    async def facts(self) -> ReplicaFacts:
        """Return what the service has to know of the model."""
        return await self._replica.facts()

    async def run(self, *call: Any) -> bytes:  # noqa: ANN401  # as `Replica.run`
        """Run texts."""
        return await self._replica.run(*call)

    async def generate(self, *call: Any) -> AsyncGenerator[list[Any]]:  # noqa: ANN401  # as there
        """Yield pieces of an answer."""
        async for pieces in self._replica.generate(*call):
            yield pieces


@serve.ingress()
class Service:
    """The ingress: the service, which asks the deployments of its models."""

    def __init__(self, replicas: int, *_models: object) -> None:
        self._replicas = replicas

    def __serve_build_asgi_app__(self) -> object:  # Ray's name
        """Make the app; Ray opens it."""
        application = serve.get_replica_context().app_name
        settings = load_settings(ray_app=application, ray_replicas=self._replicas)
        start_logs(settings)
        self._own_app = create_app(settings)
        return self._own_app

    def check_health(self) -> None:
        """Have Ray replace a replica that hangs."""
        runtime: Runtime | None = getattr(self._own_app.state, "runtime", None)
        if runtime is not None:
            runtime.check_health()


class Root:
    """What Ray Serve wants at the root of an application; the service runs beside it."""

    def __init__(self, *_models: object) -> None:
        pass

    async def __call__(self) -> None:
        """Answer nothing: nothing leads here."""


def build(arguments: Arguments) -> serve.Application:
    """Return the application: a deployment for each model of the catalogue, and the ingress."""
    settings = load_settings()
    chosen, catalog = compose(settings)
    models = [
        serve.deployment(Model).options(name=spec.name, **_scale(arguments, spec)).bind(spec.name)
        for spec in catalog.specs
        if is_on_ray(spec, chosen.engines())
    ]
    if not arguments.fronts:
        return serve.deployment(Root).options(ray_actor_options={"num_cpus": 0}).bind(*models)
    if arguments.fronts > 1 and (settings.database_url is None or settings.redis_url is None):
        raise SettingsError("fronts: several need DATABASE_URL and REDIS_URL, to share their data")
    front = serve.deployment(Service).options(
        num_replicas=arguments.fronts,
        max_ongoing_requests=2 * settings.max_in_flight,  # of inference, and of chat
        logging_config=LOGGING,
        graceful_shutdown_timeout_s=settings.shutdown_budget_s,
        ray_actor_options={"num_cpus": 0},  # it shares those of its node
    )
    return front.bind(arguments.replicas or arguments.max_replicas, *models)


def _scale(arguments: Arguments, spec: ModelSpec) -> dict[str, Any]:
    """Return how a model is scaled, and how many calls a replica gets."""
    is_chat = spec.task == "chat"
    calls = spec.slots if is_chat else CALLS_OF_REPLICA
    scale: dict[str, Any] = {"num_replicas": arguments.replicas}
    if arguments.replicas is None:
        scale = {
            "autoscaling_config": {
                "min_replicas": 1,
                "max_replicas": arguments.max_replicas,
                "target_ongoing_requests": max(1, calls - 1),
            }
        }
    return {
        **scale,
        "max_ongoing_requests": calls if is_chat else MOST_CALLS,
        "ray_actor_options": {"num_cpus": arguments.cpus, "num_gpus": arguments.gpus},
        "logging_config": LOGGING,
        "graceful_shutdown_timeout_s": 20,
        "health_check_period_s": 5,
        "health_check_timeout_s": 30,
    }
