"""Versions that are taken back by rule: which bound counts, when, and when not."""

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from httpx2 import AsyncClient
from serving import make_app, running

from app.errors import CatalogError
from app.features.versions import trials
from app.features.versions.judging import Answer, judge
from app.features.versions.trials import Trials
from app.models.catalog import read_catalog
from app.models.rollback_rule import RollbackRule
from app.runtime.runtime import Runtime

MODELS = """
[[models]]
name = "mood"
engine = "fake"
rollback = { errors = 0.2, min_requests = 5, rounds = 2, trial_s = 100 }
[[models.versions]]
version = "1"
[[models.versions]]
version = "2"
fake = { fail_on = "poison" }
"""


def answers(count: int, *, failed: int = 0, ms: float = 10.0, bad: int = 0) -> list[Answer]:
    """Return answers, of which the first ones failed or have another label."""
    return [
        Answer(0.0, n < failed, ms, None if n < failed else "BAD" if n < failed + bad else "GOOD")
        for n in range(count)
    ]


@pytest.mark.parametrize(
    ("bounds", "tried", "other", "reason"),
    [
        ({"errors": 0.1}, answers(50, failed=10), answers(50), "errors 0.200 > 0.1"),
        ({"errors": 0.1}, answers(50, failed=10), [], "errors 0.200 > 0.1"),
        ({"errors": 0.1}, answers(19, failed=19), answers(50), None),  # too few
        ({"errors": 0.1}, answers(50, failed=10), answers(50, failed=8), None),  # both fail
        ({"errors": 0.2}, answers(50, failed=10), answers(50), None),  # not over it
        ({"latency_ratio": 2}, answers(20, ms=30), answers(20), "latency_ratio 3.00 > 2.0"),
        ({"latency_ratio": 2}, answers(20, ms=30), answers(19), None),
        ({"latency_ratio": 2}, answers(20, failed=20), answers(20), None),
        ({"disagreement": 0.3}, answers(40, bad=20), answers(40), "disagreement 0.500 > 0.3"),
        ({"disagreement": 0.5}, answers(40, bad=20), answers(40), None),
    ],
)
def test_a_bound_counts_where_enough_is_known(
    bounds: dict[str, float], tried: list[Answer], other: list[Answer], reason: str | None
) -> None:
    assert judge(RollbackRule(**bounds), tried, other) == reason


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (MODELS.replace("errors = 0.2, ", ""), "give one of errors"),
        (MODELS.partition("[[models.versions]]")[0], "there are no versions to take back"),
    ],
)
def test_a_rule_that_does_nothing_is_refused(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "models.toml"
    path.write_text(text)
    with pytest.raises(CatalogError, match=part):
        read_catalog(path)


@pytest.fixture
async def served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[FastAPI, AsyncClient]]:
    monkeypatch.setattr(trials, "LOOK_S", 3_600)  # each test looks itself
    app = make_app(tmp_path, MODELS, auth="off")
    async with running(app) as client:
        yield app, client


async def promote(client: AsyncClient, **body: Any) -> None:
    answer = await client.post("/models/mood/promote", json={"version": "2", **body})
    assert answer.status_code == 200, answer.text


async def send(client: AsyncClient, text: str, count: int) -> list[int]:
    found = []
    for n in range(count):
        headers = {"X-Session-ID": str(n)}
        answer = await client.post("/predict/mood", json={"text": text}, headers=headers)
        found.append(answer.status_code)
    return found


async def serving(client: AsyncClient) -> dict[str, float]:
    (model,) = (await client.get("/models")).json()["models"]
    return {one["version"]: one["weight"] for one in model["versions"]}


def trials_of(app: FastAPI) -> Trials:
    runtime: Runtime = app.state.runtime
    return runtime.part(Trials)


async def test_a_canary_that_fails_is_taken_back_after_some_looks(
    served: tuple[FastAPI, AsyncClient], caplog: pytest.LogCaptureFixture
) -> None:
    app, client = served
    caplog.set_level(logging.WARNING)
    found = trials_of(app)
    counted = 'mlapi_model_rollbacks_total{model="mood",rule="errors"}'
    assert f"{counted} 0.0" in (await client.get("/metrics")).text  # so that alerts see the first
    await promote(client, percent=50)
    assert 500 in await send(client, "poison", 40)
    await found.look()
    assert (await serving(client))["2"] == 50  # once says nothing
    await found.look()
    assert await serving(client) == {"1": 1, "2": 0}
    assert set(await send(client, "poison", 5)) == {200}
    (line,) = [r for r in caplog.records if r.getMessage() == "model_rolled_back"]
    assert vars(line)["reason"].startswith("errors ")
    lines = (await client.get("/metrics")).text.splitlines()
    assert f"{counted} 1.0" in lines


async def test_a_promoted_version_is_on_trial_for_a_while_and_one_that_is_back_isn_t(
    served: tuple[FastAPI, AsyncClient],
) -> None:
    app, client = served
    found = trials_of(app)
    await promote(client)
    await send(client, "good", 10)
    for _ in range(3):
        await found.look()
    assert (await serving(client))["2"] == 1
    await send(client, "poison", 10)
    now_s = found._now_s
    found._now_s = lambda: now_s() + 30  # within the trial and the window
    await found.look()
    await found.look()
    assert await serving(client) == {"1": 1, "2": 0}
    await found.look()
    await promote(client)
    found._now_s = lambda: now_s() + 1_000  # its trial is over
    await send(client, "poison", 10)
    for _ in range(3):
        await found.look()
    assert (await serving(client))["2"] == 1
