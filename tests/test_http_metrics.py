"""HTTP metrics: the instrumentator's names and values."""

from pathlib import Path
from typing import Any

from httpx2 import ASGITransport, AsyncClient
from prometheus_client import CollectorRegistry
from prometheus_fastapi_instrumentator.middleware import PrometheusInstrumentatorMiddleware
from serving import make_app, running

# What it measures, and what differs from one to the other by design.
TIMES = ("_sum", "_bucket")


def samples(registry: CollectorRegistry) -> dict[Any, float]:
    """Return what was counted of HTTP, but for the times."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for metric in registry.collect()
        if metric.name.startswith("http_")
        for sample in metric.samples
        if not (sample.name.endswith(TIMES) and "duration" in sample.name)
    }


async def test_they_are_those_of_the_instrumentator(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    theirs = CollectorRegistry()
    around = PrometheusInstrumentatorMiddleware(
        app, should_group_status_codes=False, registry=theirs
    )

    async def with_app(scope: Any, receive: Any, send: Any) -> None:
        await around({**scope, "app": app}, receive, send)

    async with (
        running(app),
        AsyncClient(transport=ASGITransport(with_app), base_url="http://test") as client,
    ):
        for _ in range(2):
            await client.post("/predict", json={"text": "good"})
            await client.post("/predict/dummy", json={"text": "good"})
        await client.post("/predict/none", json={"text": "good"})
        await client.post("/predict", json={"text": ""})
        await client.get("/predict")
        await client.get("/none/at/all")
        await client.head("/models")
        await client.get("/health")
        await client.get("/docs/swagger-ui.css")
        await client.options("/models")
        ours = samples(app.state.runtime.metrics.registry)
    expected = samples(theirs)
    gauges = {key for key in ours if key[0] == "http_requests_inprogress"}
    assert {key: ours[key] for key in ours if key not in gauges} == expected
    assert gauges
    assert not any(ours[key] for key in gauges)
