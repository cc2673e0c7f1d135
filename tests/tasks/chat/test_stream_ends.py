"""How streams of tokens end when the server's time is over, in each dialect."""

import json
import signal
from pathlib import Path
from typing import Any

import httpx2
import pytest
from test_server import TIMEOUT_S, errors_of, runtime_of, started

CHAT = """
[[models]]
name = "echo"
task = "chat"
engine = "fake"
default = true
required = true
fake = { delay_ms = 20 }
"""
QUERY = {"query": "word " * 500}


def problem_of_ndjson(text: str) -> dict[str, Any]:
    last = json.loads(text.splitlines()[-1])
    assert (last["token"], last["done"]) == ("", True)
    problem: dict[str, Any] = last["error"]
    return problem


def problem_of_sse(text: str) -> dict[str, Any]:
    return problem_of_ndjson(text.strip().replace("\n\n", "\n").replace("data: ", ""))


def problem_of_openai(text: str) -> dict[str, Any]:
    *_, error, done = text.strip().split("\n\n")
    assert done == "data: [DONE]"
    problem: dict[str, Any] = json.loads(error.removeprefix("data: "))["error"]
    return problem


SSE = {"Accept": "text/event-stream"}
OPENAI = {"model": "echo", "stream": True, "messages": [{"role": "user", "content": "w " * 500}]}
DIALECTS = [
    ("/chat/stream", QUERY, {}, problem_of_ndjson),
    ("/chat/stream", QUERY, SSE, problem_of_sse),
    ("/v1/chat/completions", OPENAI, {}, problem_of_openai),
]


@pytest.mark.parametrize(("path", "body", "headers", "read"), DIALECTS, ids=["ndjson", "sse", "v1"])
async def test_a_stream_whose_time_is_over_ends_with_a_typed_last_line(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    path: str,
    body: dict[str, Any],
    headers: dict[str, str],
    read: Any,
) -> None:
    rows: list[Any] = []
    async with (
        started(tmp_path, CHAT, budget_s=0.2) as (server, url),
        httpx2.AsyncClient(base_url=url) as client,
        client.stream("POST", path, json=body, headers=headers) as answer,
    ):
        runtime_of(server).entries.put = rows.append  # type: ignore[method-assign, assignment]  # as a log
        pieces = answer.aiter_text()
        text = await anext(pieces)
        signal.raise_signal(signal.SIGTERM)
        text += "".join([piece async for piece in pieces])
    assert read(text)["code"] == "not_ready"
    assert errors_of(caplog) == []
    assert [(row.status, row.error) for row in rows] == [(503, "not_ready")]


async def test_a_second_signal_hurries_and_a_third_changes_nothing(tmp_path: Path) -> None:
    async with (
        started(tmp_path, CHAT, delay_s=TIMEOUT_S, budget_s=TIMEOUT_S) as (_, url),
        httpx2.AsyncClient(base_url=url) as client,
        client.stream("POST", "/chat/stream", json=QUERY) as answer,
    ):
        pieces = answer.aiter_text()
        text = await anext(pieces)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        text += "".join([piece async for piece in pieces])
    assert problem_of_ndjson(text)["code"] == "not_ready"
