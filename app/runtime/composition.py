"""Which tasks and features a service has: those that are listed, installed and chosen."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from app.errors import SettingsError
from app.runtime.plugins import Feature, Plugin, Task

if TYPE_CHECKING:
    from fastapi import APIRouter

    from app.core.metrics import MetricGroup
    from app.engines.loader import EngineTable
    from app.models.catalog import Catalog
    from app.services.model_calls import AnswerCall
    from app.settings import Settings

ALL, NONE = "all", "none"
ACCESS = "access"
TASK_GROUP, FEATURE_GROUP = "ml_api.tasks", "ml_api.features"  # of other packages' entry points


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """All tasks and features of this program, in the order in which they open."""

    tasks: tuple[Task, ...]
    features: tuple[Feature[Any], ...]

    @property
    def plugins(self) -> tuple[Plugin, ...]:
        """All of both."""
        return (*self.tasks, *self.features)

    @property
    def usable(self) -> tuple[Feature[Any], ...]:
        """The features whose needs are installed; the code of others may need what is deleted."""
        there = {plugin.name for plugin in self.plugins}
        while True:
            usable = tuple(f for f in self.features if f.name in there and f.needs <= there)
            lacking = {f.name for f in self.features} & there - {f.name for f in usable}
            if not lacking:
                return usable
            there -= lacking

    def metrics(self) -> "list[MetricGroup]":
        """Return all metrics of a service, in one registry."""
        from app.core.metrics import Metrics

        own = Metrics()
        kinds = [kind for feature in self.usable if (kind := feature.metrics())]
        return [own, *(kind(own.registry) for kind in kinds)]

    def settings_type(self) -> "type[Settings]":
        """Return what holds the settings of the service and of all features."""
        from pydantic import create_model

        from app.settings import Settings

        kinds = dict.fromkeys(feature.settings() for feature in reversed(self.usable))
        # One that another inherits from is left out.
        bases = tuple(k for k in kinds if not any(k is not o and issubclass(o, k) for o in kinds))
        return create_model("AllSettings", __base__=bases or (Settings,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Composition:
    """What one service is made of.

    Args:
        tasks: all that are installed; models of the catalogue decide which are used, and models
            of other tasks are left out.
        features: those that are on, in the order in which they open.
        left_out: why each of the others is off.

    """

    tasks: tuple[Task, ...]
    features: tuple[Feature[Any], ...]
    left_out: Mapping[str, str]

    @property
    def kinds(self) -> tuple[str, ...]:
        """What models.toml calls the tasks."""
        return tuple(task.kind for task in self.tasks)

    def engines(self) -> "EngineTable":
        """Return all engines, those of tasks included, and what each task needs of one."""
        from app.engines.loader import EngineTable, known_engines

        of_tasks = {kind.name: kind for task in self.tasks for kind in task.engines()}
        capabilities = {task.kind: task.capability for task in self.tasks if task.capability}
        return EngineTable({**known_engines(), **of_tasks}, capabilities)

    def call_answers(self) -> "dict[str, AnswerCall]":
        """Return what answers Python classes that call other models, by the models' task."""
        answers = {task.kind: task.answer_call() for task in self.tasks}
        return {kind: answer for kind, answer in answers.items() if answer is not None}

    @property
    def is_stored(self) -> bool:
        """Whether anything needs the SQL database."""
        return any(feature.is_stored for feature in self.features)

    def routers(self) -> "list[APIRouter]":
        """Return the routes of tasks and features."""
        of_tasks = [router for task in self.tasks for router in task.routers()]
        of_features = [router for f in self.features for router in f.routers(self.tasks)]
        return of_tasks + of_features

    def body_limits(self, settings: "Settings") -> dict[str, int]:
        """Return the bytes that a request's body may have, by path, where it isn't the default."""
        plugins: tuple[Plugin, ...] = (*self.tasks, *self.features)
        return {path: size for p in plugins for path, size in p.body_limits(settings).items()}

    def streamed_bodies(self, settings: "Settings") -> dict[str, int]:
        """Return the bytes that a body may have, by path, where the route reads it as it comes."""
        return {
            path: size for f in self.features for path, size in f.streamed_bodies(settings).items()
        }

    def needs_key(self, settings: "Settings") -> bool:
        """Say whether callers need a key."""
        return any(feature.needs_key(settings) for feature in self.features)

    @property
    def tags(self) -> dict[str, str]:
        """What the OpenAPI document says of the routes' tags."""
        plugins: tuple[Plugin, ...] = (*self.tasks, *self.features)
        return {tag: text for plugin in plugins for tag, text in plugin.tags.items()}

    def example_models(self, catalog: "Catalog") -> dict[str, str]:
        """Return the catalogue's default models, by the names that examples have for them.

        A name that the catalogue has too stays, and so does that of a task without a model.
        """
        known = {spec.name for spec in catalog.specs}
        return {
            task.example_model: default
            for task in self.tasks
            if task.example_model and task.example_model not in known
            if (default := catalog.default(task.kind))
        }

    def has(self, name: str) -> bool:
        """Say whether a feature is on."""
        return any(feature.name == name for feature in self.features)


def find_installed(tasks: Iterable[str], features: Iterable[str]) -> Installed:
    """Find the objects of the listed folders, and those that other packages bring.

    Args:
        tasks: folders of `app/tasks/`, each with a `TASK` in its `task.py`.
        features: folders of `app/features/`, each with a `FEATURE` in its `feature.py`.

    """
    own_tasks = [import_module(f"app.tasks.{name}.task").TASK for name in tasks]
    own_features = [import_module(f"app.features.{name}.feature").FEATURE for name in features]
    return Installed(
        tasks=(*own_tasks, *_of_packages(TASK_GROUP)),
        features=(*own_features, *_of_packages(FEATURE_GROUP)),
    )


def _of_packages(group: str) -> list[Any]:
    return [point.load() for point in sorted(entry_points(group=group))]


def choose(parts: Installed, settings: "Settings") -> Composition:
    """Return what the settings choose.

    Raises:
        SettingsError: FEATURES names a feature that doesn't exist, or one that needs another that
            is off; or other machines can reach the service, and it would need no keys.

    """
    named = _named(parts, settings.features)
    on: list[Feature[Any]] = []
    left_out: dict[str, str] = {}
    available = {task.name for task in parts.tasks}
    for feature in parts.features:
        if named is not None and feature.name not in named:
            left_out[feature.name] = "FEATURES doesn't name it"
        elif missing := sorted(feature.needs - available):
            reason = f"it needs {', '.join(missing)}"
            if named is not None:
                raise SettingsError(f"FEATURES: {feature.name} can't be on: {reason}")
            left_out[feature.name] = reason
        elif off_by := feature.off_by(settings):
            left_out[feature.name] = off_by
        else:
            on.append(feature)
            available.add(feature.name)
    chosen = Composition(tasks=parts.tasks, features=tuple(on), left_out=left_out)
    _refuse_without_access(chosen, is_loopback=settings.is_loopback)
    return chosen


def check(chosen: Composition, settings: "Settings") -> None:
    """Check before the start the settings that only one part of the service understands.

    Raises:
        SettingsError: naming each that can't be used, without its value.

    """
    checks: list[Callable[[], object]] = [
        partial(check_redis_url, settings),
        *([partial(check_sql_url, settings)] if chosen.is_stored else []),
        *(partial(feature.check, settings) for feature in chosen.features),
    ]
    refused = []
    for check_one in checks:
        try:
            check_one()
        except SettingsError as failure:
            refused.append(str(failure))
    if refused:
        raise SettingsError("; ".join(refused))


def check_redis_url(settings: "Settings") -> None:
    """Check that the address of Redis can be read.

    Raises:
        SettingsError: it can't; the message doesn't repeat it.

    """
    from app.core.redis_url import make_pool

    if settings.redis_url is not None:
        make_pool(settings.redis_url.get_secret_value())


def check_sql_url(settings: "Settings") -> None:
    """Check that the address of SQL can be read.

    Raises:
        SettingsError: it can't; the message doesn't repeat it.

    """
    from app.db.engine import parse_url

    parse_url(settings.sql_url)


def _named(parts: Installed, features: str) -> Sequence[str] | None:
    """Return the features that FEATURES names; None for all of them."""
    names = [name.strip().lower() for name in features.split(",") if name.strip()]
    if not names or names == [ALL]:
        return None
    if names == [NONE]:
        return ()
    known = [feature.name for feature in parts.features]
    if unknown := [name for name in names if name not in known]:
        raise SettingsError(
            f"FEATURES: there is no {', '.join(unknown)}; there are {', '.join(known)},"
            f" or {ALL}, or {NONE}"
        )
    return names


def _refuse_without_access(chosen: Composition, *, is_loopback: bool) -> None:
    """Refuse to start without keys where other machines can reach the service."""
    if not is_loopback and not chosen.has(ACCESS):
        raise SettingsError(
            "HOST can be reached by others, and without the feature `access` everybody could use"
            " the service: take 127.0.0.1, or let FEATURES have access"
        )
