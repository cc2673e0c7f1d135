"""`app bench --storm` against a small server: each column is right, and it always ends."""

import json
import math
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import pytest
from commands import run
from storm_server import (
    BARE_REFUSAL,
    FAILURE,
    LAST,
    NEVER,
    OK,
    REFUSAL,
    StormServer,
    always,
    in_turn,
    storm_server,
)

from app.errors import StartupError
from app.loadtest.addresses import find_address, get_request
from app.loadtest.bare_connection import Address
from app.loadtest.connection import make_target
from app.loadtest.patient_clients import Outcome, Plan, run_side_by_side
from app.loadtest.report import Answer, Report
from app.loadtest.storm import (
    Stage,
    Storm,
    StormFigures,
    measure_stage,
    summarise_storm,
)
from app.loadtest.storm_table import as_dict, rows

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"


def plan(
    port: int,
    *,
    count: int = 40,
    patience_s: float = 2.0,
    is_kept: bool = True,
    max_connections: int = 100,
    body: str = "x",
) -> Plan:
    return Plan(
        address=Address(socket.AF_INET, ("127.0.0.1", port)),
        requests=make_target(f"http://127.0.0.1:{port}/predict", [body]).requests,
        due_s=[number * 0.004 for number in range(count)],
        patience_s=patience_s,
        is_kept=is_kept,
        max_connections=max_connections,
    )


def ask(asked: Plan, seconds: float = 0.2) -> Report:
    (outcome,) = run_side_by_side([asked], seconds=seconds)
    assert [a.number for a in sorted(outcome.report.answers)] == list(range(len(asked.due_s)))
    return outcome.report


@pytest.mark.parametrize("is_kept", [True, False])
def test_each_way_to_end_is_counted_under_its_name(*, is_kept: bool) -> None:
    with storm_server(in_turn(OK, REFUSAL, BARE_REFUSAL, FAILURE, None)) as server:
        report = ask(plan(server.port, is_kept=is_kept))
    assert report.outcomes == {
        "200": 8,
        "503": 8,
        "503 without Retry-After": 8,
        "500": 8,
        "closed": 8,
    }
    assert report.per_second == pytest.approx(8 / 0.2)
    assert server.bodies == [b'{"text": "x"}'] * 40


def test_kept_connections_serve_many_and_new_ones_one() -> None:
    with storm_server(always(OK)) as server:
        ask(plan(server.port, is_kept=True))
        kept = server.connections
        ask(plan(server.port, is_kept=False))
        new = server.connections - kept
    assert kept < 20
    assert new == 40


def test_a_server_that_closes_after_its_answer_is_no_failure() -> None:
    for content in (LAST, CHUNKED):
        with storm_server(always(content)) as server:
            assert ask(plan(server.port)).outcomes == {"200": 40}


def test_a_client_leaves_when_its_patience_ends_and_hangs_up() -> None:
    started_s = time.monotonic()
    with storm_server(lambda number: (NEVER if number % 2 else 0.0, OK)) as server:
        report = ask(plan(server.port, patience_s=0.2))
    assert report.outcomes == {"200": 20, "timeout": 20}
    assert all(0.2 <= a.latency_s < 1 for a in report.answers if a.outcome == "timeout")
    assert time.monotonic() - started_s < 3
    assert server.connections >= 20, "a connection whose client has left serves no other"


def test_an_answer_that_comes_too_late_is_no_good_one() -> None:
    with storm_server(always(OK, 0.25)) as server:
        report = ask(plan(server.port, count=10, patience_s=0.2))
    assert report.outcomes == {"timeout": 10}
    assert report.per_second == 0


def test_the_rate_is_kept_when_nothing_is_answered() -> None:
    with storm_server(always(OK, NEVER)) as server:
        report = ask(plan(server.port, count=50, patience_s=1.0))
    assert report.outcomes == {"timeout": 50}
    assert server.counts[b"POST"] == 50
    assert server.most_open == 50


def test_connections_are_bounded_and_what_isn_t_sent_is_said() -> None:
    with storm_server(always(OK, NEVER)) as server:
        report = ask(plan(server.port, count=30, patience_s=0.5, max_connections=10))
    assert report.outcomes == {"timeout": 10, "unsent": 20}
    assert server.connections == 10


def test_a_server_that_is_not_there_is_unconnected() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    assert ask(plan(port, count=10)).outcomes == {"unconnected": 10}


def test_a_request_larger_than_the_socket_takes_is_sent_whole() -> None:
    with storm_server(always(OK)) as server:
        report = ask(plan(server.port, count=1, patience_s=10, body="x" * 8_000_000))
    assert report.outcomes == {"200": 1}
    assert len(server.bodies[0]) == 8_000_012


def test_loads_run_side_by_side_and_apart() -> None:
    with storm_server(in_turn(OK), in_turn(OK, FAILURE)) as server:
        polls = Plan(
            address=Address(socket.AF_INET, ("127.0.0.1", server.port)),
            requests=[get_request(f"http://127.0.0.1:{server.port}/health")],
            due_s=[0.0, 0.05, 0.1, 0.15],
            patience_s=1.0,
            is_kept=False,
            max_connections=4,
        )
        asked, polled = run_side_by_side([plan(server.port), polls], seconds=0.2)
    assert asked.report.outcomes == {"200": 40}
    assert polled.report.outcomes == {"200": 2, "500": 2}
    assert len(asked.late_s) == 40
    assert all(0 <= late_s < 1 for late_s in asked.late_s)
    assert asked.report.cpu_share > 0
    assert server.heads[0].startswith(b"POST")
    assert sum(head.startswith(b"GET /health HTTP/1.1\r\n") for head in server.heads) == 4


def report(*answers: tuple[str, float], seconds: float = 2.0) -> Report:
    made = Report(seconds=seconds, counts_late=True, cpu_share=0.25)
    made.answers += [Answer(n, name, took_s, 0.1, b"") for n, (name, took_s) in enumerate(answers)]
    return made


def calm(*answers: tuple[float, float]) -> Report:
    """Take pairs of when it ended and how long it took."""
    made = Report(seconds=2.0, counts_late=False)
    made.answers += [Answer(0, "200", took_s, at_s, b"") for at_s, took_s in answers]
    return made


def figures(
    answers: Sequence[tuple[str, float]] = (("200", 0.3),),
    polls: Sequence[tuple[str, float]] = (("200", 0.01),),
    after: Report | None = None,
) -> StormFigures:
    return summarise_storm(
        Outcome(report=report(*answers), late_s=[0.001, 0.002, 0.5]),
        report(*polls),
        capacity=4.0,
        before=calm((0.5, 0.010), (1.5, 0.012), (1.9, 0.014)),
        after=after or calm((0.5, 0.5), (1.2, 0.011), (1.8, 0.013)),
    )


def test_goodput_is_what_was_answered_in_time_and_its_share_is_of_the_capacity() -> None:
    made = figures([("200", 0.3)] * 6 + [("503", 0.01)] * 3 + [("timeout", 1.0), ("unsent", 0.0)])
    assert (made.offered, made.goodput, made.share) == (5.0, 3.0, 0.75)
    assert made.others == {"timeout": 1, "unsent": 1}
    assert (made.capacity, made.cpu_share) == (4.0, 0.25)


def test_refusals_are_counted_timed_and_held_to_retry_after() -> None:
    made = figures([("503", n / 1000) for n in range(1, 20)] + [("503 without Retry-After", 0.5)])
    assert (made.refused, made.refused_bare) == (10.0, 1)
    assert made.refused_p95_ms == pytest.approx(19)
    assert made.others == {}
    assert made.goodput == 0


def test_polls_that_fail_aren_t_those_that_get_no_answer() -> None:
    made = figures(
        polls=[("200", 0.02), ("503", 0.04), ("500", 0.03), ("timeout", 1.0), ("unconnected", 0.1)]
    )
    assert (made.health_polls, made.health_other, made.health_unanswered) == (5, 2, 2)
    assert made.health_worst_ms == pytest.approx(1000)


def test_recovery_is_judged_when_half_of_its_time_has_passed() -> None:
    assert figures().p50_before_ms == pytest.approx(12)
    assert figures().p50_after_ms == pytest.approx(12)
    assert math.isnan(figures(after=calm((0.5, 0.5))).p50_after_ms)


def test_a_line_of_the_table_has_a_cell_for_each_column() -> None:
    stages = [
        (Stage(factor=2, is_kept=True), figures()),
        (Stage(factor=8, is_kept=False), figures([("503 without Retry-After", 0.1)] * 2)),
        (Stage(factor=4, is_kept=False), figures([("503", 0.1)] * 2, after=calm())),
    ]
    head, good, bare, lost = rows(stages)
    assert head.split()[:4] == ["storm", "offered/s", "capacity/s", "goodput/s"]
    assert good.split()[:7] == ["kept", "2x", "0", "4", "0", "0.12", "0"]
    assert "2 without" in bare
    assert lost.split()[8] == "all"
    assert lost.split()[-5:-3] == ["12.0", "-"]
    assert as_dict(*stages[0])["refused_p95_ms"] is None
    assert as_dict(*stages[1])["refused_bare"] == 2


class BoundedService:
    """Answers after 20 ms, eight at a time, and refuses the rest: 400 a second."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._ends_s: list[float] = []

    def __call__(self, _number: int) -> tuple[float, bytes]:
        with self._lock:
            now_s = time.monotonic()
            self._ends_s = [end_s for end_s in self._ends_s if end_s > now_s]
            if len(self._ends_s) >= 8:
                return 0.0, REFUSAL
            self._ends_s.append(now_s + 0.02)
            return 0.02, OK


def storm(server: StormServer, *, seconds: float = 0.6) -> Storm:
    address = Address(socket.AF_INET, ("127.0.0.1", server.port))
    return Storm(
        target=make_target(server.url, ["x"]),
        address=address,
        health=address,
        health_request=get_request(server.url),
        connections=8,
        seconds=seconds,
        patience_s=5.0,  # a machine that stands still for a moment ends no request
    )


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_service_that_refuses_what_it_can_t_do_keeps_its_goodput(*, is_kept: bool) -> None:
    with storm_server(BoundedService()) as server:
        made = measure_stage(storm(server), Stage(factor=4, is_kept=is_kept))
    assert 200 < made.capacity <= 400
    assert made.offered == pytest.approx(4 * made.capacity, rel=0.2)
    assert 0.6 < made.share < 1.5
    assert made.refused > made.goodput
    assert made.refused_bare == 0
    assert made.refused_p95_ms < 500
    assert (made.health_polls, made.health_other, made.health_unanswered) == (3, 0, 0)
    assert 15 < made.p50_before_ms < 200
    assert 15 < made.p50_after_ms < 200
    assert made.others == {}


def test_a_service_that_answers_nothing_has_no_capacity() -> None:
    with storm_server(always(FAILURE)) as server, pytest.raises(StartupError, match="no capacity"):
        measure_stage(storm(server, seconds=0.1), Stage(factor=2, is_kept=True))


def test_storms_are_json_for_scripts(tmp_path: Path) -> None:
    with storm_server(always(OK, 0.01), always(FAILURE)) as server:
        short = ("--seconds", "0.2", "--connections", "2", "--patience", "0.3", "--health", "/up")
        ended = run(tmp_path, "bench", server.url, "--storm", *short, "--json", app_key="mlk_1_s")
    assert (ended.returncode, ended.stderr) == (0, "")
    stages = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [(stage["is_kept"], stage["factor"]) for stage in stages] == [
        *((True, 2), (True, 4), (True, 8)),
        *((False, 2), (False, 4), (False, 8)),
    ]
    assert all(stage["health_other"] == stage["health_polls"] == 1 for stage in stages)
    posts = [head for head in server.heads if head.startswith(b"POST /predict ")]
    assert all(b"\r\nX-Request-Timeout-Ms: 300\r\n" in head for head in posts)
    assert all(b"\r\nAuthorization: Bearer mlk_1_s\r\n" in head for head in posts)
    assert {head.split(b" ")[1] for head in server.heads} == {b"/predict", b"/up"}


def test_a_storm_is_aimed_at_this_machine_unless_another_one_is_meant(tmp_path: Path) -> None:
    for arguments, says in {
        ("http://192.0.2.1/predict",): "192.0.2.1 isn't this machine",
        ("http://127.0.0.1:1/", "--health", "http://192.0.2.1/health"): "nobody listens",
        ("https://127.0.0.1:1/predict",): "a storm needs an address such as http://",
        ("http://127.0.0.1:1/predict",): "nobody listens at that address",
        ("http://127.0.0.1:1/predict", "--rounds", "2"): "--rounds: a storm has none",
    }.items():
        ended = run(tmp_path, "bench", *arguments, "--storm")
        assert ended.returncode == 1
        assert says in ended.stderr
        assert len(ended.stderr.splitlines()) == 1


def test_polls_too_stay_on_this_machine() -> None:
    with storm_server(always(OK)) as server:
        assert find_address(server.url, may_leave=False).place == ("127.0.0.1", server.port)
        with pytest.raises(StartupError, match="isn't this machine"):
            find_address("http://192.0.2.1/health", may_leave=False)
        ask(plan(server.port, count=1))  # by its answer the connection of the look-up has ended


def test_no_more_connections_than_the_machine_allows() -> None:
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200));"
        "from app.loadtest.descriptors import connections_allowed;"
        "print(connections_allowed(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    ended = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    assert ended.stdout.split() == [b"136", b"200"]
