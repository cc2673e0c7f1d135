"""Runs engines and checks their rows: callers get usable numbers or an error.

Requests, jobs, searches, the first call and the comparison at load all run an engine by `checked`:
nothing else may call `classify`, `classify_tokens` or `embed`.
"""

from collections.abc import Callable, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from app.engines.base import Classifier, Embedder, FloatArray, RowEngine, TokenClassifier
from app.engines.items import BatchEngine, ItemEngine
from app.errors import EngineError

Run = Callable[[Sequence[Any]], Sequence[Any] | FloatArray]


class RowsRefusedError(EngineError):
    """An engine gave unusable rows; the message says why, without the texts."""


@overload
def checked(engine: Classifier | Embedder) -> Callable[[Sequence[Any]], FloatArray]: ...


@overload
def checked(engine: BatchEngine) -> Run: ...


def checked(engine: BatchEngine) -> Run:
    """Return what runs an engine on a batch and gives (batch, width) float32, or a row for each.

    It raises RowsRefusedError when a row is missing, has another width than the engine says, or
    holds NaN or infinity, or when a vector has no length that float32 can hold: nothing can be
    compared with it. `run_isolated` finds the text that causes it.
    """
    if isinstance(engine, Classifier):
        classify, columns = engine.classify, width(engine)
        return lambda batch: finite(classify(batch), (len(batch), columns))
    if isinstance(engine, Embedder):
        embed, dimensions = engine.embed, width(engine)
        return lambda batch: _with_length(finite(embed(batch), (len(batch), dimensions)))
    if isinstance(engine, TokenClassifier):
        classify_tokens, labels = engine.classify_tokens, len(engine.labels)
        return lambda batch: _finite_tokens(classify_tokens(batch), batch, labels)
    if isinstance(engine, RowEngine | ItemEngine):
        run = engine.run
        return lambda batch: _complete(run(batch), len(batch))
    raise TypeError(f"{type(engine).__name__} is no engine for batches")


def width(engine: Classifier | Embedder) -> int:
    """Return how many numbers a row of the engine has."""
    return len(engine.labels) if isinstance(engine, Classifier) else engine.dimensions


def finite(rows: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """Return rows as they are.

    Raises:
        RowsRefusedError: they have another shape, or one holds NaN or infinity.

    """
    if rows.shape != shape:
        raise RowsRefusedError(
            f"the engine answers in the shape {rows.shape} where {shape} is right"
        )
    bad = np.count_nonzero(~np.isfinite(rows).all(axis=1))
    if bad:
        raise RowsRefusedError(f"{bad} of {len(rows)} rows of the engine hold NaN or infinity")
    return rows


def _finite_tokens(rows: Sequence[Any], batch: Sequence[Any], labels: int) -> Sequence[Any]:
    _complete(rows, len(batch))
    for row in rows:
        finite(row.logits, (len(row.offsets), labels))
    return rows


def _complete(rows: Sequence[Any], count: int) -> Sequence[Any]:
    if len(rows) != count:
        raise RowsRefusedError(f"the engine answers {len(rows)} rows where {count} are right")
    return rows


def lack_length(vectors: FloatArray) -> npt.NDArray[np.bool_]:
    """Return which vectors, (…, dimensions), have no length that float32 can hold."""
    with np.errstate(over="ignore", under="ignore"):
        squares = np.square(vectors, dtype=np.float32).sum(axis=-1)
    lacking: npt.NDArray[np.bool_] = ~np.isfinite(squares) | (squares <= 0)
    return lacking


def _with_length(vectors: FloatArray) -> FloatArray:
    bad = np.count_nonzero(lack_length(vectors))
    if bad:
        raise RowsRefusedError(f"{bad} of {len(vectors)} vectors of the engine have no length")
    return vectors
