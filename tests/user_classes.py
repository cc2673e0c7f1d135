"""Classes of a user's in processes of their own, or in threads, without a service around them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.engines.base import EngineRequest, PythonOptions
from app.engines.loader import load_engine
from app.engines.python.engine import PythonEngine
from app.engines.python.runner import Answer

MODEL = """
import os, signal, sys, time
from collections.abc import Iterator

print("hunter2 at import")

class Model:
    def predict(self, items: list[str]) -> list[str]:
        return [self.one(item) for item in items]

    def one(self, item):
        if item == "crash":
            signal.raise_signal(signal.SIGSEGV)
        if item == "leave":
            os._exit(3)
        if item == "hang":
            while True:
                pass
        if item == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        if item == "memory":
            raise MemoryError
        if item == "raise":
            raise KeyError("hunter2")
        if item == "pid":
            return str(os.getpid())
        if item.startswith("$"):
            return os.environ.get(item[1:], "none")
        return item.upper()
"""


@contextmanager
def loaded(
    folder: Path, code: str = MODEL, *, isolation: str = "process", **options: Any
) -> Iterator[PythonEngine]:
    (folder / "model.py").write_text(code, encoding="utf-8")
    python = PythonOptions(
        source="file:model.py:Model", base=folder, isolation=isolation, **options
    )
    request = EngineRequest(
        name="mine", task="python", engine="python", device="cpu", python=python
    )
    engine = load_engine(request)
    assert isinstance(engine, PythonEngine)
    try:
        yield engine
    finally:
        engine.close()


def call(engine: PythonEngine, *items: Any) -> list[Any]:
    """Return the text of each answer, or the error in its place."""
    rows = engine.run([item for item in engine.encode(items) if not isinstance(item, Exception)])
    return [row.content.decode().strip('"') if isinstance(row, Answer) else row for row in rows]
