"""`/health`, `/ready` and `/metrics`: probes that tell the truth."""

import asyncio
from pathlib import Path

import pytest
from httpx2 import AsyncClient
from prometheus_client.parser import text_string_to_metric_families
from serving import FAKE, make_app, running, serve_instead, serving
from test_inference import GatedClassifier
from test_schemas import check_problem

pytestmark = pytest.mark.core

SLOW = """
[[models]]
name = "slow"
engine = "fake"
required = true
fake = { load_delay_ms = 150 }

[[models]]
name = "optional"
engine = "fake"
fake = { fail_load = true }
"""


async def state_of(client: AsyncClient, name: str) -> str:
    models = (await client.get("/models")).json()["models"]
    return str(next(m["state"] for m in models if m["name"] == name))


async def test_health_answers_while_ready_says_503_with_each_models_state(tmp_path: Path) -> None:
    app = make_app(tmp_path, SLOW)
    async with running(app, wait=False) as client:
        while await state_of(client, "optional") != "failed":
            await asyncio.sleep(0)
        health = await client.get("/health")
        early = await client.get("/ready")
        while await state_of(client, "slow") != "ready":
            await asyncio.sleep(0)
        await app.state.runtime.stored.wait()
        late = await client.get("/ready")
    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    problem = check_problem(early, 503, "not_ready")
    assert "slow" in problem["detail"]
    assert int(early.headers["Retry-After"]) >= 1
    failed = {"name": "optional", "state": "failed", "required": False, "reason": "engine_failed"}
    assert problem["models"] == [{"name": "slow", "state": "loading", "required": True}, failed]
    assert late.status_code == 200
    assert late.json() == {
        "status": "ready",
        "models": [{"name": "slow", "state": "ready", "required": True}, failed],
        "degraded": ["model:optional"],
    }


async def test_ready_is_503_from_the_moment_that_shutdown_begins(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    async with running(app) as client:
        app.state.runtime.is_draining = True
        check_problem(await client.get("/ready"), 503, "not_ready")
        assert (await client.get("/health")).status_code == 200


async def test_health_is_503_when_an_engine_call_never_ends(tmp_path: Path) -> None:
    app, engine = make_app(tmp_path, health_max_call_s=1), GatedClassifier()
    async with running(app) as client:
        scheduler = serve_instead(app, engine)
        hanging = asyncio.create_task(client.post("/predict", json={"text": "x"}))
        await asyncio.to_thread(engine.entered.wait, 10)
        slot = scheduler._workers._slots[0]
        assert slot.busy_since_s is not None
        slot.busy_since_s -= 2  # as if it had been running for so long
        sick = await client.get("/health")
        engine.gate.set()
        await hanging
        while slot.busy_since_s is not None:  # its thread tells the waiter first
            await asyncio.sleep(0.001)
        well = await client.get("/health")
    problem = check_problem(sick, 503, "unhealthy")
    assert problem["checks"] == ["test: one engine call has been running for 2 s"]
    assert well.status_code == 200


async def test_health_is_503_when_the_event_loop_is_stuck_and_not_when_it_is_busy(
    tmp_path: Path,
) -> None:
    app = make_app(tmp_path)
    async with running(app) as client:
        app.state.runtime.loop_lag_s = 1.5
        assert (await client.get("/health")).status_code == 200
        app.state.runtime.loop_lag_s = 10.5
        problem = check_problem(await client.get("/health"), 503, "unhealthy")
    assert problem["checks"] == ["event_loop: 10.5 s late"]


async def test_ready_says_that_it_is_overloaded_and_503_only_where_the_settings_say_so(
    tmp_path: Path,
) -> None:
    for is_ready in (True, False):
        app = make_app(tmp_path, overloaded_is_ready=is_ready)
        async with running(app) as client:
            app.state.runtime.is_overloaded = lambda: True
            ready, health = await client.get("/ready"), await client.get("/health")
        assert ready.status_code == (200 if is_ready else 503)
        assert is_ready is (ready.json().get("degraded") == ["overloaded"])
        assert health.status_code == 200


async def test_metrics_have_exact_statuses_templates_progress_and_types(tmp_path: Path) -> None:
    async with serving(tmp_path) as client:
        await client.post("/predict/dummy", json={"text": "x"})
        await client.post("/predict/nobody", json={"text": "x"})
        await client.get("/nope")
        answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    text = answer.text
    for line in (
        'http_requests_total{handler="/predict/{model_name}",method="POST",status="200"} 1.0',
        'http_requests_total{handler="/predict/{model_name}",method="POST",status="404"} 1.0',
        'http_requests_total{handler="none",method="GET",status="404"} 1.0',
        'http_requests_inprogress{handler="/metrics",method="GET"} 1.0',
        'mlapi_exceptions_total{type="ModelNotFoundError"} 1.0',
        'mlapi_batch_size_count{model="dummy"} 1.0',
        'mlapi_model_ready{model="dummy"} 1.0',
        "# TYPE mlapi_refused_total counter",
        "# TYPE mlapi_event_loop_lag_seconds gauge",
    ):
        assert line in text, line
    assert list(text_string_to_metric_families(text))


async def test_two_apps_in_one_process_count_for_themselves(tmp_path: Path) -> None:
    async with serving(tmp_path) as one, serving(tmp_path) as two:
        await one.post("/predict", json={"text": "x"})
        line = 'mlapi_batch_size_count{model="dummy"} 1.0'
        assert line in (await one.get("/metrics")).text
        assert line not in (await two.get("/metrics")).text


@pytest.mark.parametrize("route", ["/health", "/ready", "/metrics"])
async def test_probes_don_t_fill_the_log(
    tmp_path: Path, route: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        async with serving(tmp_path, FAKE) as client:
            await client.get(route)
    assert not [r for r in caplog.records if r.message == "request_done"]
