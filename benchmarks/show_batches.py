"""Shows that batches survive kills, and that their lines give way to clients; 1 if not.

    python -m benchmarks.show_batches [kills] [clients]

kills: 1,600 lines for the default embedder and 400 for the default chat model, in two batches. The
service is killed five times while they run, and its worker five times: each line is answered once.
clients: what a client that asks every 0.1 s waits for an embedding and for a chat answer, without a
batch and with one that runs meanwhile.
`--fake` takes models without weights, which start at once where the machine is busy.
"""

import argparse
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

from openai import OpenAI
from openai.types import Batch

from benchmarks.show_jobs import Service, descendants, service, some_texts

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from packaged import MINILM, smollm2  # the line above finds it

KILLS = 5
EMBED, CHAT = "/v1/embeddings", "/v1/chat/completions"
COUNTS = {EMBED: 1_600, CHAT: 400}
TOKENS = 4
LIMIT_S = 1_200.0
POLL_S = 0.2
PAUSE_S = 0.1
ROUNDS = 40
# What a client may wait longer beside a batch: what lines may go on for, and a call of an engine.
ALLOWED_S = 0.25 + 0.25
ENDED = {"completed", "failed", "expired", "cancelled"}
SETTINGS = {"LIMITS": "off", "JOB_LEASE_S": "4"}
# The default models that batches need: the others would only make each start longer.
MODELS = MINILM + smollm2(slots=4, context_tokens=1024)
FAKE = """
[[models]]
name = "vectors"
task = "embedding"
engine = "fake"
required = true
fake = { delay_ms = 20 }

[[models]]
name = "chatty"
task = "chat"
engine = "fake"
required = true
fake = { delay_ms = 5 }
"""


def body_of(endpoint: str, text: str) -> dict[str, Any]:
    """Return a request."""
    if endpoint == EMBED:
        return {"input": text}
    message = {"role": "user", "content": text}
    return {"messages": [message], "max_tokens": TOKENS, "temperature": 0}


def settings_in(folder: Path, models: str) -> dict[str, str]:
    """Return the settings of a service in a folder."""
    file = folder / "models.toml"
    file.write_text(models, encoding="utf-8")
    return SETTINGS | {"MODELS_FILE": str(file)}


def client_of(made: Service) -> OpenAI:
    """Return OpenAI's client of a service."""
    return OpenAI(base_url=f"{made.url}/v1", api_key="none", timeout=60, max_retries=5)


def begin(ai: OpenAI, endpoint: str, count: int) -> Batch:
    """Upload so many lines and begin a batch."""
    lines = [
        {"custom_id": f"{number}", "method": "POST", "url": endpoint, "body": body}
        for number, text in enumerate(some_texts(count))
        if (body := body_of(endpoint, text))
    ]
    content = "\n".join(map(json.dumps, lines)).encode()
    file = ai.files.create(file=("lines.jsonl", content), purpose="batch")
    return ai.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h")  # type: ignore[arg-type]  # one that it knows


def done(batch: Batch) -> int:
    """Return how many lines of a batch are answered."""
    counts = batch.request_counts
    return counts.completed + counts.failed if counts else 0


def answers(ai: OpenAI, batch: Batch) -> tuple[Counter[str], Counter[int]]:
    """Return how often each line is in the batch's files, and the answers by status."""
    ids: Counter[str] = Counter()
    statuses: Counter[int] = Counter()
    for file_id in (batch.output_file_id, batch.error_file_id):
        for line in ai.files.content(file_id).text.splitlines() if file_id else ():
            answer = json.loads(line)
            ids[answer["custom_id"]] += 1
            statuses[(answer["response"] or {"status_code": 0})["status_code"]] += 1
    return ids, statuses


def kill(made: Service, kind: str) -> bool:
    """Kill the service, or a process of its worker; False when there is none now."""
    workers = [p for p, args in descendants(made.process.pid).items() if "app worker" in args]
    pids = {"service": [made.process.pid], "worker": workers}[kind]
    if pids:
        os.kill(pids[0], signal.SIGKILL)
    return bool(pids)


def show_kills(seed: int, models: str) -> bool:
    """Kill again and again while batches run, each time after more was answered."""
    chance = random.Random(seed)  # noqa: S311  # no secret
    plan = ["service", "worker"] * KILLS
    chance.shuffle(plan)
    killed: Counter[str] = Counter()
    resumed: list[float] = []
    batches: list[Batch] = []
    before, moment = 0, 0.0
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        while True:
            with service(Path(name), **settings_in(Path(name), models)) as made:
                ai = client_of(made)
                batches = batches or [begin(ai, *each) for each in COUNTS.items()]
                is_alive = True
                while is_alive:
                    batches = [ai.batches.retrieve(batch.id) for batch in batches]
                    now = sum(map(done, batches))
                    if all(batch.status in ENDED for batch in batches):
                        found = [answers(ai, batch) for batch in batches]
                        return report(batches, found, killed, resumed, started)
                    if time.monotonic() - started > LIMIT_S:
                        raise TimeoutError(f"{now} lines")
                    if now > before and plan:
                        if moment:
                            resumed.append(time.monotonic() - moment)
                        time.sleep(chance.uniform(0.0, 2.0))
                        kind = plan[-1]
                        if kill(made, kind):
                            moment = time.monotonic()
                            killed[plan.pop()] += 1
                            before, is_alive = now, kind != "service"
                    time.sleep(POLL_S)


def report(
    batches: list[Batch],
    found: list[tuple[Counter[str], Counter[int]]],
    killed: Counter[str],
    resumed: list[float],
    started: float,
) -> bool:
    """Print what was seen; say whether all of it is as promised."""
    seconds = time.monotonic() - started
    longest = f"{statistics.median(resumed):.1f} s (at most {max(resumed):.1f})"
    print(f"killed: {dict(killed)} in {seconds:.0f} s; more was answered after {longest}")
    print("| endpoint | status | lines | in the files once | more than once | missing | statuses |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    is_whole = True
    for batch, (ids, statuses) in zip(batches, found, strict=True):
        count = COUNTS[batch.endpoint]
        once = sum(times == 1 for times in ids.values())
        more = sum(times > 1 for times in ids.values())
        is_whole &= batch.status == "completed" and once == count == len(ids)
        row = (batch.endpoint, batch.status, count, once, more, count - len(ids), dict(statuses))
        print("| " + " | ".join(map(str, row)) + " |")
    return is_whole and killed == {"service": KILLS, "worker": KILLS}


def waits(made: Service, endpoint: str) -> list[float]:
    """Ask again and again; return the seconds of each answer."""
    seconds = []
    for text in some_texts(ROUNDS):
        request = urllib.request.Request(
            made.url + endpoint,
            data=json.dumps(body_of(endpoint, text)).encode(),
            headers={"Content-Type": "application/json"},
        )
        time.sleep(PAUSE_S)
        began = time.monotonic()
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()
        seconds.append(time.monotonic() - began)
    return seconds


def show_clients(models: str) -> bool:
    """Compare what a client waits without and with a batch."""
    is_held = True
    print("| client asks | batch | alone: median, longest (ms) | beside it | answers |")
    print("| --- | --- | --- | --- | --- |")
    with (
        tempfile.TemporaryDirectory() as name,
        service(Path(name), **settings_in(Path(name), models)) as made,
    ):
        ai = client_of(made)
        for asked in (EMBED, CHAT):
            for ran in (EMBED, CHAT):
                waits(made, asked)  # warm
                alone = waits(made, asked)
                batch = begin(ai, ran, 5_000)
                while ai.batches.retrieve(batch.id).status == "validating":
                    time.sleep(POLL_S)
                beside = waits(made, asked)
                answered = done(ai.batches.cancel(batch.id))
                while ai.batches.retrieve(batch.id).status not in ENDED:
                    time.sleep(POLL_S)
                is_held &= statistics.median(beside) <= statistics.median(alone) + ALLOWED_S
                row = (asked, ran, _ms(alone), _ms(beside), f"{len(beside)}; lines {answered}")
                print("| " + " | ".join(row) + " |")
    return is_held


def _ms(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1000:.0f}, {max(seconds) * 1000:.0f}"


def main() -> None:
    """Show what the arguments name, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=["kills", "clients"])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--fake", action="store_true", help="take models without weights")
    given = parser.parse_args()
    models = FAKE if given.fake else MODELS
    shows = {
        "kills": lambda: show_kills(given.seed, models),
        "clients": lambda: show_clients(models),
    }
    held = [shows[name]() for name in given.what]
    sys.exit(0 if all(held) else 1)


if __name__ == "__main__":
    main()
