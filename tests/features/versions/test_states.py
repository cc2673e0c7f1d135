"""What was decided of versions: over restarts, in replicas, and when the catalogue changes."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from databases import place_tables
from fastapi import FastAPI
from httpx2 import AsyncClient
from serving import make_app, running

from app.errors import DatabaseUnavailableError
from app.features.versions.state import NOT_STORED, StateKeeper
from app.runtime.runtime import Runtime

MODELS = """
[[models]]
name = "mood"
engine = "fake"
required = true
[[models.versions]]
version = "1"
[[models.versions]]
version = "2"
fake = { delay_ms = 1 }
"""


@asynccontextmanager
async def replica(
    folder: Path, models: str = MODELS, *, database: Path | None = None
) -> AsyncIterator[tuple[FastAPI, AsyncClient]]:
    """Run one of several that share a database; it looks there only when it is told to."""
    app = make_app(
        folder,
        models,
        auth="off",
        database_url=f"sqlite:///{database or folder / 'shared.db'}",
        model_state_poll_s=3_600,
    )
    async with running(app) as client:
        yield app, client


@pytest.fixture
def database(tmp_path: Path) -> Path:
    for name in "ab":
        (tmp_path / name).mkdir()
    path = tmp_path / "shared.db"
    place_tables(path)
    return path


async def promote(client: AsyncClient, **body: Any) -> int:
    return (await client.post("/models/mood/promote", json=body)).status_code


async def weights(client: AsyncClient) -> dict[str, tuple[float, str]]:
    (model,) = (await client.get("/models")).json()["models"]
    return {one["version"]: (one["weight"], one["state"]) for one in model["versions"]}


def keeper_of(app: FastAPI) -> StateKeeper:
    runtime: Runtime = app.state.runtime
    return runtime.part(StateKeeper)


async def test_a_restart_serves_what_was_promoted_unless_the_entry_has_changed(
    tmp_path: Path, database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with replica(tmp_path / "a", database=database) as (_, client):
        assert await promote(client, version="2") == 200
    async with replica(tmp_path / "a", database=database) as (_, client):
        assert await weights(client) == {"1": (0, "unloaded"), "2": (1, "ready")}
        lines = (await client.get("/metrics")).text.splitlines()
        assert 'mlapi_model_version_share{model="mood",version="2"} 1.0' in lines
        assert (await client.post("/models/mood/rollback")).json()["version"] == "1"
        assert await promote(client, version="2", percent=20) == 200
    async with replica(tmp_path / "a", database=database) as (_, client):
        assert await weights(client) == {"1": (80, "ready"), "2": (20, "ready")}
    caplog.clear()
    changed = MODELS.replace("delay_ms = 1", "delay_ms = 2")
    async with replica(tmp_path / "a", changed, database=database) as (_, client):
        assert await weights(client) == {"1": (1, "ready"), "2": (0, "unloaded")}
        outdated = [r for r in caplog.records if r.getMessage() == "model_state_outdated"]
        assert len(outdated) == 1
        assert await promote(client, version="2") == 200  # from now on the new entry's holds
    async with replica(tmp_path / "a", changed, database=database) as (_, client):
        assert (await weights(client))["2"] == (1, "ready")


async def test_replicas_follow_and_of_two_at_once_one_wins(tmp_path: Path, database: Path) -> None:
    async with (
        replica(tmp_path / "a", database=database) as (first, one),
        replica(tmp_path / "b", database=database) as (second, other),
    ):
        assert await promote(one, version="2", percent=10) == 200
        assert (await weights(other))["2"] == (0, "unloaded")
        await keeper_of(second).follow()
        assert await weights(other) == {"1": (90, "ready"), "2": (10, "ready")}
        assert await promote(other, version="2") == 200
        lost = await one.post("/models/mood/promote", json={"version": "2", "percent": 50})
        assert (lost.status_code, lost.json()["code"]) == (409, "swap_lost")
        await keeper_of(first).follow()
        assert await weights(one) == {"1": (0, "unloaded"), "2": (1, "ready")}
        await keeper_of(first).follow()  # nothing is left to do
        assert (await one.post("/models/mood/rollback")).status_code == 200
        await keeper_of(second).follow()
        assert await weights(other) == {"1": (1, "ready"), "2": (0, "unloaded")}
        lines = (await other.get("/metrics")).text.splitlines()
        assert 'mlapi_model_swaps_total{action="follow",model="mood",outcome="done"} 2.0' in lines


async def test_a_replica_that_can_t_follow_serves_on_and_one_without_sql_stores_later(
    tmp_path: Path, database: Path
) -> None:
    async with (
        replica(tmp_path / "a", database=database) as (first, one),
        replica(tmp_path / "b", database=database) as (second, other),
    ):
        registry = second.state.runtime.registry
        load, calls = registry._loads._load, []

        def fail(spec: Any) -> Any:
            calls.append(spec.name)
            raise OSError("the disk fails")

        registry._loads._load = fail
        assert await promote(one, version="2") == 200
        for _ in range(2):  # it isn't tried again at once
            await keeper_of(second).follow()
        assert calls == ["mood@2"]
        assert (await weights(other))["1"] == (1, "ready")
        assert (await other.post("/predict/mood", json={"text": "a"})).status_code == 200
        registry._loads._load = load

        keeper = keeper_of(first)
        whole, keeper._database = keeper._database, _Away()  # type: ignore[assignment]
        assert (await one.post("/models/mood/rollback")).status_code == 200
        assert NOT_STORED in (await one.get("/ready")).json()["degraded"]
        keeper._database = whole
        await keeper.follow()
        assert NOT_STORED not in (await one.get("/ready")).json()["degraded"]
        await keeper_of(second).follow()
        assert (await weights(other))["1"] == (1, "ready")


class _Away:
    """A database that is down."""

    async def run(self, _: object) -> None:

        raise DatabaseUnavailableError("unreachable")

    read = run


async def test_front_ends_decide_together_and_load_nothing_alone(
    tmp_path: Path, database: Path
) -> None:
    async with replica(tmp_path / "a", database=database) as (app, client):
        app.state.runtime.all_metrics = _Away().run  # as where it is one of several
        assert await promote(client, version="2") == 200
        alone = await client.post("/models/mood/load", json={"version": "1"})
        assert (alone.status_code, alone.json()["code"]) == (409, "swap_refused")
        assert "FRONT_ENDS" in alone.json()["detail"]
        assert (await client.post("/models/apply")).status_code == 409
