"""The limit: an engine without a server, fed by threads with sorted batches, tokenising included.

Usage: engine_alone.py ENGINE MODEL CACHE. It loads, then obeys lines of JSON on standard input:
`{"do": "classify", "measure" or "time", "texts": [...]}`, and answers each with a line of JSON.
"""

import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from app.engines.base import Classifier, OpenVinoOptions
from app.models.catalog import ModelSpec
from app.models.loading import ModelLoader
from app.models.sources import Sources

BATCH_SIZES = (8, 16, 32)
SPLITS = ((2, 1), (1, 2))  # threads that call the engine, threads that a call may use
TRIAL_TEXTS = 256


class Limit:
    """An engine with the batching that is best for it."""

    def __init__(self, engine: str, model: Path, cache: Path) -> None:
        self._specs = {
            is_packed: ModelSpec(
                name="sentiment", source=f"file:{model}", engine=engine, packed=is_packed
            )
            for is_packed in (True, False)
        }
        self._packs = engine == "auto"  # torch pads, whatever the entry says
        self._cache = cache
        self._callers, self._batch = 1, BATCH_SIZES[0]
        self._engine = self._load(1, 1, is_packed=True)
        self.chosen = ""

    def _load(self, callers: int, threads: int, *, is_packed: bool) -> Classifier:
        loader = ModelLoader(
            Sources(self._cache),
            folder=Path(),
            device="cpu",
            threads=threads,
            openvino=OpenVinoOptions(
                cache=self._cache / "openvino", streams=callers, cores=callers * threads
            ),
        )
        engine = loader(self._specs[is_packed]).engine
        assert isinstance(engine, Classifier)  # noqa: S101 -- what its task loads
        return engine

    def choose(self, texts: Sequence[str]) -> None:
        """Try each way of batching on some texts and keep the quickest."""
        best = 0.0
        for is_packed in (True, False) if self._packs else (False,):
            for callers, threads in SPLITS:
                self._use(callers, threads, is_packed=is_packed)
                for size in BATCH_SIZES:
                    self._batch = size
                    found = self.measure(texts[:TRIAL_TEXTS])
                    if found > best:
                        best, choice = found, (callers, threads, size, is_packed)
        callers, threads, self._batch, is_packed = choice
        self._use(callers, threads, is_packed=is_packed)
        way = ", in rows" if self._packs and is_packed else ""
        self.chosen = f"{callers} x {threads} threads, batches of {self._batch}{way}"

    def _use(self, callers: int, threads: int, *, is_packed: bool) -> None:
        """Load the engine for this split of the cores."""
        self._engine.close()
        self._engine = self._load(callers, threads, is_packed=is_packed)
        self._callers = callers

    def measure(self, texts: Sequence[str]) -> float:
        """Return texts a second over one pass, the longest batches first."""
        ordered = sorted(texts, key=len, reverse=True)
        batches = [ordered[at : at + self._batch] for at in range(0, len(ordered), self._batch)]
        with ThreadPoolExecutor(self._callers) as threads:
            started = time.perf_counter()
            for _ in threads.map(self._run, batches):
                pass
            return len(texts) / (time.perf_counter() - started)

    def _run(self, batch: Sequence[str]) -> None:
        self._engine.classify(self._engine.encode(batch))

    def classify(self, texts: Sequence[str]) -> list[tuple[str, float]]:
        """Return label and score of each text, each run alone."""
        found = []
        for text in texts:
            scores = self._engine.classify(self._engine.encode([text]))[0]
            best = int(scores.argmax())
            found.append((self._engine.labels[best], float(scores[best])))
        return found

    def time(self, texts: Sequence[str]) -> list[float]:
        """Return the seconds of each text, run alone, with all cores on it."""
        if not self.chosen:
            self._use(1, sum(SPLITS[0]) - 1, is_packed=True)
            self.chosen = "all cores on one text"
        return [self._time_one(text) for text in texts]

    def _time_one(self, text: str) -> float:
        started = time.perf_counter()
        self._run([text])
        return time.perf_counter() - started


def main() -> None:
    """Obey until standard input ends."""
    engine, model, cache = sys.argv[1:]
    limit = Limit(engine, Path(model).resolve(), Path(cache))
    for line in sys.stdin:
        asked = json.loads(line)
        said: Any
        if asked["do"] == "classify":
            said = limit.classify(asked["texts"])
        elif asked["do"] == "time":
            said = limit.time(asked["texts"])
        else:
            if not limit.chosen:
                limit.choose(asked["texts"])
            said = {"per_second": limit.measure(asked["texts"]), "chosen": limit.chosen}
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
