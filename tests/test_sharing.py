"""A front end whose models run in another process: the same answers, and what may go wrong."""

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from serving import batched, make_app, running
from sharing import LATE_S, Pair, counted, sharing, until

from app.batching.deadline import Deadline
from app.core.metrics import Metrics
from app.engines.base import Encoded, EngineRequest, FloatArray, Task
from app.engines.fake import FakeClassifier, FakeOptions
from app.errors import ModelNotReadyError, ModelUnavailableError, OverloadedError
from app.models.catalog import ModelSpec
from app.models.entries import ModelEntry, ModelState, Served
from app.models.steps import LoadSteps
from app.server.nameless import nameless
from app.services.prediction_log import AnsweredEntry, PredictionLogEntry
from app.sharing.facts import Facts
from app.sharing.frames import CANCEL, MAX_PAYLOAD_BYTES, PREFIX, Kind, frame, pack_json
from app.sharing.link import EngineLink
from app.sharing.scheduler import SharedScheduler

pytestmark = pytest.mark.core

CLASSIFIER = """
[[models]]
name = "dummy"
engine = "fake"
required = true
fake = { fail_on = "poison", oom_over = 4 }
"""
OTHERS = """
[[models]]
name = "vectors"
task = "embedding"
engine = "fake"
prompts = { query = "find: " }

[[models]]
name = "names"
task = "token-classification"
engine = "fake"

[[models]]
name = "ranker"
task = "text-ranking"
engine = "fake"

[[models]]
name = "nli"
task = "zero-shot-classification"
engine = "fake"

[[models]]
name = "echo"
task = "chat"
engine = "fake"
"""
REQUESTS: tuple[tuple[str, Any], ...] = (
    ("/predict", {"text": "a good film", "top_k": 2}),
    ("/predict", {"text": "one", "text_pair": "two"}),
    ("/predict", {"text": "poison"}),
    ("/predict", {"text": ""}),
    ("/predict/vectors", {"text": "no classifier"}),
    ("/predict-batch", {"texts": [*(f"text {n}" for n in range(30)), "poison", "", "é" * 600]}),
    ("/embed", {"texts": ["a", "bb"], "prompt_name": "query"}),
    ("/embed", {"texts": ["a"], "dimensions": 8}),
    ("/embed", {"texts": ["a"], "prompt_name": "none"}),
    ("/ner", {"text": "Ann Lee lives in Paris, with nobody"}),
    ("/ner", {"text": "nobody"}),
    ("/rerank", {"model": "ranker", "query": "q", "documents": ["a", "b", "c"]}),
    ("/zero-shot", {"text": "t", "labels": ["x", "y"], "multi_label": True}),
    ("/chat", {"query": "stays in the front end"}),
)
ONE_OF_ITS_OWN = ("request_id", "timestamp")


def plain(content: Any) -> Any:
    return {name: value for name, value in content.items() if name not in ONE_OF_ITS_OWN}


class Lengths:
    """Takes the place of the log, and remembers the tokens of each answer's input."""

    keeps_entries = False

    def __init__(self) -> None:
        self.found: list[tuple[str, int | None]] = []

    def put(self, entry: PredictionLogEntry) -> None:
        assert isinstance(entry, AnsweredEntry)
        self.found.append((entry.model, entry.input_tokens))


class Held(FakeClassifier):
    """Computes when the gate is open."""

    def __init__(self) -> None:
        request = EngineRequest(name="dummy", task=Task.CLASSIFICATION, engine="fake")
        super().__init__(request, FakeOptions())
        self.gate = threading.Event()
        self.batches: list[int] = []

    def classify(self, batch: Sequence[Encoded]) -> FloatArray:
        self.batches.append(len(batch))
        self.gate.wait(LATE_S)
        return super().classify(batch)


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    async with sharing(tmp_path, CLASSIFIER) as made:
        yield made


@contextmanager
def held(pair: Pair, **policy: Any) -> Iterator[Held]:
    """Put an engine of the test into the engine's process, one batch of one text at a time."""
    engine = Held()
    entry = pair.host.registry.entries[0]
    assert entry.served is not None
    entry.served = Served(
        model=batched(engine, metrics=pair.host.metrics, max_batch=1, **policy),
        version=entry.served.version,
    )
    try:
        yield engine
    finally:
        engine.gate.set()


def queued(pair: Pair) -> float:
    return counted(pair.host, "queue_depth", model="test")


async def predict(pair: Pair, text: str = "x", **headers: str) -> Any:
    answer = await pair.client.post("/predict", json={"text": text}, headers=headers)
    return answer.status_code, answer.json(), answer.headers.get("Retry-After")


async def test_answers_are_those_of_one_process(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    models = CLASSIFIER + OTHERS
    app = make_app(one, models)
    async with running(app) as alone, sharing(two, models) as pair:
        lengths = app.state.runtime.entries, pair.front.entries = Lengths(), Lengths()
        for path, body in REQUESTS:
            expected = await alone.post(path, json=body)
            found = await pair.client.post(path, json=body)
            assert found.status_code == expected.status_code, path
            assert plain(found.json()) == plain(expected.json())
        assert lengths[1].found == lengths[0].found
        assert ("vectors", len("find: find: ") + 3) in lengths[1].found
        expected, found = await alone.get("/models"), await pair.client.get("/models")
        assert found.json() == expected.json()
        assert (await pair.client.get("/ready")).json() == (await alone.get("/ready")).json()
        # Of the shared ones each text was run there, and is counted there alone.
        assert counted(pair.host, "batch_size_sum", model="names") == 2
        assert counted(pair.front, "batch_size_sum", model="names") == 0
        assert counted(pair.host, "wait_seconds_count", model="vectors") == 2
        assert counted(pair.front, "engine_failures_total", model="dummy") == 2
        assert "echo" not in {entry.spec.name for entry in pair.host.registry.entries}


async def test_what_the_engine_refuses_is_refused_as_in_one_process(pair: Pair) -> None:
    with held(pair, max_queued_tokens=4) as engine:
        first = asyncio.create_task(predict(pair, "abc"))
        await until(lambda: engine.batches == [1])
        status, problem, retry_after = await predict(pair, "much too long")
        assert (status, problem["code"], int(retry_after)) == (503, "overloaded", 1)
        assert counted(pair.host, "refused_total", model="test", reason="overloaded") == 1
        assert counted(pair.front, "refused_total", model="dummy", reason="overloaded") == 0
        engine.gate.set()
        assert (await first)[0] == 200


async def test_a_client_that_leaves_takes_its_texts_out_of_the_queue(pair: Pair) -> None:
    with held(pair) as engine:
        first = asyncio.create_task(predict(pair))
        await until(lambda: engine.batches == [1])
        leaver = asyncio.create_task(predict(pair))
        await until(lambda: queued(pair) == 1)
        leaver.cancel()
        await until(lambda: queued(pair) == 0)
        cancelled = {"model": "test", "stage": "queued"}
        await until(lambda: counted(pair.host, "cancelled_total", **cancelled) == 1)
        engine.gate.set()
        assert (await first)[0] == 200
        assert engine.batches == [1]


async def test_a_deadline_ends_the_wait_and_takes_the_text_out_of_the_queue(pair: Pair) -> None:
    with held(pair) as engine:
        first = asyncio.create_task(predict(pair))
        await until(lambda: engine.batches == [1])
        status, problem, _ = await predict(pair, **{"X-Request-Timeout-Ms": "50"})
        assert (status, problem["code"]) == (504, "deadline_exceeded")
        assert counted(pair.front, "refused_total", model="dummy", reason="deadline") == 1
        await until(lambda: queued(pair) == 0)
        engine.gate.set()
        assert (await first)[0] == 200


def link_of(pair: Pair) -> EngineLink:
    entry = pair.front.registry.entries[0]
    assert entry.served is not None
    assert isinstance(entry.served.model, SharedScheduler)
    return entry.served.model._link


async def test_a_lost_connection_is_a_typed_error_and_made_anew(pair: Pair) -> None:
    (entry,) = pair.front.registry.entries
    with held(pair) as engine:
        waiting = [asyncio.create_task(predict(pair)) for _ in range(3)]
        await until(lambda: queued(pair) == 2)
        transport = link_of(pair)._transport
        assert transport is not None
        transport.abort()
        for status, problem, retry_after in await asyncio.gather(*waiting):
            assert (status, problem["code"]) == (503, "model_not_ready")
            assert int(retry_after) >= 1
            assert "ended before it answered" in problem["detail"]
        # The engine's process sees a front end that has died: what it had queued is dropped.
        await until(lambda: queued(pair) == 0)
        assert counted(pair.front, "engine_link_losses_total") == 1
        engine.gate.set()
    await until(lambda: entry.state_now is ModelState.READY)
    assert (await predict(pair))[0] == 200


async def test_while_the_process_is_away_its_models_arent_ready(tmp_path: Path) -> None:
    async with sharing(tmp_path, CLASSIFIER) as pair:
        (entry,) = pair.front.registry.entries
        link = link_of(pair)
        link._address = "/nowhere"
        assert link._transport is not None
        link._transport.abort()
        await until(lambda: entry.state_now is ModelState.RESTARTING)
        ready = await pair.client.get("/ready")
        assert (ready.status_code, ready.json()["models"][0]["state"]) == (503, "restarting")
        status, problem, retry_after = await predict(pair)
        assert (status, problem["code"]) == (503, "model_not_ready")
        assert int(retry_after) >= 1
        assert (await pair.client.get("/health")).status_code == 200


async def test_what_is_no_frame_ends_the_connection_and_nothing_else(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    (entry,) = pair.front.registry.entries
    transport = link_of(pair)._transport
    assert transport is not None
    for wrong in (
        PREFIX.pack(MAX_PAYLOAD_BYTES + 1, 3),
        frame(Kind.REQUEST, b"short"),
        frame(Kind.REQUEST, bytes(20), b"no numbers"),
        frame(Kind.CANCEL, bytes(CANCEL.size + 1)),
        frame(Kind.ROWS, b""),
    ):
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.settimeout(0)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(stranger, link_of(pair)._address)
            await loop.sock_sendall(stranger, wrong)
            async with asyncio.timeout(LATE_S):
                try:
                    while await loop.sock_recv(stranger, 2**16):
                        pass
                except ConnectionResetError:
                    pass
    assert caplog.text.count("engine_link_broken") == 5
    assert link_of(pair)._transport is transport
    assert entry.state_now is ModelState.READY
    assert (await predict(pair))[0] == 200


async def test_a_model_that_cant_be_loaded_says_why_in_each_front_end(tmp_path: Path) -> None:
    broken = 'name = "broken"\nengine = "fake"\nfake = { fail_load = true }'
    models = f"{CLASSIFIER}\n[[models]]\n{broken}\nrequired = "
    async with sharing(tmp_path, models + "false") as pair:
        entry = pair.front.registry.entries[1]
        assert (entry.state, entry.reason) == (ModelState.FAILED, "engine_failed")
        assert entry.detail == pair.host.registry.entries[1].detail
        assert (await pair.client.get("/ready")).json()["degraded"] == ["model:broken"]
    with pytest.raises(Exception, match="told not to load"):
        async with sharing(tmp_path, models + "true"):
            pass


class Nothing:
    """A model that the registry is given, and that is never called."""

    can_close_early = True

    def problems(self, *, max_call_s: float) -> list[str]:
        return []

    def longest_call_s(self) -> float:
        return 0.0

    def close(self, *, timeout_s: float) -> None:
        """Nothing is held."""


class Peer:
    """An engine's process of the test, which says what it is told to."""

    def __init__(self) -> None:
        self.transports: list[asyncio.BaseTransport] = []
        self.frames: list[bytes] = []
        self.is_reading = True
        self.lost = 0

    def __call__(self) -> asyncio.Protocol:
        peer = self

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                assert isinstance(transport, asyncio.Transport)
                peer.transports.append(transport)
                transport.write(b"".join(peer.frames))
                if not peer.is_reading:
                    transport.pause_reading()

            def connection_lost(self, _: Exception | None) -> None:
                peer.lost += 1

        return Protocol()


def facts(**changes: Any) -> Facts:
    request = EngineRequest(name="dummy", task=Task.CLASSIFICATION, engine="fake")
    values: dict[str, Any] = {"name": "dummy", "index": 0, "version": "v", "load_s": 2.5}
    return Facts.of(FakeClassifier(request, FakeOptions()), **(values | changes))


def test_a_model_is_the_same_on_another_device_and_with_other_labels_another() -> None:
    first = facts()
    moved = replace(first, engine={**first.engine, "kind": "torch", "device": "cuda:0"})
    other = replace(first, engine={**first.engine, "labels": ["a", "b"]})
    assert moved.edition == first.edition != other.edition


@asynccontextmanager
async def linked(peer: Peer, metrics: Metrics) -> AsyncIterator[EngineLink]:
    """A front end's link to an engine's process of the test, where one model is up."""
    loop = asyncio.get_running_loop()
    with nameless() as (listener, address):
        server = await loop.create_unix_server(peer, sock=listener)
        link = EngineLink(
            f"/proc/self/fd/{address}",
            ["dummy"],
            steps=LoadSteps(),
            metrics=metrics,
            max_unsent_bytes=100_000,
        )
        async with link.running():
            await until(lambda: link.models["dummy"].is_up)
            yield link
        for transport in peer.transports:
            transport.close()
        server.close()
        await until(lambda: peer.lost == len(peer.transports))


async def test_a_process_that_doesnt_read_is_a_refusal_when_too_much_waits() -> None:
    peer, metrics = Peer(), Metrics()
    peer.frames, peer.is_reading = [frame(Kind.MODEL, facts().pack())], False
    async with linked(peer, metrics) as link:
        with ThreadPoolExecutor(1) as threads:
            scheduler = SharedScheduler(
                link.models["dummy"],
                engine=facts().make_engine(),
                link=link,
                tokenisers=threads,
                metrics=metrics,
            )
            deadline = Deadline.after(LATE_S)
            waiting = [
                asyncio.create_task(scheduler.submit(["x" * 500] * 50, deadline=deadline))
                for _ in range(40)
            ]
            # The kernel takes some, 100,000 bytes wait here, and the rest is refused.
            await until(lambda: sum(map(asyncio.Task.done, waiting)) + len(link._pending) == 40)
            refused = [task for task in waiting if task.done()]
            labels = {"model": "dummy", "reason": "unsent"}
            count = metrics.registry.get_sample_value("mlapi_refused_total", labels)
            peer.transports[0].close()
            failures = await asyncio.gather(*waiting, return_exceptions=True)
        assert count is not None
        assert count >= len(refused) > 0
        kinds = Counter(type(failure) for failure in failures)
        assert set(kinds) == {OverloadedError, ModelNotReadyError}
        for failure in failures:
            assert isinstance(failure, OverloadedError | ModelNotReadyError)
            # A start takes 2.5 s; reading goes on at any moment.
            assert failure.retry_after_s == (1 if isinstance(failure, OverloadedError) else 3)


async def test_a_model_that_is_another_one_after_a_restart_stays_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    peer = Peer()
    peer.frames = [frame(Kind.MODEL, facts().pack())]
    async with linked(peer, Metrics()) as link:
        model = link.models["dummy"]
        for other in (facts(version="w"), facts(load_s=9.0, index=3)):
            count = len(peer.transports)
            peer.frames = [frame(Kind.MODEL, other.pack()), frame(Kind.STATE, pack_json({}))]
            peer.transports[-1].close()
            await until(lambda count=count: len(peer.transports) > count)  # type: ignore[misc]
            await until(lambda: link._transport is not None)
            if other.version == "w":
                await until(lambda: "shared_model_changed" in caplog.text)
                assert not model.is_up
        # The same one again may have taken another time, and another place in the catalogue.
        await until(lambda: model.is_up)
        assert (model.index, model.retry_after_s()) == (3, 9)


async def test_a_model_that_a_restarted_process_cant_load_is_said_to_have_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def told(state: str, *, is_shared: bool = True) -> bytes:
        why = {"reason": "source_error", "detail": "the disk is away", "step": None}
        return frame(
            Kind.STATE, pack_json({"dummy": {"state": state, "is_shared": is_shared, **why}})
        )

    peer = Peer()
    peer.frames = [frame(Kind.MODEL, facts().pack())]
    async with linked(peer, Metrics()) as link:
        model = link.models["dummy"]
        serving = Served(model=Nothing(), version="v", engine=model)
        spec = ModelSpec(name="dummy", engine="fake")
        entry = ModelEntry(spec=spec, is_default=True, is_required=False, state=ModelState.READY)
        entry.served = serving

        async def restart(*frames: bytes) -> None:
            count = len(peer.transports)
            peer.frames = list(frames)
            peer.transports[-1].close()
            await until(lambda: len(peer.transports) > count and link._transport is not None)

        await restart(told("loading"))
        assert (entry.state_now, entry.reason_now) == (ModelState.RESTARTING, None)
        assert isinstance(model.away(), ModelNotReadyError)
        for refused in (told("failed"), told("unloaded", is_shared=False)):
            await restart(refused)
            await until(lambda: entry.state_now is ModelState.FAILED)
            assert isinstance(model.away(), ModelUnavailableError)
        assert "start the service again" in str(entry.detail_now)
        await restart(told("failed"))
        await until(lambda: entry.detail_now == "the disk is away")
        assert caplog.text.count("shared_model_lost") == 3
        await restart(frame(Kind.MODEL, facts().pack()))
        await until(lambda: entry.state_now is ModelState.READY)
        assert entry.detail_now is None


async def test_a_folder_with_a_gguf_file_is_left_to_front_ends_unread(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "model.gguf").write_bytes(b"GGUF" + bytes(60))
    entry = (
        '[[models]]\nname = "g"\ntask = "embedding"\nsource = "file:folder"\n'
        'engine = "auto"\nrequired = false\n'
    )
    async with sharing(tmp_path, CLASSIFIER + entry) as pair:
        (host,) = (e for e in pair.host.registry.entries if e.spec.name == "g")
        (front,) = (e for e in pair.front.registry.entries if e.spec.name == "g")
        await until(lambda: not front.is_loading)
        assert host.state is ModelState.UNLOADED, "it wasn't loaded, or it had failed"
        assert front.state is ModelState.FAILED
        assert "gguf" in str(front.detail).lower()


async def test_what_the_engines_process_may_not_send_ends_the_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    peer = Peer()
    peer.frames = [frame(Kind.MODEL, facts().pack())]
    async with linked(peer, Metrics()) as link:
        for wrong in (frame(Kind.CANCEL), frame(Kind.ROWS, b""), frame(Kind.MODEL, b"\0")):
            count = len(peer.transports)
            transport = peer.transports[-1]
            assert isinstance(transport, asyncio.Transport)
            transport.write(wrong)
            await until(lambda count=count: len(peer.transports) > count)  # type: ignore[misc]
            await until(lambda: link.models["dummy"].is_up)
    assert caplog.text.count("engine_link_broken") == 3
