"""Holds the packaged models of two source trees against each other: answers and speed, in one run.

Usage: python -m benchmarks.two_editions OTHER_TREE [--engine openvino] [--rounds 40]. Each tree's
code runs in a process of its own, in turns: what else the machine does weighs on both alike.
Exit status 1 if answers or speed differ by more than is allowed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.texts import load_texts

TREE = Path(__file__).parent.parent
TEXTS_A_CALL = 32
CALLS = 2  # of a round
LEAST_COSINE, MOST_DIFFERENCE, LEAST_RATIO = 0.9999, 1e-3, 0.98
# What both trees have: the catalogue, the loader, `encode`, and `embed` or `classify`.
CHILD = """
import json, sys, time
from pathlib import Path
from app.engines.base import OpenVinoOptions
from app.models.catalog import read_catalog
from app.models.loading import ModelLoader
from app.models.sources import Sources
from app.settings import PACKAGED_MODELS_FILE
name, engine, cache, size = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
catalog = read_catalog(PACKAGED_MODELS_FILE)
load = ModelLoader(
    Sources(cache), folder=catalog.folder, device="cpu", threads=1,
    openvino=OpenVinoOptions(cache=cache / "openvino", cores=1, calls=1, streams=1),
)
model = load(catalog.get(name).model_copy(update={"engine": engine})).engine
run = getattr(model, "embed", None) or model.classify
print(json.dumps({"kind": model.kind, "app": str(PACKAGED_MODELS_FILE)}), flush=True)
for line in sys.stdin:
    texts, rows = json.loads(line), []
    started = time.perf_counter()
    for start in range(0, len(texts), size):
        rows += run(model.encode(texts[start : start + size])).tolist()
    print(json.dumps({"seconds": time.perf_counter() - started, "rows": rows}), flush=True)
"""


class Edition:
    """One tree's code with one model."""

    def __init__(self, stack: ExitStack, tree: Path, model: str, engine: str, cache: Path) -> None:
        command = [sys.executable, "-P", "-c", CHILD, model, engine, str(cache), str(TEXTS_A_CALL)]
        self._child = stack.enter_context(
            subprocess.Popen(  # our own code
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=cache,
                env=os.environ | {"PYTHONPATH": str(tree)},
            )
        )
        stack.callback(self._child.kill)
        loaded = self._read()
        if loaded["kind"] != engine or not Path(loaded["app"]).is_relative_to(tree):
            raise SystemExit(f"{tree}: {loaded}")

    def ask(self, texts: list[str]) -> dict[str, Any]:
        """Return rows, and the seconds that they took."""
        assert self._child.stdin is not None  # noqa: S101  # it is a pipe
        self._child.stdin.write(json.dumps(texts) + "\n")
        self._child.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._child.stdout is not None  # noqa: S101  # it is a pipe
        answer: dict[str, Any] = json.loads(self._child.stdout.readline())
        return answer


def compare(other: Path, model: str, engine: str, rounds: int) -> bool:
    """Print a row of a table; return whether the two are alike."""
    texts = load_texts(512)
    with ExitStack() as stack:
        cache = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        trees = [Edition(stack, tree, model, engine, cache) for tree in (other, TREE)]
        before, now = (np.array(tree.ask(texts)["rows"]) for tree in trees)
        size, ratios = TEXTS_A_CALL * CALLS, []
        for number in range(rounds):
            start = number * size % (len(texts) - size + 1)
            part = texts[start : start + size]
            # Who is first changes, so that neither always follows the other.
            turns = trees if number % 2 else trees[::-1]
            seconds = {id(tree): tree.ask(part)["seconds"] for tree in turns}
            ratios.append(seconds[id(trees[0])] / seconds[id(trees[1])])
    lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(now, axis=1)
    cosine = float(((before * now).sum(axis=1) / lengths).min())
    difference = float(np.abs(before - now).max())
    ratio = statistics.median(ratios)
    print(f"| {model} on {engine} | {cosine:.7f} | {difference:.1e} | {ratio:.3f} |")
    is_alike = cosine >= LEAST_COSINE and difference <= MOST_DIFFERENCE
    return is_alike and ratio >= LEAST_RATIO


def main() -> int:
    """Compare both packaged models on the engines that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path)
    parser.add_argument("--engine", action="append", choices=["openvino", "torch"])
    parser.add_argument("--rounds", type=int, default=40)
    given = parser.parse_args()
    alike = [
        compare(given.other.resolve(), model, engine, given.rounds)
        for engine in given.engine or ["openvino", "torch"]
        for model in ("minilm", "sentiment")
    ]
    return 0 if all(alike) else 1


if __name__ == "__main__":
    sys.exit(main())
