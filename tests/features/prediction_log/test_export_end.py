"""An export as HTTP has it: its headers alone, and its end when the server's time is over."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
from serving import serving
from test_server import runtime_of, started, until_asked

from app.features.prediction_log.service import PredictionLog


async def test_an_export_whose_time_is_over_says_so_in_its_last_line(tmp_path: Path) -> None:
    async def export(*_: Any, **__: Any) -> AsyncIterator[list[Any]]:
        yield []
        await asyncio.Event().wait()

    async with (
        started(tmp_path, budget_s=0.1) as (server, url),
        httpx2.AsyncClient(base_url=url) as client,
    ):
        runtime_of(server).part(PredictionLog).export = export  # type: ignore[method-assign]  # endless
        asked = asyncio.create_task(client.get("/predictions/export"))
        await until_asked(server)
        signal.raise_signal(signal.SIGTERM)
        answer = await asked
    assert json.loads(answer.text.splitlines()[-1])["error"]["code"] == "not_ready"


async def test_of_an_export_with_rows_the_headers_come_alone(tmp_path: Path) -> None:
    async with serving(tmp_path) as client:
        await client.post("/predict", json={"text": "x"})
        async with asyncio.timeout(10):
            while not (await client.get("/predictions")).json()["predictions"]:
                await asyncio.sleep(0)
        whole = await client.get("/predictions/export")
        head = await client.head("/predictions/export")
    assert len(whole.content.splitlines()) == 1
    assert (head.status_code, head.content) == (200, b"")
    varying = {"x-request-id", "date", "content-length"}
    kept = {name: value for name, value in whole.headers.items() if name not in varying}
    assert kept.items() <= dict(head.headers).items()
