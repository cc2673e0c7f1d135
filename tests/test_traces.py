"""Traces, as a collector sees them: which spans there are, what is below what, what they say."""

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from collector import Collector, Seen, turn_on
from openai_misbehaviours import refuse
from openai_server import OpenAiServer, say
from serving import make_app, running, serve_instead, serving
from sharing import sharing
from test_logs import captured, lines
from test_remote_embedder import embeds
from test_sharing import Held

from app.core.metrics import Metrics
from app.core.otel import TracingError, has_metrics, is_wanted, open_telemetry
from app.doctor.settings import _traces

ON = "OTEL_EXPORTER_OTLP_ENDPOINT"
SECRET = "words of a user that no span may have"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SENT = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "them=1"}
UNSAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
MODELS = """
[[models]]
name = "dummy"
engine = "fake"
required = true
fake = { fail_on = "poison" }

[[models]]
name = "vectors"
task = "embedding"
engine = "fake"

[[models]]
name = "echo"
task = "chat"
engine = "fake"
"""


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with Collector() as made:
        turn_on(monkeypatch, made)
        yield made


def in_trace(trace_id: str = TRACE) -> Any:
    return lambda span: span.trace_id == trace_id


def is_within(inner: Seen, outer: Seen) -> bool:
    return outer.start_ns <= inner.start_ns <= inner.end_ns <= outer.end_ns


async def test_a_request_is_traced_through_its_queue_and_its_batch(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(tmp_path, MODELS)
    body = {"text": SECRET}
    with captured(monkeypatch) as stream:
        async with running(app) as client:
            engine = Held()
            serve_instead(app, engine)
            first = asyncio.create_task(client.post("/predict", json=body))
            while not engine.batches:
                await asyncio.sleep(0)
            # These two wait together, and so run together.
            ours = asyncio.create_task(client.post("/predict", json=body, headers=SENT))
            mate = asyncio.create_task(client.post("/predict", json=body))
            while (
                app.state.runtime.metrics.registry.get_sample_value(
                    "mlapi_queue_depth", {"model": "test"}
                )
                != 2
            ):
                await asyncio.sleep(0.001)
            engine.gate.set()
            assert {(await one).status_code for one in (first, ours, mate)} == {200}
            accept = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"}
            page = await client.get("/metrics", headers=accept)
            plain = await client.get("/metrics")
    server = collector.one("POST /predict", in_trace())
    assert (server.kind, server.parent_id, server.state) == ("server", PARENT, "them=1")
    assert (
        server.attributes.items()
        >= {
            "http.request.method": "POST",
            "http.route": "/predict",
            "url.path": "/predict",
            "url.scheme": "http",
            "http.response.status_code": 200,
        }.items()
    )
    assert server.resource.items() >= {"service.name": "ml-api", "mlapi.process": "api"}.items()
    run = collector.one("inference dummy", in_trace())
    assert run.parent_id == server.span_id
    assert run.attributes["mlapi.items"] == 1
    tokenise, queue = (collector.one(name, in_trace()) for name in ("tokenise", "queue"))
    assert {tokenise.parent_id, queue.parent_id} == {run.span_id}
    (batch,) = (span for span in collector.named("batch") if span.attributes["mlapi.items"] == 2)
    assert queue.links == (batch.span_id,)
    mates = [span.span_id for span in collector.named("inference dummy")]
    assert run.span_id in batch.links
    assert set(batch.links) < set(mates)
    assert len(batch.links) == 2
    assert batch.parent_id in batch.links
    engines = [span for span in collector.named("engine") if span.parent_id == batch.span_id]
    assert [span.attributes for span in engines] == [{"mlapi.items": 2}]
    for inner, outer in ((run, server), (tokenise, run), (queue, run), (engines[0], batch)):
        assert is_within(inner, outer), (inner.name, outer.name)
    assert len({span.trace_id for span in collector.named("POST /predict")}) == 3
    assert not any(span.is_error for span in collector.spans)
    # Nothing of a text, and nothing of probes.
    assert not any(SECRET.encode() in sent for sent in collector.bodies)
    assert collector.named("GET /metrics") == []
    (line,) = (one for one in lines(stream) if one.get("trace_id") == TRACE)
    assert (line["event"], line["span_id"]) == ("request_done", server.span_id)
    assert page.headers["content-type"].startswith("application/openmetrics-text")
    traces = {span.trace_id for span in collector.named("POST /predict")}
    exemplars = re.findall(r'(\w+)_bucket\{.*# \{span_id="\w+",trace_id="(\w+)"\}', page.text)
    assert {name for name, _ in exemplars} == {
        "http_request_duration_seconds",
        "http_request_duration_highr_seconds",
        "mlapi_wait_seconds",
    }
    assert {trace_id for _, trace_id in exemplars} <= traces
    assert page.text.endswith("# EOF\n")
    assert "trace_id" not in plain.text


async def test_errors_are_on_their_spans_by_code_and_without_words(
    tmp_path: Path, collector: Collector
) -> None:
    bad = f"poison {SECRET}"
    async with serving(tmp_path, MODELS) as client:
        failed = await client.post("/predict", json={"text": bad})
        unknown = await client.post("/predict/nothing", json={"text": SECRET})
        lost = await client.get(f"/{SECRET.replace(' ', '-')}")
    assert [one.status_code for one in (failed, unknown, lost)] == [500, 404, 404]
    server = collector.one("POST /predict")
    assert (server.is_error, server.description) == (True, "inference_failed")
    assert server.attributes["error.type"] == "inference_failed"
    engine = collector.one("engine")
    assert engine.is_error
    assert [event["name"] for event in engine.events] == ["exception"]
    missing = collector.one("POST /predict/{model_name}")
    assert not missing.is_error
    assert missing.attributes["http.response.status_code"] == 404
    # A path that no route has is the client's own words.
    assert "url.path" not in collector.one("GET").attributes
    assert not any(b"words" in sent or b"poison" in sent for sent in collector.bodies)


@pytest.mark.parametrize("path", ["/chat/stream", "/v1/chat/completions"])
async def test_chat_has_the_conventions_of_generative_ai(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    with Collector() as collector:
        turn_on(monkeypatch, collector, OTEL_METRICS_EXPORTER="otlp")
        messages = [{"role": "user", "content": f"one two {SECRET}"}]
        body = {"messages": messages, "max_tokens": 3, "temperature": 0.5, "stop": [SECRET[:5]]}
        async with serving(tmp_path, MODELS) as client:
            answer = await client.post(path, json=body, headers=SENT)
            assert answer.status_code == 200, answer.text
    server, chat = collector.one(f"POST {path}"), collector.one("chat echo")
    assert (chat.trace_id, chat.parent_id, chat.kind) == (TRACE, server.span_id, "internal")
    assert collector.below(chat) == ["queue"]
    assert (
        chat.attributes.items()
        >= {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "fake",
            "gen_ai.request.model": "echo",
            "gen_ai.request.max_tokens": 3,
            "gen_ai.request.temperature": 0.5,
            "gen_ai.usage.output_tokens": 3,
        }.items()
    )
    assert chat.attributes["gen_ai.usage.input_tokens"] > 0
    assert chat.attributes["gen_ai.response.finish_reasons"] == ["length"]
    assert chat.attributes["gen_ai.response.time_to_first_chunk"] > 0
    shared = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "echo"}
    used = collector.points["gen_ai.client.token.usage"]
    assert {a["gen_ai.token.type"]: p.sum for a, p in used}["output"] == 3
    for name in ("request.duration", "time_to_first_token", "time_per_output_token"):
        ((attributes, point),) = collector.points[f"gen_ai.server.{name}"]
        assert attributes.items() >= shared.items()
        assert (point.count, point.sum > 0) == (1, True)
    assert not any(b"words of" in sent for sent in collector.bodies)


async def test_other_servers_get_the_context_and_nothing_else_of_the_client(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-a-secret-key")
    entry = """
[[models]]
name = "{name}"
task = "{task}"
engine = "remote"
source = "openai:{name}"
base_url = "{url}"
api_key_env = "TEST_KEY"
{more}
"""
    with OpenAiServer(say("Hi"), refuse(400), say("Hi")) as chat, OpenAiServer(embeds()) as vectors:
        models = entry.format(name="far", task="chat", url=chat.url, more="")
        sized = {"task": "embedding", "more": "dimensions = 6"}
        models += entry.format(name="near", url=vectors.url, **sized)
        async with serving(tmp_path, models) as client:
            headers = {**SENT, "baggage": f"user={SECRET.split(maxsplit=1)[0]}"}
            told = await client.post("/chat", json={"query": "hi"}, headers=headers)
            refused = await client.post("/chat", json={"query": "hi"}, headers=headers)
            embedded = await client.post("/embed", json={"texts": ["a"]}, headers=headers)
            unsampled = await client.post("/chat", json={"query": "hi"}, headers=UNSAMPLED)
        asked = [one.headers for one in (*chat.requests, *vectors.requests)]
    assert [one.status_code for one in (told, embedded, unsampled)] == [200, 200, 200]
    good, bad = collector.named("chat far")
    assert (good.kind, good.attributes["gen_ai.provider.name"]) == ("client", "openai")
    assert bad.is_error
    assert bad.attributes["error.type"] == refused.json()["code"]
    engine = collector.one("engine")
    assert [one["traceparent"] for one in asked] == [
        f"00-{TRACE}-{good.span_id}-01",
        f"00-{TRACE}-{bad.span_id}-01",
        *(one["traceparent"] for one in asked[2:3]),
        f"00-{TRACE}-{engine.span_id}-01",
    ]
    # Not sampled: the other server is told that too, and the collector nothing.
    assert asked[2]["traceparent"].startswith(f"00-{TRACE}-")
    assert asked[2]["traceparent"].endswith("-00")
    assert [one.get("tracestate") for one in asked] == ["them=1", "them=1", None, "them=1"]
    assert not any("baggage" in one for one in asked)
    embeddings = collector.one("embeddings near")
    assert embeddings.attributes["gen_ai.operation.name"] == "embeddings"
    assert embeddings.attributes["gen_ai.usage.input_tokens"] > 0


async def test_front_ends_and_the_process_of_their_models_share_a_trace(
    tmp_path: Path, collector: Collector
) -> None:
    async with sharing(tmp_path, MODELS) as pair:
        answer = await pair.client.post("/predict", json={"text": "x"}, headers=SENT)
        assert answer.status_code == 200
    run, batch = collector.one("inference dummy"), collector.one("batch")
    assert (batch.trace_id, batch.parent_id) == (TRACE, run.span_id)
    assert batch.links == (run.span_id,)
    assert collector.below(run) == ["batch", "queue", "tokenise"]
    assert run.resource["mlapi.process"] == "api"
    assert batch.resource["mlapi.process"] == "engine"


def test_the_doctor_says_where_spans_go_or_why_they_do_not() -> None:
    (good,) = _traces({ON: "https://user:secret@collector:4318/?key=secret"})
    (bad,) = _traces({ON: "http://c", "OTEL_TRACES_EXPORTER": "zipkin"})
    assert (good.level, good.said) == ("ok", "spans go to collector")
    assert (bad.level, bad.said) == ("warn", "off: OTEL_TRACES_EXPORTER is otlp or none")
    assert list(_traces({"OTEL_SERVICE_NAME": "x"})) == []


@pytest.mark.parametrize(
    "header", ["", "00-0-0-01", f"00-{'0' * 32}-{PARENT}-01", "é" * 40, "0" * 5_000]
)
async def test_what_is_no_traceparent_begins_a_trace(
    tmp_path: Path, collector: Collector, header: str
) -> None:
    async with serving(tmp_path, MODELS) as client:
        sent = [(b"traceparent", header.encode()), (b"tracestate", b"=,;,\xff=")]
        answer = await client.post("/predict", json={"text": "x"}, headers=sent)
    assert answer.status_code == 200
    server = collector.one("POST /predict")
    assert server.parent_id == ""
    assert server.trace_id != TRACE


async def test_a_collector_that_is_away_is_counted_and_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Collector(status=400) as collector, captured(monkeypatch) as stream:
        turn_on(monkeypatch, collector)
        async with serving(tmp_path, MODELS) as client:
            for _ in range(3):
                assert (await client.post("/predict", json={"text": "x"})).status_code == 200
                await asyncio.sleep(0.06)  # each is an export of its own
            page = (await client.get("/metrics")).text
    assert len(collector.headers) > 1
    said = [one for one in lines(stream) if one["event"] == "telemetry_not_exported"]
    assert [(one["what"], one["reason"]) for one in said] == [("spans", "status 400")]
    assert 'mlapi_spans_total{outcome="failed"} 0.0' not in page
    assert 'mlapi_spans_total{outcome="exported"} 0.0' in page


async def test_a_collector_that_hangs_holds_up_neither_requests_nor_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Collector() as collector, captured(monkeypatch) as stream:
        turn_on(
            monkeypatch,
            collector,
            OTEL_BSP_MAX_QUEUE_SIZE="12",
            OTEL_BSP_MAX_EXPORT_BATCH_SIZE="6",
        )
        collector.go.clear()
        async with serving(tmp_path, MODELS) as client:
            for _ in range(5):
                assert (await client.post("/predict", json={"text": "x"})).status_code == 200
            page = (await client.get("/metrics")).text
            ended_s = time.monotonic()
        assert time.monotonic() - ended_s < 5
    # Of 30 spans: those in flight count too.
    assert 'mlapi_spans_total{outcome="dropped"} 18.0' in page
    assert [one["after_s"] for one in lines(stream) if one["event"] == "spans_left_behind"] == [2.0]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({ON: "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({ON: "http://c", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({ON: "http://c", "OTEL_SDK_DISABLED": "True"}, False),
        ({ON: "http://c", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, True),
        ({ON: "http://c", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, None),
        ({ON: "http://c", "OTEL_TRACES_EXPORTER": "zipkin"}, None),
    ],
)
def test_the_usual_variables_turn_it_on(
    variables: dict[str, str], *, expected: bool | None
) -> None:
    if expected is None:
        with pytest.raises(TracingError):
            is_wanted(variables)
    else:
        assert is_wanted(variables) is expected
    assert not has_metrics(variables)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf"),
        ("OTEL_PROPAGATORS", "pigeon", "OTEL_PROPAGATORS: there is no 'pigeon'"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "max_queue_size"),
    ],
)
def test_what_keeps_it_from_starting_is_one_line_and_the_service_starts(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    variables = {ON: "http://c", name: value}
    for variable, text in variables.items():
        monkeypatch.setenv(variable, text)
    with captured(monkeypatch) as stream:
        assert open_telemetry(variables, Metrics(), process="api") is None
    (line,) = lines(stream)
    assert (line["level"], line["event"]) == ("WARNING", "tracing_off")
    assert said in line["reason"]


PROGRAM = """
import asyncio, logging, sys
from pathlib import Path
logging.basicConfig(format="%(message)s %(reason)s %(install)s", level=logging.WARNING)
if "missing" in sys.argv:
    sys.modules["opentelemetry.sdk"] = None
from serving import serving

async def main():
    async with serving(Path(sys.argv[1])) as client:
        assert (await client.post("/predict", json={"text": "x"})).status_code == 200

asyncio.run(main())
heavy = ("opentelemetry.sdk.trace", "opentelemetry.exporter", "opentelemetry.proto", "requests")
print([name for name in heavy if name in sys.modules])
"""


@pytest.mark.parametrize(
    ("variables", "is_missing"),
    [({}, False), ({ON: "http://127.0.0.1:1"}, True)],
    ids=["off", "not installed"],
)
def test_off_nothing_of_the_sdk_is_imported_and_without_it_a_line_says_what_to_install(
    tmp_path: Path, variables: dict[str, str], *, is_missing: bool
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), *(["missing"] if is_missing else [])],
        env={**os.environ, "PYTHONPATH": "tests:.", **variables},
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert is_missing or json.loads(ended.stdout.replace("'", '"')) == []
    said = re.search(r"^tracing_off no opentelemetry\.sdk\S* (.*)$", ended.stderr, re.MULTILINE)
    assert (said and said[1]) == ("pip install 'ml-api[tracing]'" if is_missing else None)
