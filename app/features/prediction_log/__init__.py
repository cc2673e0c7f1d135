"""A log of every answer: written in batches, read in pages, exported, deleted when old."""
