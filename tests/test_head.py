"""HEAD: headers as GET has them, and nothing after them."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from serving import behind_front, serving
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route

pytestmark = pytest.mark.core


async def test_a_stream_without_end_ends_after_its_headers() -> None:
    ended = False

    async def pieces() -> AsyncGenerator[bytes]:
        nonlocal ended
        try:
            while True:
                yield b"x"
        finally:
            ended = True

    async with aclosing(pieces()) as endless:

        async def stream(_: Any) -> StreamingResponse:
            return StreamingResponse(endless, headers={"A": "b"})

        app = behind_front(Starlette(routes=[Route("/stream", stream, methods=["GET"])]))
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            await asyncio.Event().wait()

        scope = {
            "type": "http",
            "method": "HEAD",
            "path": "/stream",
            "headers": [],
            "query_string": b"",
        }
        await app(scope, receive, send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert (b"a", b"b") in sent[0]["headers"]
    assert sent[1] == {"type": "http.response.body", "body": b""}
    assert scope["method"] == "HEAD"
    assert ended


async def test_the_log_has_it_as_head_with_its_route(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with serving(tmp_path) as client:
        answer = await client.head("/models")
    assert answer.status_code == 200
    records = [vars(r) for r in caplog.records if r.message == "request_done"]
    assert [(r["method"], r["route"], r["status"]) for r in records] == [("HEAD", "/models", 200)]
