"""Zero-shot classification: `/zero-shot` and `/zero-shot-batch`, by labels of the request."""
