"""Models that run in replicas of Ray Serve: which those are, and how a service opens them."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from time import monotonic
from typing import Final

from app.batching.request_queue import BatchPolicy
from app.batching.scheduler import BatchScheduler
from app.core.metrics import Metrics
from app.engines.base import Task
from app.engines.chat_base import ChatEngine
from app.engines.loader import EngineTable
from app.errors import DeadlineExceededError, EngineError, ModelCrashedError, ServiceError
from app.models.catalog import ModelSpec
from app.models.entries import Served
from app.models.registry import LoadModel
from app.replicas.asking import Replicas
from app.replicas.engines import text_engine
from app.replicas.facts import ReplicaFacts
from app.runtime.parts import make_generations
from app.settings import Settings
from app.sharing.opening import is_shared

# Those whose chat models run in the process that loads them.
CHAT_ENGINES: Final = frozenset({"auto", "llama_cpp", "fake"})
# Texts in a call: more make the hop cheaper for each, and wait longer for the others. A replica
# puts those of several calls into batches of its own.
CALL_TEXTS: Final = 16
# Of each replica: one runs, the next is there when it ends.
CALLS_OF_REPLICA: Final = 2
# Replicas load meanwhile, and may convert their model first.
MAX_LOAD_S: Final = 3_600.0
ASK_S, PAUSE_S = 2.0, 0.2
Find = Callable[[str], Replicas]


def is_on_ray(spec: ModelSpec, engines: EngineTable) -> bool:
    """Say whether a model runs in replicas: one for texts or chat, on an engine of ours."""
    if spec.versions or spec.is_lazy:
        return False  # the service has them itself
    if engines.capability(spec.task) == Task.CHAT:
        return spec.engine in CHAT_ENGINES
    return is_shared(spec, engines)


@contextmanager
def loading_from_ray(
    find: Find,
    settings: Settings,
    engines: EngineTable,
    *,
    tokenisers: Executor,
    metrics: Metrics,
    other: LoadModel,
) -> Iterator[LoadModel]:
    """Give what loads an entry of the catalogue in a service on Ray, during the block.

    Args:
        find: returns the replicas of a model.
        settings: as read.
        engines: of the service.
        tokenisers: threads in which texts are tokenised.
        metrics: where everything counts.
        other: loads the models that don't run in replicas.

    """
    is_over = threading.Event()

    def load(spec: ModelSpec) -> Served:
        if not is_on_ray(spec, engines):
            return other(spec)
        replicas = find(spec.name)
        facts = _wait(replicas, is_over)
        replicas.load_s = facts.load_s
        if facts.chat is not None:
            return Served(
                model=make_generations(
                    spec.model_copy(update={"slots": spec.slots * settings.ray_replicas}),
                    _chat(facts, replicas),
                    metrics=metrics,
                ),
                version=facts.chat.version,
            )
        engine = text_engine(facts, replicas)
        policy = BatchPolicy(
            workers=CALLS_OF_REPLICA * settings.ray_replicas,
            max_batch=spec.limits.max_batch or CALL_TEXTS,
            max_batch_tokens=spec.limits.max_batch_tokens,
            max_queued_tokens=settings.queue_tokens,
        )
        scheduler = BatchScheduler(
            spec.name, engine=engine, policy=policy, tokenisers=tokenisers, metrics=metrics
        )
        scheduler.measure()
        assert facts.texts is not None  # noqa: S101  # `text_engine` has refused it
        return Served(model=scheduler, version=facts.texts.version)

    try:
        yield load
    finally:
        is_over.set()


def _chat(facts: ReplicaFacts, replicas: Replicas) -> ChatEngine:
    from app.replicas.chat import ReplicaChat  # noqa: PLC0415  # imports LangChain

    assert facts.chat is not None  # noqa: S101  # the caller has looked
    return ReplicaChat(facts.chat, replicas)


def _wait(replicas: Replicas, is_over: threading.Event) -> ReplicaFacts:
    """Wait in a thread for a replica that has loaded the model.

    Raises:
        EngineError: none can.

    """
    until_s = monotonic() + MAX_LOAD_S
    while not is_over.is_set() and monotonic() < until_s:
        try:
            facts: ReplicaFacts = replicas.ask("facts", timeout_s=ASK_S)
        except (DeadlineExceededError, ModelCrashedError):
            is_over.wait(PAUSE_S)  # asked briefly, so that the end of the service needn't wait
        except ServiceError as failure:
            raise EngineError(f"its replicas can't be asked: {failure.code}") from failure
        else:
            return facts
    raise EngineError("none of its replicas has loaded it")
