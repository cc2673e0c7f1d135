"""Classification: from texts to labels, through a leased model and the inference pool."""

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import numpy as np

from app.batching.deadline import Deadline
from app.batching.isolation import run_isolated
from app.batching.pool import InferencePool
from app.engines.base import Classifier, FloatArray, Task
from app.errors import InferenceFailedError, ServiceError, TextEmptyError, TextTooLongError
from app.models.registry import Lease, ModelRegistry
from app.models.schemas import MAX_TEXT_CHARS
from app.observability.metrics import Metrics

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Labels of one text with their probabilities, best first."""

    model: str
    scores: tuple[tuple[str, float], ...]

    @property
    def label(self) -> str:
        """The best label."""
        return self.scores[0][0]

    @property
    def score(self) -> float:
        """The best label's probability."""
        return self.scores[0][1]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPrediction:
    """A prediction or an error for each text, in their order."""

    model: str
    results: tuple[Prediction | ServiceError, ...]


class InferenceService:
    """Answers `/predict` and `/predict-batch`.

    Args:
        registry: lends the models.
        pool: runs them off the event loop.
        metrics: where batch sizes and times are counted.
        log_inputs: whether texts, and messages of errors that may hold them, are logged.

    """

    def __init__(
        self,
        registry: ModelRegistry,
        pool: InferencePool,
        *,
        metrics: Metrics,
        log_inputs: bool = False,
    ) -> None:
        self._registry = registry
        self._pool = pool
        self._metrics = metrics
        self._log_inputs = log_inputs

    async def predict(self, text: str, *, model_name: str | None, deadline: Deadline) -> Prediction:
        """Classify one text.

        Raises:
            ModelNotFoundError, ModelNotReadyError, ModelUnavailableError: as the registry says.
            OverloadedError, DeadlineExceededError: as the pool says.
            InferenceFailedError: the engine can't do this text.

        """
        started = time.monotonic()
        model, (result,) = await self._run([text], model_name=model_name, deadline=deadline)
        if isinstance(result, ServiceError):
            raise result
        self._log_made(model, [text], started)
        return result

    async def predict_batch(
        self, texts: Sequence[str], *, model_name: str | None, deadline: Deadline
    ) -> BatchPrediction:
        """Classify several texts; one that can't be done has its own error in its place.

        Raises:
            ModelNotFoundError, ModelNotReadyError, ModelUnavailableError: as the registry says.
            OverloadedError, DeadlineExceededError: as the pool says.

        """
        started = time.monotonic()
        results: list[Prediction | ServiceError | None] = [_refuse(text) for text in texts]
        # Neighbours in length share a call, so that little of it is padding.
        order = sorted(
            (index for index, result in enumerate(results) if result is None),
            key=lambda index: len(texts[index]),
        )
        with self._registry.lease(model_name, Task.CLASSIFICATION) as lease:
            model, size = lease.spec.name, lease.spec.limits.max_batch
        for start in range(0, len(order), size):
            chunk = order[start : start + size]
            _, answers = await self._run(
                [texts[index] for index in chunk], model_name=model, deadline=deadline
            )
            for index, answer in zip(chunk, answers, strict=True):
                results[index] = answer
        self._log_made(model, texts, started)
        return BatchPrediction(model=model, results=tuple(r for r in results if r is not None))

    async def _run(
        self, texts: Sequence[str], *, model_name: str | None, deadline: Deadline
    ) -> tuple[str, list[Prediction | ServiceError]]:
        """Run one engine call in the pool; the lease lasts until the thread is done with it."""
        held = ExitStack()
        lease = held.enter_context(self._registry.lease(model_name, Task.CLASSIFICATION))
        rows = await self._pool.run(
            partial(self._classify, lease, texts), deadline=deadline, on_done=held.close
        )
        return lease.spec.name, [self._read(lease, row) for row in rows]

    def _classify(self, lease: Lease, texts: Sequence[str]) -> list[FloatArray | Exception]:
        """Tokenise and classify, in a thread; a text that fails alone fails alone."""
        engine = _as_classifier(lease)
        name = lease.spec.name
        started = time.monotonic()

        def run(some: Sequence[str]) -> Sequence[FloatArray]:
            return list(engine.classify(engine.encode(some)))

        rows = run_isolated(run, texts)
        self._metrics.batch_size.labels(name).observe(len(texts))
        self._metrics.engine_seconds.labels(name).observe(time.monotonic() - started)
        return rows

    def _read(self, lease: Lease, row: FloatArray | Exception) -> Prediction | ServiceError:
        """Turn an engine's row into a prediction, and its failure into our error."""
        name, labels = lease.spec.name, _as_classifier(lease).labels
        if isinstance(row, Exception) or not np.isfinite(row).all():
            self._metrics.engine_failures.labels(name).inc()
            kind = type(row).__name__ if isinstance(row, Exception) else "NotFinite"
            said = {"failure": str(row)} if self._log_inputs else {}
            log.error("inference_failed", extra={"model": name, "error": kind, **said})
            return InferenceFailedError()
        best_first = np.argsort(-row, kind="stable")
        return Prediction(model=name, scores=tuple((labels[i], float(row[i])) for i in best_first))

    def _log_made(self, model: str, texts: Sequence[str], started: float) -> None:
        said = {"texts": list(texts)} if self._log_inputs else {}
        duration_ms = round((time.monotonic() - started) * 1000, 2)
        extra = {"model": model, "count": len(texts), "duration_ms": duration_ms, **said}
        log.info("prediction_made", extra=extra)


def _as_classifier(lease: Lease) -> Classifier:
    """Narrow the type; the registry lends a model only for its own task."""
    engine = lease.engine
    assert isinstance(engine, Classifier)  # noqa: S101
    return engine


def _refuse(text: str) -> ServiceError | None:
    """Return the error of a text that no engine needs to see."""
    if not text:
        return TextEmptyError()
    if len(text) > MAX_TEXT_CHARS:
        return TextTooLongError(
            f"The text has {len(text)} characters; {MAX_TEXT_CHARS} are allowed."
        )
    return None
