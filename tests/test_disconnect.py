"""Clients that leave: their work ends with them."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from serving import behind_front, make_app, running, serve_instead
from test_scheduler import Engine, hold, queued

pytestmark = pytest.mark.core


def scope(path: str, method: str = "POST") -> dict[str, Any]:
    headers = [(b"content-type", b"application/json"), (b"transfer-encoding", b"chunked")]
    return {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": headers if method == "POST" else [],
    }


class Client:
    """An ASGI client that sends one body and can hang up."""

    def __init__(self, body: bytes) -> None:
        self.left = asyncio.Event()
        self.sent: list[Any] = []
        self._body: bytes | None = body

    async def receive(self) -> Any:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)


@pytest.mark.parametrize(
    ("path", "body", "texts"),
    [
        ("/predict", b'{"text":"leaver"}', 1),
        ("/predict/dummy", b'{"text":"leaver"}', 1),
        ("/predict-batch", b'{"texts":["leaver","leaver"]}', 2),
    ],
)
async def test_a_client_that_leaves_is_not_answered_and_its_texts_never_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, path: str, body: bytes, texts: int
) -> None:
    app, engine, client = make_app(tmp_path), Engine(), Client(body)
    caplog.set_level("INFO")
    async with running(app):
        scheduler = serve_instead(app, engine)
        engine.labels = ("NEGATIVE", "POSITIVE")  # type: ignore[assignment]  # as many as it likes
        first = await hold(engine, scheduler)
        asked = asyncio.create_task(app(scope(path), client.receive, client.send))
        await queued(scheduler, texts)
        client.left.set()
        await asked
        engine.gate.set()
        await first
        sample = app.state.runtime.metrics.registry.get_sample_value
        labels = {"model": "test", "stage": "queued"}
        assert sample("mlapi_cancelled_total", labels) == texts
        assert not sample("mlapi_wasted_items_total", {"model": "test"})
    assert [m.get("status") for m in client.sent] == [499, None], "which servers send to nobody"
    assert engine.batches == [[7]]
    done = [r for r in caplog.records if r.message == "request_done"]
    assert vars(done[0])["status"] == 499


async def test_a_server_that_shuts_down_cancels_the_handler_itself() -> None:
    started = asyncio.Event()

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        started.set()
        await asyncio.Event().wait()

    client = Client(b"{}")
    task = asyncio.create_task(behind_front(app)(scope("/x"), client.receive, client.send))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_handler_that_listens_hears_of_the_disconnect_too() -> None:
    heard: list[str] = []

    async def app(_scope: Any, receive: Any, _send: Any) -> None:
        heard.append((await receive())["type"])
        try:
            heard.append((await receive())["type"])
        except asyncio.CancelledError:
            heard.append("cancelled")
            raise

    client = Client(b"{}")
    task = asyncio.create_task(behind_front(app)(scope("/x"), client.receive, client.send))
    while not heard:
        await asyncio.sleep(0)
    client.left.set()
    await task
    assert heard == ["http.request", "cancelled"]


async def test_other_scopes_and_requests_without_a_body_pass_through() -> None:
    seen: list[Any] = []

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        seen.append(receive)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    client = Client(b"")
    front = behind_front(app)
    await front(scope("/x", "GET"), client.receive, client.send)
    await front({"type": "lifespan"}, client.receive, client.send)
    assert seen == [client.receive, client.receive]


async def test_what_runs_after_the_answer_is_not_cancelled() -> None:
    ended = asyncio.Event()
    client = Client(b"{}")

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        client.left.set()  # as servers say it once the answer is out
        for _ in range(5):
            await asyncio.sleep(0)
        ended.set()

    await behind_front(app)(scope("/x"), client.receive, client.send)
    assert ended.is_set()


async def test_a_client_that_left_is_499_in_the_metrics_too(tmp_path: Path) -> None:
    app, engine, client = make_app(tmp_path), Engine(), Client(b'{"text":"leaver"}')
    async with running(app) as other:
        scheduler = serve_instead(app, engine)
        first = await hold(engine, scheduler)
        asked = asyncio.create_task(app(scope("/predict"), client.receive, client.send))
        await queued(scheduler, 1)
        client.left.set()
        await asked
        engine.gate.set()
        await first
        metrics = (await other.get("/metrics")).text
    assert 'http_requests_total{handler="/predict",method="POST",status="499"} 1.0' in metrics


async def test_a_request_that_a_shutdown_cuts_off_is_answered_503(tmp_path: Path) -> None:
    app, engine, client = make_app(tmp_path), Engine(), Client(b'{"text":"late"}')
    async with running(app):
        scheduler = serve_instead(app, engine)
        first = await hold(engine, scheduler)
        asked = asyncio.create_task(app(scope("/predict"), client.receive, client.send))
        await queued(scheduler, 1)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        engine.gate.set()
        await first
    assert client.sent[0]["status"] == 503
    assert b"shutting down" in client.sent[1]["body"]
