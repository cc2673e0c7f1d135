"""Documents and semantic search: stored texts, their passages and vectors."""
