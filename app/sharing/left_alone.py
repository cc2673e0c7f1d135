"""What the engine's process doesn't load, since front ends have to: a folder with a GGUF file."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from app.engines.base import Engine, EngineRequest
from app.engines.llama_cpp.server import is_gguf
from app.engines.loader import EngineTable, Load
from app.errors import EngineError

AUTO: Final = "auto"


class LeftAlone:
    """An engine that runs nothing, in the place of one that front ends load themselves."""

    kind, device = "llama_cpp", "cpu"
    workers = max_batch = 1

    def estimate(self, items: Sequence[Any]) -> int:
        """Return a cost; no items come."""
        return len(items)

    def encode(self, items: Sequence[Any], /) -> Sequence[Exception]:
        """Refuse all items; none come."""
        return [EngineError("front ends have this model themselves") for _ in items]

    def run(self, batch: Sequence[Any]) -> Sequence[Any]:
        """Return no rows: no item can be prepared."""
        return [EngineError("front ends have this model themselves") for _ in batch]

    def problems(self) -> list[str]:
        """Say that all is well."""
        return []

    def close(self) -> None:
        """Nothing is held."""


def leave_alone(engines: EngineTable) -> EngineTable:
    """Return the engines, of which `auto` loads no GGUF file.

    That a folder has one shows only when its source is resolved; to load it in this process for
    nothing would take its memory, and its time, with each start.
    """
    auto = engines.kinds.get(AUTO)
    if auto is None:
        return engines
    kinds = {**engines.kinds, AUTO: replace(auto, load=_load_unless_gguf(auto.load))}
    return replace(engines, kinds=kinds)


def _load_unless_gguf(load: Load) -> Load:
    def load_one(request: EngineRequest) -> Engine:
        return LeftAlone() if is_gguf(request.folder) else load(request)

    return load_one
