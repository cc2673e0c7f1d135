"""What transformers' zero-shot pipeline answers, and the same of our engines' rows."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import transformers

from app.engines.base import FloatArray
from app.services.entailment import likelihoods

# Short: the windows of tiny models are, and a token may be a byte.
TEMPLATE = "is {} ."


def hypothesis(label: str) -> str:
    """Return the sentence of a label."""
    return TEMPLATE.format(label)


def zero_shot_rows(
    folder: Path, texts: Sequence[str], labels: Sequence[str], *, window: int
) -> FloatArray:
    """Return the scores of each label, once of one that is right and once of several.

    Their shape is (texts, 2 x labels) float32.
    """
    pipe = transformers.pipeline("zero-shot-classification", str(folder), device="cpu")
    pipe.tokenizer.model_max_length = window
    rows = []
    for text in texts:
        row: list[float] = []
        for several in (False, True):
            answer = pipe(
                text,
                candidate_labels=list(labels),
                multi_label=several,
                hypothesis_template=TEMPLATE,
            )
            scores = dict(zip(answer["labels"], answer["scores"], strict=True))
            row += [scores[label] for label in labels]
        rows.append(row)
    return np.array(rows, dtype=np.float32)


def zero_shot_scores(rows: FloatArray, entailment: int, *, count: int) -> FloatArray:
    """Return the same of an engine's rows: each text with each label."""
    groups = [rows[start : start + count] for start in range(0, len(rows), count)]
    return np.array(
        [
            np.concatenate([likelihoods(g, entailment, is_multi_label=m) for m in (False, True)])
            for g in groups
        ],
        dtype=np.float32,
    )
