"""Shows that jobs survive, and how fast they are; 1 if that doesn't hold.

    python -m benchmarks.show_jobs [kills] [speed] [workers]

kills: the worker is killed 20 times and the Valkey 5 times while a job of 20,000 documents runs in
the embedded mode: it succeeds, each document has one set of vectors, no pause is over 15 s.
speed: documents a second of a job, against the engine alone on the same texts before and after it:
a machine that others use too is never as quick as it was a minute ago.
workers: two workers with one thread each against one with one thread, on PostgreSQL and Valkey.
"""

import argparse
import json
import os
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.process import free_ports
from benchmarks.texts import load_texts

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from servers import postgres, valkey  # the line above finds it

ROOT = Path(__file__).parent.parent
APP = Path(sys.executable).parent / "app"
ADDED_AT_ONCE = 1_000
KILLS = {"worker": 20, "valkey": 5}
ALLOWED_PAUSE_S = 15.0
START_S = 240.0
JOB_S = 900.0
POLL_S = 0.1
SELDOM_S = 1.0  # where looking at a job takes what is measured
WANTED_SPEED = 0.9
WANTED_SPEEDUP = 1.8
FINAL = {"succeeded", "failed", "cancelled"}


@dataclass(frozen=True)
class Service:
    """A running service."""

    process: subprocess.Popen[bytes]
    url: str
    data: Path

    def ask(self, path: str, body: object | None = None) -> dict[str, Any]:
        """Get a path, or post to it."""
        request = urllib.request.Request(
            self.url + path,
            data=json.dumps(body).encode() if body is not None else None,
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            answered: dict[str, Any] = json.load(answer)
            return answered

    def job(self, job_id: str) -> dict[str, Any]:
        """Return a job as it is now."""
        return self.ask(f"/jobs/{job_id}")

    def submit(self, count: int, *, mark: str = "") -> str:
        """Store so many documents and begin a job for them; return its id."""
        texts = some_texts(count)
        ids = [f"{mark}d{i}" for i in range(count)]
        for start in range(0, count, ADDED_AT_ONCE):
            some = range(start, min(start + ADDED_AT_ONCE, count))
            documents = [{"id": ids[i], "text": texts[i]} for i in some]
            self.ask("/documents", {"documents": documents})
        return str(self.ask("/embed-batch", {"doc_ids": ids})["job_id"])

    def finish(self, job_id: str, *, poll_s: float = POLL_S) -> dict[str, Any]:
        """Wait for a job's end."""
        until = time.monotonic() + JOB_S
        while time.monotonic() < until:
            job = self.job(job_id)
            if job["status"] in FINAL:
                return job
            time.sleep(poll_s)
        raise TimeoutError(job_id)


def some_texts(count: int) -> list[str]:
    """Return so many real texts; they come again when there are no more."""
    texts = load_texts()
    return [texts[i % len(texts)] for i in range(count)]


def environment(data: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """Return a service's or worker's environment."""
    kept = {k: v for k, v in os.environ.items() if k in {"PATH", "HOME", "LANG"}}
    cache = ROOT / "data" / "models"
    given = {"DATA_DIR": str(data), "MODEL_CACHE_DIR": str(cache), "LOG_LEVEL": "warning"}
    return kept | given | dict(settings)


@contextmanager
def service(folder: Path, **settings: str) -> Iterator[Service]:
    """Run the service and wait until it is ready."""
    (port,) = free_ports(1)
    data = folder / "data"
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [APP, "serve", "--port", str(port)],
            cwd=folder,
            env=environment(data, settings),
            stdout=log,
            stderr=log,
        )
    try:
        made = Service(process, f"http://127.0.0.1:{port}", data)
        _wait_ready(made)
        yield made
    finally:
        process.terminate()
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_ready(made: Service) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        try:
            made.ask("/ready")
        except OSError:
            time.sleep(POLL_S)
        else:
            return
    raise TimeoutError("the service is not ready")


def descendants(pid: int) -> dict[int, str]:
    """Return the processes below one, with their command lines."""
    listed = subprocess.run(
        ["ps", "-eo", "pid=,ppid=,args="],  # noqa: S607  # as the system has it
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    parents: dict[int, tuple[int, str]] = {}
    for line in listed.splitlines():
        number, parent, args = line.split(None, 2)
        parents[int(number)] = (int(parent), args)
    found: dict[int, str] = {}
    todo = [pid]
    while todo:
        above = todo.pop()
        below = {n: args for n, (parent, args) in parents.items() if parent == above}
        found |= below
        todo += below
    return found


def kill_one(made: Service, kind: str, chance: random.Random) -> bool:
    """Kill a process of that kind at once; False when none runs at this moment."""
    pattern = {"worker": "app worker", "valkey": "valkey-server"}[kind]
    pids = [pid for pid, args in descendants(made.process.pid).items() if pattern in args]
    if not pids:
        return False
    os.kill(chance.choice(pids), signal.SIGKILL)  # a worker's parent, or its child
    return True


@dataclass
class Watch:
    """What is seen of a job that is killed again and again."""

    made: Service
    job_id: str
    done: int = 0
    went_back: bool = False

    def look(self) -> dict[str, Any]:
        """Return the job as it is now."""
        job = self.made.job(self.job_id)
        self.went_back |= job["progress"]["done"] < self.done
        self.done = job["progress"]["done"]
        return job

    def wait_progress(self) -> dict[str, Any]:
        """Wait until more is done, or the job is."""
        until, before = time.monotonic() + JOB_S, self.done
        while time.monotonic() < until:
            job = self.look()
            if self.done > before or job["status"] in FINAL:
                return job
            time.sleep(POLL_S)
        raise TimeoutError(self.job_id)

    def wait_given_away(self, before: dict[str, Any]) -> None:
        """Wait until the job isn't held by the worker that was killed."""
        until = time.monotonic() + JOB_S
        while time.monotonic() < until:
            job = self.look()
            if job["status"] != "running" or job["attempts"] != before["attempts"]:
                return
            time.sleep(POLL_S)
        raise TimeoutError(self.job_id)


def show_kills(count: int, seed: int) -> bool:
    """Kill and kill again while a job runs, each time at a random moment of its work."""
    chance = random.Random(seed)  # noqa: S311  # no secret
    plan = [kind for kind, times in KILLS.items() for _ in range(times)]
    chance.shuffle(plan)
    given_away, resumed, killed = [], [], 0
    with tempfile.TemporaryDirectory() as name, service(Path(name), LIMITS="off") as made:
        watch = Watch(made, made.submit(count))
        started = time.monotonic()
        for kind in plan:
            if watch.wait_progress()["status"] in FINAL:
                break
            time.sleep(chance.uniform(0.0, 2.0))
            job = watch.look()
            if job["status"] in FINAL or not kill_one(made, kind, chance):
                continue
            killed, moment = killed + 1, time.monotonic()
            if kind == "worker" and job["status"] == "running":
                watch.wait_given_away(job)
                given_away.append(time.monotonic() - moment)
            watch.wait_progress()
            resumed.append(time.monotonic() - moment)
        job = made.finish(watch.job_id)
        seconds = time.monotonic() - started
        rows = vectors(made.data / "ml-api.sqlite3")
    print(f"{killed} of {len(plan)} kills in {seconds:.0f} s; {job['status']}, {job['progress']}")
    print(f"given away after {shown(given_away)}; more was done after {shown(resumed)}")
    print(f"documents {rows[0]}, with one set of vectors {rows[1]}, passages {rows[2]}")
    is_whole = job["status"] == "succeeded" and rows[0] == rows[1] == count
    is_quick = max(given_away) <= ALLOWED_PAUSE_S
    return killed == len(plan) and is_whole and is_quick and not watch.went_back


def shown(seconds: list[float]) -> str:
    """Return the median and the most."""
    return f"{statistics.median(seconds):.1f} s (at most {max(seconds):.1f})"


def vectors(file: Path) -> tuple[int, int, int]:
    """Count documents, those that have passages 0 to n-1 once, and passages."""
    with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as sql:
        (documents,) = sql.execute("SELECT count(*) FROM documents").fetchone()
        (whole,) = sql.execute(
            "SELECT count(*) FROM (SELECT document_key FROM passages GROUP BY document_key"
            " HAVING count(*) = max(ordinal) + 1 AND count(DISTINCT ordinal) = count(*)"
            " AND count(DISTINCT space) = 1)"
        ).fetchone()
        (passages,) = sql.execute("SELECT count(*) FROM passages").fetchone()
    return documents, whole, passages


ENGINE_ALONE = """
import sys, time, json
from pathlib import Path
from concurrent.futures import ThreadPoolExecutor
from app.models.catalog import read_catalog
from app.core.metrics import Metrics
from app.runtime.parts import make_load
from app.main import load_settings
settings = load_settings()
catalog = read_catalog(settings.models_file)
load = make_load(settings, catalog, tokenisers=ThreadPoolExecutor(1), metrics=Metrics())
spec = next(s for s in catalog.specs if s.name == "minilm")
engine = load(spec).model.engine
texts = json.load(sys.stdin)
batches = []
for start in range(0, len(texts), 128):
    encoded = sorted(engine.encode(texts[start : start + 128]), key=lambda e: e.cost)
    batches += [encoded[i : i + 8] for i in range(0, len(encoded), 8)]
with ThreadPoolExecutor(settings.thread_count) as threads:
    list(threads.map(engine.embed, batches[:40]))
    started = time.perf_counter()
    list(threads.map(engine.embed, batches))
    print(len(texts) / (time.perf_counter() - started))
"""


def engine_alone(folder: Path, count: int, **settings: str) -> float:
    """Return texts a second of the engine, tokenised before, in batches of neighbours in length."""
    ended = subprocess.run(
        [sys.executable, "-c", ENGINE_ALONE],
        input=json.dumps(some_texts(count)),
        cwd=ROOT,
        env=environment(folder / "data", settings),
        check=True,
        capture_output=True,
        text=True,
    )
    return float(ended.stdout)


def show_speed(count: int, rounds: int) -> bool:
    """Run jobs in turn with the engine alone."""
    ratios = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with service(folder, LIMITS="off") as made:
            made.finish(made.submit(256, mark="warm"))  # the worker loads its model
            before = engine_alone(folder, count)
            for number in range(rounds):
                job = made.finish(made.submit(count, mark=f"r{number}"), poll_s=SELDOM_S)
                after = engine_alone(folder, count)
                ratios.append(rate(job) / statistics.mean((before, after)))
                print(
                    f"engine {before:.0f} and {after:.0f}/s, job {rate(job):.0f}/s,"
                    f" ratio {ratios[-1]:.3f}",
                    flush=True,
                )
                before = after
    print(f"median ratio {statistics.median(ratios):.3f}")
    return statistics.median(ratios) >= WANTED_SPEED


def rate(job: Mapping[str, Any]) -> float:
    """Return documents a second, from the start of a job to its end."""
    begun, ended = (datetime.fromisoformat(job[name]) for name in ("started_at", "finished_at"))
    return float(job["progress"]["done"]) / (ended - begun).total_seconds()


@contextmanager
def worker(folder: Path, **settings: str) -> Iterator[None]:
    """Run a worker."""
    with (folder / "worker.log").open("ab") as log:
        process = subprocess.Popen(
            [APP, "worker"],
            cwd=folder,
            env=environment(folder / "data", settings),
            stdout=log,
            stderr=log,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


def show_workers(count: int, rounds: int) -> bool:
    """Run two jobs on one worker, and on two, in turn."""
    speedups = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sql = stack.enter_context(postgres())
        broker = stack.enter_context(valkey())
        url = stack.enter_context(sql.database())
        settings = {"DATABASE_URL": url, "REDIS_URL": broker.url, "LIMITS": "off"}
        subprocess.run(
            [APP, "db", "upgrade"], check=True, env=environment(folder / "data", settings)
        )
        made = stack.enter_context(service(folder, **settings))
        one_thread = settings | {"ENGINE_THREADS": "1", "INFERENCE_THREADS": "1"}
        for number in range(rounds):
            rates = [
                _shared(made, folder, workers, count, f"{number}-{workers}-", one_thread)
                for workers in (1, 2)
            ]
            speedups.append(rates[1] / rates[0])
            print(f"one {rates[0]:.0f}/s, two {rates[1]:.0f}/s, {speedups[-1]:.2f}")
    print(f"median {statistics.median(speedups):.2f}")
    return statistics.median(speedups) >= WANTED_SPEEDUP


def _shared(
    made: Service, folder: Path, workers: int, count: int, mark: str, settings: Mapping[str, str]
) -> float:
    """Return documents a second of two jobs that so many workers share."""
    with ExitStack() as stack:
        for _ in range(workers):
            stack.enter_context(worker(folder, **settings))
        warm = [made.submit(64, mark=f"{mark}w{i}") for i in range(4)]
        for job_id in warm:
            made.finish(job_id)
        ids = [made.submit(count, mark=f"{mark}j{i}") for i in range(2)]
        started = time.monotonic()
        before = sum(made.job(i)["progress"]["done"] for i in ids)
        for job_id in ids:
            made.finish(job_id)
        return float(2 * count - before) / (time.monotonic() - started)


def main() -> int:
    """Run what was asked for; return 1 if something doesn't hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=["kills", "speed", "workers"])
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    shows = {
        "kills": lambda: show_kills(given.documents, given.seed),
        "speed": lambda: show_speed(given.documents // 4, given.rounds),
        "workers": lambda: show_workers(given.documents // 8, given.rounds),
    }
    holds = [shows[name]() for name in given.what]
    return 0 if all(holds) else 1


if __name__ == "__main__":
    sys.exit(main())
