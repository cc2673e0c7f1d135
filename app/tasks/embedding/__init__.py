"""Embedding: `/embed`, from texts to vectors, and `/similarity`, which compares them."""
