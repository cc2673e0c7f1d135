"""Which tasks and features a service has, and what one that is off does without."""

import asyncio
import logging
import os
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from httpx2 import AsyncClient
from serving import FAKE, AllSettings, make_app, make_settings, running

from app.core.metrics import MetricGroup, Metrics
from app.errors import SettingsError
from app.main import FEATURES, TASKS, create_app, installed
from app.runtime.composition import ACCESS, Installed, check, choose, find_installed
from app.runtime.plugins import Feature, Task
from app.settings import Settings

pytestmark = pytest.mark.core

ADDRESS = {"host": "0.0.0.0"}
SECRET = "hunter2"


class Base(Feature[Any]):
    """Needs a task."""

    name = "base"
    needs = frozenset({"toy"})


class Above(Feature[Any]):
    """Needs another feature, and a database."""

    name = "above"
    needs = frozenset({"base"})
    is_stored = True

    def off_by(self, settings: Settings) -> str | None:
        return "ABOVE=off" if settings.port == 1 else None

    def check(self, settings: Settings) -> None:
        if settings.port == 2:
            raise SettingsError("PORT: must not be 2")


class Alone(Feature[Any]):
    """Needs nothing."""

    name = "alone"


class Toy(Task):
    """A task that has nothing but its name."""

    name = "toy"
    kind = "toy-classification"


def parts(*tasks: Task) -> Installed:
    return Installed(tasks=tasks, features=(Base(), Above(), Alone()))


def given(**settings: Any) -> Any:
    return AllSettings(_env_file=None, **settings)


def on(parts: Installed, **settings: Any) -> list[str]:
    return [feature.name for feature in choose(parts, given(**settings)).features]


@pytest.mark.parametrize(
    ("features", "chosen"),
    [
        ("all", ["base", "above", "alone"]),
        ("", ["base", "above", "alone"]),
        ("none", []),
        ("alone", ["alone"]),
        (" Above , BASE,", ["base", "above"]),
    ],
)
def test_features_names_those_that_are_on_and_they_open_in_their_own_order(
    features: str, chosen: list[str]
) -> None:
    assert on(parts(Toy()), features=features) == chosen


@pytest.mark.parametrize("features", ["alone,nothing", "all,alone", "none,alone"])
def test_a_name_that_no_feature_has_is_refused_with_those_that_there_are(features: str) -> None:
    message = (
        r"^FEATURES: there is no (nothing|all|none); there are base, above, alone, or all, or no"
    )
    with pytest.raises(SettingsError, match=message):
        choose(parts(Toy()), given(features=features))


def test_what_lacks_something_is_left_out_and_so_is_what_needs_it() -> None:
    chosen = choose(parts(), given())
    assert [feature.name for feature in chosen.features] == ["alone"]
    assert chosen.left_out == {"base": "it needs toy", "above": "it needs base"}


def test_what_lacks_something_and_was_asked_for_by_name_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"^FEATURES: base can't be on: it needs toy$"):
        choose(parts(), given(features="base"))
    with pytest.raises(SettingsError, match=r"^FEATURES: above can't be on: it needs base$"):
        choose(parts(Toy()), given(features="above"))


def test_a_switch_of_its_own_says_the_same_as_features() -> None:
    installed = parts(Toy())
    switched = choose(installed, given(port=1))
    named = choose(installed, given(features="base,alone"))
    assert switched.features == named.features
    assert switched.left_out == {"above": "ABOVE=off"}
    assert named.left_out == {"above": "FEATURES doesn't name it"}
    assert not switched.is_stored


@pytest.mark.parametrize("name", [n for n in ("jobs", "prediction_log") if n in FEATURES])
def test_jobs_and_prediction_log_can_be_switched_off_in_either_spelling(name: str) -> None:
    there = installed().features
    needing = {f.name: f"it needs {name}" for f in there if name in f.needs}
    others = [f.name for f in there if f.name != name and f.name not in needing]
    assert on(installed(), **{name: "off"}) == others
    assert on(installed(), features=",".join(others)) == others
    left_out = choose(installed(), given(**{name: "off"})).left_out
    assert left_out == {name: f"{name.upper()}=off", **needing}


@pytest.mark.parametrize("settings", [{}, {"auth_off_anywhere": True, "auth": "off"}])
def test_without_access_others_never_reach_the_service(settings: dict[str, Any]) -> None:
    without = [name for name in FEATURES if name != ACCESS]
    for features in ("none", ",".join(without)):
        with pytest.raises(SettingsError, match=r"^HOST can be reached by others"):
            choose(installed(), given(features=features, **settings, **ADDRESS))
        choose(installed(), given(features=features, **settings, host="::1"))
    bare = Installed(tasks=installed().tasks, features=())
    with pytest.raises(SettingsError, match=r"^HOST can be reached by others"):
        choose(bare, given(**settings, **ADDRESS))


def test_a_feature_of_the_name_access_may_let_others_reach_the_service() -> None:
    class Guard(Feature[Any]):
        name = ACCESS

    guarded = Installed(tasks=(), features=(Guard(),))
    assert choose(guarded, given(**ADDRESS)).has(ACCESS)


def test_all_that_is_wrong_with_the_settings_is_said_at_once_and_without_their_values() -> None:
    settings = given(port=2, database_url=f"nothing://{SECRET}", redis_url=f"nothing://{SECRET}")
    with pytest.raises(SettingsError) as refused:
        check(choose(parts(Toy()), settings), settings)
    reasons = str(refused.value).split("; ")
    assert reasons[0].startswith("REDIS_URL")
    assert reasons[1].startswith("DATABASE_URL")
    assert reasons[-1] == "PORT: must not be 2"
    assert SECRET not in str(refused.value)


def test_what_no_feature_uses_is_not_looked_at() -> None:
    settings = given(port=2, database_url="nothing://", features="base,alone")
    check(choose(parts(Toy()), settings), settings)


def test_settings_are_the_same_whatever_the_order_of_the_features() -> None:
    features = installed().features
    expected = {n: f.default for n, f in installed().settings_type().model_fields.items()}
    for start in range(len(features)):
        turned = (*features[start:], *features[:start])
        for order in (turned, turned[::-1]):
            kind = Installed(tasks=installed().tasks, features=order).settings_type()
            assert {n: f.default for n, f in kind.model_fields.items()} == expected


def test_settings_of_a_service_without_features_are_its_own() -> None:
    kind = Installed(tasks=(), features=()).settings_type()
    assert kind.model_fields.keys() == Settings.model_fields.keys()


def test_metrics_of_all_features_are_in_one_registry() -> None:
    own, *others = installed().metrics()
    assert all(isinstance(group, MetricGroup) for group in others)
    assert all(group.registry is own.registry for group in others)


PACKAGE = """
from fastapi import APIRouter
from pydantic import Field

from app.runtime.plugins import Feature, Task
from app.settings import Settings


class ToySettings(Settings):
    greeting: str = Field("hello", description="What the toy says.")


class ToyTask(Task):
    name = "greeting"
    kind = "greeting"

    def routers(self):
        router = APIRouter()
        router.add_api_route("/greet", lambda: {"greeting": "task"})
        return (router,)


class ToyFeature(Feature):
    name = "toy"
    needs = frozenset({"greeting"})

    def settings(self):
        return ToySettings

    def routers(self, tasks):
        router = APIRouter()
        router.add_api_route("/toy", lambda: {"tasks": [task.name for task in tasks]})
        return (router,)


TASK, FEATURE = ToyTask(), ToyFeature()
"""


async def test_another_package_brings_a_task_and_a_feature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "toy_package.py").write_text(PACKAGE, encoding="utf-8")
    about = tmp_path / "toy_package-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-package\nVersion: 1.0\n")
    points = "[ml_api.tasks]\ngreeting = toy_package:TASK\n"
    (about / "entry_points.txt").write_text(
        f"{points}[ml_api.features]\ntoy = toy_package:FEATURE\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    try:
        parts = find_installed(TASKS, ())
        assert [task.name for task in parts.tasks] == [*TASKS, "greeting"]
        assert [feature.name for feature in parts.features] == ["toy"]
        assert parts.settings_type().model_fields["greeting"].default == "hello"
        app = create_app(make_settings(tmp_path), parts=replace(parts, tasks=(*parts.tasks, Toy())))
        async with running(app) as client:
            assert (await client.get("/greet")).json() == {"greeting": "task"}
            assert (await client.get("/toy")).json() == {"tasks": [*TASKS, "greeting", "toy"]}
    finally:
        sys.modules.pop("toy_package", None)


def children() -> set[str]:
    """Return the processes that threads of this one have started."""
    found: set[str] = set()
    for file in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
        with suppress(OSError):  # a thread that has ended since
            found.update(file.read_text().split())
    return found


async def paths(client: AsyncClient) -> set[str]:
    return set((await client.get("/openapi.json")).json()["paths"])


async def test_features_that_are_off_open_nothing(tmp_path: Path) -> None:
    threads, processes = set(threading.enumerate()), children()
    settings = make_settings(tmp_path, features="none")
    app = create_app(settings)
    async with running(app) as client:
        assert (await client.get("/ready")).status_code == 200
        assert (await client.post("/predict", json={"text": "x"})).status_code == 200
        started = {thread.name for thread in set(threading.enumerate()) - threads}
        assert {name.rstrip("0123456789_-") for name in started} <= OF_EVERY_SERVICE
        assert children() <= processes
        assert app.state.runtime.database is None
        written = {file.name for file in settings.data_dir.glob("*")}
        assert written <= {"models"}
        assert not of_features() & await paths(client)


# Of models, requests and the test's client.
OF_EVERY_SERVICE = {"model-load", "tokenise", "dummy"}


def of_features() -> set[str]:
    """Return the paths of every feature's routes."""
    everything = installed()
    routers: list[APIRouter] = [r for f in everything.features for r in f.routers(everything.tasks)]
    app = FastAPI()
    for router in routers:
        app.include_router(router)
    return set(app.openapi()["paths"])


async def test_every_feature_of_this_program_has_routes_when_it_is_on(tmp_path: Path) -> None:
    async with running(create_app(make_settings(tmp_path, jobs="off"))) as client:
        there = await paths(client)
    assert {path for path in of_features() if not path.startswith(OF_JOBS)} <= there


OF_JOBS = ("/jobs", "/embed-batch", "/v1/files", "/v1/batches")
TWO_TASKS = f"""{FAKE}
[[models]]
name = "vectors"
task = "embedding"
engine = "fake"
required = true
fake = {{ fail_load = true }}
"""


def events(caplog: pytest.LogCaptureFixture, name: str) -> list[dict[str, Any]]:
    return [vars(record) for record in caplog.records if record.getMessage() == name]


async def test_models_whose_task_is_not_installed_are_left_out_and_one_line_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    only = Installed(
        tasks=tuple(task for task in installed().tasks if task.name == "classification"),
        features=(Base(), Alone()),
    )
    with caplog.at_level(logging.INFO):
        async with running(create_app(make_settings(tmp_path, TWO_TASKS), parts=only)) as client:
            ready = await client.get("/ready")
            models = (await client.get("/models")).json()["models"]
    assert (ready.status_code, len(ready.json()["models"])) == (200, 1)
    assert [model["name"] for model in models] == ["dummy"]
    (line,) = events(caplog, "model_left_out")
    assert (line["model"], line["reason"]) == ("vectors", "the task embedding is not installed")
    assert line["levelname"] == "WARNING"
    (line,) = events(caplog, "features_chosen")
    assert (line["on"], line["left_out"]) == (["alone"], {"base": "it needs toy"})


def test_what_is_not_usable_is_not_asked_for_its_settings() -> None:
    """The settings of `jobs` inherit from those of `documents`, which may have been deleted."""

    class Broken(Feature[Any]):
        name = "broken"
        needs = frozenset({"above"})

        def settings(self) -> type[Settings]:
            raise ModuleNotFoundError

    without_task = Installed(tasks=(), features=(Base(), Above(), Broken(), Alone()))
    assert [feature.name for feature in without_task.usable] == ["alone"]
    assert without_task.settings_type()().features == "all"
    assert on(without_task) == ["alone"]
    assert [f.name for f in parts(Toy()).usable] == ["base", "above", "alone"]


async def test_a_feature_shares_nothing_between_front_ends_unless_it_says_so() -> None:
    feature = next(one for one in installed().features if one.name == "page")
    opened = feature.open_shared(AllSettings(), metrics=Metrics(), after=asyncio.Event().wait)
    async with opened as shared:
        assert shared == {}


async def test_health_is_asked_of_whoever_has_something_to_say(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    async with running(app) as client:
        app.state.runtime.health_checks.append(lambda: ["front_end 2: silent for 12 s"])
        answer = await client.get("/health")
        assert answer.status_code == 503
        assert answer.json()["checks"] == ["front_end 2: silent for 12 s"]
