"""Images: how they are read within bounds, prepared as transformers does, and run."""
