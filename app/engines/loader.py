"""Chooses the engine for a model and loads it."""

from collections.abc import Callable, Mapping

from app.engines import fake, torch
from app.engines.base import Engine, EngineRequest
from app.errors import EngineError

Load = Callable[[EngineRequest], Engine]

ENGINES: Mapping[str, Load] = {"torch": torch.load, "fake": fake.load}
# What `engine = "auto"` means.
AUTO = "torch"


def load_engine(request: EngineRequest) -> Engine:
    """Load one model; blocks for as long as that takes.

    Raises:
        EngineError: the engine isn't known, or can't load this model.

    """
    name = AUTO if request.engine == "auto" else request.engine
    if name not in ENGINES:
        known = ", ".join(["auto", *ENGINES])
        raise EngineError(f"engine {request.engine!r} is not known; known are {known}")
    return ENGINES[name](request)
