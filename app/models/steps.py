"""How far the loading of each model has come: set by threads that load, read by `/ready`."""

from functools import partial

from app.engines.base import OnStep, Step


class LoadSteps:
    """The last step of each model. Any thread may set it."""

    def __init__(self) -> None:
        self._steps: dict[str, Step] = {}

    def recorder(self, name: str) -> OnStep:
        """Return a callback for the steps of this model."""
        return partial(self._steps.__setitem__, name)

    def last(self, name: str) -> Step | None:
        """Return the last step; None for a model that has nothing to prepare."""
        return self._steps.get(name)
