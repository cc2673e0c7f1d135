"""Clients that leave a real process with the real model: what the engine runs in vain."""

import asyncio
import json
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
from converted import CONVERTED
from load import TEXTS, request
from process import service
from prometheus_client.parser import text_string_to_metric_families

from app.runtime.parts import PACKED_BATCH

pytestmark = [pytest.mark.system, pytest.mark.alone]

CLIENTS = 200
STAYING = 20
PATIENCE_S = 0.02
WORKERS = 2


async def client(port: int, number: int) -> int | None:
    """Ask once; every tenth waits for the answer, the others leave after 20 ms."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request(TEXTS[number % len(TEXTS)]))
    patience_s = None if number % (CLIENTS // STAYING) == 0 else PATIENCE_S
    try:
        async with asyncio.timeout(patience_s):
            return int((await reader.readline()).split()[1])
    except TimeoutError:
        return None
    finally:
        writer.close()


def count(url: str, name: str) -> float:
    families = text_string_to_metric_families(httpx2.get(f"{url}/metrics").text)
    samples = [s for family in families for s in family.samples if s.name == name]
    return sum(sample.value for sample in samples)


async def test_of_180_clients_that_leave_at_once_only_what_was_running_is_wasted(
    tmp_path: Path,
) -> None:
    with service(
        tmp_path, log_level="warning", inference_threads=WORKERS, model_cache_dir=CONVERTED
    ) as running:
        running.wait_ready()
        running.wait_loaded()
        port = urlsplit(running.url).port
        assert port is not None
        answers = await asyncio.gather(*(client(port, number) for number in range(CLIENTS)))
        after = httpx2.post(f"{running.url}/predict", json={"text": "x"}, timeout=30)
        cancelled = count(running.url, "mlapi_cancelled_total")
        wasted = count(running.url, "mlapi_wasted_items_total")
    print(json.dumps({"cancelled": cancelled, "wasted": wasted}))
    assert after.status_code == 200
    assert [answers[n] for n in range(0, CLIENTS, CLIENTS // STAYING)] == [200] * STAYING
    # Others leave before their request has begun, and are counted by nobody.
    assert cancelled > CLIENTS / 4
    assert wasted <= WORKERS * PACKED_BATCH, "more than a call of each worker"
