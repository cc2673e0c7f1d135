"""The engine's process: takes requests of front ends, runs them, and sends their rows."""

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from app.batching.scheduler import BatchScheduler
from app.core.background import run_in_background
from app.errors import EngineError
from app.models.entries import ModelEntry, ModelState
from app.models.registry import ModelRegistry
from app.models.steps import LoadSteps
from app.sharing.facts import Facts
from app.sharing.frames import Kind, TooLargeError, frame, pack_json
from app.sharing.served_front import ServedFront

if TYPE_CHECKING:
    from app.core.telemetry import Telemetry

log = logging.getLogger(__name__)

# While models load, threads note how far they are; nothing tells the event loop.
LOADING_S: Final = 0.05
LOADED_S: Final = 1.0
FORGET_S: Final = 5.0


class EngineHost:
    """Serves front ends with the models of a registry. Methods are called on the event loop.

    Args:
        registry: loads the models; what it has is never unloaded before the end.
        steps: how far each has come.
        began_s: when the process began, as `time.monotonic` counts.
        telemetry: continues the traces of front ends; None: tracing is off.

    """

    def __init__(
        self,
        registry: ModelRegistry,
        steps: LoadSteps,
        *,
        began_s: float,
        telemetry: "Telemetry | None" = None,
    ) -> None:
        self._registry = registry
        self._telemetry = telemetry
        self._steps = steps
        self._began_s = began_s
        self._fronts: set[ServedFront] = set()
        self._models: dict[str, bytes] = {}  # frames of those that serve
        self._refused: set[str] = set()  # those that front ends have to load themselves
        self._state = b""

    @asynccontextmanager
    async def serving(self, listener: socket.socket) -> AsyncIterator[None]:
        """Serve those that connect, during the block.

        Args:
            listener: listens; it stays open for the process that comes after this one.

        """
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(self._connection, sock=listener)
        try:
            async with run_in_background(self._keep_telling, name="engine_host"):
                yield
        finally:
            server.close()
            for front in tuple(self._fronts):
                front.abort()

    def _connection(self) -> asyncio.Protocol:
        front = ServedFront(
            self.scheduler,
            on_open=self._open,
            on_end=self._fronts.discard,
            telemetry=self._telemetry,
        )
        return front.protocol()

    def scheduler(self, index: int) -> BatchScheduler[Any] | None:
        """Return what runs a model; None while it doesn't serve."""
        entries = self._registry.entries
        served = entries[index].served if index < len(entries) else None
        return served.model if served and isinstance(served.model, BatchScheduler) else None

    def _open(self, front: ServedFront) -> None:
        self._fronts.add(front)
        front.tell(b"".join((self._state, *self._models.values())))

    async def _keep_telling(self) -> None:
        """Tell front ends how models are, until all are loaded and told."""
        while True:
            for index, entry in enumerate(self._registry.entries):
                is_new = entry.spec.name not in (*self._models, *self._refused)
                if is_new and entry.state is ModelState.READY:
                    await self._introduce(index, entry)
            state = frame(Kind.STATE, pack_json(self._states()))
            if state != self._state:
                self._state = state
                self._tell_all(state)
            is_loading = any(entry.is_loading for entry in self._registry.entries)
            await asyncio.sleep(LOADING_S if is_loading else LOADED_S)

    async def _introduce(self, index: int, entry: ModelEntry) -> None:
        """Tell front ends what they have to know of a model."""
        assert entry.served is not None  # noqa: S101  # it is ready
        name, model = entry.spec.name, entry.served.model
        assert isinstance(model, BatchScheduler)  # noqa: S101  # no others are shared
        try:
            # A large tokeniser takes a tenth of a second.
            facts = await asyncio.to_thread(
                Facts.of,
                model.engine,
                name=name,
                index=index,
                version=entry.served.version,
                load_s=time.monotonic() - self._began_s,
            )
            told = frame(Kind.MODEL, facts.pack())
        except (EngineError, TooLargeError):
            log.info("model_not_shared", extra={"model": name, "engine": model.engine.kind})
            self._refused.add(name)
            await self._registry.forget(name, timeout_s=FORGET_S)
            return
        self._models[name] = told
        self._tell_all(told)

    def _tell_all(self, data: bytes) -> None:
        for front in tuple(self._fronts):
            front.tell(data)

    def _states(self) -> dict[str, Any]:
        return {entry.spec.name: self._state_of(entry) for entry in self._registry.entries}

    def _state_of(self, entry: ModelEntry) -> dict[str, Any]:
        name = entry.spec.name
        step = self._steps.last(name)
        return {
            "state": entry.state,
            "is_shared": name not in self._refused,
            "reason": entry.reason,
            "detail": entry.detail or "",
            "step": [step.number, step.of, step.name] if step and entry.is_loading else None,
        }
