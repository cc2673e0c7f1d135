"""The limit of chat: the engine without a server, called from as many threads as there are streams.

Usage: chat_engine.py GGUF SLOTS CONTEXT_TOKENS CORES. It loads, then obeys lines of JSON on
standard input: `{"first": a prompt's number, "streams", "seconds", "max_tokens"}`, and answers each
with a line of JSON: `[[started_s, [[at_s, text], ...]], ...]`. Zero seconds: one prompt a stream.
"""

import itertools
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from app.engines.base import EngineRequest, Task
from app.engines.chat_base import ChatOptions, GenerationOptions, Generator, Message
from app.engines.llama_cpp.loading import load
from app.engines.tool_calls import Piece
from benchmarks.chat_prompts import messages, prompt


class Caller:
    """Calls the engine with prompt after prompt, and notes when the tokens come."""

    def __init__(self, engine: Generator, numbers: Iterator[int], *, max_tokens: int) -> None:
        self._engine = engine
        self._numbers = numbers
        self._options = GenerationOptions(max_tokens=max_tokens, temperature=0)
        self._started_s = time.perf_counter()

    def run(self, seconds: float) -> list[Any]:
        """Call until the time is over, but once at least."""
        found = [self._call()]
        while time.perf_counter() - self._started_s < seconds:
            found.append(self._call())
        return found

    def _call(self) -> list[Any]:
        given = [
            Message(role=turn["role"], content=turn["content"])
            for turn in messages(prompt(next(self._numbers)))
        ]
        pieces: list[tuple[float, str]] = []

        def on_token(piece: Piece) -> bool:
            if piece:
                pieces.append((time.perf_counter() - self._started_s, str(piece)))
            return False

        started_s = time.perf_counter() - self._started_s
        self._engine.generate(given, self._options, on_token=on_token)
        return [started_s, pieces]


def obey(
    engine: Generator, *, first: int, streams: int, seconds: float, max_tokens: int
) -> list[Any]:
    """Run one load."""
    caller = Caller(engine, itertools.count(first), max_tokens=max_tokens)
    with ThreadPoolExecutor(streams) as threads:
        return [found for part in threads.map(caller.run, [seconds] * streams) for found in part]


def main() -> None:
    """Obey until standard input ends."""
    gguf, slots, context_tokens, cores = sys.argv[1:]
    options = ChatOptions(slots=int(slots), context_tokens=int(context_tokens), cores=int(cores))
    engine = load(
        EngineRequest(
            name="chat", task=Task.CHAT, engine="llama_cpp", folder=Path(gguf), chat=options
        )
    )
    for line in sys.stdin:
        print(json.dumps(obey(engine, **json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
