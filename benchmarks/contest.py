"""One contestant's turn: start, check, closed loops, overload, stop."""

import http.client
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from app.loadtest.bench import DEADLINE_HEADER, DEADLINE_S, OVERLOAD
from app.loadtest.closed_loop import closed_loop
from app.loadtest.connection import Target, make_target
from app.loadtest.open_loop import open_loop
from app.loadtest.report import Report
from benchmarks.lineup import TOLERANCE, Contestant, Peer, Sizes, environment
from benchmarks.process import Running, free_ports, memory_mb, start, stop
from benchmarks.venvs import HERE, PeerError, bin_folder

START_TIMEOUT_S = 180.0
ASK_TIMEOUT_S = 10.0
POLL_S = 0.05
WARM_UP_S = 2.0
WARM_UP_CONNECTIONS = 8
CHECKED_TEXTS = 32

Scored = tuple[str, float]  # a label and its probability


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What all contestants are given."""

    work: Path
    texts: Sequence[str]
    reference: Sequence[Scored]  # of the first texts: torch float32, each text alone
    connections: Sequence[int]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What one turn measured."""

    start_s: float
    memory_mb: float  # of all its processes, after the load
    closed: dict[int, Report]
    overload: Report | None


def find_ir(work: Path, name: str = "padded") -> Path | None:
    """Return the OpenVINO file of the classifier that a service of ours wrote, once it has."""
    found = sorted((work / f"data-{name}").rglob("*.xml"), key=lambda path: path.stat().st_mtime)
    return found[-1] if found else None


@contextmanager
def running(contestant: Peer, sizes: Sizes, work: Path) -> Iterator[Running]:
    """Start a contestant; end it and all that it started when the block does."""
    ports = free_ports(3)
    ir = find_ir(work)
    if "openvino" in contestant.name and ir is None:
        raise PeerError("this service has written no OpenVINO file")
    filled = {
        "bin": str(bin_folder(contestant.venv)),
        "work": str(work),
        "model": str(work / "model"),
        "ir": str(ir or ""),
        "workers": str(sizes.workers),
        "batch": str(sizes.batch),
        **dict(zip(("port", "port2", "port3"), map(str, ports), strict=True)),
    }
    made = start(
        [part.format(**filled) for part in contestant.command],
        port=ports[0],
        env=environment(contestant, sizes, **filled),
        folder=HERE / "contestants",
        log=work / f"{contestant.name}.log",
    )
    try:
        yield made
    finally:
        stop(made)


def ask(contestant: Contestant, port: int, text: str) -> Scored:
    """Ask for one text.

    Raises:
        OSError, HTTPException: nobody listens, or they speak no HTTP yet.
        PeerError: the answer isn't a 200.

    """
    return contestant.answer(post(port, contestant.path, contestant.body(text)))


def post(port: int, path: str, body: bytes) -> Any:  # noqa: ANN401  # parsed JSON
    """Post JSON and return the JSON that answers it. Raises as `ask`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ASK_TIMEOUT_S)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise PeerError(f"answers {answer.status}: {content[:200]!r}")
    return json.loads(content)


def wait_ready(contestant: Contestant, made: Running, text: str) -> float:
    """Ask until it answers; return the seconds since its start.

    Raises:
        PeerError: it ended, or took too long; with its last words.

    """
    return until_answers(made, partial(ask, contestant, made.port, text))


def until_answers(made: Running, attempt: Callable[[], object]) -> float:
    """Try until nothing is raised; return the seconds since the start.

    Raises:
        PeerError: it ended, or took too long; with its last words.

    """
    last: Exception | None = None
    while time.monotonic() < made.started_s + START_TIMEOUT_S:
        if made.process.poll() is not None:
            raise PeerError(f"ended with {made.process.returncode}: {made.last_words}")
        try:
            attempt()
        except (OSError, http.client.HTTPException, PeerError) as failure:
            last = failure
            time.sleep(POLL_S)
        else:
            return time.monotonic() - made.started_s
    raise PeerError(f"no answer within {START_TIMEOUT_S:.0f} s: {last}; {made.last_words}")


def is_same(found: Scored, expected: Scored, tolerance: float) -> bool:
    """Compare an answer with the reference; near 0.5 the label may turn within the tolerance."""
    if found[0] == expected[0]:
        return abs(found[1] - expected[1]) <= tolerance
    return abs((1 - found[1]) - expected[1]) <= tolerance


def check_answers(contestant: Contestant, port: int, job: Job) -> None:
    """See that it computes the same as the others.

    Raises:
        PeerError: with the first text that it answers otherwise.

    """
    tolerance = TOLERANCE[contestant.engine]
    for text, expected in zip(job.texts[: len(job.reference)], job.reference, strict=True):
        found = ask(contestant, port, text)
        if not is_same(found, expected, tolerance):
            raise PeerError(f"answers {found} where {expected} is right: {text[:60]!r}")


def target_of(
    contestant: Contestant, port: int, texts: Sequence[str], *, deadline_s: float | None = None
) -> Target:
    """Prepare the requests for a contestant, with or without a deadline that they announce."""
    url = f"http://127.0.0.1:{port}{contestant.path}"
    headers = {} if deadline_s is None else {DEADLINE_HEADER: str(int(deadline_s * 1000))}
    return make_target(url, texts, body=contestant.body, headers=headers)


def closed_rounds(target: Target, job: Job) -> dict[int, Report]:
    """Measure at each number of connections, after a while of warming up."""
    closed_loop(target, connections=WARM_UP_CONNECTIONS, seconds=WARM_UP_S)
    return {
        count: closed_loop(target, connections=count, seconds=job.seconds)
        for count in job.connections
    }


def overload(
    target: Target, *, capacity: float, seconds: float, keep_answers: bool = False
) -> Report:
    """Ask for twice the capacity, by clients that hang up when a second has passed."""
    return open_loop(
        target,
        rate=OVERLOAD * capacity,
        seconds=seconds,
        timeout_s=lambda _: DEADLINE_S,
        keep_answers=keep_answers,
    )


def take_turn(contestant: Contestant, job: Job, *, sizes: Sizes | None = None) -> Turn:
    """Measure one contestant once.

    Raises:
        PeerError: it can't take part, and why.

    """
    with running(contestant, sizes or contestant.sizes, job.work) as made:
        start_s = wait_ready(contestant, made, job.texts[0])
        check_answers(contestant, made.port, job)
        closed = closed_rounds(target_of(contestant, made.port, job.texts), job)
        capacity = max(report.per_second for report in closed.values())
        target = target_of(contestant, made.port, job.texts, deadline_s=DEADLINE_S)
        late = overload(target, capacity=capacity, seconds=job.seconds) if capacity else None
        memory = memory_mb(made.process.pid)
    return Turn(start_s=start_s, memory_mb=memory, closed=closed, overload=late)
