"""Reads a model's folder as transformers and sentence-transformers do, or refuses it."""
