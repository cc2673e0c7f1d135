"""Ten minutes of texts of every length against this service: its memory must stay flat.

Usage: python benchmarks/soak.py [MINUTES]. Prints memory and rates each half minute; exits with 1
when memory at the end is more than 5 % above that after the second minute, or a request fails.
"""

import json
import os
import sys
import tempfile
import urllib.request
from pathlib import Path

from app.loadtest.closed_loop import closed_loop
from app.loadtest.connection import Target, make_target
from benchmarks.process import Running, free_ports, memory_mb, start, stop

MINUTES = 10.0
ROUND_S = 15.0
SETTLED_ROUND = 8  # of 15 s: after two minutes every length has been met
GROWTH = 1.05
CONNECTIONS = 8
SENTENCE = "It rained on the day of the match but nobody who had come by train went home early"
LENGTHS = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 340)  # words; 340 of these fit 2,000 chars


def texts() -> list[str]:
    """Return texts of many lengths, mixed; none is over 2,000 characters."""
    words = SENTENCE.split()
    made = [" ".join(words[(n + k) % len(words)] for k in range(n)) for n in LENGTHS]
    return [made[(5 * index) % len(made)] for index in range(len(made))]


def embed_body(text: str) -> bytes:
    """Return the body of /embed."""
    return json.dumps({"texts": [text, text[: len(text) // 2] or "x"]}).encode()


def wait_ready(port: int, made: Running) -> None:
    """Wait until the service is ready."""
    while made.process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5):
                return
        except OSError:
            continue
    raise SystemExit(made.last_words)


def soak(targets: list[Target], pid: int, rounds: int) -> list[float]:
    """Load the routes in turn; return the memory after each round, in MB."""
    memory: list[float] = []
    for number in range(rounds):
        report = closed_loop(
            targets[number % len(targets)], connections=CONNECTIONS, seconds=ROUND_S
        )
        memory.append(memory_mb(pid))
        said = f"{(number + 1) * ROUND_S:5.0f} s  {memory[-1]:6.0f} MB  {report.per_second:5.0f}/s"
        print(said, dict(report.outcomes), flush=True)
        if set(report.outcomes) != {"200"}:
            raise SystemExit("a request failed")
    return memory


def main() -> None:
    """Start the service, load it, hold its memory against the bound."""
    rounds = int(float(sys.argv[1] if len(sys.argv) > 1 else MINUTES) * 60 / ROUND_S)
    (port,) = free_ports(1)
    app = Path(sys.executable).parent / "app"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        env = {**os.environ, "DATA_DIR": str(Path("data").resolve()), "LOG_LEVEL": "warning"}
        made = start(
            [str(app), "serve", "--port", str(port)],
            port=port,
            env=env,
            folder=folder,
            log=folder / "log",
        )
        try:
            wait_ready(port, made)
            url = f"http://127.0.0.1:{port}"
            targets = [
                make_target(f"{url}/predict", texts()),
                make_target(f"{url}/embed", texts(), body=embed_body),
            ]
            memory = soak(targets, made.process.pid, rounds)
        finally:
            stop(made)
    settled = memory[min(SETTLED_ROUND, len(memory)) - 1]
    print(f"{settled:.0f} MB after two minutes, {memory[-1]:.0f} MB at the end")
    if memory[-1] > settled * GROWTH:
        raise SystemExit("memory grew")


if __name__ == "__main__":
    main()
