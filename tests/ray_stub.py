"""Ray as far as the service asks it; the replicas are in the test's process."""

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import Future
from types import ModuleType
from typing import Any

import pytest

APPLICATION = "ml-api"
ERRORS = {
    "ray.exceptions": (
        "RayActorError",
        "WorkerCrashedError",
        "NodeDiedError",
        "ObjectLostError",
    ),
    "ray.serve.exceptions": (
        "BackPressureError",
        "DeploymentUnavailableError",
        "ReplicaUnavailableError",
        "RayServeException",
    ),
}


class StubDeployment:
    """A deployment with one replica, and its handle. Calls fail with `failures` first.

    Args:
        replica: whose methods are called.

    """

    def __init__(self, replica: Any) -> None:
        self.replica = replica
        self.failures: list[Exception] = []
        self.whole_pieces = 0  # of a stream, before it fails
        self.calls: list[str] = []
        self.cancelled: list[str] = []
        self.loop = asyncio.get_running_loop()

    def options(self, *, method_name: str, stream: bool) -> "StubMethod":
        return StubMethod(self, method_name)


class StubMethod:
    """The handle of one method."""

    def __init__(self, deployment: StubDeployment, name: str) -> None:
        self._deployment = deployment
        self._name = name

    def remote(self, *arguments: Any) -> "StubAnswer":
        self._deployment.calls.append(self._name)
        return StubAnswer(self._deployment, self._name, arguments)


class StubAnswer:
    """A call, which runs once its answer is waited for."""

    def __init__(self, deployment: StubDeployment, name: str, arguments: tuple[Any, ...]) -> None:
        self._deployment = deployment
        self._name = name
        self._call = getattr(deployment.replica, name)(*arguments)
        self._future: Future[Any] | None = None

    def result(self, *, timeout_s: float | None = None) -> Any:
        if self._deployment.failures:
            self._call.close()
            raise self._deployment.failures.pop(0)
        self._future = asyncio.run_coroutine_threadsafe(self._call, self._deployment.loop)
        return self._future.result(timeout_s)

    async def __aiter__(self) -> AsyncIterator[Any]:
        come = 0
        async for pieces in self._call:
            if self._deployment.failures and come >= self._deployment.whole_pieces:
                await self._call.aclose()
                raise self._deployment.failures.pop(0)
            yield pieces
            come += 1

    def cancel(self) -> None:
        self._deployment.cancelled.append(self._name)
        if self._future is not None:
            self._future.cancel()
        else:
            task = asyncio.ensure_future(_close(self._call))
            self._deployment.loop.call_soon(task.done)


async def _close(call: Any) -> None:
    """End a stream, which may be waiting for its next piece."""
    while call.ag_running:
        await asyncio.sleep(0)
    await call.aclose()


def install(monkeypatch: pytest.MonkeyPatch, deployments: Mapping[str, StubDeployment]) -> None:
    """Let `import ray` find this."""

    def find(name: str, application: str) -> StubDeployment:
        if application != APPLICATION or name not in deployments:
            raise sys.modules["ray.serve.exceptions"].RayServeException
        return deployments[name]

    modules = {name: ModuleType(name) for name in ("ray", "ray.serve", *ERRORS)}
    for name, errors in ERRORS.items():
        for error in errors:
            setattr(modules[name], error, type(error, (Exception,), {}))
    own = {"is_initialized": lambda: True, "exceptions": modules["ray.exceptions"]}
    vars(modules["ray"]).update(own, serve=modules["ray.serve"])
    vars(modules["ray.serve"])["get_deployment_handle"] = find
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


def death() -> Exception:
    """Return what Ray raises for a call whose replica has died."""
    failure: Exception = sys.modules["ray.exceptions"].RayActorError()
    return failure
