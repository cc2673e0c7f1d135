"""Chat under crowds, with the real model: full places, clients that leave, what is left after."""

import asyncio
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from converted import CONVERTED
from packaged import smollm2
from process import Service, service

pytestmark = [pytest.mark.system, pytest.mark.alone]

CROWD = 64
SLOTS = 8
WAITING = 16
LEAVERS = 200
MODELS = smollm2(slots=SLOTS, context_tokens=512, more=f"waiting = {WAITING}")
ASKED = {"query": "Count from one to two hundred in words.", "temperature": 0}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("chat"), MODELS, log_level="error") as made:
        made.wait_ready()
        yield made


def memory_mb(made: Service) -> float:
    status = Path(f"/proc/{made.process.pid}/status").read_text(encoding="utf-8")
    found = re.search(r"VmRSS:\s+(\d+)", status)
    assert found
    return int(found[1]) / 1024


def threads(made: Service) -> int:
    return len(list(Path(f"/proc/{made.process.pid}/task").iterdir()))


async def metric(client: httpx2.AsyncClient, name: str) -> float:
    text = (await client.get("/metrics")).text
    return sum(
        float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith((f"mlapi_{name}{{", f"mlapi_{name} "))
    )


async def until_idle(client: httpx2.AsyncClient, timeout_s: float) -> float:
    """Return the seconds until no generation runs or waits."""
    started_s = asyncio.get_running_loop().time()
    async with asyncio.timeout(timeout_s):
        while await metric(client, "generations_active") + await metric(
            client, "generations_waiting"
        ):
            await asyncio.sleep(0.02)
    return asyncio.get_running_loop().time() - started_s


def connect(made: Service) -> httpx2.AsyncClient:
    limits = httpx2.Limits(max_connections=None)
    return httpx2.AsyncClient(base_url=made.url, timeout=120, limits=limits)


async def stream(client: httpx2.AsyncClient, max_tokens: int) -> tuple[int, str]:
    """Return the status, and how it ended or when to come again."""
    body = ASKED | {"max_tokens": max_tokens}
    async with client.stream("POST", "/chat/stream", json=body) as answer:
        if answer.status_code != 200:
            await answer.aread()
            return answer.status_code, answer.headers.get("Retry-After", "")
        *_, last = [line async for line in answer.aiter_lines() if line]
    return 200, json.loads(last).get("finish_reason", last)


async def test_a_crowd_streams_to_its_end_or_is_told_when_to_come_again(running: Service) -> None:
    async with connect(running) as client:
        async with asyncio.timeout(240):
            await asyncio.gather(*(stream(client, 4) for _ in range(SLOTS)))
            before_mb = memory_mb(running)
            found = await asyncio.gather(*(stream(client, 24) for _ in range(CROWD)))
        await until_idle(client, 5)
        after_mb = memory_mb(running)
    served = [end for status, end in found if status == 200]
    refused = [wait for status, wait in found if status == 503]
    assert len(served) + len(refused) == CROWD
    assert len(served) >= SLOTS + WAITING
    assert set(served) == {"length"}
    assert refused
    assert all(int(wait) >= 1 for wait in refused)
    assert after_mb < before_mb * 1.05
    print(
        f"{CROWD} at once, {SLOTS} places: {len(served)} served, {len(refused)} refused,"
        f" Retry-After {sorted(set(refused))}; {before_mb:.0f} MB before, {after_mb:.0f} after"
    )


async def leave(client: httpx2.AsyncClient, come_s: float, after_s: float) -> None:
    """Come some time, ask, and hang up after a while, wherever the stream is by then."""
    await asyncio.sleep(come_s)
    try:
        async with asyncio.timeout(after_s):
            await stream(client, 200)
    except (TimeoutError, httpx2.HTTPError):
        return


async def test_clients_that_leave_leave_nothing_behind(running: Service) -> None:
    chance = random.Random(0)  # noqa: S311  # moments, no secrets
    async with connect(running) as client:
        await asyncio.gather(*(stream(client, 2) for _ in range(SLOTS)))
        await asyncio.sleep(0.6)  # two rounds of the gauge of tasks
        tasks, before = await metric(client, "event_loop_tasks"), threads(running)
        leavers = (
            leave(client, chance.uniform(0, 15), chance.uniform(0.01, 1.5)) for _ in range(LEAVERS)
        )
        async with asyncio.timeout(120):
            await asyncio.gather(*leavers)
        idle_s = await until_idle(client, 10)
        await asyncio.sleep(0.6)  # as above
        left = await metric(client, "event_loop_tasks")
        # Every slot generates again: none is held by somebody who has gone.
        async with asyncio.timeout(60):
            again = await asyncio.gather(*(stream(client, 4) for _ in range(SLOTS)))
        cancelled = await metric(client, "cancelled_total")
    assert {status for status, _ in again} == {200}
    assert idle_s < 1
    assert left <= tasks + 1
    assert threads(running) <= before + 1
    print(
        f"{LEAVERS} leave at random: {cancelled:.0f} counted, idle after {idle_s:.2f} s,"
        f" tasks {tasks:.0f} to {left:.0f}"
    )


def test_the_whole_service_is_ready_soon_and_small(tmp_path: Path) -> None:
    with service(tmp_path, model_cache_dir=CONVERTED, log_level="error") as first:
        first.wait_ready()  # converts what has not been converted yet
        first.wait_loaded()
    with service(tmp_path, model_cache_dir=CONVERTED, log_level="error") as made:
        seconds, small_mb = made.wait_ready(), memory_mb(made)
        body = {"query": "Hello", "max_tokens": 8}
        assert httpx2.post(f"{made.url}/chat", json=body, timeout=60).status_code == 200
        print(f"classifier, embedder, chat: ready after {seconds:.1f} s more, {small_mb:.0f} MB")
        assert memory_mb(made) < 1200
    # The figure is for a quiet machine (benchmarks/SHOWS.md); here it must only not be absurd.
    assert seconds < 30
