"""Keys, limits and the log with real processes on a real PostgreSQL and Valkey."""

import json
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event, Timer
from typing import Any

import httpx2
import psycopg2  # type: ignore[import-untyped]  # no type information is published
import pytest
from converted import CONVERTED
from process import APP, Service, environment, service
from servers import Postgres, Valkey
from servers import postgres as own_postgres
from servers import valkey as own_valkey
from serving import FAKE

from app.features.access.key_cache import LOOKUP_TIMEOUT_S
from app.loadtest.closed_loop import closed_loop
from app.loadtest.connection import Target, make_target
from app.loadtest.report import OK, Answer, Report

pytestmark = pytest.mark.system

ADMIN = "the-first-key-of-a-fleet"
PLENTY = "10000000/minute"
LIMITED = "429"
REQUESTS = 5_000
CONNECTIONS = 32
MAX_SECONDS = 50.0
# What docs/predictions.md says of kill -9: rows wait for half a second, then they are written.
FLUSH_S = 0.5
BATCH = 500
# The budget of the limiter is 50 ms; 10 for the way there.
FROZEN_MS = 60
FROZEN_SECONDS = 4.0


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def upgrade(folder: Path, url: str) -> None:
    """Do what an operator does once before the first start."""
    subprocess.run(
        [APP, "db", "upgrade"],
        env=environment(folder, database_url=url),
        cwd=folder,
        check=True,
        capture_output=True,
    )


@contextmanager
def guarded(folder: Path, url: str, **settings: Any) -> Iterator[Service]:
    """Run a service on the fake classifier that asks for keys, on a migrated database."""
    folder.mkdir(exist_ok=True)
    given = {"auth": "required", "admin_key": ADMIN, "log_level": "warning"} | settings
    with service(folder, FAKE, database_url=url, **given) as running:
        running.wait_ready()
        yield running


def make_key(running: Service, limit: str = PLENTY) -> str:
    """Make a key over HTTP, as the first one of a fleet is made."""
    wanted = {"name": "web", "scopes": ["predict"], "limit": limit}
    answer = httpx2.post(f"{running.url}/keys", json=wanted, headers=bearer(ADMIN), timeout=30)
    assert answer.status_code == 201, answer.text
    key: str = answer.json()["key"]
    return key


def target(running: Service, key: str) -> Target:
    texts = [f"text {number}" for number in range(100)]
    return make_target(f"{running.url}/predict", texts, headers=bearer(key))


def load(running: Service, key: str, *, requests: int, keep_answers: bool = False) -> Report:
    """Send so many requests at full speed."""
    return closed_loop(
        target(running, key),
        connections=CONNECTIONS,
        seconds=MAX_SECONDS,
        max_requests=requests,
        keep_answers=keep_answers,
    )


def ask(url: str, statement: str) -> list[tuple[Any, ...]]:
    connection = psycopg2.connect(url)
    try:
        cursor = connection.cursor()
        cursor.execute(statement)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows
    finally:
        connection.close()


def count_rows(url: str) -> int:
    ((count,),) = ask(url, "SELECT count(*) FROM predictions")
    return int(count)


def count_dropped(log: str) -> int:
    """Return how many rows the service said that it dropped."""
    said = [json.loads(line) for line in log.splitlines() if "predictions_dropped" in line]
    return sum(line["count"] for line in said)


def read_metric(running: Service, name: str) -> float:
    lines = httpx2.get(f"{running.url}/metrics", timeout=30).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def wait_until(holds: Callable[[], bool], timeout_s: float = 20) -> None:
    until = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < until, "it didn't come true in time"
        time.sleep(0.02)  # between two questions to another process there is nothing to wait on


# Two replicas, one limit


def test_two_processes_on_one_valkey_let_exactly_100_of_400_through(
    tmp_path: Path, postgres_url: str, redis_url: str
) -> None:
    upgrade(tmp_path, postgres_url)
    # On a machine that is busy with other tests Valkey may be silent for longer than 50 ms, and
    # then requests pass, as they should.
    given = {"redis_url": redis_url, "limiter_budget_ms": 5_000}
    with ExitStack() as stack:
        both = [
            stack.enter_context(guarded(tmp_path / name, postgres_url, **given)) for name in "ab"
        ]
        key = make_key(both[0], "100/minute")
        with ThreadPoolExecutor() as threads:
            reports = list(threads.map(lambda one: load(one, key, requests=200), both))
        outcomes = sum((report.outcomes for report in reports), Counter[str]())
        assert outcomes == {OK: 100, LIMITED: 300}
        assert [read_metric(one, "mlapi_limiter_unavailable_total") for one in both] == [0, 0]


# Every answer is a row, or counted


@pytest.mark.parametrize(("given", "drops"), [({}, False), ({"prediction_log_bound": 50}, True)])
def test_after_sigterm_rows_and_counted_drops_are_the_answers_that_were_sent(
    tmp_path: Path, postgres_url: str, given: dict[str, int], *, drops: bool
) -> None:
    upgrade(tmp_path, postgres_url)
    with guarded(tmp_path, postgres_url, **given) as running:
        report = load(running, make_key(running), requests=REQUESTS)
        assert running.stop() == 0
        dropped = count_dropped(running.log)
    rows = count_rows(postgres_url)
    rate = len(report.answers) / report.seconds
    print(f"{REQUESTS} answers at {rate:.0f}/s: {rows} rows, {dropped} dropped")
    assert report.outcomes == {OK: REQUESTS}
    assert rows + dropped == REQUESTS
    assert (dropped > 0) is drops


@pytest.mark.alone
def test_kill_9_loses_no_more_than_the_last_half_second_and_one_batch(
    tmp_path: Path, postgres_url: str
) -> None:
    upgrade(tmp_path, postgres_url)
    with guarded(tmp_path, postgres_url) as running:
        key = make_key(running)
        killer = Timer(3, running.process.kill)
        killer.start()
        report = closed_loop(
            target(running, key), connections=CONNECTIONS, seconds=4, keep_answers=True
        )
        killer.join()
        assert running.process.wait() == -signal.SIGKILL
    written = {name for (name,) in ask(postgres_url, "SELECT request_id FROM predictions")}
    lost = [answer for answer in report.good if request_id(answer) not in written]
    ended_s = max(answer.finished_s for answer in report.good)
    recent = sum(answer.finished_s > ended_s - FLUSH_S for answer in report.good)
    oldest_s = ended_s - min((answer.finished_s for answer in lost), default=ended_s)
    print(
        f"{len(report.good)} answers, {len(written)} rows; {len(lost)} lost, the oldest from"
        f" {oldest_s:.2f} s before the end; {recent} answers in the last {FLUSH_S} s"
    )
    assert len(lost) <= recent + BATCH
    assert oldest_s <= FLUSH_S + 1  # and the time that one batch takes to be written


def request_id(answer: Answer) -> str:
    head = answer.raw.partition(b"\r\n\r\n")[0].decode().lower()
    return head.partition("x-request-id: ")[2].partition("\r\n")[0]


# Servers that are silent


@pytest.fixture(scope="module")
def silent_postgres() -> Iterator[Postgres]:
    with own_postgres() as started:
        yield started


@pytest.fixture(scope="module")
def silent_valkey() -> Iterator[Valkey]:
    with own_valkey() as started:
        yield started


@contextmanager
def asking_health(running: Service) -> Iterator[Counter[int]]:
    """Ask /health all the time; gives the statuses."""
    seen: Counter[int] = Counter()
    ended = Event()

    def ask_on() -> None:
        with httpx2.Client() as client:
            while not ended.wait(0.05):
                seen[client.get(f"{running.url}/health", timeout=10).status_code] += 1

    with ThreadPoolExecutor(1) as threads:
        asking = threads.submit(ask_on)
        try:
            yield seen
        finally:
            ended.set()
            asking.result()


def measure(running: Service, key: str) -> Report:
    return closed_loop(target(running, key), connections=8, seconds=FROZEN_SECONDS)


def p99_ms(report: Report) -> float:
    assert set(report.outcomes) == {OK}
    return report.latency_ms(0.99)


@pytest.mark.alone
def test_a_silent_valkey_costs_predict_at_most_its_budget_and_health_nothing(
    tmp_path: Path, postgres_url: str, silent_valkey: Valkey
) -> None:
    server = silent_valkey.server
    assert server is not None
    upgrade(tmp_path, postgres_url)
    with guarded(tmp_path, postgres_url, redis_url=silent_valkey.url) as running:
        key, few = make_key(running), make_key(running, "10/hour")
        normal = measure(running, key)
        with asking_health(running) as seen, server.frozen():
            frozen = measure(running, key)
            assert load(running, few, requests=20).outcomes == {OK: 20}
        print(f"p99 {p99_ms(normal):.1f} ms, with Valkey silent {p99_ms(frozen):.1f} ms; {seen}")
        assert p99_ms(frozen) <= p99_ms(normal) + FROZEN_MS
        assert set(seen) == {200}
        failed = read_metric(running, "mlapi_limiter_unavailable_total")
        assert failed >= len(frozen.answers)

        def is_limited() -> bool:
            return LIMITED in load(running, few, requests=20).outcomes

        wait_until(is_limited)
        assert load(running, few, requests=20).outcomes == {LIMITED: 20}


@pytest.mark.alone
def test_a_silent_postgresql_stops_no_predict_with_a_known_key_and_loses_no_row(
    tmp_path: Path, silent_postgres: Postgres
) -> None:
    server = silent_postgres.server
    assert server is not None
    with silent_postgres.database() as url:
        upgrade(tmp_path, url)
        with guarded(tmp_path, url, auth_cache_s=1) as running:
            key, never_seen = make_key(running), make_key(running)
            normal = measure(running, key)
            with asking_health(running) as seen, server.frozen():
                frozen = measure(running, key)
                unknown = httpx2.post(
                    f"{running.url}/predict",
                    json={"text": "x"},
                    headers=bearer(never_seen),
                    timeout=30,
                )
            print(
                f"p99 {p99_ms(normal):.1f} ms, {normal.per_second:.0f}/s; with PostgreSQL silent"
                f" {p99_ms(frozen):.1f} ms, {frozen.per_second:.0f}/s,"
                f" slowest {frozen.latency_ms(1):.0f} ms; {seen}"
            )
            assert set(seen) == {200}
            assert unknown.status_code == 503
            assert unknown.json()["code"] == "database_unavailable"
            # The first requests after the verdict has aged find out that nobody answers; no other
            # waits, and none of them long.
            assert frozen.latency_ms(0.5) <= p99_ms(normal) + FROZEN_MS
            longest_ms = LOOKUP_TIMEOUT_S * 1_000 + normal.latency_ms(1) + FROZEN_MS
            assert frozen.latency_ms(1) <= longest_ms
            answers = len(normal.answers) + len(frozen.answers)
            wait_until(lambda: count_rows(url) == answers)
            assert read_metric(running, "mlapi_prediction_log_dropped_total") == 0
            assert load(running, never_seen, requests=1).outcomes == {OK: 1}
            assert running.stop() == 0


# The first key of a fleet


def degraded(running: Service) -> list[str]:
    said: list[str] = httpx2.get(f"{running.url}/ready", timeout=30).json()["degraded"]
    return said


def post(running: Service, path: str, key: str, **body: Any) -> httpx2.Response:
    return httpx2.post(f"{running.url}{path}", json=body, headers=bearer(key), timeout=30)


def test_admin_key_and_postgresql_are_enough_for_a_first_key_and_a_first_prediction(
    tmp_path: Path, postgres_url: str
) -> None:
    fleet = {"admin_key": ADMIN, "database_url": postgres_url, "host": "0.0.0.0"}
    upgrade(tmp_path, postgres_url)
    # Converted models are no setting of the fleet's; without them the test would take a minute.
    with service(tmp_path, model_cache_dir=CONVERTED, **fleet) as running:
        running.wait_ready()
        wait_until(lambda: degraded(running) == [])  # it may be said once, while models load
        made = post(running, "/keys", ADMIN, name="web", scopes=["predict"])
        assert made.status_code == 201
        answer = post(running, "/predict", made.json()["key"], text="I love it!")
        assert (answer.status_code, answer.json()["label"]) == (200, "POSITIVE")
        assert post(running, "/predict", "nobody's", text="x").status_code == 401


def test_without_the_migration_ready_names_the_schema_and_the_upgrade_mends_it(
    tmp_path: Path, empty_postgres_url: str
) -> None:
    with guarded(tmp_path, empty_postgres_url, host="0.0.0.0") as running:
        assert degraded(running) == ["database:schema"]
        refused = post(running, "/keys", ADMIN, name="web", scopes=["predict"])
        assert refused.status_code == 503
        upgrade(tmp_path, empty_postgres_url)
        wait_until(lambda: degraded(running) == [])
        assert post(running, "/predict", make_key(running), text="x").status_code == 200
