"""Makes what both a service and a worker need: their database and their models."""

from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import get_args

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from app.batching.generations import GenerationPolicy, Generations
from app.batching.request_queue import BatchPolicy
from app.batching.scheduler import BatchScheduler
from app.core.metrics import Metrics
from app.core.model_metrics import ProcessMetrics
from app.db.session import Database
from app.engines.base import ImageOptions, OpenVinoOptions, TextEngine
from app.engines.chat_base import ChatEngine
from app.engines.devices import is_cuda
from app.engines.items import ItemEngine, OwnThreads, ProcessEngine
from app.engines.packing import PackedEngine
from app.models.catalog import REMOTE, Catalog, ModelSpec
from app.models.entries import Served
from app.models.loading import Loaded, ModelLoader
from app.models.registry import LoadModel
from app.models.sources import Sources
from app.models.steps import LoadSteps
from app.runtime.composition import Composition
from app.services.model_calls import ModelCalls
from app.settings import Settings, read_secret

# Texts in a call: a CPU gains nothing beyond 8, a GPU does; see docs/decisions/0005-batching.md.
CPU_BATCH = 8
GPU_BATCH = 64
REMOTE_BATCH = 64  # OpenAI takes 2,048 in a request; others fewer
PACKED_BATCH = 32  # of the rows' tokens, not of texts, is what a call has room for


def open_database(settings: Settings, metrics: Metrics) -> Database:
    """Return the database that the settings name; nothing is connected yet."""
    return Database(
        settings.sql_url,
        pool_size=settings.database_pool_size,
        timeout_s=settings.database_timeout_ms / 1000,
        observe=lambda outcome, seconds: metrics.database_seconds.labels(outcome).observe(seconds),
    )


def make_load(  # noqa: PLR0913  # each is of another part of the service
    settings: Settings,
    catalog: Catalog,
    *,
    tokenisers: Executor,
    metrics: Metrics,
    steps: LoadSteps | None = None,
    chosen: Composition | None = None,
    calls: ModelCalls | None = None,
) -> LoadModel:
    """Return what loads an entry of the catalogue in a thread, for the registry or a worker.

    Args:
        settings: as the entry point read them.
        catalog: the models.
        tokenisers: threads in which texts are tokenised.
        metrics: where everything counts.
        steps: where each load notes how far it has come.
        chosen: the service's tasks; None: those of this package alone.
        calls: carries calls of Python classes to other models; None: they can't call any.

    """
    load, steps = make_loader(settings, catalog, chosen, calls), steps or LoadSteps()

    def load_with_steps(spec: ModelSpec) -> Loaded:
        return load(spec, on_step=steps.recorder(spec.name))

    return partial(_serve, load_with_steps, settings, tokenisers=tokenisers, metrics=metrics)


def make_loader(
    settings: Settings,
    catalog: Catalog,
    chosen: Composition | None = None,
    calls: ModelCalls | None = None,
) -> ModelLoader:
    """Return what makes a warm engine of an entry, with the settings of this process."""
    sources = Sources(settings.models_dir, hub_endpoint=settings.hf_endpoint)
    return ModelLoader(
        sources,
        folder=catalog.folder,
        device=settings.device,
        threads=max(1, settings.core_count // settings.thread_count),
        openvino=OpenVinoOptions(
            cache=settings.models_dir / "openvino",
            cores=settings.core_count,
            calls=settings.thread_count,
            streams=settings.engine_streams,
        ),
        read_secret=read_secret,
        engines=chosen.engines() if chosen else None,
        shows_output=settings.log_inputs,
        call_timeout_s=settings.request_timeout_ms / 1000,
        hidden=_secrets(settings, catalog),
        images=ImageOptions(max_pixels=settings.max_image_pixels, workers=settings.thread_count),
        call_model=calls.of if calls else None,
    )


def _secrets(settings: Settings, catalog: Catalog) -> frozenset[str]:
    """Return the variables that hold secrets of the service, in capitals."""
    own = {name.upper() for name, field in type(settings).model_fields.items() if _is_secret(field)}
    keys = {spec.api_key_env.upper() for spec in catalog.specs if spec.api_key_env}
    return frozenset(own | keys)


def _is_secret(field: FieldInfo) -> bool:
    return SecretStr in (field.annotation, *get_args(field.annotation))


def _serve(
    load: Callable[[ModelSpec], Loaded],
    settings: Settings,
    spec: ModelSpec,
    *,
    tokenisers: Executor,
    metrics: Metrics,
) -> Served:
    """Load one model and make its scheduler; blocks."""
    loaded = load(spec)
    engine = loaded.engine
    if isinstance(engine, ChatEngine):
        return Served(model=make_generations(spec, engine, metrics=metrics), version=loaded.version)
    policy = _policy(settings, spec, engine)
    apart = engine if isinstance(engine, ProcessEngine) and engine.processes() else None
    if apart is not None:
        apart.watch(ProcessMetrics(metrics, spec.name))
        tokenisers = apart.preparing or tokenisers
    elif isinstance(engine, OwnThreads):
        tokenisers = engine.threads
    scheduler = BatchScheduler(
        spec.name, engine=engine, policy=policy, tokenisers=tokenisers, metrics=metrics
    )
    if engine.kind != REMOTE:  # which may charge money
        scheduler.measure()
    return Served(model=scheduler, version=loaded.version, engine=apart)


def _policy(settings: Settings, spec: ModelSpec, engine: TextEngine | ItemEngine) -> BatchPolicy:
    """Return the bounds of a model's batches: the entry's, else those that suit its engine."""
    if isinstance(engine, ItemEngine):
        return BatchPolicy(
            workers=engine.workers,
            max_batch=spec.limits.max_batch or engine.max_batch,
            max_batch_tokens=spec.limits.max_batch_tokens,
            max_queued_tokens=settings.queue_tokens,
        )
    if engine.kind == REMOTE:
        return BatchPolicy(
            workers=spec.slots,
            max_batch=spec.limits.max_batch or REMOTE_BATCH,
            max_batch_tokens=spec.limits.max_batch_tokens,
            max_queued_tokens=settings.queue_tokens,
        )
    packing = engine.packing if isinstance(engine, PackedEngine) else None
    batch = GPU_BATCH if is_cuda(engine.device) else CPU_BATCH if packing is None else PACKED_BATCH
    return BatchPolicy(
        workers=settings.thread_count,
        max_batch=spec.limits.max_batch or batch,
        max_batch_tokens=spec.limits.max_batch_tokens,
        max_queued_tokens=settings.queue_tokens,
        packing=packing.bounded(spec.limits.max_batch_tokens) if packing else None,
    )


def make_generations(spec: ModelSpec, engine: ChatEngine, *, metrics: Metrics) -> Generations:
    """Make the slots of a chat model."""
    from app.engines.chain import ChatChain  # noqa: PLC0415  # imports LangChain

    return Generations(
        spec.name,
        engine=engine,
        chain=ChatChain(engine, system_prompt=spec.system_prompt, temperature=spec.temperature),
        policy=GenerationPolicy(slots=spec.slots, waiting=spec.waiting),
        metrics=metrics,
    )
