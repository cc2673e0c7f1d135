"""What tracing costs: processor time a request, fake engine, in interleaved rounds; 1 if too much.

Usage: python -m benchmarks.show_tracing [--base TREE] [--all] [--rounds 10] [--requests 4000].
Services that run all the time, one asked at a time over 64 connections: this tree with tracing off,
at 10 % of requests, with --all at 100 % too, and TREE, the tree before tracing. A collector in a
process of its own takes the spans and drops them; its time isn't counted. Prints medians, and
ratios round by round.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks import process
from benchmarks.front_cost import serving
from benchmarks.texts import load_texts
from benchmarks.two_services import TREE, WARM_UP, Service, one_round, told

MOST_AT_A_TENTH = 1.15
OFF, TENTH, ALL, BASE = "off", "a tenth", "all", "before"
SHARES = {TENTH: "0.1", ALL: "1.0"}
SINK = """
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Sink(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
print(server.server_port, flush=True)
server.serve_forever()
"""


@contextmanager
def collector() -> Iterator[str]:
    """Run what takes spans and drops them, and give its address."""
    command = [sys.executable, "-c", SINK]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None  # noqa: S101  # it is a pipe
            yield f"http://127.0.0.1:{running.stdout.readline().strip()}"
        finally:
            running.terminate()


def services(
    stack: ExitStack, base: Path | None, texts: Sequence[str], *, shares: Mapping[str, str]
) -> list[Service]:
    """Start all of them; `shares`: what is sampled, by the name of the service."""
    work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    endpoint = stack.enter_context(collector())
    trees = {OFF: TREE} | dict.fromkeys(shares, TREE)
    trees |= {BASE: base.resolve()} if base else {}
    started = []
    for name, tree in trees.items():
        settings = {"JOBS": "off"}
        if name in shares:
            settings |= {
                "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
                "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
                "OTEL_TRACES_SAMPLER_ARG": shares[name],
            }
        folder = work / name.replace(" ", "_")
        made = serving(
            name, ["app", "serve"], tree=tree, folder=folder, texts=texts, settings=settings
        )
        started.append(stack.enter_context(made))
    return started


def spans(service: Service) -> str:
    """Return what became of a service's spans."""
    target = service.targets["classify"]
    url = f"http://{target.host}:{target.port}/metrics"
    with urllib.request.urlopen(url) as answer:
        lines = answer.read().decode().splitlines()
    found = [line.partition("{")[2] for line in lines if line.startswith("mlapi_spans_total{")]
    return ", ".join(found) or "none"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--requests", type=int, default=4_000)
    given = parser.parse_args()
    process.adopt_orphans()
    with ExitStack() as stack:
        shares = SHARES if given.all else {TENTH: SHARES[TENTH]}
        running = services(stack, given.base, load_texts(512), shares=shares)
        rows: list[dict[str, float]] = []
        for number in range(given.rounds + 1):
            order = running if number % 2 == 0 else running[::-1]
            requests = int(given.requests * (WARM_UP if number == 0 else 1))
            row = {s.name: one_round(s, "classify", requests=requests)[1] for s in order}
            rows += [row] if number else []
        for service in running:
            cost = statistics.median(row[service.name] for row in rows)
            ratio = told([row[service.name] / row[OFF] for row in rows])
            print(f"{service.name}: {cost:.3f} ms a request, {ratio} of off; {spans(service)}")
        if given.base:
            print(f"off : before {told([row[OFF] / row[BASE] for row in rows])}")
    tenth = statistics.median(row[TENTH] / row[OFF] for row in rows)
    return 0 if tenth <= MOST_AT_A_TENTH else 1


if __name__ == "__main__":
    sys.exit(main())
