"""Hugging Face's dialects: `inputs` at `/` and `/hf/{model_name}`, and TEI's under `/tei`."""
