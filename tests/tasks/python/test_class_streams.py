"""`/predict/{name}/stream`: pieces as a class yields them, from a thread and from a process."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from httpx2 import AsyncClient
from openapi_spec_validator import validate
from serving import FAKE, make_app, running, serving
from test_disconnect import Client, scope

from app.core.ending import TIME_IS_OVER
from app.core.request_kinds import PathKinds, RequestKind
from app.main import installed
from app.runtime.kinds import request_kinds

LATE = 30.0
MODEL = """
import os, pathlib, signal, time
from collections.abc import AsyncIterator, Iterator

HERE = pathlib.Path(__file__)

class Model:
    def predict_one(self, item: str) -> str:
        return item

    def stream(self, item: str) -> Iterator[str]:
        try:
            for word in item.split():
                if word == "raise":
                    raise ValueError("hunter2")
                if word == "wrong":
                    yield 3
                if word == "crash":
                    signal.raise_signal(signal.SIGSEGV)
                while word == "endless":
                    time.sleep(0.01)
                    yield word
                yield word
        finally:
            HERE.with_name("closed").touch()
"""
ASYNC = MODEL.replace("def stream", "async def stream").replace(
    "Iterator[str]", "AsyncIterator[str]"
)
# An object that is iterated, and no generator.
ITERABLE = """
from collections.abc import AsyncIterable

class Words:
    def __init__(self, words):
        self.words = iter(words)

    def __aiter__(self):
        return Steps(self.words)

class Steps:
    def __init__(self, words):
        self.words = words

    async def __anext__(self):
        for word in self.words:
            return word
        raise StopAsyncIteration

class Model:
    def predict_one(self, item: str) -> str:
        return item

    def stream(self, item: str) -> AsyncIterable[str]:
        return Words(item.split())
"""
ENTRY = """
[[models]]
name = "mine"
engine = "python"
source = "file:model.py:Model"
slots = 2
isolation = """
EACH = pytest.mark.parametrize("isolation", ["thread", "process"])


def write(folder: Path, isolation: str, code: str = MODEL) -> str:
    (folder / "model.py").write_text(code, encoding="utf-8")
    return FAKE + ENTRY + f'"{isolation}"\n'


async def lines(client: AsyncClient, item: Any) -> list[Any]:
    answer = await client.post("/predict/mine/stream", json=item)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


@EACH
@pytest.mark.parametrize("code", [MODEL, ASYNC, ITERABLE], ids=["plain", "async", "iterable"])
async def test_pieces_come_as_lines_and_the_last_says_that_it_is_the_end(
    tmp_path: Path, isolation: str, code: str
) -> None:
    async with serving(tmp_path, write(tmp_path, isolation, code)) as client:
        assert await lines(client, "one zwölf\u2028") == [
            {"answer": "one"},
            {"answer": "zwölf"},
            {"done": True},
        ]
        assert await lines(client, "") == [{"done": True}]
        events = await client.post(
            "/predict/mine/stream", json="one", headers={"Accept": "text/event-stream"}
        )
        assert events.text == 'data: {"answer":"one"}\n\ndata: {"done":true}\n\n'


@EACH
async def test_an_error_before_the_first_piece_has_its_status_and_a_later_one_is_the_last_line(
    tmp_path: Path, isolation: str
) -> None:
    async with serving(tmp_path, write(tmp_path, isolation)) as client:
        first = await client.post("/predict/mine/stream", json="raise")
        assert (first.status_code, first.json()["code"]) == (500, "inference_failed")
        invalid = await client.post("/predict/mine/stream", json=3)
        assert (invalid.status_code, invalid.json()["code"]) == (422, "invalid_request")
        for word in ("raise", "wrong"):
            piece, last = await lines(client, f"one {word} two")
            assert (piece, last["done"]) == ({"answer": "one"}, True)
            assert last["error"]["code"] == "inference_failed"
            assert "hunter2" not in str(last)


async def test_a_crash_in_the_middle_is_the_last_line(tmp_path: Path) -> None:
    async with serving(tmp_path, write(tmp_path, "process")) as client:
        piece, last = await lines(client, "one crash")
        assert piece == {"answer": "one"}
        assert (last["error"]["status"], last["error"]["code"]) == (503, "model_crashed")
        assert (await client.post("/predict/dummy", json={"text": "x"})).status_code == 200


async def begun(app: Any, item: bytes = b'"endless"') -> tuple[Client, "asyncio.Task[None]"]:
    """Begin a stream; return its client and its request, once a piece has come."""
    client = Client(item)
    asked = asyncio.create_task(app(scope("/predict/mine/stream"), client.receive, client.send))
    async with asyncio.timeout(LATE):
        while not any(message.get("body") for message in client.sent):
            await asyncio.sleep(0.01)
    return client, asked


def last_line(client: Client) -> Any:
    body = b"".join(message.get("body", b"") for message in client.sent)
    return json.loads(body.splitlines()[-1])


@EACH
async def test_a_client_that_leaves_closes_the_generator(tmp_path: Path, isolation: str) -> None:
    app = make_app(tmp_path, write(tmp_path, isolation))
    async with running(app) as client:
        leaver, asked = await begun(app)
        async with asyncio.timeout(LATE):
            assert not (tmp_path / "closed").exists()
            leaver.left.set()
            await asked
            while not (tmp_path / "closed").exists():
                await asyncio.sleep(0.01)
            (entry,) = (e for e in app.state.runtime.registry.entries if e.spec.name == "mine")
            while entry.leases:
                await asyncio.sleep(0.01)
        assert (await lines(client, "one"))[0] == {"answer": "one"}


@EACH
async def test_more_streams_than_slots_are_refused_and_the_deadline_ends_one(
    tmp_path: Path, isolation: str
) -> None:
    app = make_app(tmp_path, write(tmp_path, isolation), chat_timeout_ms=1_000)
    async with running(app) as client:
        running_ones = [asyncio.create_task(lines(client, "endless")) for _ in "12"]
        (entry,) = (e for e in app.state.runtime.registry.entries if e.spec.name == "mine")
        async with asyncio.timeout(LATE):
            while entry.leases < 2:
                await asyncio.sleep(0.01)
        refused = await client.post("/predict/mine/stream", json="one")
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        for pieces in await asyncio.gather(*running_ones):
            assert pieces[-1]["error"]["code"] == "deadline_exceeded"


@EACH
async def test_a_cleanup_that_raises_ends_no_other_stream_and_tells_no_words(
    tmp_path: Path, isolation: str, caplog: pytest.LogCaptureFixture
) -> None:
    code = MODEL.replace('HERE.with_name("closed").touch()', 'raise RuntimeError("hunter2")')
    app = make_app(tmp_path, write(tmp_path, isolation, code), chat_timeout_ms=500)
    async with running(app) as client:
        for _ in range(2):
            pieces = await lines(client, "endless")
            assert pieces[-1]["error"]["code"] == "deadline_exceeded"
        assert (await client.post("/predict/mine", json="one")).json() == "one"
    assert not [r for r in caplog.records if r.getMessage() == "model_process_ended"]
    assert "hunter2" not in caplog.text


async def test_a_model_without_streams_is_404_and_others_are_in_the_document(
    tmp_path: Path,
) -> None:
    plain = FAKE + ENTRY + '"thread"\n' + ENTRY.replace("mine", "plain").replace("model.py", "p.py")
    (tmp_path / "p.py").write_text(
        "class Model:\n    def predict_one(self, item: int) -> int:\n        return item\n", "utf-8"
    )
    write(tmp_path, "thread")
    async with serving(tmp_path, plain + '"thread"\n') as client:
        none = await client.post("/predict/plain/stream", json=1)
        assert (none.status_code, none.json()["code"]) == (404, "not_found")
        document = (await client.get("/openapi.json")).json()
        validate(document)
        assert "/predict/mine/stream" in document["paths"]
        assert "/predict/plain/stream" not in document["paths"]
        assert document["components"]["schemas"]["piece-body.mine"] == {"type": "string"}


def test_a_stream_takes_the_place_of_a_stream_and_a_call_that_of_a_call() -> None:
    kinds = PathKinds(request_kinds(installed().tasks))
    assert kinds.of(b"/predict/mine/stream", b"POST") is RequestKind.STREAM
    assert kinds.of(b"/predict/mine", b"POST") is RequestKind.INFERENCE
    assert kinds.of(b"/predict/mine/other", b"POST") is RequestKind.OTHER


async def test_each_end_of_a_stream_is_counted_and_logged(tmp_path: Path) -> None:
    app = make_app(tmp_path, write(tmp_path, "thread"))
    async with running(app) as client:
        await lines(client, "one")
        await lines(client, "one raise")
        value = app.state.runtime.metrics.registry.get_sample_value
        for end in ("stop", "failed"):
            assert value("mlapi_generations_total", {"model": "mine", "end": end}) == 1
        assert value("mlapi_engine_failures_total", {"model": "mine"}) == 1
        rows: list[Any] = []
        async with asyncio.timeout(LATE):
            while len(rows) < 2:  # they are written a moment later
                rows = (await client.get("/predictions")).json()["predictions"]
        assert [row.get("error") for row in rows] == ["inference_failed", None]


async def test_a_shutdown_is_counted_as_one_and_the_requests_line_names_the_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    app = make_app(tmp_path, write(tmp_path, "thread"))
    async with running(app) as client:
        reader, asked = await begun(app)
        asked.cancel(TIME_IS_OVER)
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert last_line(reader)["error"]["code"] == "not_ready"
        value = app.state.runtime.metrics.registry.get_sample_value
        ends = {"shutdown": 1, "client_left": None}
        for end, count in ends.items():
            assert value("mlapi_generations_total", {"model": "mine", "end": end}) == count
        rows: list[Any] = []
        async with asyncio.timeout(LATE):
            while not rows:  # they are written a moment later
                rows = (await client.get("/predictions")).json()["predictions"]
        assert [(row["status"], row["error"]) for row in rows] == [(503, "not_ready")]
    (line,) = [
        vars(r)
        for r in caplog.records
        if r.message == "request_done" and vars(r)["route"].endswith("/stream")
    ]
    assert (line["model"], line["count"]) == ("mine", 1)
    assert line["model_ms"] > 0


@EACH
async def test_streams_of_a_class_that_is_replaced_end_when_its_time_is_over(
    tmp_path: Path, isolation: str
) -> None:
    app = make_app(tmp_path, write(tmp_path, isolation))
    async with running(app) as client:
        registry = app.state.runtime.registry
        (entry,) = (e for e in registry.entries if e.spec.name == "mine")
        old, loans = entry.served, entry.loans
        reader, asked = await begun(app)
        async with asyncio.timeout(LATE):
            await registry.reload("mine", timeout_s=0.0)
            await asked
            while loans.count or (not (tmp_path / "closed").exists() and isolation == "thread"):
                await asyncio.sleep(0.01)
        assert last_line(reader)["error"]["code"] == "not_ready"
        assert (await lines(client, "one"))[0] == {"answer": "one"}
        if isolation == "process":
            engine = old.model.engine
            assert engine.processes().ready == 0
            assert all(p._running.process.returncode is not None for p in engine._runner.processes)
