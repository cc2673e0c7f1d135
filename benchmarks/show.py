"""Shows what the service promises under bad conditions, one command each; 1 if it doesn't hold.

overload: twice the capacity with a deadline of 1 s. leavers: nine clients in ten leave after 20 ms.
answers: 10,000 requests get what the engine says to each text alone. poison: one text in 32 fails.
latency: one connection waits little longer than the engine alone takes.
"""

import argparse
import json
import statistics
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from app.loadtest.bench import DEADLINE_S, OVERLOAD
from app.loadtest.closed_loop import closed_loop
from app.loadtest.open_loop import open_loop
from app.loadtest.report import OK, Answer, Report
from benchmarks import process
from benchmarks.contest import WARM_UP_S, is_same, overload, running, target_of, wait_ready
from benchmarks.limit import engine_alone
from benchmarks.lineup import LINEUP, OPENVINO, TOLERANCE, Contestant
from benchmarks.run import WORK, prepare_model
from benchmarks.texts import load_texts

CONNECTIONS = 64
LEAVING_S = 0.02
STAYING_SHARE = 10  # one client in so many stays
REQUESTS = 10_000
MAX_SECONDS = 600.0
POISON_SHARE = 32
LATENCY_TEXTS = 64
ALLOWED_MS = 2.0  # for HTTP, validation, tokenisation's hop and the batch's
FULL, FAILED = "503", "500"
FAKE_MODELS = """[[models]]
name = "dummy"
engine = "fake"
default = true
required = true
fake = { delay_ms = 5, fail_on = "poison" }
"""


@contextmanager
def serve(contestant: Contestant, texts: Sequence[str]) -> Iterator[int]:
    """Start the service, warm it up and give its port."""
    with running(contestant, contestant.sizes, WORK) as made:
        wait_ready(contestant, made, texts[0])
        target = target_of(contestant, made.port, texts)
        closed_loop(target, connections=CONNECTIONS, seconds=WARM_UP_S)
        yield made.port


def capacity_of(contestant: Contestant, port: int, texts: Sequence[str], seconds: float) -> float:
    """Return requests a second at many connections."""
    target = target_of(contestant, port, texts)
    return closed_loop(target, connections=CONNECTIONS, seconds=seconds).per_second


def read_counters(port: int, *names: str) -> Counter[str]:
    """Return the sum over all labels of each counter of /metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found = Counter(dict.fromkeys(names, 0))
    for line in lines:
        name = line.partition("{")[0].partition(" ")[0]
        if name in found:
            found[name] += int(float(line.rpartition(" ")[2]))
    return found


def show_overload(contestant: Contestant, seconds: float) -> bool:
    """Ask for twice what it can do: what it does it does in time, the rest it refuses at once."""
    texts = load_texts()
    with serve(contestant, texts) as port:
        capacity = capacity_of(contestant, port, texts, seconds)
        target = target_of(contestant, port, texts, deadline_s=DEADLINE_S)
        found = overload(target, capacity=capacity, seconds=seconds, keep_answers=True)
    refused = [a for a in found.answers if a.outcome == FULL]
    honest = sum(b"\r\nretry-after:" in answer.raw.lower() for answer in refused)
    print(f"capacity {capacity:.0f} req/s at {CONNECTIONS} connections, asked {OVERLOAD:g} x that")
    print(f"answers: {dict(found.outcomes)}; client CPU {found.cpu_share:.0%} of a core")
    print(f"goodput {found.per_second:.0f} req/s = {found.per_second / capacity:.2f} of capacity")
    print(f"accepted: p50 {found.latency_ms(0.5):.0f} ms, p99 {found.latency_ms(0.99):.0f} ms")
    print(f"refused: p95 {found.latency_ms(0.95, FULL):.1f} ms, {honest} with Retry-After")
    return bool(refused) and honest == len(refused)


def show_leavers(contestant: Contestant, seconds: float) -> bool:
    """Let nine clients in ten leave after 20 ms: those who stay are served as if alone."""
    texts = load_texts()
    names = ("mlapi_cancelled_total", "mlapi_wasted_items_total")
    with serve(contestant, texts) as port:
        rate = OVERLOAD * capacity_of(contestant, port, texts, seconds)
        target = target_of(contestant, port, texts, deadline_s=DEADLINE_S)
        alone = open_loop(
            target, rate=rate / STAYING_SHARE, seconds=seconds, timeout_s=lambda _: DEADLINE_S
        )
        before = read_counters(port, *names)
        among = open_loop(target, rate=rate, seconds=seconds, timeout_s=_timeout_s)
        counted = read_counters(port, *names)
        counted.subtract(before)
    stayed = replace(among, answers=[a for a in among.answers if a.number % STAYING_SHARE == 0])
    print(f"{rate:.0f} req/s, of which one in {STAYING_SHARE} stays: {dict(among.outcomes)}")
    for who, found in (("alone", alone), ("among leavers", stayed)):
        share = len(found.good) / max(1, len(found.answers))
        print(
            f"stayers {who}: {found.per_second:.1f} req/s, {share:.1%} served,"
            f" p50 {found.latency_ms(0.5):.0f} ms, p99 {found.latency_ms(0.99):.0f} ms"
        )
    print(", ".join(f"{name} {counted[name]}" for name in names))
    return counted["mlapi_wasted_items_total"] <= counted["mlapi_cancelled_total"]


def _timeout_s(number: int) -> float:
    return LEAVING_S if number % STAYING_SHARE else DEADLINE_S


def show_answers(contestant: Contestant, _seconds: float, requests: int = REQUESTS) -> bool:
    """Compare each of many answers, given in mixed company, with the engine's to the text alone."""
    texts = load_texts(requests)
    engine = "auto" if contestant.engine == OPENVINO else "torch"
    with engine_alone(engine, WORK) as alone:
        expected = alone.classify(texts)
    with serve(contestant, texts) as port:
        found = closed_loop(
            target_of(contestant, port, texts),
            connections=CONNECTIONS,
            seconds=MAX_SECONDS,
            max_requests=requests,
            keep_answers=True,
        )
    wrong = [a for a in found.answers if not _is_right(contestant, a, expected)]
    turned = sum(_label(contestant, a) != expected[a.number % len(expected)][0] for a in wrong)
    print(f"{len(found.answers)} requests over {len(texts)} texts: {dict(found.outcomes)}")
    print(f"{len(wrong)} differ from the engine alone, {turned} in the label or in the status")
    return len(found.answers) == requests and not wrong


def _label(contestant: Contestant, answer: Answer) -> str:
    return contestant.answer(_content(answer))[0] if answer.outcome == OK else ""


def _content(answer: Answer) -> Mapping[str, object]:
    content: Mapping[str, object] = json.loads(answer.raw.partition(b"\r\n\r\n")[2])
    return content


def _is_right(
    contestant: Contestant, answer: Answer, expected: Sequence[tuple[str, float]]
) -> bool:
    """Tell whether the label is the same and the score within the tolerance of bf16."""
    if answer.outcome != OK:
        return False
    found = contestant.answer(_content(answer))
    wanted = expected[answer.number % len(expected)]
    return found[0] == wanted[0] and is_same(found, wanted, TOLERANCE[OPENVINO])


def show_poison(contestant: Contestant, seconds: float) -> bool:
    """Send one text in 32 on which the (fake) engine fails: it fails alone."""
    (WORK / "fake.toml").write_text(FAKE_MODELS, encoding="utf-8")
    changed = {"MODELS_FILE": str(WORK / "fake.toml"), "LOG_LEVEL": "error"}
    fake = replace(contestant, env={**contestant.env, **changed})
    texts = [f"text {number}" for number in range(POISON_SHARE)]
    texts[POISON_SHARE // 2] = "poison"
    with serve(fake, texts) as port:
        found = closed_loop(target_of(fake, port, texts), connections=CONNECTIONS, seconds=seconds)
    clean = _only(found, lambda number: number % POISON_SHARE != POISON_SHARE // 2)
    bad = _only(found, lambda number: number % POISON_SHARE == POISON_SHARE // 2)
    for who, some in (("clean", clean), ("poisoned", bad)):
        (most, _), *_ = some.outcomes.most_common(1)
        times = f"p50 {some.latency_ms(0.5, most):.0f} ms, p99 {some.latency_ms(0.99, most):.0f} ms"
        print(f"{who}: {dict(some.outcomes)}, {times}")
    return clean.outcomes.keys() == {OK} and bad.outcomes.keys() == {FAILED}


def show_latency(contestant: Contestant, seconds: float) -> bool:
    """Take turns: the engine alone, and the service with one connection, on the same texts."""
    texts = load_texts(LATENCY_TEXTS)
    engine = "auto" if contestant.engine == OPENVINO else "torch"
    alone_ms, served_ms = [], []
    with engine_alone(engine, WORK) as alone, serve(contestant, texts) as port:
        target = target_of(contestant, port, texts)
        alone.time(texts)
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            alone_ms += [took_s * 1000 for took_s in alone.time(texts)]
            found = closed_loop(target, connections=1, seconds=MAX_SECONDS, max_requests=len(texts))
            served_ms.append(found.latency_ms(0.5))
    own_ms, whole_ms = statistics.median(alone_ms), statistics.median(served_ms)
    print(f"the engine alone: p50 {own_ms:.2f} ms over {len(alone_ms)} texts")
    print(f"one connection: p50 {whole_ms:.2f} ms, {whole_ms - own_ms:+.2f} ms")
    return whole_ms - own_ms <= ALLOWED_MS


def _only(report: Report, belongs: Callable[[int], bool]) -> Report:
    return replace(report, answers=[a for a in report.answers if belongs(a.number)])


Show = Callable[[Contestant, float], bool]
SHOWS: Mapping[str, Show] = {
    "overload": show_overload,
    "leavers": show_leavers,
    "answers": show_answers,
    "poison": show_poison,
    "latency": show_latency,
}


def main() -> int:
    """Run the shows that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shows", nargs="*", metavar="SHOW", help=", ".join(SHOWS))
    parser.add_argument("--engine", choices=["auto", "torch"], default="auto")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load")
    parser.add_argument("--requests", type=int, default=REQUESTS, help="of the show `answers`")
    given = parser.parse_args()
    if unknown := set(given.shows) - set(SHOWS):
        parser.error(f"no such show: {', '.join(sorted(unknown))}")
    process.adopt_orphans()
    prepare_model(WORK)
    (contestant,) = (c for c in LINEUP if c.name == given.engine)
    shows: dict[str, Show] = {**SHOWS, "answers": partial(show_answers, requests=given.requests)}
    failed = []
    for name in given.shows or SHOWS:
        print(f"== {name}", flush=True)
        if not shows[name](contestant, given.seconds):
            failed.append(name)
            print(f"show: {name} doesn't hold", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    Path(WORK).mkdir(exist_ok=True)
    sys.exit(main())
