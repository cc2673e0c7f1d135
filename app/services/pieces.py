"""Answers in pieces: leases the model, takes a slot, and has each piece made in a thread."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import ExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from app.batching.base import Scheduler
from app.batching.deadline import Deadline
from app.core.call_scope import CallScope, in_scope
from app.engines.items import BatchEngine
from app.engines.stream_slots import StreamSlots
from app.errors import DeadlineExceededError, NotFoundError
from app.models.registry import Lease, ModelRegistry, TaskKey
from app.services.results import ResultChecker

# A piece that is being made when its client leaves is waited for, so long; then it ends alone.
CLOSE_TIMEOUT_S = 1.0


class StreamingEngine(BatchEngine, Protocol):
    """An engine whose models may answer in pieces."""

    @property
    def slots(self) -> StreamSlots | None:
        """Where streams run; None: the model has none."""
        ...

    def stream(self, item: Any, /) -> Generator[bytes]:  # noqa: ANN401  # parsed JSON
        """Yield the pieces of the answer to an item as JSON; each step blocks."""
        ...


E = TypeVar("E", bound=StreamingEngine)


@dataclass(frozen=True, slots=True, kw_only=True)
class PieceStream:
    """An answer that is being made.

    Args:
        model: its name.
        version: of its files.
        pieces: JSON; None: none has come for `heartbeat_s`.

    """

    model: str
    version: str
    pieces: AsyncGenerator[bytes | None]


class PieceService:
    """Streams the answers of models that make them in pieces.

    Args:
        registry: lends the models.
        results: turns what a model raises into errors.

    """

    def __init__(self, registry: ModelRegistry, results: ResultChecker) -> None:
        self._registry = registry
        self._results = results

    @asynccontextmanager
    async def open(
        self,
        task: TaskKey[Scheduler[E]],
        item: Any,  # noqa: ANN401  # parsed JSON
        *,
        model_name: str,
        deadline: Deadline,
        heartbeat_s: float,
    ) -> AsyncIterator[PieceStream]:
        """Start an answer; leaving the block closes the model's generator.

        Raises:
            ModelNotFoundError, ModelNotReadyError, ModelUnavailableError: as the registry says.
            NotFoundError: the model has no streams.
            OverloadedError: as many run as may.

        """
        await self._registry.wake(model_name, task, until_s=deadline.at_s)
        with ExitStack() as held:
            lease = held.enter_context(self._registry.lease(model_name, task))
            slots = lease.model.engine.slots
            if slots is None:
                raise NotFoundError("This model has no stream.")
            held.enter_context(slots.taken())
            left: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            scope = CallScope(until_s=deadline.at_s, waiting=(left,))
            steps = _Steps(lease.model.engine.stream(item), slots, scope)
            kept = held.pop_all()
        try:
            pieces = self._pieces(steps, lease, deadline, heartbeat_s)
            async with aclosing(pieces):
                yield PieceStream(model=lease.spec.name, version=lease.version, pieces=pieces)
        finally:
            left.cancel()
            # The model and the slot are taken until the generator has ended, also a slow one.
            closing = slots.keep(_close(steps, kept))
            await asyncio.wait({closing}, timeout=CLOSE_TIMEOUT_S)

    async def _pieces(
        self, steps: "_Steps", lease: Lease[Any], deadline: Deadline, heartbeat_s: float
    ) -> AsyncGenerator[bytes | None]:
        """Yield pieces.

        Raises:
            ServiceError: the answer ends with it.

        """
        while True:
            step = steps.begin()
            while not step.done():
                wait_s = min(heartbeat_s, deadline.remaining_s)
                if not wait_s:
                    raise DeadlineExceededError
                await asyncio.wait({step}, timeout=wait_s)
                if not step.done() and deadline.remaining_s:
                    yield None
            if failure := step.exception():
                assert isinstance(failure, Exception)  # noqa: S101  # no cancellation: it ran
                raise self._results.check(failure, model=lease.spec.name)
            piece = step.result()
            if piece is None:
                return
            yield piece


class _Steps:
    """Runs a generator's steps, one after the other, in threads."""

    def __init__(self, generator: Generator[bytes], slots: StreamSlots, scope: CallScope) -> None:
        self._scope = scope
        self._generator = generator
        self._slots = slots
        self._step: asyncio.Future[bytes | None] | None = None

    def begin(self) -> asyncio.Future[bytes | None]:
        """Begin the next step; None is its result at the end."""
        self._step = self._slots.run(self._next)
        return self._step

    def _next(self) -> bytes | None:
        with in_scope(self._scope):
            return next(self._generator, None)

    async def close(self) -> None:
        """Close the generator once its step has ended."""
        if self._step is not None and not self._step.done():
            await asyncio.wait({self._step})
        with suppress(Exception):  # its client has left
            await self._slots.end(self._generator.close)
        if self._step is not None and self._step.done() and not self._step.cancelled():
            self._step.exception()  # of one that nobody waits for


async def _close(steps: _Steps, kept: ExitStack) -> None:
    with kept:
        await steps.close()
