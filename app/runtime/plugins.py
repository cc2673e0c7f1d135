"""What a task and a feature bring to the service: the interface of what can be added or left out.

This module, and the module of each task and feature that implements it, imports nothing heavy:
commands import them too. Routes and the like are imported inside the methods.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from app.core.request_kinds import RequestKind

if TYPE_CHECKING:
    from pathlib import Path

    import typer
    from fastapi import APIRouter, FastAPI

    from app.core.finding import Finding
    from app.core.metrics import MetricGroup, Metrics
    from app.engines.loader import EngineKind
    from app.http.hub import HubTask
    from app.http.tensors import TensorTask
    from app.models.entries import ModelEntry
    from app.runtime.runtime import Runtime
    from app.services.model_calls import AnswerCall
    from app.settings import Settings

S = TypeVar("S", bound="Settings")
NO_TAGS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPaths:
    """What one loaded model adds to the OpenAPI document.

    Args:
        paths: path items, by path.
        schemas: components, by names that no other model has.

    """

    paths: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    schemas: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class Task:
    """What models of one kind do: a folder of `app/tasks/`.

    Attributes:
        name: of the folder, in `main.TASKS`, and in what features need.
        kind: what models.toml and GET /models call it.
        capability: the task that an engine must support, where it isn't this one: any engine for
            `text-classification` can detect languages. None: this task.
        request_kind: of the requests to its routes: which of them share their places when there
            are too many.
        tags: what the OpenAPI document says of the tags that its routes have.
        example_model: the model that examples of its bodies name; the document names one of the
            catalogue instead.

    """

    name: str
    kind: str
    tags: Mapping[str, str] = NO_TAGS
    example_model: str | None = None
    capability: str | None = None
    request_kind: RequestKind = RequestKind.INFERENCE

    def kind_of(self, path: str) -> RequestKind:  # noqa: ARG002
        """Return the kind of the requests to one of its routes, where they aren't all alike."""
        return self.request_kind

    def engines(self) -> "Sequence[EngineKind]":
        """Return engines that only this task brings."""
        return ()

    def routers(self) -> "Sequence[APIRouter]":
        """Return the task's routes."""
        return ()

    def body_limits(self, settings: "Settings") -> Mapping[str, int]:  # noqa: ARG002
        """Return the bytes that a request's body may have, by path, where it isn't the default."""
        return {}

    def model_paths(self, entry: "ModelEntry") -> ModelPaths:  # noqa: ARG002
        """Return what a loaded model adds to the OpenAPI document, where it has its own schemas."""
        return ModelPaths()

    def answer_call(self) -> "AnswerCall | None":
        """Return what answers Python classes that call these models; None: they can't."""
        return None

    def openai_routers(self) -> "Sequence[APIRouter]":
        """Return the task's routes in OpenAI's dialect, which the feature `openai` serves."""
        return ()

    def hub(self) -> "HubTask | None":
        """Return what it answers in Hugging Face's dialects, which `huggingface` serves."""
        return None

    def tensors(self) -> "TensorTask | None":
        """Return what it answers in the Open Inference Protocol, which `open_inference` serves."""
        return None

    def add_commands(self, cli: "typer.Typer") -> None:
        """Add the task's commands to `app`."""


class Feature(Generic[S]):
    """What a service can do beside its tasks: a folder of `app/features/`.

    Attributes:
        name: of the folder, in `main.FEATURES` and in the setting FEATURES.
        needs: names of features and tasks without which it is left out.
        is_stored: whether it needs the SQL database.
        tags: what the OpenAPI document says of the tags that its routes have.

    """

    name: str
    tags: Mapping[str, str] = NO_TAGS
    needs: frozenset[str] = frozenset()
    is_stored: bool = False

    def settings(self) -> "type[Settings]":
        """Return the service's settings with those of this feature."""
        from app.settings import Settings

        return Settings

    def metrics(self) -> "type[MetricGroup] | None":
        """Return what declares the feature's metrics."""
        return None

    def off_by(self, settings: S) -> str | None:  # noqa: ARG002
        """Return the setting of its own that turns the feature off, such as `JOBS=off`."""
        return None

    def keeps(self, settings: S) -> "Sequence[Path]":  # noqa: ARG002
        """Return files and folders, beside SQLite's, that no second service may have as its own."""
        return ()

    def check(self, settings: S) -> None:
        """Check this feature's settings before the start.

        Raises:
            SettingsError: naming each that can't be used, without its value.

        """

    def routers(self, tasks: Sequence[Task]) -> "Sequence[APIRouter]":  # noqa: ARG002
        """Return the feature's routes in a service with these tasks."""
        return ()

    def request_kinds(self, tasks: Sequence[Task]) -> Mapping[str, RequestKind]:  # noqa: ARG002
        """Return the kinds of the requests to its routes, by path, where they run models.

        A path may have a method before it: `POST /`.
        """
        return {}

    def mount(self, app: "FastAPI") -> None:
        """Add to the app what isn't a router."""

    def body_limits(self, settings: S) -> Mapping[str, int]:  # noqa: ARG002
        """Return the bytes that a request's body may have, by path, where it isn't the default."""
        return {}

    def streamed_bodies(self, settings: S) -> Mapping[str, int]:  # noqa: ARG002
        """Return the bytes that a body may have, by path, where the route reads it as it comes."""
        return {}

    def needs_key(self, settings: S) -> bool:  # noqa: ARG002
        """Say whether callers need a key because of this feature."""
        return False

    def open(self, runtime: "Runtime", settings: S) -> AbstractAsyncContextManager[Any]:  # noqa: ARG002
        """Open what lives as long as the service, and close it at the end.

        Args:
            runtime: what the service has so far; later features and routes find there what this
                one provides.
            settings: as the entry point read them.

        """
        return nullcontext()

    def open_shared(
        self,
        settings: S,  # noqa: ARG002
        *,
        metrics: "Metrics",  # noqa: ARG002
        after: Callable[[], Awaitable[object]],  # noqa: ARG002
    ) -> AbstractAsyncContextManager[Mapping[str, str]]:
        """Open what all front ends of a service share, in the process that starts them.

        Args:
            settings: as the entry point read them.
            metrics: where it counts.
            after: awaited before anything begins that would slow down the service's start.

        Returns: settings that the front ends get, as environment variables.

        """
        return nullcontext({})

    def add_commands(self, cli: "typer.Typer") -> None:
        """Add the feature's commands to `app`."""

    def findings(self, settings: S) -> "Iterator[Finding]":  # noqa: ARG002
        """Yield what `app doctor` reports about this feature."""
        yield from ()


Plugin = Task | Feature[Any]
