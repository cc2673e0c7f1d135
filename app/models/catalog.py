"""Reads models.toml into `ModelSpec`s, with readable errors."""

import tomllib
from collections.abc import Collection, Sequence
from pathlib import Path

from pydantic import ValidationError

from app.engines.base import Task
from app.errors import CatalogError
from app.models.specs import (
    DEFAULT_MAX_CHARS,
    EMBEDDING_DEFAULTS,
    ONNX,
    OWN_TYPES,
    PYTHON,
    REMOTE,
    Limits,
    ModelSpec,
    readable,
)
from app.models.uses import check_uses
from app.models.version_specs import serving_of, weights_of

__all__ = [
    "DEFAULT_MAX_CHARS",
    "EMBEDDING_DEFAULTS",
    "ONNX",
    "OWN_TYPES",
    "PYTHON",
    "REMOTE",
    "Catalog",
    "Limits",
    "ModelSpec",
    "read_catalog",
]


class Catalog:
    """All models that this service may serve, in the order of the file."""

    def __init__(self, specs: Sequence[ModelSpec], *, folder: Path = Path()) -> None:
        self.specs = tuple(specs)
        self.folder = folder
        self._by_name = {spec.name: spec for spec in specs}
        if len(self._by_name) != len(self.specs):
            raise CatalogError("two models have the same name")
        # Each Python class has requests of its own: one can't stand in for another.
        tasks = dict.fromkeys(spec.task for spec in specs if spec.task != Task.PYTHON)
        self._defaults = {task: self._choose_default(task) for task in tasks}

    def _choose_default(self, task: str) -> str:
        """Return the name of a task's default model: the one that says so, else the first."""
        of_task = [spec for spec in self.specs if spec.task == task]
        named = [spec.name for spec in of_task if spec.default]
        if len(named) > 1:
            raise CatalogError(f"two default models for {task}: {', '.join(named)}")
        return named[0] if named else of_task[0].name

    def of_tasks(self, tasks: Collection[str]) -> "Catalog":
        """Return the catalogue without models of other tasks than these."""
        return Catalog([s for s in self.specs if s.task in tasks], folder=self.folder)

    def get(self, name: str) -> ModelSpec | None:
        """Return the entry of that name, if there is one."""
        return self._by_name.get(name)

    def to_load(self, name: str) -> ModelSpec | None:
        """Return what is loaded for a model, or for a version of one (`sentiment@2`).

        Of a model with versions it is the one with most of the traffic.
        """
        spec = self._by_name.get(name)
        if spec is not None and spec.versions:
            name = f"{name}@{serving_of(weights_of(spec.versions))}"
        return next((one for spec in self.specs for one in spec.loads if one.name == name), None)

    def default(self, task: str) -> str | None:
        """Return the name of the task's default model, if the task has a model at all."""
        return self._defaults.get(task)

    def check_tasks(self, installed: Collection[str]) -> None:
        """Refuse models of tasks that neither this package nor this service has.

        Raises:
            CatalogError: names the model, and the known tasks.

        """
        known = sorted({*Task, *installed})
        for spec in self.specs:
            if spec.task not in known:
                tasks = ", ".join(known)
                raise CatalogError(
                    f"model {spec.name!r}: task: there is no {spec.task!r}; there are {tasks}"
                )

    @property
    def max_chars(self) -> int:
        """Characters of the longest text that any classifier takes."""
        allowed = [s.limits.max_chars for s in self.specs if s.task == Task.CLASSIFICATION]
        return max(allowed, default=DEFAULT_MAX_CHARS)

    def is_required(self, spec: ModelSpec) -> bool:
        """Return whether the service needs this model.

        Unless its entry says so, a task's default model is required, but not a remote one: loading
        checks only its settings, not its server. So is each Python class, which has no default.
        What is loaded on demand never is.
        """
        if spec.required is not None or spec.is_lazy:
            return bool(spec.required)
        if spec.task == Task.PYTHON:
            return True
        return spec.engine != REMOTE and self.default(spec.task) == spec.name


def read_catalog(path: Path) -> Catalog:
    """Read the catalogue.

    Raises:
        CatalogError: the file can't be read, or an entry is wrong; the message names it.

    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as failure:
        raise CatalogError(f"{path}: can't be read: {failure.strerror}") from failure
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as failure:
        raise CatalogError(f"{path}: not valid TOML: {failure}") from failure
    entries = content.pop("models", [])
    if content or not isinstance(entries, list):
        raise CatalogError(f"{path}: holds tables [[models]] and nothing else")
    try:
        specs = [_read_spec(number, entry) for number, entry in enumerate(entries, start=1)]
        check_uses({spec.name: spec.uses for spec in specs})
        return Catalog(specs, folder=path.parent)
    except CatalogError as failure:
        raise CatalogError(f"{path}: {failure}") from None


def _read_spec(number: int, entry: object) -> ModelSpec:
    """Validate one entry; an error names the entry and its field."""
    try:
        return ModelSpec.model_validate(entry)
    except ValidationError as invalid:
        name = entry.get("name", number) if isinstance(entry, dict) else number
        raise CatalogError(f"model {name!r}: {readable(invalid)}") from None
