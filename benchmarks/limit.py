"""Runs a script that answers lines of JSON, such as `engine_alone.py`, and asks it."""

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Self

from benchmarks.process import memory_mb, pinned
from benchmarks.venvs import HERE, PeerError, bin_folder

STOP_TIMEOUT_S = 20


class Script:
    """A process that answers each line of JSON with one; made by `running`."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self._log = log

    @classmethod
    @contextmanager
    def running(cls, command: Sequence[str | Path], log: Path) -> Iterator[Self]:
        """Start the script on the contestants' cores; end it when the block does."""
        with log.open("w", encoding="utf-8") as said, pinned():
            process = subprocess.Popen(
                [bin_folder(None) / "python", *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
            )
        try:
            yield cls(process, log)
        finally:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_TIMEOUT_S)

    def ask(self, **asked: Any) -> Any:  # noqa: ANN401 -- JSON
        """Send a line and return its answer.

        Raises:
            PeerError: the process has ended; with its last words.

        """
        asks, answers = self._process.stdin, self._process.stdout
        assert asks is not None and answers is not None  # noqa: S101, PT018 -- they are pipes
        asks.write(json.dumps(asked) + "\n")
        asks.flush()
        line = answers.readline()
        if not line:
            words = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise PeerError(f"the engine ended: {words[-1][:200] if words else 'without a word'}")
        return json.loads(line)

    def memory_mb(self) -> float:
        """Return its memory."""
        return memory_mb(self._process.pid)


class EngineAlone(Script):
    """A classifier without a server; made by `engine_alone`."""

    def classify(self, texts: Sequence[str]) -> list[tuple[str, float]]:
        """Return the label and score that the engine gives each text alone."""
        return [(label, score) for label, score in self.ask(do="classify", texts=list(texts))]

    def measure(self, texts: Sequence[str]) -> tuple[float, str]:
        """Return texts a second, and the batching that it chose."""
        found = self.ask(do="measure", texts=list(texts))
        return found["per_second"], found["chosen"]

    def time(self, texts: Sequence[str]) -> list[float]:
        """Return the seconds that each text takes alone."""
        seconds: list[float] = self.ask(do="time", texts=list(texts))
        return seconds


def engine_alone(engine: str, work: Path) -> AbstractContextManager[EngineAlone]:
    """Start the engine; end it when the block does."""
    cache = work / f"data-{engine}" / "models"
    command: list[str | Path] = [HERE / "engine_alone.py", engine, work / "model", cache]
    return EngineAlone.running(command, work / f"engine-{engine}.log")
