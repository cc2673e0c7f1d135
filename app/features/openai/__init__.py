"""OpenAI's API under `/v1`: chat completions, embeddings, models."""
