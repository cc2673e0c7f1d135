"""Classification: from texts to labels, through a leased model and its batches."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from app.batching.deadline import Deadline
from app.batching.scheduler import BatchScheduler, Outcome, Row
from app.engines.base import Classifier, Task, is_regression
from app.errors import ServiceError, TextEmptyError, TextTooLongError
from app.models.registry import Lease, ModelRegistry
from app.services.rows import RowReader

log = logging.getLogger(__name__)

NO_TEXTS = Outcome(rows=[], is_truncated=[], tokens=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Labels of one text with their scores, best first."""

    model: str
    version: str  # of the model's files
    scores: tuple[tuple[str, float], ...]
    is_truncated: bool = False  # to the model's window
    is_regression: bool = False  # scores are numbers of any size, no probabilities

    @property
    def label(self) -> str:
        """The best label."""
        return self.scores[0][0]

    @property
    def score(self) -> float:
        """The best label's score."""
        return self.scores[0][1]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPrediction:
    """A prediction or an error for each text, in their order."""

    model: str
    version: str
    results: tuple[Prediction | ServiceError, ...]
    is_regression: bool = False


class InferenceService:
    """Answers `/predict` and `/predict-batch`.

    Args:
        registry: lends the models.
        reader: makes errors of rows that failed.
        log_inputs: whether texts, and messages of errors that may hold them, are logged.

    """

    def __init__(
        self, registry: ModelRegistry, reader: RowReader, *, log_inputs: bool = False
    ) -> None:
        self._registry = registry
        self._reader = reader
        self._log_inputs = log_inputs

    def max_chars(self, model_name: str | None) -> int | None:
        """Return how long a text of this model may be; None where there is no such model."""
        spec = self._registry.spec(model_name, Task.CLASSIFICATION)
        return spec.limits.max_chars if spec else None

    async def predict(self, text: str, *, model_name: str | None, deadline: Deadline) -> Prediction:
        """Classify one text.

        Raises:
            ModelNotFoundError, ModelNotReadyError, ModelUnavailableError: as the registry says.
            OverloadedError, DeadlineExceededError, NotReadyError: as the scheduler says.
            InferenceFailedError: the engine can't do this text.

        """
        _, (result,) = await self._run([text], model_name=model_name, deadline=deadline)
        if isinstance(result, ServiceError):
            raise result
        return result

    async def predict_batch(
        self, texts: Sequence[str], *, model_name: str | None, deadline: Deadline
    ) -> BatchPrediction:
        """Classify several texts; one that can't be done has its own error in its place.

        Raises:
            ModelNotFoundError, ModelNotReadyError, ModelUnavailableError: as the registry says.
            OverloadedError, DeadlineExceededError, NotReadyError: as the scheduler says.

        """
        allowed = self.max_chars(model_name)
        refused = {
            index: error for index, text in enumerate(texts) if (error := _refuse(text, allowed))
        }
        good = [text for index, text in enumerate(texts) if index not in refused]
        lease, answers = await self._run(good, model_name=model_name, deadline=deadline)
        rest = iter(answers)
        results = tuple(refused.get(index) or next(rest) for index in range(len(texts)))
        return BatchPrediction(
            model=lease.spec.name,
            version=lease.version,
            results=results,
            is_regression=is_regression(cast("BatchScheduler", lease.model).engine),
        )

    async def _run(
        self, texts: Sequence[str], *, model_name: str | None, deadline: Deadline
    ) -> tuple[Lease, list[Prediction | ServiceError]]:
        """Borrow the model, run the texts, read the rows."""
        started = time.monotonic()
        with self._registry.lease(model_name, Task.CLASSIFICATION) as lease:
            scheduler = cast("BatchScheduler", lease.model)
            engine = cast("Classifier", scheduler.engine)
            outcome = await scheduler.submit(texts, deadline=deadline) if texts else NO_TEXTS
        results = [
            self._read(row, lease, engine=engine, is_truncated=is_truncated)
            for row, is_truncated in zip(outcome.rows, outcome.is_truncated, strict=True)
        ]
        self._log_made(lease.spec.name, texts, time.monotonic() - started)
        return lease, results

    def _read(
        self, row: Row, lease: Lease, *, engine: Classifier, is_truncated: bool
    ) -> Prediction | ServiceError:
        """Turn an engine's row into a prediction, and its failure into our error."""
        scores = self._reader.read(row, model=lease.spec.name)
        if isinstance(scores, ServiceError):
            return scores
        best_first = np.argsort(-scores, kind="stable")
        return Prediction(
            model=lease.spec.name,
            version=lease.version,
            scores=tuple((engine.labels[i], float(scores[i])) for i in best_first),
            is_truncated=is_truncated,
            is_regression=is_regression(engine),
        )

    def _log_made(self, model: str, texts: Sequence[str], seconds: float) -> None:
        said = {"texts": list(texts)} if self._log_inputs else {}
        extra = {"model": model, "count": len(texts), "duration_ms": round(seconds * 1000, 2)}
        log.info("prediction_made", extra=extra | said)


def _refuse(text: str, max_chars: int | None) -> ServiceError | None:
    """Return the error of a text that no engine needs to see."""
    if not text:
        return TextEmptyError()
    if max_chars is not None and len(text) > max_chars:
        return TextTooLongError(f"The text has {len(text)} characters; {max_chars} are allowed.")
    return None
