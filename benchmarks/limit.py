"""Runs `engine_alone.py` as a process of its own and asks it."""

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.process import memory_mb, pinned
from benchmarks.venvs import HERE, PeerError, bin_folder

STOP_TIMEOUT_S = 20


class EngineAlone:
    """An engine that answers questions; made by `engine_alone`."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self._log = log

    def _ask(self, **asked: Any) -> Any:  # noqa: ANN401 -- JSON
        asks, answers = self._process.stdin, self._process.stdout
        assert asks is not None and answers is not None  # noqa: S101, PT018 -- they are pipes
        asks.write(json.dumps(asked) + "\n")
        asks.flush()
        line = answers.readline()
        if not line:
            words = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise PeerError(f"the engine ended: {words[-1][:200] if words else 'without a word'}")
        return json.loads(line)

    def classify(self, texts: Sequence[str]) -> list[tuple[str, float]]:
        """Return the label and score that the engine gives each text alone."""
        return [(label, score) for label, score in self._ask(do="classify", texts=list(texts))]

    def measure(self, texts: Sequence[str]) -> tuple[float, str]:
        """Return texts a second, and the batching that it chose."""
        found = self._ask(do="measure", texts=list(texts))
        return found["per_second"], found["chosen"]

    def memory_mb(self) -> float:
        """Return its memory."""
        return memory_mb(self._process.pid)


@contextmanager
def engine_alone(engine: str, work: Path) -> Iterator[EngineAlone]:
    """Start the engine; end it when the block does."""
    log = work / f"engine-{engine}.log"
    with log.open("w", encoding="utf-8") as said, pinned():
        process = subprocess.Popen(
            [
                *(bin_folder(None) / "python", HERE / "engine_alone.py"),
                *(engine, work / "model", work / f"data-{engine}" / "models"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        )
    try:
        yield EngineAlone(process, log)
    finally:
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_TIMEOUT_S)
