"""Which rows requests leave that failed."""

import asyncio
from pathlib import Path

from serving import make_app, running, serving
from test_schemas import check_problem

from app.features.prediction_log.service import PredictionLog


async def test_a_batch_that_fails_leaves_a_row_for_each_text(tmp_path: Path) -> None:
    async with serving(tmp_path) as client, asyncio.timeout(10):
        body = {"texts": ["a", "b"], "model_name": "nobody"}
        assert (await client.post("/predict-batch", json=body)).status_code == 404
        while not (rows := (await client.get("/predictions")).json()["predictions"]):
            await asyncio.sleep(0.05)  # written a moment later, which tells nobody
    assert [(row["status"], row["error"]) for row in rows] == [(404, "model_not_found")] * 2
    assert len({row["input_hash"] for row in rows}) == 2


async def test_a_text_that_is_too_long_is_refused_while_its_model_loads_and_leaves_no_row(
    tmp_path: Path,
) -> None:
    slow = '[[models]]\nname = "slow"\nengine = "fake"\nfake = { load_delay_ms = 300 }\n'
    app = make_app(tmp_path, slow)
    async with running(app, wait=False) as client:
        refused = await client.post("/predict", json={"text": "x" * 2001})
        assert app.state.runtime.part(PredictionLog).waiting == 0
    check_problem(refused, 422, "invalid_request")
