"""Libraries that a few tests ask, imported when they do: all workers collect all tests.

sentence-transformers took half of collecting's time: it imports scikit-learn and half of torch.
"""

from pathlib import Path
from typing import Any


def cross_encoder(folder: Path) -> Any:
    """Load a cross-encoder as sentence-transformers does."""
    from sentence_transformers import CrossEncoder  # as above

    return CrossEncoder(str(folder), device="cpu", local_files_only=True)


def library(folder: Path, **said: Any) -> Any:
    """Load an embedder as sentence-transformers does."""
    from sentence_transformers import SentenceTransformer  # as above

    return SentenceTransformer(str(folder), device="cpu", local_files_only=True, **said)
