"""Turns an engine's row into a result: the row itself, or a `ServiceError`."""

import logging
from typing import Any

from app.batching.requests import Row
from app.core.metrics import Metrics
from app.engines.rows import RowsRefusedError
from app.errors import InferenceFailedError, ServiceError

log = logging.getLogger(__name__)


class ResultChecker:
    """Counts and logs rows that failed.

    Args:
        metrics: where failures are counted.
        log_inputs: whether messages of errors, which may quote the text, are logged.

    """

    def __init__(self, metrics: Metrics, *, log_inputs: bool) -> None:
        self._metrics = metrics
        self._log_inputs = log_inputs

    def check(self, row: Row, *, model: str) -> Any | ServiceError:  # noqa: ANN401  # a row of any task
        """Return the row, or the error that its caller gets."""
        if not isinstance(row, Exception):
            return row  # `engines.rows` has checked it
        if isinstance(row, ServiceError):
            return row
        is_safe = self._log_inputs or isinstance(row, RowsRefusedError)
        fields = {"failure": str(row)} if is_safe else {}
        self._metrics.engine_failures.labels(model).inc()
        log.error("inference_failed", extra={"model": model, "error": type(row).__name__, **fields})
        return InferenceFailedError()
