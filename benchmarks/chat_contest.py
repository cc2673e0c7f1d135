"""One turn of the chat table: start, check, the loads, stop; the same for the engine alone."""

import http.client
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from app.loadtest.connection import make_target
from app.loadtest.report import OK
from benchmarks.chat_client import Asked, stream_load
from benchmarks.chat_lineup import CONTEXT_TOKENS, SLOTS, WORK, ChatContestant
from benchmarks.chat_prompts import COUNT, prompt
from benchmarks.chat_streams import Figures, Load, Stream, summarise
from benchmarks.contest import running, until_answers
from benchmarks.limit import Script
from benchmarks.process import CORES, memory_mb
from benchmarks.venvs import HERE, PeerError

QUESTION, ANSWER = "What is the capital of France?", "Paris"
QUESTION_TOKENS = 24
FIRST_TOKENS = 20  # asked of this service and of the engine in turn, for their time to the first
FIRST_MAX_TOKENS = 8
REST_S = 0.05  # the engine's threads spin for a moment after a token
WARM_UP_S = 2.0
WARM_UP_STREAMS = 4
PATIENCE_S = 90.0  # a peer at 16 streams may take that long to its first token
TURN_LIMIT_S = 480.0
ASK_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatJob:
    """What all contestants are given."""

    gguf: Path
    streams: Sequence[int]
    seconds: float
    max_tokens: int
    count_tokens: Callable[[str], int]

    def summarise(self, load: Load) -> Figures:
        """Make the figures of one load."""
        return summarise(load, max_tokens=self.max_tokens, count_tokens=self.count_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatTurn:
    """What one turn measured."""

    start_s: float
    memory_mb: float  # of all its processes, after the load
    loads: dict[int, Figures]
    first_ms: tuple[float, float] | None = None  # to the first token: this service, the engine


def engine_alone(job: ChatJob) -> AbstractContextManager[Script]:
    """Start the engine without a server; end it when the block does."""
    sizes = [str(SLOTS), str(CONTEXT_TOKENS), str(CORES)]
    return Script.running([HERE / "chat_engine.py", job.gguf, *sizes], WORK / "engine.log")


def ask_engine(
    engine: Script, *, first: int, streams: int, seconds: float, max_tokens: int
) -> Load:
    """Run a load on the engine alone."""
    found = engine.ask(first=first, streams=streams, seconds=seconds, max_tokens=max_tokens)
    return Load(
        seconds=seconds,
        streams=[
            Stream(started_s=started_s, outcome=OK, pieces=[(at_s, text) for at_s, text in pieces])
            for started_s, pieces in found
        ],
    )


def take_engine_turn(job: ChatJob) -> ChatTurn:
    """Measure the engine alone once.

    Raises:
        PeerError: it ended.

    """
    began_s = time.monotonic()
    with engine_alone(job) as engine:
        ask = partial(ask_engine, engine, max_tokens=job.max_tokens)
        asked = len(ask(first=0, streams=1, seconds=0).streams)
        start_s = time.monotonic() - began_s
        asked += len(ask(first=asked, streams=WARM_UP_STREAMS, seconds=WARM_UP_S).streams)
        loads: dict[int, Figures] = {}
        for count in job.streams:
            load = ask(first=asked, streams=count, seconds=job.seconds)
            asked += len(load.streams)
            loads[count] = job.summarise(load)
        return ChatTurn(start_s=start_s, memory_mb=engine.memory_mb(), loads=loads)


def request_of(contestant: ChatContestant, port: int, text: str, max_tokens: int) -> bytes:
    """Return the bytes of a request."""
    url = f"http://127.0.0.1:{port}{contestant.path}"
    made = make_target(url, [text], body=lambda given: contestant.body(given, max_tokens))
    return made.requests[0]


def asked_of(contestant: ChatContestant, port: int, max_tokens: int) -> Asked:
    """Return how a contestant is asked."""
    return Asked(
        port=port,
        request=lambda number: request_of(contestant, port, prompt(number), max_tokens),
        read_line=contestant.read_line,
    )


def connect(port: int) -> http.client.HTTPConnection:
    """Return a connection for one question, not yet open."""
    return http.client.HTTPConnection("127.0.0.1", port, timeout=ASK_TIMEOUT_S)


def check_answer(contestant: ChatContestant, port: int) -> None:
    """See that it knows what this model knows.

    Raises:
        OSError, HTTPException: nobody listens, or they speak no HTTP yet.
        PeerError: the answer isn't a 200, or not the right one.

    """
    with closing(connect(port)) as connection:
        head = {"Content-Type": "application/json"}
        body = contestant.body(QUESTION, QUESTION_TOKENS)
        connection.request("POST", contestant.path, body, head)
        answer = connection.getresponse()
        lines = [line for line in answer.read().splitlines() if line]
    if answer.status != http.client.OK:
        raise PeerError(f"answers {answer.status}: {b' '.join(lines)[:200]!r}")
    try:
        text = "".join(contestant.read_line(line) or "" for line in lines)
    except (ValueError, KeyError) as failure:
        raise PeerError(f"answers what isn't its dialect: {failure}") from failure
    if ANSWER not in text:
        raise PeerError(f"answers {text[:100]!r} to {QUESTION!r}")


def first_tokens(asked: Asked, engine: Script, numbers: Iterator[int]) -> tuple[float, float]:
    """Ask this service and the engine in turn, one prompt at a time.

    Returns:
        The medians of the time to the first token in milliseconds: this service's, the engine's.

    """

    def of_service(number: int) -> Load:
        return stream_load(asked, iter([number]), streams=1, seconds=0, patience_s=ASK_TIMEOUT_S)

    def of_engine(number: int) -> Load:
        return ask_engine(engine, first=number, streams=1, seconds=0, max_tokens=FIRST_MAX_TOKENS)

    sides = (of_service, of_engine)
    found: dict[Callable[[int], Load], list[float]] = {side: [] for side in sides}
    for turn in range(FIRST_TOKENS):
        number = next(numbers)
        for side in sides if turn % 2 else reversed(sides):
            found[side].append(side(number).streams[0].ttft_s * 1000)
            time.sleep(REST_S)
    return statistics.median(found[of_service]), statistics.median(found[of_engine])


def measure_loads(
    asked: Asked, job: ChatJob, numbers: Iterator[int], *, ends_s: float
) -> dict[int, Figures]:
    """Warm up, then measure at each number of streams.

    Raises:
        PeerError: the time is over.

    """

    def load(streams: int, seconds: float) -> Load:
        left_s = ends_s - time.monotonic() - seconds
        if left_s < 0:
            raise PeerError(f"not measured within {TURN_LIMIT_S:.0f} s")
        patience_s = min(PATIENCE_S, left_s)
        return stream_load(asked, numbers, streams=streams, seconds=seconds, patience_s=patience_s)

    load(WARM_UP_STREAMS, WARM_UP_S)
    return {count: job.summarise(load(count, job.seconds)) for count in job.streams}


def take_turn(contestant: ChatContestant, job: ChatJob) -> ChatTurn:
    """Measure one contestant once.

    Raises:
        PeerError: it can't take part, and why.

    """
    with running(contestant, contestant.sizes, WORK) as made:
        start_s = until_answers(made, partial(check_answer, contestant, made.port))
        numbers = iter(range(COUNT))  # none is asked twice, or a prefix cache would answer
        asked = asked_of(contestant, made.port, job.max_tokens)
        loads = measure_loads(asked, job, numbers, ends_s=time.monotonic() + TURN_LIMIT_S)
        memory = memory_mb(made.process.pid)
        first_ms = (
            measure_first(contestant, made.port, job, numbers) if contestant.is_ours else None
        )
    return ChatTurn(start_s=start_s, memory_mb=memory, loads=loads, first_ms=first_ms)


def measure_first(
    contestant: ChatContestant, port: int, job: ChatJob, numbers: Iterator[int]
) -> tuple[float, float]:
    """Start an engine beside the service and compare their times to the first token."""
    asked = asked_of(contestant, port, FIRST_MAX_TOKENS)
    with engine_alone(job) as engine:
        ask_engine(engine, first=next(numbers), streams=1, seconds=0, max_tokens=1)
        return first_tokens(asked, engine, numbers)


@contextmanager
def tokeniser(contestant: ChatContestant) -> Iterator[Callable[[str], int]]:
    """Start llama.cpp's server once more, to count tokens as the model does."""
    named = replace(contestant, name="tokeniser")  # for its log
    with running(named, named.sizes, WORK) as made:
        until_answers(made, partial(check_answer, contestant, made.port))

        def count(text: str) -> int:
            # A connection of its own: minutes pass between loads, and the server closes idle ones.
            with closing(connect(made.port)) as connection:
                connection.request("POST", "/tokenize", json.dumps({"content": text}))
                return len(json.loads(connection.getresponse().read())["tokens"])

        yield count
