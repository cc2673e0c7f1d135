"""Shows that keys, limits and the log cost little and lose nothing; 1 if that doesn't hold.

    python -m benchmarks.show_storage [cost] [drops]

cost: /predict with keys, limits (Valkey) and the log (PostgreSQL), in turn with /predict without.
drops: 20,000 requests at full speed, then SIGTERM: every answer is a row, or counted as dropped.

PostgreSQL and Valkey are started from the wheels that the tests use.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psycopg2  # type: ignore[import-untyped]  # no type information is published

from app.loadtest.closed_loop import closed_loop
from app.loadtest.connection import Target, make_target
from app.loadtest.report import OK, Report
from benchmarks import process
from benchmarks.contest import running, until_answers
from benchmarks.lineup import LINEUP
from benchmarks.process import Running, stop
from benchmarks.run import WORK, prepare_model
from benchmarks.show import read_counters
from benchmarks.texts import load_texts
from benchmarks.venvs import bin_folder

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from servers import Postgres, Valkey, postgres, valkey  # the line above finds it

CONNECTIONS = 64
WARM_UP_S = 4.0
WANTED_RATIO = 0.85
REQUESTS = 20_000
MAX_SECONDS = 600.0
ADMIN = "the-first-key-of-a-fleet"
DROPPED = "mlapi_prediction_log_dropped_total"
UNCOUNTED = "mlapi_limiter_unavailable_total"
# More of a core than this isn't the system's own housekeeping: somebody else works here.
OTHERS = 0.05
TRIES = 3  # times as many pairs at most, when the machine isn't quiet
FLUSH_WAIT_S = 10.0  # rows wait for half a second, and for the database
BARE = {"AUTH": "off", "LIMITS": "off", "PREDICTION_LOG": "off"}
FAKE_MODELS = '[[models]]\nname = "dummy"\nengine = "fake"\ndefault = true\nrequired = true\n'


def guards(sql: Postgres, limits: Valkey) -> dict[str, str]:
    """Return the settings of a service with everything on."""
    secrets = {"ADMIN_KEY": ADMIN, "DATABASE_URL": sql.url, "REDIS_URL": limits.url}
    return {"AUTH": "required", "LIMITS": "on", "LOG_FORMAT": "json", **secrets}


@contextmanager
def serve(name: str, settings: Mapping[str, str]) -> Iterator[Running]:
    """Run the service with these settings; give it when it is ready."""
    (auto,) = (contestant for contestant in LINEUP if contestant.name == "auto")
    # Without Redis the service would start one of its own, and a worker, beside what is measured.
    changed = replace(auto, name=name, env={**auto.env, "JOBS": "off", **settings})
    with running(changed, changed.sizes, WORK) as made:
        until_answers(made, partial(fetch, made.port, "/ready"))
        yield made


def fetch(port: int, path: str, *, body: bytes | None = None, key: str = "") -> bytes:
    """Send one request with a key; return the answer's body."""
    head = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, head)
    with urllib.request.urlopen(asked, timeout=30) as answer:
        content: bytes = answer.read()
        return content


def target_of(port: int, *, key: str = "") -> Target:
    """Prepare the requests of a caller, with a key or without."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return make_target(f"http://127.0.0.1:{port}/predict", load_texts(), headers=headers)


def make_key(port: int) -> str:
    """Make a key with a limit that is counted and never reached."""
    wanted = {"name": "show", "scopes": ["predict"], "limit": "10000000/minute"}
    key: str = json.loads(fetch(port, "/keys", body=json.dumps(wanted).encode(), key=ADMIN))["key"]
    return key


def upgrade(url: str) -> None:
    """Make the tables."""
    env = {**os.environ, "DATABASE_URL": url}
    subprocess.run(
        [bin_folder(None) / "app", "db", "upgrade"], check=True, env=env, stdout=subprocess.DEVNULL
    )


def count_rows(url: str) -> int:
    """Return how many answers were logged."""
    connection = psycopg2.connect(url)
    try:
        cursor = connection.cursor()
        cursor.execute("SELECT count(*) FROM predictions")
        return int(cursor.fetchone()[0])
    finally:
        connection.close()


@contextmanager
def servers() -> Iterator[tuple[Postgres, Valkey]]:
    """Run PostgreSQL, which writes each commit through to the disk, and Valkey."""
    with postgres("-c", "fsync=on") as sql, valkey() as limits:
        upgrade(sql.url)
        yield sql, limits


class Pair(NamedTuple):
    """One load of each service, and what share of a core went to others meanwhile."""

    bare: Report
    guarded: Report
    others: float

    @property
    def is_quiet(self) -> bool:
        """Whether the two had the machine for themselves, so that the pair counts."""
        return self.others <= OTHERS


def show_cost(given: argparse.Namespace) -> bool:
    """Load one service while the other rests, in turn; compare the medians of their rates."""
    with ExitStack() as stack:
        sql, limits = stack.enter_context(servers())
        bare = stack.enter_context(serve("bare", BARE))
        guarded = stack.enter_context(serve("guarded", guards(sql, limits)))
        key = make_key(guarded.port)
        targets = target_of(bare.port), target_of(guarded.port, key=key)
        pairs = [load_both(*targets, seconds=WARM_UP_S)]
        while keeps_on(pairs[1:], given.rounds):
            is_odd = len(pairs) % 2 == 1
            pairs.append(load_both(*targets, seconds=given.seconds, guarded_first=is_odd))
            print(describe(pairs[-1]), flush=True)
        answers = sum(pair.guarded.outcomes[OK] for pair in pairs)
        rows = wait_for_rows(sql.url, answers)
        counted = read_counters(guarded.port, DROPPED, UNCOUNTED)
    print(f"{answers} answers with, {rows} rows in PostgreSQL, {dict(counted)}")
    is_cheap = compare([pair for pair in pairs[1:] if pair.is_quiet], given.rounds)
    return is_cheap and rows == answers and all(all_ok(pair) for pair in pairs)


def keeps_on(pairs: Sequence[Pair], wanted: int) -> bool:
    """Tell whether quiet pairs are missing, and may still come."""
    return sum(pair.is_quiet for pair in pairs) < wanted and len(pairs) < wanted * TRIES


def load_both(
    bare: Target, guarded: Target, *, seconds: float, guarded_first: bool = False
) -> Pair:
    """Load one after the other, in an order that the caller changes: machines drift."""
    targets = [guarded, bare] if guarded_first else [bare, guarded]
    before_s, started_s = process.others_cpu_s(), time.monotonic()
    reports = [closed_loop(t, connections=CONNECTIONS, seconds=seconds) for t in targets]
    others = (process.others_cpu_s() - before_s) / (time.monotonic() - started_s)
    first, second = reports
    if guarded_first:
        return Pair(bare=second, guarded=first, others=others)
    return Pair(bare=first, guarded=second, others=others)


def describe(pair: Pair) -> str:
    """Say one pair's rates, and whether it counts."""
    rates = f"{pair.bare.per_second:.1f}/s without, {pair.guarded.per_second:.1f}/s with"
    word = "counts" if pair.is_quiet else "doesn't count"
    return f"{rates}; others took {pair.others:.0%} of a core: {word}"


def compare(pairs: Sequence[Pair], wanted: int) -> bool:
    """Compare the medians of quiet pairs."""
    if len(pairs) < wanted:
        print(f"the machine wasn't quiet: {len(pairs)} of {wanted} pairs count")
        return False
    bare = statistics.median(pair.bare.per_second for pair in pairs)
    guarded = statistics.median(pair.guarded.per_second for pair in pairs)
    print(f"medians {bare:.1f}/s without, {guarded:.1f}/s with: {guarded / bare:.3f}")
    return guarded / bare >= WANTED_RATIO


def all_ok(pair: Pair) -> bool:
    """Tell whether every request of a pair got 200."""
    return {*pair.bare.outcomes, *pair.guarded.outcomes} == {OK}


def wait_for_rows(url: str, wanted: int) -> int:
    """Return the number of rows when it is what is wanted, or when that takes too long."""
    until_s = time.monotonic() + FLUSH_WAIT_S
    while (rows := count_rows(url)) != wanted and time.monotonic() < until_s:
        time.sleep(0.1)
    return rows


def show_drops(given: argparse.Namespace) -> bool:
    """Send many requests at full speed, then SIGTERM; hold rows and drops against the answers."""
    models = WORK / "fake-storage.toml"
    models.write_text(FAKE_MODELS, encoding="utf-8")
    with servers() as (sql, limits):
        settings = {**guards(sql, limits), "MODELS_FILE": str(models)}
        with serve("drops", settings) as made:
            found = closed_loop(
                target_of(made.port, key=make_key(made.port)),
                connections=CONNECTIONS,
                seconds=MAX_SECONDS,
                max_requests=given.requests,
            )
            stop(made)
        rows, dropped = count_rows(sql.url), count_dropped(made.log)
    status = made.process.returncode
    print(f"{dict(found.outcomes)} at {found.per_second:.0f}/s, then SIGTERM: status {status}")
    print(f"{rows} rows, {dropped} dropped")
    sent = found.outcomes[OK]
    return sent == given.requests == rows and dropped == 0 and status == 0


def count_dropped(log: Path) -> int:
    """Return how many rows the service said that it dropped; it says all of them by its end."""
    lines = log.read_text(encoding="utf-8").splitlines()
    return sum(json.loads(line)["count"] for line in lines if "predictions_dropped" in line)


SHOWS: Mapping[str, Callable[[argparse.Namespace], bool]] = {
    "cost": show_cost,
    "drops": show_drops,
}


def main() -> int:
    """Run the shows that are named, or both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shows", nargs="*", metavar="SHOW", help=", ".join(SHOWS))
    parser.add_argument("--rounds", type=int, default=6, help="pairs of `cost` that count")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each load of `cost`")
    parser.add_argument("--requests", type=int, default=REQUESTS, help="of `drops`")
    given = parser.parse_args()
    if unknown := set(given.shows) - set(SHOWS):
        parser.error(f"no such show: {', '.join(sorted(unknown))}")
    process.adopt_orphans()
    prepare_model(WORK)
    failed = []
    for name in given.shows or SHOWS:
        print(f"== {name}", flush=True)
        if not SHOWS[name](given):
            failed.append(name)
            print(f"show: {name} doesn't hold", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
