"""Reranking: `/rerank`, which texts answer a query best."""
