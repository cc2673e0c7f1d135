"""The cluster: the one place that imports Ray, which only those who use it have installed."""

from dataclasses import dataclass

from app.errors import EngineError, SettingsError
from app.replicas.asking import Handle, RayErrors, Replicas

NAMESPACE = "serve"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What is asked of Ray.

    Args:
        application: on Ray Serve, whose deployments are named as its models.
        errors: what Ray raises.
        is_guest: whether this process has joined the cluster by itself, and leaves it at its end.

    """

    application: str
    errors: RayErrors
    is_guest: bool

    def replicas(self, name: str) -> Replicas:
        """Return the replicas of a model.

        Raises:
            EngineError: the application has no such deployment.

        """
        from ray import serve
        from ray.serve.exceptions import RayServeException

        try:
            handle: Handle = serve.get_deployment_handle(name, self.application)
        except RayServeException as failure:
            raise EngineError(
                f"the application {self.application!r} on Ray Serve has no deployment {name!r}"
            ) from failure
        return Replicas(name, handle, self.errors)

    def leave(self) -> None:
        """End the connection to the cluster; blocks."""
        if self.is_guest:
            import ray

            ray.shutdown()


def join(application: str) -> Cluster:
    """Become part of the cluster of this machine; a replica of it already is. Blocks.

    Raises:
        SettingsError: Ray isn't installed, or doesn't run here.

    """
    try:
        import ray
        from ray import exceptions
        from ray.serve.exceptions import (
            BackPressureError,
            DeploymentUnavailableError,
            ReplicaUnavailableError,
        )
    except ImportError as failure:
        raise SettingsError("RAY_APP: Ray isn't installed: pip install 'ml-api[ray]'") from failure
    is_part = ray.is_initialized()
    if not is_part:
        try:
            ray.init("auto", namespace=NAMESPACE, log_to_driver=False, logging_level="warning")
        except ConnectionError as failure:
            raise SettingsError("RAY_APP: Ray doesn't run on this machine") from failure
    errors = RayErrors(
        died=(
            exceptions.RayActorError,
            exceptions.WorkerCrashedError,
            exceptions.NodeDiedError,
            exceptions.ObjectLostError,
            ReplicaUnavailableError,
        ),
        full=(BackPressureError,),
        undeployed=(DeploymentUnavailableError,),
    )
    return Cluster(application=application, errors=errors, is_guest=not is_part)
