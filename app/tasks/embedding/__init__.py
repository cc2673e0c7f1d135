"""Embedding: `/embed`, from texts to vectors."""
