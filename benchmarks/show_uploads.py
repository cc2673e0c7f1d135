"""Shows what connections that take room and do little cost others; part of `show_storm`."""

import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections import Counter

from app.loadtest.closed_loop import closed_loop
from app.loadtest.connection import Target, make_target
from app.loadtest.report import OK, Report
from benchmarks.contest import WARM_UP_S
from benchmarks.process import memory_mb
from benchmarks.run import WORK
from benchmarks.show_storage import fetch
from benchmarks.storm_service import CONNECTIONS, Say, serve
from benchmarks.texts import load_texts
from benchmarks.uploads import (
    answered,
    begin_upload,
    idle,
    send_stalling,
    slow_uploads,
    statuses,
)

IDLE = 5_000
SLOW = 500
SLOW_BYTES = 1_000_000
WANTED_BESIDE = 0.9
BESIDE_ROUNDS = 3
STALLED = 100
STALLED_BYTES = 15_000_000
ANNOUNCED_BYTES = 16_000_000
CONVERTED = WORK / "data-auto" / "models"
ADMIN = "the-key-that-makes-the-others"
# Of the process, for all the uploads: 64 MiB of bodies, what uvicorn reads ahead, and the heap's.
ALLOWED_MB = 150.0
BODY_TIMEOUT_S = 30.0  # REQUEST_TIMEOUT_MS


def show_beside(seconds: float, say: Say) -> bool:
    """Measure 64 connections alone and among idle and slow ones, in turn."""
    alone: list[Report] = []
    among: list[Report] = []
    with serve("storm-beside") as made:
        target = make_target(f"http://127.0.0.1:{made.port}/predict", load_texts())
        for _ in range(BESIDE_ROUNDS):
            alone.append(closed_loop(target, connections=CONNECTIONS, seconds=seconds))
            among.append(_among(made.port, target, seconds, say))
    ratios = [few.per_second / one.per_second for few, one in zip(among, alone, strict=True)]
    for name, reports in (("alone", alone), ("among them", among)):
        rates = ", ".join(f"{report.per_second:.0f}" for report in reports)
        p99 = statistics.median(report.latency_ms(0.99) for report in reports)
        others = sum((r.outcomes for r in reports), Counter()) - Counter({OK: sys.maxsize})
        say(f"{CONNECTIONS} connections {name}: {rates} req/s, p99 {p99:.0f} ms, {dict(others)}")
    say(f"ratio {statistics.median(ratios):.2f} ({', '.join(f'{each:.2f}' for each in ratios)})")
    return statistics.median(ratios) >= WANTED_BESIDE


def _among(port: int, target: Target, seconds: float, say: Say) -> Report:
    """Measure among idle connections and slow uploads; say how many of those are still there."""
    waiting = idle(port, IDLE)
    try:
        with slow_uploads(port, SLOW, SLOW_BYTES) as uploads:
            report = closed_loop(target, connections=CONNECTIONS, seconds=seconds)
            gone = f"{answered(waiting)} of {IDLE} idle, {answered(uploads)} of {SLOW} uploads"
    finally:
        for connection in waiting:
            connection.close()
    say(f"ended by the service meanwhile: {gone}")
    return report


def show_bodies(seconds: float, say: Say) -> bool:
    """Let uploads of one key stall after 15 of their 16 MB; ask with another key beside them."""
    settings = {"AUTH": "required", "ADMIN_KEY": ADMIN, "MODEL_CACHE_DIR": str(CONVERTED)}
    with (
        tempfile.TemporaryDirectory(dir=WORK) as folder,  # keys are rows of a database
        serve("storm-bodies", DATA_DIR=folder, **settings) as made,
    ):
        uploader, other = (_make_key(made.port, name) for name in ("uploader", "other"))
        headers = {"Authorization": f"Bearer {other}"}
        url = f"http://127.0.0.1:{made.port}/predict"
        target = make_target(url, load_texts(), headers=headers)
        closed_loop(target, connections=CONNECTIONS, seconds=WARM_UP_S)
        before_mb, alone = memory_mb(made.process.pid), _calm(target, seconds)
        with contextlib.ExitStack() as stack:
            uploads = []
            for _ in range(STALLED):
                begun = begin_upload(made.port, "/documents", ANNOUNCED_BYTES, key=uploader)
                uploads.append(stack.enter_context(begun))
                send_stalling(begun, STALLED_BYTES)
            until_s = time.monotonic() + BODY_TIMEOUT_S + seconds
            held_mb, among = memory_mb(made.process.pid), _calm(target, seconds)
            ends = Counter(statuses(uploads, until_s=until_s))
    say(
        f"{STALLED} uploads of {STALLED_BYTES / 1e6:.0f} MB stall: {before_mb:.0f} MB before,"
        f" {held_mb:.0f} MB with them ({held_mb - before_mb:+.0f}); they end with {dict(ends)}"
    )
    for name, report in (("before", alone), ("beside them", among)):
        say(
            f"another key {name}: {report.per_second:.0f} req/s, {dict(report.outcomes)},"
            f" p99 {report.latency_ms(0.99):.0f} ms"
        )
    return held_mb - before_mb <= ALLOWED_MB and among.outcomes.keys() == {OK}


def _calm(target: Target, seconds: float) -> Report:
    return closed_loop(target, connections=8, seconds=seconds)


def _make_key(port: int, name: str) -> str:
    wanted = {"name": name, "scopes": ["predict", "documents"]}
    made: str = json.loads(fetch(port, "/keys", body=json.dumps(wanted).encode(), key=ADMIN))["key"]
    return made
