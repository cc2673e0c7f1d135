"""Search: embeds a query with the documents' model, finds what is near to it, and may rank that."""

import asyncio
from collections.abc import Iterator, Sequence
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
from app.services.places import place_in
from app.services.ranking import RANKERS, pairs_with, ranking_of


class SearchService:
    """Answers `/search`.

    Args:
        inference: embeds the queries, and ranks what was found.
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

    async def rank(
        self, query: str, hits: Sequence[Hit], *, model_name: str, deadline: Deadline
    ) -> Sequence[tuple[int, float]]:
        """Return each hit's index and how well its passage answers the query, the best first.

        Raises:
            OverloadedError: too many requests wait.
            DeadlineExceededError: it takes longer than the deadline.
            InferenceFailedError: the engine can't read a passage.
            ModelNotFoundError, ModelNotReadyError, ModelUnavailableError, NotReadyError: as
                `InferenceService.run`.

        """
        passages = [hit.text[hit.start : hit.end] for hit in hits]
        with self._timed("rerank"):
            inference = await self._inference.run(
                RANKERS, pairs_with(query, passages), model_name=model_name, deadline=deadline
            )
            try:
                return ranking_of("passages")(inference).best
            except InferenceFailedError:
                raise InferenceFailedError from None  # without the place of what wasn't sent

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
                return embeddings_of(outcome, place=place_in("query"))
            except InferenceFailedError:
                raise InferenceFailedError from None  # without the index in a list of texts

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        started = perf_counter()
        try:
            yield
        finally:
            self._metrics.search_seconds.labels(part).observe(perf_counter() - started)
