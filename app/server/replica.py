"""A replica of one model on Ray Serve: it has the model alone, with queue, batches and workers."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final, cast

from app.batching.deadline import Deadline
from app.batching.generations import Generations
from app.batching.requests import Outcome
from app.batching.scheduler import BatchScheduler
from app.core.metrics import Metrics
from app.engines.chat import StreamedChatModel
from app.engines.chat_base import Generation, GenerationOptions, Message
from app.engines.tool_calls import Piece
from app.errors import EngineError, ModelUnavailableError, ServiceError, StartupError
from app.main import compose
from app.models.catalog import Catalog
from app.models.entries import Served
from app.replicas.facts import ReplicaFacts
from app.runtime.composition import Composition
from app.runtime.on_ray import is_on_ray
from app.runtime.opening import open_runtime
from app.runtime.runtime import Runtime
from app.settings import Settings
from app.sharing.failures import write_failure
from app.sharing.items import unpack_items
from app.sharing.rows import pack_rows

# The service ends a generation earlier, by its own deadline; this one is for when it has died.
MAX_GENERATION_S: Final = 3_600.0
OTHER_MODEL: Final = "There is another model under this name now: start the service again."
Failure = dict[str, Any]


class Replica:
    """Answers what the service asks. Its methods are called on one event loop, many at once.

    Args:
        runtime: that has loaded the model.
        served: the model.
        facts: of it.

    """

    def __init__(self, runtime: Runtime, served: Served, facts: ReplicaFacts) -> None:
        self._facts = facts
        self._runtime = runtime
        self._model = served.model
        self._edition = facts.edition

    def check_health(self) -> None:
        """Check that the model can do work; raises as `Runtime.check_health`."""
        self._runtime.check_health()

    async def facts(self) -> ReplicaFacts:
        """Return what the service has to know of the model."""
        return self._facts

    async def run(self, edition: str, tokens: bytes, count: int, left_s: float) -> bytes:
        """Run texts; return their rows, packed, each with its error where it has one.

        Args:
            edition: of the model that is meant.
            tokens: of the texts, packed.
            count: how many texts.
            left_s: until the answer is of no use: clocks of other machines differ.

        """
        scheduler = cast("BatchScheduler[Any]", self._model)
        waiter: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        try:
            self._check(edition)
            request = scheduler.submit_prepared(
                unpack_items(bytearray(tokens), count),
                deadline=Deadline(at_s=time.monotonic() + left_s),
                waiter=waiter,
            )
        except ServiceError as failure:
            return pack_rows([failure] * count)
        try:
            outcome = await waiter
        except asyncio.CancelledError:
            scheduler.leave(request, is_client_gone=True)
            raise
        scheduler.note_answered(request)
        return pack_rows(outcome.rows)

    async def generate(
        self, edition: str, messages: Sequence[Message], options: GenerationOptions
    ) -> AsyncGenerator[list[Piece | Generation | Failure]]:
        """Yield the pieces of an answer as they come, and at last the whole, or the error.

        Closing the generator ends the generation with its next token.
        """
        generations = cast("Generations", self._model)
        try:
            self._check(edition)
            await asyncio.to_thread(generations.engine.check, options)
            slot = await generations.acquire(Deadline(at_s=time.monotonic() + MAX_GENERATION_S))
        except ServiceError as failure:
            yield [write_failure(failure)]
            return
        try:
            chat_model = cast("StreamedChatModel", generations.engine.chat_model)
            run = chat_model.start(messages, options)
            async with aclosing(run.tokens()) as pieces:
                async for piece in pieces:
                    slot.progress_s = time.monotonic()
                    yield [piece]
            yield [run.generation]
        except Exception as failure:  # noqa: BLE001  # of any engine; the service explains it
            yield [write_failure(generations.engine.explain(failure).error)]
        finally:
            generations.release(slot)

    def _check(self, edition: str) -> None:
        if edition != self._edition:
            raise ModelUnavailableError(OTHER_MODEL)


@asynccontextmanager
async def open_replica(settings: Settings, name: str, *, cores: int) -> AsyncIterator[Replica]:
    """Load a model, and answer for it during the block.

    Args:
        settings: of the service.
        name: of the model in the catalogue.
        cores: of the processor, that Ray has given this replica.

    Raises:
        StartupError: the model can't be loaded.

    """
    began_s = time.monotonic()
    own = {"ray_app": "", "engine_threads": cores, "inference_threads": cores}
    settings = settings.model_copy(update=own)
    chosen, catalog = compose(settings)
    specs = [
        spec.model_copy(update={"default": True, "required": True})
        for spec in catalog.specs
        if spec.name == name and is_on_ray(spec, chosen.engines())
    ]
    if not specs:
        raise EngineError(f"the catalogue has no model {name!r} that can run in replicas")
    failed: asyncio.Future[StartupError] = asyncio.get_running_loop().create_future()
    async with open_runtime(
        settings,
        Catalog(specs, folder=catalog.folder),
        Composition(tasks=chosen.tasks, features=(), left_out={}),
        metrics=Metrics(),
        on_fatal=failed.set_result,
    ) as runtime:
        loaded = asyncio.ensure_future(runtime.loaded.wait())
        await asyncio.wait((loaded, failed), return_when=asyncio.FIRST_COMPLETED)
        loaded.cancel()
        (entry,) = runtime.registry.entries
        if failed.done() or entry.served is None:
            raise EngineError(f"{name}: {entry.detail or entry.reason}")
        facts = await asyncio.to_thread(
            ReplicaFacts.of, entry.served, name=name, load_s=time.monotonic() - began_s
        )
        yield Replica(runtime, entry.served, facts)
