"""Search: embeds a query with the documents' model, and finds what is near to it."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from app.batching.deadline import Deadline
from app.core.metrics import Metrics
from app.engines.vector_rules import QUERY
from app.errors import DeadlineExceededError, InferenceFailedError, OverloadedError
from app.features.documents.collections import CollectionScope
from app.features.documents.metrics import SearchMetrics
from app.features.documents.vectors.base import Hit, Query, VectorIndex
from app.features.documents.vectors.filters import Filter
from app.services.embeddings import EMBEDDERS, EmbeddingParameters, Embeddings, embeddings_of
from app.services.inference import InferenceService


class SearchService:
    """Answers `/search`.

    Args:
        inference: embeds the queries.
        index: finds the nearest passages.
        metrics: where time is counted.
        service_metrics: where refusals are counted.

    """

    def __init__(
        self,
        inference: InferenceService,
        index: VectorIndex,
        *,
        metrics: SearchMetrics,
        service_metrics: Metrics,
    ) -> None:
        self._inference = inference
        self._index = index
        self._metrics = metrics
        self._refused = service_metrics.refused

    async def search(
        self,
        query: str,
        *,
        top_k: int,
        filter: Filter,  # noqa: A002  # its name on the wire
        model_name: str | None,
        scope: CollectionScope,
        deadline: Deadline,
    ) -> list[Hit]:
        """Return the best passage of each document that the caller sees, the best first.

        Raises:
            DatabaseUnavailableError: it doesn't answer.
            OverloadedError: too many requests wait.
            DeadlineExceededError: it takes longer than the deadline.
            InferenceFailedError: the engine can't embed the query.
            ModelNotFoundError, ModelNotReadyError, ModelUnavailableError, NotReadyError: as
                `InferenceService.run`.

        """
        embeddings = await self._embed(query, model_name, deadline)
        index_query = Query(
            vector=embeddings.rules.comparable(embeddings.vectors[0]),
            similarity=embeddings.rules.similarity,
            space=embeddings.space,
            collection=scope.seen,
            filter=filter,
            limit=top_k,
        )
        with self._timed("find"):
            try:
                async with asyncio.timeout(deadline.remaining_s):
                    return await self._index.search(index_query)
            except OverloadedError:
                self._refused.labels(embeddings.model, "overloaded").inc()
                raise
            except TimeoutError:
                self._refused.labels(embeddings.model, "deadline").inc()
                raise DeadlineExceededError from None

    async def _embed(self, query: str, model_name: str | None, deadline: Deadline) -> Embeddings:
        with self._timed("embed"):
            try:
                outcome = await self._inference.run(
                    EMBEDDERS,
                    [query],
                    model_name=model_name,
                    deadline=deadline,
                    plan=EmbeddingParameters(prompt_name=QUERY).plan,
                )
                return embeddings_of(outcome)
            except InferenceFailedError:
                raise InferenceFailedError from None  # without the index in a list of texts

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        started = perf_counter()
        try:
            yield
        finally:
            self._metrics.search_seconds.labels(part).observe(perf_counter() - started)
