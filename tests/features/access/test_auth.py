"""Who may do what, and how often: keys and limits in front of the routes."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import run
from httpx2 import AsyncClient
from process import APP, environment, service
from pydantic import ValidationError
from serving import FAKE, FatalError, make_settings, serving

from app.core.callers import Caller
from app.engines.chat_base import Generation, Message, Usage
from app.errors import (
    ContextLengthExceededError,
    DeadlineExceededError,
    InferenceFailedError,
    OverloadedError,
    ServiceError,
)
from app.features.access.ledger import Ledger
from app.features.access.limits.limit import parse
from app.features.access.limits.limiter import Limiter
from app.features.access.limits.memory import MemoryStorage
from app.features.access.metrics import AccessMetrics
from app.features.access.opening import AccessPart
from app.runtime import watching
from app.services.token_stream import FinishedGeneration

ADMIN = "an-admin-key-of-the-fleet"
MODELS = (
    FAKE
    + """
[[models]]
name = "echo"
task = "chat"
engine = "fake"

[[models]]
name = "vectors"
task = "embedding"
engine = "fake"
"""
)
BODIES: dict[str, dict[str, Any]] = {
    "/predict": {"text": "x"},
    "/predict/dummy": {"text": "x"},
    "/predict-batch": {"texts": ["x"]},
    "/embed": {"texts": ["x"]},
    "/chat": {"query": "x"},
    "/chat/stream": {"query": "x"},
    "/v1/chat/completions": {"model": "echo", "messages": [{"role": "user", "content": "x"}]},
    "/v1/embeddings": {"model": "vectors", "input": "x"},
}
SCOPES = {
    "/predict": "predict",
    "/predict/dummy": "predict",
    "/predict-batch": "predict",
    "/embed": "embed",
    "/chat": "chat",
    "/chat/stream": "chat",
    "/v1/chat/completions": "chat",
    "/v1/embeddings": "embed",
}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@asynccontextmanager
async def guarded(tmp_path: Path, **settings: Any) -> AsyncIterator[AsyncClient]:
    values = {"auth": "required", "admin_key": ADMIN, "default_limit": "1000/minute"} | settings
    async with serving(tmp_path, MODELS, **values) as client:
        yield client


async def make_key(client: AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await client.post("/keys", json={"name": "k"} | fields, headers=bearer(ADMIN))
    assert answer.status_code == 201, answer.text
    new_key: dict[str, Any] = answer.json()
    return new_key


async def test_without_a_key_everything_but_probes_and_documents_is_401(tmp_path: Path) -> None:
    async with guarded(tmp_path) as client:
        for path, body in BODIES.items():
            answer = await client.post(path, json=body)
            assert answer.status_code == 401, path
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        for path in ("/models", "/keys", "/v1/models"):
            assert (await client.get(path)).status_code == 401, path
        for path in ("/health", "/ready", "/docs", "/redoc", "/openapi.json", "/metrics"):
            assert (await client.get(path)).status_code == 200, path


async def test_where_no_key_is_needed_any_key_will_do(tmp_path: Path) -> None:
    async with serving(tmp_path, MODELS) as client:
        answer = await client.post("/predict", json={"text": "x"}, headers=bearer("whatever"))
    assert answer.status_code == 200


async def test_errors_of_keys_have_the_shape_of_their_dialect(tmp_path: Path) -> None:
    async with guarded(tmp_path) as client:
        problem = await client.post("/predict", json=BODIES["/predict"])
        openai = await client.post("/v1/embeddings", json=BODIES["/v1/embeddings"])
    assert problem.json()["code"] == "unauthorized"
    assert openai.json()["error"]["code"] == "unauthorized"


@pytest.mark.parametrize("path", list(BODIES))
async def test_a_scope_opens_its_routes_and_no_others(tmp_path: Path, path: str) -> None:
    async with guarded(tmp_path) as client:
        right = await make_key(client, scopes=[SCOPES[path]])
        wrong = await make_key(client, scopes=sorted({"predict", "embed", "chat"} - {SCOPES[path]}))
        for headers in (bearer(right["key"]), {"X-API-Key": right["key"]}, bearer(ADMIN)):
            assert (await client.post(path, json=BODIES[path], headers=headers)).status_code == 200
        refused = await client.post(path, json=BODIES[path], headers=bearer(wrong["key"]))
    assert refused.status_code == 403


async def test_keys_are_made_listed_and_revoked_by_admins_only(tmp_path: Path) -> None:
    async with guarded(tmp_path, auth_cache_s=1) as client:
        new_key = await make_key(client, scopes=["predict"], expires_days=90, limit="5/second")
        assert new_key["key"].startswith(new_key["prefix"])
        assert new_key["expires_at"] > new_key["created_at"]
        mine = bearer(new_key["key"])
        assert (await client.get("/keys", headers=mine)).status_code == 403
        listed = (await client.get("/keys", headers=bearer(ADMIN))).json()
        assert [key["id"] for key in listed["keys"]] == [new_key["id"]]
        assert "key" not in listed["keys"][0]
        assert new_key["key"] not in str(listed)
        revoked = await client.delete(f"/keys/{new_key['id']}", headers=bearer(ADMIN))
        assert revoked.status_code == 204
        after = await client.post("/predict", json={"text": "x"}, headers=mine)
        assert after.status_code == 401
        gone = await client.delete("/keys/999", headers=bearer(ADMIN))
        assert (gone.status_code, gone.json()["code"]) == (404, "key_not_found")


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"scopes": ["everything"]}, ["body", "scopes", 0]),
        ({"scopes": ["chat"], "limit": "lots"}, ["body", "limit"]),
        ({"scopes": []}, ["body", "scopes"]),
        ({"scopes": ["chat"], "tokens_per_day": 0}, ["body", "tokens_per_day"]),
    ],
)
async def test_what_is_no_key_is_422_and_says_where(
    tmp_path: Path, fields: dict[str, Any], place: list[Any]
) -> None:
    async with guarded(tmp_path) as client:
        answer = await client.post("/keys", json={"name": "k"} | fields, headers=bearer(ADMIN))
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["loc"] == place


async def test_a_keys_limit_is_its_own_and_is_told_in_headers(tmp_path: Path) -> None:
    async with guarded(tmp_path) as client:
        small = bearer((await make_key(client, scopes=["predict"], limit="2/minute"))["key"])
        large = bearer((await make_key(client, scopes=["predict"], limit="100/minute"))["key"])
        answers = [await client.post("/predict", json={"text": "x"}, headers=small) for _ in "abc"]
        other = await client.post("/predict", json={"text": "x"}, headers=large)
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["1", "0", "0"]
    assert answers[2].json()["code"] == "rate_limited"
    assert 1 <= int(answers[2].headers["Retry-After"]) <= 60
    assert other.headers["X-RateLimit-Limit"] == "100"


async def test_without_keys_the_limit_is_by_address(tmp_path: Path) -> None:
    async with serving(
        tmp_path, MODELS, auth="off", default_limit="1/minute", trusted_proxies="127.0.0.1"
    ) as client:
        first = await client.post("/chat/stream", json={"query": "x"})
        second = await client.post("/chat/stream", json={"query": "x"})
        group = await client.post("/predict", json={"text": "x"})
        behind = {"X-Forwarded-For": "203.0.113.9"}
        other = await client.post("/chat/stream", json={"query": "x"}, headers=behind)
    assert (first.status_code, second.status_code) == (200, 429)
    assert first.headers["X-RateLimit-Limit"] == "1"
    assert group.status_code == 200, "each group of routes has a count of its own"
    assert other.status_code == 200, "another caller behind the trusted proxy"


async def test_limits_can_be_switched_off_and_are_none_on_loopback(tmp_path: Path) -> None:
    async with serving(tmp_path) as client:
        answer = await client.post("/predict", json={"text": "x"})
    assert "X-RateLimit-Limit" not in answer.headers
    async with guarded(tmp_path, limits="off") as client:
        answer = await client.post("/predict", json={"text": "x"}, headers=bearer(ADMIN))
    assert "X-RateLimit-Limit" not in answer.headers


async def statuses_of(client: AsyncClient, keys: Iterable[str]) -> list[int]:
    asked = {"text": "x"}
    answers = [await client.post("/predict", json=asked, headers=bearer(key)) for key in keys]
    return [answer.status_code for answer in answers]


MADE_UP = "mlk_" + "0" * 12 + "_" + "a" * 43


@pytest.mark.parametrize("wrong", ["x", "an-admin-key-of-yesterday", MADE_UP])
async def test_of_a_locked_address_valid_keys_pass_and_no_others(
    tmp_path: Path, wrong: str
) -> None:
    async with guarded(tmp_path) as client:
        mine = (await make_key(client, scopes=["predict"]))["key"]
        assert await statuses_of(client, [wrong] * 21) == [401] * 20 + [429]
        others = [MADE_UP[:-1] + "b", mine[:-1] + ("a" if mine[-1] != "a" else "b"), "y"]
        assert await statuses_of(client, [ADMIN, mine, *others]) == [200, 200, 429, 429, 429]
        elsewhere = await make_key(client, scopes=["predict"])
        assert await statuses_of(client, [elsewhere["key"]]) == [200], "one that is new here"


async def test_a_key_that_ended_is_no_guess(tmp_path: Path) -> None:
    async with guarded(tmp_path) as client:
        new_key = await make_key(client, scopes=["predict"])
        await client.delete(f"/keys/{new_key['id']}", headers=bearer(ADMIN))
        assert await statuses_of(client, [new_key["key"]] * 25) == [401] * 25
        told = await client.post("/predict", json={"text": "x"}, headers=bearer(new_key["key"]))
        assert "revoked, or has expired" in told.json()["detail"]
        assert await statuses_of(client, ["x"]) == [401], "the first that counts"


async def test_who_guesses_at_the_admin_s_key_doesn_t_learn_that_it_was_right(
    tmp_path: Path,
) -> None:
    guesses = [f"an-admin-key-of-the-fleet-{number}" for number in range(30)]
    asked = {"text": "x"}
    async with guarded(tmp_path) as client:
        mine = (await make_key(client, scopes=["predict"]))["key"]
        answers = await asyncio.gather(
            *(client.post("/predict", json=asked, headers=bearer(key)) for key in guesses),
            client.post("/predict", json=asked, headers=bearer(ADMIN)),
        )
        statuses = [answer.status_code for answer in answers]
        assert (sorted(statuses), statuses[-1]) == ([401] * 20 + [429] * 11, 429)
        assert await statuses_of(client, [ADMIN, mine]) == [429, 200]
        refused = await client.get("/models", headers=bearer(ADMIN))
        assert 1 <= int(refused.headers["Retry-After"]) <= 60


async def test_the_admin_may_ask_for_much_at_once(tmp_path: Path) -> None:
    asked = {"text": "x"}
    async with guarded(tmp_path) as client:
        answers = await asyncio.gather(
            *(client.post("/predict", json=asked, headers=bearer(ADMIN)) for _ in range(40))
        )
    assert {answer.status_code for answer in answers} == {200}


async def test_a_quota_of_tokens_is_charged_by_what_was_used(tmp_path: Path) -> None:
    async with guarded(tmp_path) as client:
        mine = bearer((await make_key(client, scopes=["chat", "embed"], tokens_per_day=7))["key"])
        ledger = client._transport.app.state.runtime.part(AccessPart).ledger  # type: ignore[attr-defined]  # as below
        statuses = []
        for path in ("/chat", "/chat/stream", "/chat"):
            asked = {"query": "one two"}  # two tokens in, two out
            statuses.append((await client.post(path, json=asked, headers=mine)).status_code)
            await ledger.settle()
        embed = await client.post("/embed", json={"texts": ["x"]}, headers=mine)
    assert statuses == [200, 200, 429]
    assert embed.status_code == 429, "texts of embedding count against the same quota"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/embed", {"texts": ["one", "two"]}),
        ("/v1/embeddings", {"model": "vectors", "input": ["one", "two"]}),
    ],
)
async def test_embedding_is_charged_by_the_texts(
    tmp_path: Path, path: str, body: dict[str, Any]
) -> None:
    async with guarded(tmp_path) as client:
        mine = bearer((await make_key(client, scopes=["embed"], tokens_per_day=3))["key"])
        statuses = [
            (await client.post(path, json=body, headers=mine)).status_code for _ in range(3)
        ]
    assert statuses == [200, 200, 429], "the answer that passes the bound is still given"


async def test_of_calls_at_once_those_pass_that_find_something_left(tmp_path: Path) -> None:
    async with guarded(tmp_path) as client:
        mine = bearer((await make_key(client, scopes=["embed"], tokens_per_day=3))["key"])
        asked = {"texts": ["one", "two"]}
        answers = await asyncio.gather(
            *(client.post("/embed", json=asked, headers=mine) for _ in range(12))
        )
    assert sorted(answer.status_code for answer in answers) == [200] * 2 + [429] * 10


async def test_an_embedding_that_fails_costs_nothing(tmp_path: Path) -> None:
    async with guarded(tmp_path) as client:
        mine = bearer((await make_key(client, scopes=["embed"], tokens_per_day=1))["key"])
        ledger = client._transport.app.state.runtime.part(AccessPart).ledger  # type: ignore[attr-defined]  # as below
        statuses = []
        for model in ("nobody", "vectors", "vectors"):
            asked = {"texts": ["x"], "model_name": model}
            statuses.append((await client.post("/embed", json=asked, headers=mine)).status_code)
            await ledger.settle()
    assert statuses == [404, 200, 429]


async def test_a_search_is_charged_as_one_text(tmp_path: Path) -> None:
    async with guarded(tmp_path) as client:
        mine = bearer((await make_key(client, scopes=["documents"], tokens_per_day=2))["key"])
        asked = {"query": "x", "model_name": "vectors"}
        answers = [await client.post("/search", json=asked, headers=mine) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]


SAID = Generation(text="x", finish_reason="stop", usage=None)


def ended(
    end: Generation | ServiceError | None, *, tokens: int = 0, began: bool = True
) -> FinishedGeneration:
    return FinishedGeneration(
        model="echo",
        version="1" if began else None,
        end=end,
        tokens=tokens,
        seconds=1.0,
        first_token_s=None,
    )


@pytest.mark.parametrize(
    ("end", "cost"),
    [
        (
            ended(replace(SAID, usage=Usage(prompt_tokens=5, completion_tokens=7)), tokens=7),
            12,
        ),
        (ended(SAID, tokens=7), 107),
        (ended(None, tokens=3), 103),
        (ended(None), 100),
        (ended(DeadlineExceededError()), 100),
        (ended(InferenceFailedError(), tokens=3), 103),
        (ended(InferenceFailedError()), 0),
        (ended(ContextLengthExceededError()), 0),
        (ended(OverloadedError(retry_after_s=1), began=False), 0),
    ],
)
async def test_whoever_leaves_a_chat_pays_for_its_prompt(
    end: FinishedGeneration, cost: int
) -> None:
    limiter = Limiter(MemoryStorage(), metrics=AccessMetrics())
    ledger = Ledger(limiter)
    caller = Caller(key_id=1, tokens_per_day=1000)
    tools = [{"name": "word" * 47}]  # about 200 characters of JSON
    messages = [Message(role="user", content="word" * 50)]
    ledger.generated(await ledger.begin(caller, messages, tools), end)
    await ledger.settle()
    verdict = await limiter.peek(parse("1000/day"), "tokens", "key:1")
    assert 1000 - verdict.remaining == cost


async def test_who_asks_is_looked_at_before_what(tmp_path: Path) -> None:
    async with guarded(tmp_path) as client:
        small = bearer((await make_key(client, scopes=["predict"], limit="1/minute"))["key"])

        async def refused(path: str, headers: dict[str, str]) -> int:
            json = {"Content-Type": "application/json"}
            return (await client.post(path, content=b"{bad", headers=json | headers)).status_code

        assert await refused("/predict", small) == 400
        assert await refused("/predict", small) == 429, "the one before was counted"
        assert await refused("/chat", small) == 403
        plain = await client.post(
            "/documents", content=b"x", headers={"Content-Type": "text/plain"}
        )
        assert plain.status_code == 401
        wrong = [await refused("/documents", bearer("x")) for _ in range(21)]
    assert wrong == [401] * 20 + [429]


async def test_of_a_request_that_is_refused_no_body_is_asked_for(tmp_path: Path) -> None:
    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("the body was asked for")
        yield b""

    asked = {
        "Content-Type": "application/json",
        "Content-Length": "1000",
        "Expect": "100-continue",
    }
    async with guarded(tmp_path) as client:
        for path in (*BODIES, "/documents", "/embed-batch", "/search", "/keys", "/nowhere"):
            answer = await client.post(path, content=never(), headers=asked)
            assert answer.status_code == (404 if path == "/nowhere" else 401), path
            assert answer.headers["Connection"] == "close"


async def test_the_log_is_read_within_the_limit_too(tmp_path: Path) -> None:
    async with guarded(tmp_path) as client:
        mine = bearer((await make_key(client, scopes=["metrics"], limit="2/minute"))["key"])
        paths = ("/predictions", "/predictions/export", "/predictions")
        answers = [await client.get(path, headers=mine) for path in paths]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[0].headers["X-RateLimit-Remaining"] == "1"


async def test_metrics_can_be_asked_to_need_a_key(tmp_path: Path) -> None:
    async with guarded(tmp_path, metrics_need_key=True) as client:
        scraper = bearer((await make_key(client, scopes=["metrics"]))["key"])
        other = bearer((await make_key(client, scopes=["chat"]))["key"])
        statuses = [
            (await client.get("/metrics", headers=headers)).status_code
            for headers in ({}, other, scraper, bearer(ADMIN))
        ]
    assert statuses == [401, 403, 200, 200]


async def test_a_database_that_comes_late_is_prepared_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watching, "DATABASE_CHECK_S", 0.02)
    (tmp_path / "data").touch()  # where the folder would be
    async with guarded(tmp_path) as client, asyncio.timeout(10):
        while not (degraded := (await client.get("/ready")).json()["degraded"]):
            await asyncio.sleep(0.01)
        assert degraded == ["database:refused"]
        (tmp_path / "data").unlink()
        while (await client.get("/ready")).json()["degraded"]:
            await asyncio.sleep(0.01)
        await make_key(client, scopes=["chat"])
    told = [r for r in caplog.records if r.message == "database_not_ready"]
    assert len(told) == 1


async def test_a_preflight_of_the_database_shows_in_ready(tmp_path: Path) -> None:
    url = "postgresql://user:secret@127.0.0.1:1/none"
    async with serving(tmp_path, MODELS, database_url=url, database_timeout_ms=200) as client:
        runtime = client._transport.app.state.runtime  # type: ignore[attr-defined]  # ASGITransport
        runtime.database_problem = await runtime.require_database().check()
        ready = await client.get("/ready")
        predicted = await client.post("/predict", json={"text": "x"})
        keys = await client.get("/keys")
    assert (ready.status_code, ready.json()["degraded"]) == (200, ["database:unreachable"])
    assert predicted.status_code == 200
    assert (keys.status_code, keys.json()["code"]) == (503, "database_unavailable")
    assert "secret" not in ready.text + keys.text


@pytest.mark.parametrize(
    ("values", "is_ok"),
    [
        ({"host": "0.0.0.0", "auth": "off"}, False),
        ({"host": "0.0.0.0", "auth": "off", "auth_off_anywhere": True}, True),
        ({"host": "127.0.0.1", "auth": "off"}, True),
        ({"host": "localhost", "auth": "off"}, True),
        ({"host": "::1", "auth": "off"}, True),
        ({"host": "10.0.0.1"}, True),
        ({"admin_key": "short"}, False),
    ],
)
def test_nobody_serves_everybody_by_accident(
    tmp_path: Path, values: dict[str, Any], *, is_ok: bool
) -> None:
    if is_ok:
        make_settings(tmp_path, **values)
        return
    with pytest.raises(ValidationError):
        make_settings(tmp_path, **values)


@pytest.mark.parametrize(("host", "needs"), [("0.0.0.0", True), ("127.0.0.1", False)])
def test_keys_are_needed_where_others_can_reach_it(
    tmp_path: Path, host: str, *, needs: bool
) -> None:
    settings = make_settings(tmp_path, host=host)
    assert settings.needs_key is needs
    assert settings.limit == ("100/minute" if needs else None)


async def test_a_revoked_key_opens_nothing_so_it_doesnt_start(tmp_path: Path) -> None:
    async with guarded(tmp_path) as client:
        new_key = await make_key(client, scopes=["chat"])
        await client.delete(f"/keys/{new_key['id']}", headers=bearer(ADMIN))
    with pytest.raises(FatalError, match="no key that is valid"):
        async with serving(tmp_path, host="0.0.0.0"):
            pass
    async with guarded(tmp_path) as client:
        await make_key(client, scopes=["chat"])
    async with serving(tmp_path, host="0.0.0.0") as client:
        assert (await client.get("/models")).status_code == 401


def test_on_an_open_address_without_any_key_it_doesnt_start(tmp_path: Path) -> None:
    import subprocess

    (tmp_path / "models.toml").write_text(FAKE, encoding="utf-8")
    values = environment(tmp_path, models_file=tmp_path / "models.toml", host="0.0.0.0")
    ended = subprocess.run(
        [APP, "serve", "--port", "0"],
        cwd=tmp_path,
        env=values,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert (
        "ml-api: error: HOST can be reached by others, and there is no key that is valid"
        in ended.stderr
    )


def test_the_commands_make_list_and_revoke_keys_of_a_running_service(tmp_path: Path) -> None:
    import httpx2

    def app(*command: str) -> str:
        done = run(tmp_path, *command)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    with service(tmp_path, FAKE, auth="required", auth_cache_s=1) as running:
        running.wait_ready()
        key = app("keys", "create", "--name", "web", "--scopes", "predict", "--expires", "90d")
        answer = httpx2.post(
            f"{running.url}/predict", json={"text": "x"}, headers=bearer(key), timeout=30
        )
        assert answer.status_code == 200
        listed = app("keys", "list")
        assert "web" in listed
        assert key not in listed
        app("keys", "revoke", listed.split()[0])
        assert app("keys", "list").count("revoked") == 1
        assert key not in running.log
