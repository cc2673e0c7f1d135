"""Metrics of documents and their search."""

from prometheus_client import CollectorRegistry

from app.core.metrics import MetricGroup


class SearchMetrics(MetricGroup):
    """Metrics of documents and their search."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        super().__init__(registry)
        self.search_seconds = self._histogram(
            "search_seconds",
            "Time of one search, by part: to embed the query, to find what is near to it, and to"
            " rerank that.",
            ["part"],
        )
        self.search_index_bytes = self._gauge(
            "search_index_bytes", "Memory of the vectors that are searched without PostgreSQL."
        )
