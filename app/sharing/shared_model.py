"""A model in the engine's process, as a front end knows it."""

import logging
import threading
from math import ceil
from typing import Final, cast

from app.engines.items import ProcessCount
from app.errors import (
    EngineError,
    ModelNotReadyError,
    ModelUnavailableError,
    ServiceError,
    StartupError,
)
from app.sharing.facts import Facts

log = logging.getLogger(__name__)

# Conversions take minutes each; if the engine's process ends meanwhile, the service does.
MAX_LOAD_S: Final = 3_600.0
UP, DOWN = ProcessCount(ready=1, wanted=1), ProcessCount(ready=0, wanted=1)
RESTARTING: Final = "The model's process has ended and is being started again."
CHANGED: Final = (
    "since the process of the models was started again there is another model under this name:"
    " start the service again"
)
ENDED: Final = "The model's process ended before it answered, and is being started again."


class NotSharedError(Exception):
    """The process that was to run a model leaves it to each front end."""


class SharedModel:
    """Whether a model can be asked, and what it is; told so on the event loop.

    Args:
        name: in the catalogue.

    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.index = 0  # by which requests name it
        self.is_up = False
        self._facts: Facts | None = None
        self._edition = ""
        self._refusal: StartupError | NotSharedError | None = None
        self._lost: StartupError | None = None  # why it didn't come back
        self._settled = threading.Event()

    def wait(self) -> Facts:
        """Wait in a thread until the model serves for the first time.

        Raises:
            StartupError: it can't be loaded.
            NotSharedError: each front end has to load it.

        """
        is_settled = self._settled.wait(MAX_LOAD_S)
        if self._refusal is not None:
            raise self._refusal
        if not is_settled or self._facts is None:
            raise EngineError("the process of the models has not loaded it")
        return self._facts

    def take_facts(self, facts: Facts) -> None:
        """Note that it serves, unless it is another one than it was."""
        edition = facts.edition
        if self._facts is not None and edition != self._edition:
            log.error("shared_model_changed", extra={"model": self.name})
            self._lost = EngineError(CHANGED)
            return
        self._facts, self._edition, self.index = facts, edition, facts.index
        self.is_up = True
        self._lost = None
        self._settled.set()

    def take_refusal(self, refusal: StartupError | NotSharedError) -> None:
        """Note that it can't be loaded, or not there: for the first time, or not again."""
        if not self._settled.is_set():
            self._refusal = refusal
            self._settled.set()
        elif self._facts is not None and not self.is_up and self._lost is None:
            is_left = isinstance(refusal, NotSharedError)
            self._lost = EngineError(CHANGED) if is_left else cast("StartupError", refusal)
            extra = {"model": self.name, "reason": self._lost.line}
            log.error("shared_model_lost", extra=extra)

    def go_down(self) -> None:
        """Note that its process can't be asked; the one that comes after it may have the model."""
        self.is_up = False
        self._lost = None

    def close(self) -> None:
        """End what waits for it."""
        self.is_up = False
        self._settled.set()

    def processes(self) -> ProcessCount:
        """Return whether it can be asked."""
        return UP if self.is_up else DOWN

    def retry_after_s(self) -> int:
        """Return in how many seconds it may be back: as many as it took to start."""
        return max(1, ceil(self._facts.load_s)) if self._facts else 1

    def refusal(self) -> StartupError | None:
        """Return why it couldn't be loaded again; None while it may come back."""
        return self._lost

    def away(self, detail: str = RESTARTING) -> ServiceError:
        """Return the error of a request that it can't take."""
        if self._lost is not None:
            return ModelUnavailableError()
        return ModelNotReadyError(detail, retry_after_s=self.retry_after_s())
