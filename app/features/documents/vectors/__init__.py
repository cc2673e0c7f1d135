"""Indexes of vectors: exact search in memory, or pgvector."""
