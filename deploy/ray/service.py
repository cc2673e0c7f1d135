"""The service on Ray Serve: `serve run service:application`, in this folder.

Each model for texts is a deployment of its own, which Ray scales and spreads; the service itself,
with all its routes, is their ingress. Models of other kinds are in each replica of the ingress.
"""

from collections.abc import Mapping
from contextlib import AsyncExitStack

from bridge import bridge
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from text_model import TextModel

from app.main import compose, create_app, load_settings
from app.settings import Settings
from app.sharing.opening import shared_part

# A replica has a queue of its own, by tokens and deadlines; this only keeps Ray from a smaller one.
MOST_AT_ONCE = 1_024
# As many requests as fill two batches of a CPU.
SCALING = {"min_replicas": 1, "max_replicas": 8, "target_ongoing_requests": 16}


class Passed(Response):
    """Lets the app answer a request, streams and the client's leaving included."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__()
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        await self._app(scope, receive, send)


class Service:
    """The ingress: the service, whose shared models are Ray's deployments."""

    async def __init__(self, models: Mapping[str, DeploymentHandle]) -> None:  # Ray awaits it
        self._stack = AsyncExitStack()
        address = await self._stack.enter_async_context(bridge(models))
        self._app = create_app(load_settings(), engine_at=address)
        await self._stack.enter_async_context(self._app.router.lifespan_context(self._app))
        await self._app.state.runtime.loaded.wait()

    async def __call__(self, _: Request) -> Response:
        """Answer a request."""
        return Passed(self._app)


def build(settings: Settings, *, replicas: int | None = None) -> serve.Application:
    """Return the application of a service.

    Args:
        settings: as read.
        replicas: of each model; None: as many as Ray finds right, by how many requests each has.

    """
    chosen, catalog = compose(settings)
    model = serve.deployment(
        TextModel,
        max_ongoing_requests=MOST_AT_ONCE,
        health_check_period_s=5,
        health_check_timeout_s=settings.health_max_call_s,
        ray_actor_options={"num_cpus": 1},
        **({"autoscaling_config": SCALING} if replicas is None else {"num_replicas": replicas}),
    )
    models = {
        spec.name: model.options(name=spec.name).bind(spec.name)
        for spec in shared_part(catalog, chosen.engines()).specs
    }
    ingress = serve.deployment(
        Service,
        max_ongoing_requests=MOST_AT_ONCE,
        graceful_shutdown_timeout_s=settings.shutdown_budget_s,
        ray_actor_options={"num_cpus": 0},
    )
    return ingress.bind(models)


application = build(load_settings())
