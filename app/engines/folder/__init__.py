"""What a model's folder says, as transformers and sentence-transformers write it, or why not."""
