"""Rules, dashboard and runbook in a real Prometheus that scrapes the real service and worker."""

import math
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from process import STOP_TIMEOUT_S, Service, service
from servers import free_port

from scripts.check_monitoring import (
    PROMETHEUS,
    RULES,
    RUNBOOK,
    dashboard_queries,
    find_with_promtool,
    read_dashboard,
    read_rules,
    runbook_blocks,
)

pytestmark = pytest.mark.system

MODELS = """
[[models]]
name = "sorter"
engine = "fake"
default = true
required = true
fake = { delay_ms = 50, load_delay_ms = 2000, fail_on = "poison" }

[[models]]
name = "vectors"
task = "embedding"
engine = "fake"
default = true
required = true

[[models]]
name = "talker"
task = "chat"
engine = "fake"
default = true
required = true
fake = { delay_ms = 5 }
"""
TIMEOUT_S = 150.0
PAUSE_S = 0.5
SELECTOR = re.compile(r"\b[a-z_]+(?:_[a-z]+|:[\w:]+)(?:\{[^}]*\})?|\bup\{[^}]*\}")
NAMES = re.compile(r"(?:mlapi|http|process)_|up\{|\w+:\w+:\w+")
METRIC = re.compile(r"mlapi_\w+")
# Of what doesn't happen here: batches, uploads, versions, models on demand, processes of Python
# classes, drift, traces, bodies and responses that are given up. They have no series until it does.
UNSEEN = {
    "mlapi_bodies_refused_total",
    "mlapi_drift_ks",
    "mlapi_drift_psi",
    "mlapi_drift_windows_total",
    "mlapi_model_process_ends_total",
    "mlapi_model_processes",
    "mlapi_model_rollbacks_total",
    "mlapi_model_swaps_total",
    "mlapi_model_version_leases_total",
    "mlapi_model_version_ready",
    "mlapi_model_version_share",
    "mlapi_on_demand_loads_total",
    "mlapi_on_demand_unloads_total",
    "mlapi_openai_batch_attempts_total",
    "mlapi_openai_batch_lines_total",
    "mlapi_openai_batches_total",
    "mlapi_openai_uploads_total",
    "mlapi_responses_dropped_total",
    "mlapi_shadow_copies_total",
    "mlapi_spans_total",
}
needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None,
    reason="there is no prometheus on this machine (Debian: prometheus)",
)
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="there is no promtool on this machine (Debian: prometheus)",
)


class Watch:
    """A running Prometheus, which is asked for what it has."""

    def __init__(self, client: httpx2.Client) -> None:
        self._client = client

    def has(self, query: str) -> bool:
        """Say whether a query gives a number; NaN, as of a division by nothing, is none."""
        answer = self._client.get("/api/v1/query", params={"query": query})
        body: dict[str, Any] = answer.json()
        assert body["status"] == "success", (query, body)
        return any(math.isfinite(float(found["value"][1])) for found in body["data"]["result"])

    def is_ready(self) -> bool:
        with suppress(httpx2.TransportError):
            return self._client.get("/-/ready").status_code == 200
        return False


@contextmanager
def prometheus(folder: Path, targets: dict[str, str]) -> Iterator[Watch]:
    """Run the committed configuration, every second, against other addresses."""
    read = yaml.safe_load(PROMETHEUS.read_text(encoding="utf-8"))
    read["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    read["rule_files"] = [str(PROMETHEUS.parent / name) for name in read["rule_files"]]
    read["scrape_configs"] = [
        {"job_name": job["job_name"], "static_configs": [{"targets": [targets[job["job_name"]]]}]}
        for job in read["scrape_configs"]
    ]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(read), encoding="utf-8")
    address = f"127.0.0.1:{free_port()}"
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(
            [
                *("prometheus", f"--config.file={folder / 'prometheus.yml'}"),
                *(f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address={address}"),
            ],
            stderr=log,
        )
    client = httpx2.Client(base_url=f"http://{address}", timeout=20)
    watch = Watch(client)
    try:
        until = time.monotonic() + TIMEOUT_S
        while not watch.is_ready():
            assert process.poll() is None, (folder / "prometheus.log").read_text("utf-8")
            assert time.monotonic() < until
            time.sleep(0.05)  # between two questions to another process there is nothing to wait on
        yield watch
    finally:
        client.close()
        process.kill()
        process.wait(STOP_TIMEOUT_S)


def use(made: Service) -> None:
    """Ask for everything once: what is answered, what is refused, and what is left."""
    with httpx2.Client(base_url=made.url, timeout=30) as client:
        for path in ("/health", "/ready", "/models", "/nothing"):
            client.get(path)
        client.post("/predict", json={"text": "Great value."})
        client.post("/predict", json={"text": ""})
        client.post("/predict", json={"text": "poison"})
        client.post("/predict", json={"text": "late"}, headers={"X-Request-Timeout-Ms": "1"})
        client.post("/predict-batch", json={"texts": ["one", "two of them", "three of them here"]})
        client.post("/embed", json={"texts": ["one", "two"]})
        client.post("/chat", json={"query": "How are you?", "max_tokens": 8})
        client.post("/chat/stream", json={"query": "How are you?", "max_tokens": 8})
        documents = {"documents": [{"id": "d", "text": f"It is {time.monotonic()}."}]}
        # No place for webhooks, which is said at once.
        job = client.post("/embed-batch", json={**documents, "webhook_url": "http://127.0.0.1:9/"})
        assert job.status_code == 202, job.text
        client.post("/search", json={"query": "what time is it"})
        with suppress(httpx2.TimeoutException):
            client.post("/predict", json={"text": "gone"}, timeout=0.02)


def ask_until_all_have_data(watch: Watch, made: Service, queries: dict[str, str]) -> dict[str, str]:
    """Use the service and ask, again and again; return the queries that never had data."""
    missing = dict(queries)
    until = time.monotonic() + TIMEOUT_S
    while missing and time.monotonic() < until:
        use(made)
        time.sleep(PAUSE_S)  # Prometheus scrapes by the clock
        missing = {name: query for name, query in missing.items() if not watch.has(query)}
    return missing


def names_in(query: str) -> set[str]:
    return set(METRIC.findall(query))


def declared(made: Service) -> set[str]:
    """Return the metrics that a service declares, those without a series too."""
    lines = httpx2.get(f"{made.url}/metrics", timeout=30).text.splitlines()
    return {line.split()[2] for line in lines if line.startswith("# TYPE ")}


def selectors(expression: str) -> list[str]:
    """Return the series that an expression selects, with their labels."""
    return [found for found in SELECTOR.findall(expression) if NAMES.match(found)]


def every_query() -> dict[str, str]:
    """Return what is asked anywhere, by where. Of alerts, which mostly are silent, the series."""
    queries = dashboard_queries(read_dashboard())
    queries |= {rule["record"]: rule["expr"] for rule in read_rules("recording.yml")}
    for rule in read_rules("alerts.yml"):
        found = selectors(rule["expr"])
        assert found, rule["expr"]
        queries |= {f"{rule['alert']} {each}": each for each in found}
    runbook = RUNBOOK.read_text(encoding="utf-8")
    blocks = runbook_blocks(runbook, "promql")
    queries |= {f"runbook {each}": each for block in blocks for each in block.splitlines()}
    return {name: each.replace("$__rate_interval", "1m") for name, each in queries.items()}


@needs_prometheus
def test_every_query_returns_data_against_a_running_service(tmp_path: Path) -> None:
    port = free_port()
    with service(tmp_path, MODELS, jobs="on", worker_metrics_port=port) as made:
        targets = {"api": made.url.removeprefix("http://"), "worker": f"127.0.0.1:{port}"}
        with prometheus(tmp_path, targets) as watch:
            made.wait_ready()
            queries = every_query()
            seen = {name: each for name, each in queries.items() if not names_in(each) & UNSEEN}
            missing = ask_until_all_have_data(watch, made, seen)
            print(f"{len(seen)} of {len(queries)} queries, {len(missing)} without data")
            assert missing == {}
            # Of the others only their names can be looked at.
            known = declared(made)
            assert known >= UNSEEN
            assert all(names_in(queries[name]) <= known for name in queries if name not in seen)
            assert not watch.has("mlapi_no_such_total")
            assert not watch.has("mlapi_queue_depth - mlapi_queue_depth / 0 * 0")
        assert made.stop() == 0


@needs_promtool
def test_every_alert_fires_when_it_should_and_not_before() -> None:
    assert list(find_with_promtool("promtool")) == []


@needs_promtool
@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ("> 600", "> 60000"),  # never fires
        ('up{job="worker"} == 0', 'up{job="worker"} == 1'),  # fires when all is well
    ],
)
def test_a_wrong_alert_is_found(was: str, becomes: str, tmp_path: Path) -> None:
    shutil.copytree(RULES, tmp_path, dirs_exist_ok=True)
    alerts = tmp_path / "alerts.yml"
    text = alerts.read_text(encoding="utf-8")
    assert was in text
    alerts.write_text(text.replace(was, becomes), encoding="utf-8")
    done = subprocess.run(
        ["promtool", "test", "rules", tmp_path / "tests.yml"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "FAILED" in done.stdout + done.stderr
