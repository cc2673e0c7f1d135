"""Bounds that hold for calls at once: quotas, a key's jobs, wrong keys of one address."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from databases import migrated
from httpx2 import AsyncClient, Response
from servers import valkey
from test_jobs import ADMIN, MODELS, Serving, bearer, make_key, serving_jobs

from app.errors import TooManyJobsError
from app.features.access.opening import AccessPart
from app.features.jobs.repository import JobRepository

AT_ONCE = 40
QUOTA = 10
OPENAI = {"model": "echo", "messages": [{"role": "user", "content": "x"}]}
WITH_CHAT = """
[[models]]
name = "echo"
task = "chat"
engine = "fake"
slots = 40
fake = { delay_ms = 5 }
"""


@pytest.fixture(params=["memory", "redis"])
def counters(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """Where quotas are counted; a Redis of this test's own, since keys are numbered from 1."""
    if request.param == "memory":
        yield {}
    else:
        with valkey() as own:
            # Long enough for a busy machine: a call that passes uncounted is another claim.
            yield {"redis_url": own.url, "limiter_budget_ms": 5000}


@asynccontextmanager
async def metered(tmp_path: Path, **settings: Any) -> AsyncIterator[Serving]:
    given = {"auth": "required", "admin_key": ADMIN, "default_limit": "10000/minute"}
    async with serving_jobs(tmp_path, models=MODELS + WITH_CHAT, **(given | settings)) as service:
        yield service


async def left_of(service: Serving, headers: dict[str, str]) -> int:
    """Embed one text after the other until the day is used up; return how many there were."""
    await service.runtime.part(AccessPart).ledger.settle()
    asked, given = {"texts": ["x"]}, 0
    while (await service.client.post("/embed", json=asked, headers=headers)).status_code == 200:
        given += 1
    return given


def statuses(answers: list[Response]) -> Counter[int]:
    return Counter(answer.status_code for answer in answers)


async def at_once(client: AsyncClient, path: str, headers: dict[str, str], **asked: Any) -> Any:
    return await asyncio.gather(
        *(client.post(path, json=asked, headers=headers) for _ in range(AT_ONCE))
    )


async def test_of_40_jobs_at_once_so_many_are_taken_as_the_day_pays_for(
    tmp_path: Path, counters: dict[str, Any]
) -> None:
    async with metered(tmp_path, **counters) as service:
        mine = await make_key(service, "jobs", "documents", "embed", tokens_per_day=QUOTA)
        await service.store("a", headers=mine)
        answers = await at_once(service.client, "/embed-batch", mine, doc_ids=["a", "a"])
        assert statuses(answers) == {202: QUOTA, 429: AT_ONCE - QUOTA}
        assert {a.json()["code"] for a in answers if a.status_code == 429} == {"rate_limited"}
        jobs = (await service.client.get("/jobs?limit=100", headers=mine)).json()["jobs"]
        assert len(jobs) == QUOTA, "what was refused was not stored"
        assert await left_of(service, mine) == 0


async def test_a_job_that_is_not_taken_costs_nothing(tmp_path: Path) -> None:
    async with metered(tmp_path) as service:
        mine = await make_key(service, "jobs", "embed", tokens_per_day=QUOTA)
        answers = await at_once(service.client, "/embed-batch", mine, doc_ids=["nowhere"])
        # Some find the day used up while others, which will fail, hold it.
        assert set(statuses(answers)) <= {404, 429}
        assert await left_of(service, mine) == QUOTA


async def test_calls_at_once_with_one_idempotency_key_cost_one_job(
    tmp_path: Path, counters: dict[str, Any]
) -> None:
    async with metered(tmp_path, **counters) as service:
        mine = await make_key(service, "jobs", "documents", "embed", tokens_per_day=QUOTA)
        await service.store("a", "b", "c", headers=mine)
        named = mine | {"Idempotency-Key": "once"}
        answers = await at_once(service.client, "/embed-batch", named, doc_ids=["a", "b", "c"])
        assert statuses(answers) == {202: AT_ONCE}
        assert len({answer.json()["job_id"] for answer in answers}) == 1
        assert await left_of(service, mine) == QUOTA - 3


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/chat", {"query": "one two three four five"}),
        ("/v1/chat/completions", OPENAI),
        ("/v1/chat/completions", OPENAI | {"stream": True}),
    ],
)
async def test_of_40_chats_at_once_no_more_begin_than_the_day_has_tokens(
    tmp_path: Path, counters: dict[str, Any], path: str, asked: dict[str, Any]
) -> None:
    async with metered(tmp_path, **counters) as service:
        mine = await make_key(service, "chat", tokens_per_day=QUOTA)
        found = statuses(await at_once(service.client, path, mine, **asked))
        assert set(found) == {200, 429}
        assert 1 <= found[200] <= QUOTA


async def test_a_chat_is_settled_at_what_it_cost(tmp_path: Path) -> None:
    async with metered(tmp_path) as service:
        mine = await make_key(service, "chat", "embed", tokens_per_day=QUOTA)
        # Estimated at eight tokens; the engine counts two words in and two out.
        asked = {"query": "a-long-word-of-many-letters and"}
        assert (await service.client.post("/chat", json=asked, headers=mine)).status_code == 200
        assert await left_of(service, mine) == QUOTA - 4


async def test_a_chat_that_never_begins_costs_nothing(tmp_path: Path) -> None:
    async with metered(tmp_path) as service:
        mine = await make_key(service, "chat", "embed", tokens_per_day=QUOTA)
        asked = {"query": "x", "model_name": "nobody"}
        assert (await service.client.post("/chat", json=asked, headers=mine)).status_code == 404
        assert await left_of(service, mine) == QUOTA


async def test_of_jobs_at_once_a_key_has_no_more_unfinished_than_it_may(
    tmp_path: Path, database_url: str
) -> None:
    async with (
        migrated(database_url),
        metered(tmp_path, database_url=database_url, jobs_per_key=3) as service,
    ):
        mine = await make_key(service, "jobs", "documents")
        body = {"documents": [{"id": f"d{n}", "text": "x"} for n in range(50)]}
        answers = await at_once(service.client, "/embed-batch", mine, **body)
        assert statuses(answers) == {202: 3, 429: AT_ONCE - 3}
        refused = [answer.json()["code"] for answer in answers if answer.status_code == 429]
        assert set(refused) == {TooManyJobsError.code}
        counted = await service.runtime.require_database().read(
            lambda session: JobRepository(session).count_open(1)
        )
        assert counted == 3


async def test_of_wrong_keys_at_once_so_many_are_told_so_as_one_after_the_other(
    tmp_path: Path,
) -> None:
    async with metered(tmp_path) as service:
        wrong = [bearer(f"mlk_{n:012x}_{'x' * 43}") for n in range(AT_ONCE)]
        answers = await asyncio.gather(
            *(
                service.client.post("/predict", json={"text": "x"}, headers=headers)
                for headers in wrong
            )
        )
    assert statuses(answers) == {401: 20, 429: AT_ONCE - 20}


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/chat/completions", {"model": "echo", "messages": OPENAI["messages"]}),
        ("/v1/completions", {"model": "echo", "prompt": "x"}),
    ],
)
async def test_several_answers_one_of_which_is_refused_cost_nothing(
    tmp_path: Path, path: str, asked: dict[str, Any]
) -> None:
    async with metered(tmp_path) as service:
        mine = await make_key(service, "chat", "embed", tokens_per_day=3)
        # A token is charged for each before it begins.
        for stream in (True, False):
            body = {**asked, "n": 4, "stream": stream, "max_tokens": 1}
            answer = await service.client.post(path, json=body, headers=mine)
            assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limited")
        assert await left_of(service, mine) == 3
