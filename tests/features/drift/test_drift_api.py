"""Drift of a service: counted beside the log, shown, kept over restarts, taken anew."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from answered import SIZES, START, rows
from databases import migrated, opened
from httpx2 import AsyncClient
from servers import free_port
from serving import make_app, running

from app.db.session import Database
from app.features.drift.counts import MAX_LABELS, OTHERS
from app.features.drift.metrics import DriftMetrics
from app.features.drift.watch import MAX_WAITING, SHOWN_FOR, DriftWatch
from app.features.drift.windows import Version
from app.services.prediction_log import AnsweredEntry, NoEntryLog

ONE = Version("m", "v")
FULL = rows(SIZES.reference)


def watching(
    database: Database | None, metrics: DriftMetrics | None = None, **given: Any
) -> DriftWatch:
    given.setdefault("now", lambda: START)
    return DriftWatch(
        NoEntryLog(), database, sizes=SIZES, metrics=metrics or DriftMetrics(), **given
    )


def later(some: list[AnsweredEntry]) -> list[AnsweredEntry]:
    return [replace(row, time=row.time + timedelta(days=1)) for row in some]


async def take(watch: DriftWatch, some: list[AnsweredEntry]) -> None:
    for row in some:
        watch.put(replace(row))
    await watch.count()
    await watch.sync()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with migrated(database_url) as database:
        yield database


def shown(metrics: DriftMetrics) -> dict[str, float]:
    """Return what the gauge says of each kind."""
    (family,) = metrics.drift_psi.collect()
    return {sample.labels["kind"]: sample.value for sample in family.samples}


async def test_replicas_have_one_reference_and_a_restart_takes_no_new_one(
    database: Database,
) -> None:
    first, second = watching(database), watching(database)
    await take(first, FULL)
    await take(second, later(rows(SIZES.reference, seed=1, mean=90)))
    third = watching(database)
    await take(third, rows(3))
    for watch in (first, second, third):
        series = (await watch.report())[ONE]
        assert series.reference is not None
        assert series.reference.taken_at == FULL[-1].time
    await take(second, rows(SIZES.window, seed=2, mean=90))
    last = (await second.report())[ONE].last
    assert last is not None
    assert [one.kind for one in last.distances if one.is_drift] == ["length"]


async def test_more_labels_than_are_counted_and_any_of_them_can_be_stored(
    database: Database,
) -> None:
    labels = ["with\0nul", *map(str, range(MAX_LABELS + 1))]
    watch = watching(database)
    await take(watch, [replace(row, label=labels[n % len(labels)]) for n, row in enumerate(FULL)])
    again = watching(database)
    await take(again, later(rows(3)))
    series = (await again.report())[ONE]
    assert series.reference is not None
    assert series.reference.counts.labels.keys() >= {"with\ufffdnul", OTHERS}


async def test_a_reference_that_is_given_up_is_so_for_all_replicas(database: Database) -> None:
    metrics = DriftMetrics()
    first, second = watching(database), watching(database, metrics)
    await take(first, FULL)
    await take(second, rows(1))
    await take(second, rows(SIZES.window, mean=90))
    assert shown(metrics)["length"] > 1
    await first.restart("other")
    await second.sync()
    assert shown(metrics)
    await first.restart("m")
    await second.sync()
    assert shown(metrics) == {}
    for watch in (first, second):
        assert (await watch.report())[ONE].reference is None
    new = later(rows(SIZES.reference, mean=90))
    await take(first, new)
    await second.sync()
    series = (await second.report())[ONE]
    assert series.reference is not None
    assert series.reference.taken_at == new[-1].time
    await take(second, rows(SIZES.window, seed=3, mean=90))
    assert max(shown(metrics).values()) < 0.1


async def test_without_sql_references_are_in_memory_and_it_is_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    metrics = DriftMetrics()
    async with opened(f"postgresql://nobody@127.0.0.1:{free_port()}/nothing") as away:
        watch = watching(away, metrics)
        with caplog.at_level(logging.WARNING):
            await take(watch, [*FULL, *rows(SIZES.window, share=0.9)])
    assert shown(metrics)["label"] > 0.2
    assert metrics.drift_store_failures._value.get() == 1
    assert [r.getMessage() for r in caplog.records if "drift" in r.getMessage()] == [
        "drift_found",
        "drift_store_failed",
    ]
    alone = watching(None)
    await take(alone, FULL)
    assert (await alone.report())[ONE].reference is not None


async def test_an_old_window_is_shown_no_longer() -> None:
    metrics, now = DriftMetrics(), [START]
    watch = watching(None, metrics, now=lambda: now[0])
    await take(watch, [*FULL, *rows(SIZES.window)])
    assert set(shown(metrics)) == {"label", "score", "length", "unknown"}
    now[0] = START + timedelta(seconds=SIZES.window) + SHOWN_FOR
    await watch.sync()
    assert shown(metrics) == {}
    await take(watch, rows(SIZES.window, seed=5))
    await watch.count()
    assert metrics.drift_windows.labels("m")._value.get() == 2


async def test_what_comes_too_quickly_and_what_failed_isnt_counted() -> None:
    metrics = DriftMetrics()
    watch = watching(None, metrics)
    (row,) = rows(1)
    row.input = "a text"
    watch.put(replace(row, status=503, error="overloaded"))
    for _ in range(MAX_WAITING + 3):
        watch.put(row)
    assert row.input is None  # nobody keeps it
    assert metrics.drift_dropped._value.get() == 3
    await watch.count()
    assert metrics.drift_windows.labels("m")._value.get() == (MAX_WAITING - 1000) // 500


# The whole service


@asynccontextmanager
async def small(tmp_path: Path, **settings: Any) -> AsyncIterator[tuple[Any, AsyncClient]]:
    sizes = {"drift_reference_rows": 1000, "drift_window_rows": 500}
    app = make_app(tmp_path, **(sizes | settings))
    async with running(app) as client:
        yield app, client


async def ask(client: AsyncClient, count: int, words: int) -> None:
    texts = [" ".join(["word"] * (words + n % 7)) for n in range(250)]
    for _ in range(count // 250):
        (await client.post("/predict-batch", json={"texts": texts})).raise_for_status()


async def drift_of(client: AsyncClient) -> Any:
    answer = await client.get("/drift")
    assert answer.status_code == 200, answer.text
    return answer.json()["versions"]


@pytest.mark.parametrize("log", ["on", "off"])
async def test_longer_texts_show_as_a_drift_of_lengths(tmp_path: Path, log: str) -> None:
    async with small(tmp_path, prediction_log=log) as (app, client), asyncio.timeout(60):
        watch: DriftWatch = app.state.runtime.part(DriftWatch)
        assert await drift_of(client) == []
        await ask(client, 1500, words=20)
        await watch.count()
        (same,) = await drift_of(client)
        assert same["reference"]["rows"] == 1000
        assert {d["kind"]: d["is_drift"] for d in same["last"]["distances"]}["length"] is False
        await ask(client, 500, words=60)
        await watch.count()
        (longer,) = await drift_of(client)
        (length,) = (d for d in longer["last"]["distances"] if d["kind"] == "length")
        assert length["is_drift"]
        assert length["ks"] > 0.9
        page = (await client.get("/metrics")).text
        assert 'mlapi_drift_psi{kind="length",model="dummy"' in page
        assert (await client.post("/drift/dummy/reference")).status_code == 204
        (version,) = await drift_of(client)
        assert (version["reference"], version["rows"], version["wanted"]) == (None, 0, 1000)
        unknown = await client.post("/drift/nobody/reference")
        assert (unknown.status_code, unknown.json()["code"]) == (404, "model_not_found")


async def test_only_admins_see_drift_and_it_can_be_left_out(tmp_path: Path) -> None:
    keys = {"auth": "required", "admin_key": "an-admin-key-of-the-fleet"}
    async with small(tmp_path, **keys) as (_, client):
        bearer = {"Authorization": f"Bearer {keys['admin_key']}"}
        body = {"name": "k", "scopes": ["predict"]}
        made = await client.post("/keys", json=body, headers=bearer)
        own = {"Authorization": f"Bearer {made.json()['key']}"}
        assert (await client.get("/drift", headers=own)).status_code == 403
        assert (await client.post("/drift/dummy/reference", headers=own)).status_code == 403
        assert (await client.get("/drift", headers=bearer)).json()["versions"] == []
    async with small(tmp_path, drift="off") as (_, client):
        assert (await client.get("/drift")).status_code == 404
