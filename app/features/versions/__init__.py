"""Changing a model while it serves: which of its versions are loaded, and which one serves."""
