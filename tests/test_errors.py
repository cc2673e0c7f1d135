"""Errors outside the schema: unknown paths, methods, large and slow bodies, crashes."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from httpx2 import AsyncClient
from serving import make_app, running, serving
from test_schemas import check_problem

from app.errors import InternalError, ServiceError, StartupError, all_service_errors

pytestmark = pytest.mark.core


def test_codes_are_unique_and_every_error_says_something() -> None:
    errors = all_service_errors()
    codes = [e.code for e in errors if e is not ServiceError]
    # InternalError and InferenceFailedError are both 500, under codes of their own.
    assert len(set(codes)) == len(codes)
    for error in errors:
        assert error.__doc__
        assert 400 <= error.status < 600


def test_the_docstring_is_the_default_detail_and_headers_carry_the_wait() -> None:
    error = ServiceError(retry_after_s=3, headers={"Allow": "GET"})
    assert str(error) == error.detail == "The request could not be served."
    assert error.headers == {"Allow": "GET", "Retry-After": "3"}
    assert ServiceError("other").detail == "other"


def test_startup_errors_have_reasons_of_their_own() -> None:
    every: list[type[StartupError]] = [StartupError, *StartupError.__subclasses__()]
    reasons = [error.reason for error in every]
    assert len(set(reasons)) == len(reasons)


@pytest.mark.parametrize(
    "path",
    ["/nope", "/predict/", "/predict/a/b", "/Predict", "/%00", "/%ff", "/é", "/docs/x"],
)
async def test_an_unknown_path_is_a_404_problem(client: AsyncClient, path: str) -> None:
    check_problem(await client.get(path), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/predict", "POST"),
        ("PUT", "/predict/x", "POST"),
        ("DELETE", "/predict-batch", "POST"),
        ("POST", "/health", "GET, HEAD"),
        ("PATCH", "/metrics", "GET, HEAD"),
        ("BREW", "/models", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_405_and_allow_names_the_right_one(
    client: AsyncClient, method: str, path: str, allow: str
) -> None:
    answer = await client.request(method, path)
    check_problem(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == allow


async def chunks(size: int, count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"[" * size


async def test_a_body_over_the_limit_is_413_announced_or_not(tmp_path: Path) -> None:
    async with serving(tmp_path, max_body_bytes=1000) as client:
        headers = {"Content-Type": "application/json"}
        announced = await client.post("/predict", content=b"[" * 1001, headers=headers)
        chunked = await client.post("/predict", content=chunks(100, 11), headers=headers)
        huge = await client.post("/predict", content=chunks(1000, 10_000), headers=headers)
        unasked = await client.request("GET", "/health", content=b"x" * 1001)
        exact = await client.post("/predict", content=b"[" * 1000, headers=headers)
    for answer in (announced, chunked, huge):
        check_problem(answer, 413, "body_too_large")
    assert unasked.status_code == 200
    assert huge.headers["Connection"] == "close"
    check_problem(exact, 400, "malformed_json")


async def test_a_body_that_is_announced_as_far_too_large_is_not_read(tmp_path: Path) -> None:
    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("the body was asked for")
        yield b""

    announced = {"Content-Type": "application/json", "Content-Length": "10000000000"}
    expecting = {**announced, "Content-Length": "1001", "Expect": "100-continue"}
    async with serving(tmp_path, max_body_bytes=1000) as client:
        for headers in (announced, expecting):
            answer = await client.post("/predict", content=never(), headers=headers)
            check_problem(answer, 413, "body_too_large")
            assert answer.headers["Connection"] == "close"


async def test_a_hundred_thousand_unknown_fields_are_one_error(client: AsyncClient) -> None:
    fields = {"text": "x", **{str(n): 0 for n in range(90_000)}}
    problem = check_problem(await client.post("/predict", json=fields), 422, "invalid_request")
    assert len(problem["errors"]) == 1
    fields = {"text": "x", **{str(n): 0 for n in range(60)}}
    problem = check_problem(await client.post("/predict", json=fields), 422, "invalid_request")
    assert len(problem["errors"]) == 50


async def test_a_body_that_stops_coming_is_408(tmp_path: Path) -> None:
    async def stalls() -> AsyncIterator[bytes]:
        yield b'{"text":'
        await asyncio.Event().wait()

    async with serving(tmp_path, request_timeout_ms=30) as client:
        answer = await client.post(
            "/predict", content=stalls(), headers={"Content-Type": "application/json"}
        )
    check_problem(answer, 408, "body_timeout")
    assert answer.headers["Connection"] == "close"


async def test_a_client_that_leaves_in_mid_body_is_logged_as_499(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(tmp_path)
    messages = iter(
        [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    )
    sent: list[Any] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/predict",
        "query_string": b"",
        "headers": [(b"transfer-encoding", b"chunked")],
    }
    with caplog.at_level("INFO"):
        async with running(app):
            await app(scope, receive, send)
    assert [m.get("status") for m in sent] == [499, None], "which servers send to nobody"
    done = next(r for r in caplog.records if r.message == "request_done")
    assert vars(done)["status"] == 499


async def test_a_crash_is_a_500_that_says_nothing_of_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(tmp_path)

    async def crash() -> None:
        raise RuntimeError("secret: /etc/passwd")

    app.get("/crash")(crash)
    async with running(app) as client:
        answer = await client.get("/crash")
        metrics = (await client.get("/metrics")).text
    check_problem(answer, 500, "internal_error")
    assert "secret" not in answer.text
    assert answer.json()["detail"] == InternalError().detail
    assert 'mlapi_exceptions_total{type="RuntimeError"} 1.0' in metrics
    assert 'http_requests_total{handler="/crash",method="GET",status="500"} 1.0' in metrics
    assert any(r.message == "unhandled_error" for r in caplog.records)


async def test_a_crash_in_mid_answer_cuts_the_connection(tmp_path: Path) -> None:
    app = make_app(tmp_path)

    async def half(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("too late for a problem")

    app.mount("/half", half)
    async with running(app) as client:
        with pytest.raises(RuntimeError, match="too late"):
            await client.get("/half/x")


@pytest.mark.parametrize("given", ["abc", "A.b_c-9", "x" * 128])
async def test_a_good_request_id_is_taken_over(client: AsyncClient, given: str) -> None:
    answer = await client.get("/nope", headers={"X-Request-ID": given})
    assert answer.headers["X-Request-ID"] == given
    assert answer.json()["request_id"] == given


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "a/b", 'a"b', "{}", "a,b"])
async def test_a_bad_request_id_is_replaced(client: AsyncClient, given: str) -> None:
    answer = await client.get("/health", headers={"X-Request-ID": given})
    other = await client.get("/health", headers={"X-Request-ID": given})
    assert len(answer.headers["X-Request-ID"]) == 32
    assert answer.headers["X-Request-ID"] != other.headers["X-Request-ID"]


async def test_the_path_in_a_problem_is_bounded_and_printable(client: AsyncClient) -> None:
    answer = await client.get("/" + "é" * 3000)
    assert json.loads(answer.content)["instance"].isascii()
    assert len(answer.json()["instance"]) < 2000
